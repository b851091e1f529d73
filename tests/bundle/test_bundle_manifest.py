"""SHA256SUMS: what is missing, altered or foreign is named, and the command says no with exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_cutover.bundle import manifest
from gpu_cutover.cli import main
from gpu_cutover.errors import InputError


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    for name in ("bin/uv", "wheels/agent/a.whl", "debs/Packages"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    manifest.write_manifest(tmp_path)
    return tmp_path


def test_a_whole_bundle_verifies(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert manifest.verify(bundle) == 3
    assert main(["bundle", "verify", str(bundle)]) == 0
    assert "3 files, all as listed" in capsys.readouterr().out


def test_the_list_is_what_sha256sum_reads(bundle: Path) -> None:
    first = (bundle / manifest.MANIFEST).read_text().splitlines()[0]
    assert first == f"{manifest.sha256_of(bundle / 'bin/uv')}  bin/uv"


def test_a_missing_file_is_named(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "wheels/agent/a.whl").unlink()
    assert main(["bundle", "verify", str(bundle)]) == 2
    assert "wheels/agent/a.whl: is listed in SHA256SUMS but missing" in capsys.readouterr().err


def test_an_altered_file_is_named(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "debs/Packages").write_bytes(b"debs/Packagez")
    assert main(["bundle", "verify", str(bundle)]) == 2
    assert "debs/Packages: was altered" in capsys.readouterr().err


def test_a_file_that_nobody_listed_is_named(bundle: Path) -> None:
    (bundle / "bin/extra").touch()
    with pytest.raises(InputError, match="bin/extra: is not listed"):
        manifest.verify(bundle)


@pytest.mark.parametrize("line", ["abc  x", f"{'0' * 64}  /etc/passwd", f"{'0' * 64}  ../x", "no separator"])
def test_a_list_that_is_none_is_refused(bundle: Path, line: str) -> None:
    (bundle / manifest.MANIFEST).write_text(line + "\n")
    with pytest.raises(InputError, match="line 1"):
        manifest.verify(bundle)


def test_a_directory_without_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        manifest.verify(tmp_path)
