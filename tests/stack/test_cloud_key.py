"""The cloud's keys: made up on a twin, asked for in production, never readable by others."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_cutover.errors import InputError
from gpu_cutover.stack.cloud_key import ensure

NAMES = ["COHERE_API_KEY", "OPENAI_API_KEY"]


def test_a_twin_gets_stand_in_keys_once(tmp_path: Path) -> None:
    path = tmp_path / ".state" / "cloud_api_key"
    assert ensure(path, NAMES, "twin", write=False) is True
    assert not path.exists()
    assert ensure(path, NAMES, "twin") is True
    assert path.stat().st_mode & 0o777 == 0o600
    assert [line.split("=")[0] for line in path.read_text().splitlines()] == NAMES
    assert ensure(path, NAMES, "twin") is False


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (None, 0, "not there. Fix: write COHERE_API_KEY=... and OPENAI_API_KEY=... to it"),
        ("OPENAI_API_KEY=sk-1\nCOHERE_API_KEY=2\n", 0o640, "others may read"),
        ("OPENAI_API_KEY=sk-1\n", 0o600, "COHERE_API_KEY: no value"),
        ("OPENAI_API_KEY=\nCOHERE_API_KEY=2\n", 0o600, "OPENAI_API_KEY: no value"),
    ],
)
def test_production_is_refused_with_the_fix_and_without_the_key(
    tmp_path: Path, content: str | None, mode: int, message: str
) -> None:
    path = tmp_path / "cloud_api_key"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    with pytest.raises(InputError) as refusal:
        ensure(path, NAMES, "production")
    assert message in str(refusal.value)
    assert "sk-1" not in str(refusal.value)
