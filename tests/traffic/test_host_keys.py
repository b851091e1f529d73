"""known_hosts is read as OpenSSH reads it: its own `ssh-keygen -F` is asked about every line as well."""

from __future__ import annotations

import subprocess
from pathlib import Path

import paramiko
import pytest

from gpu_cutover.traffic.reach import Way
from gpu_cutover.traffic.session import _known_keys

KEY = paramiko.ECDSAKey.generate()
SALT = "AAAAAAAAAAAAAAAAAAAAAAAAAAA="  # a random one would give each test process other test names
LINE = f"{KEY.get_name()} {KEY.get_base64()}"


def way(name: str, known: Path) -> Way:
    return Way("gw", "192.0.2.1", 22, "root", name, (known,), (), False, "", False, False)


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("gw1", "gw1"),
        ("gw1", "gw1,10.87.0.11"),
        ("10.87.0.11", "gw1,10.87.0.11"),
        ("gw1", "gw2"),
        ("gw1", "gw*"),
        ("gw1", "gw?"),
        ("gw1", "!gw1,gw*"),
        ("gw1.clinic.test", "gw1"),
        ("[127.0.0.1]:2222", "[127.0.0.1]:2222"),
        ("127.0.0.1", "[127.0.0.1]:2222"),
        ("gw1", paramiko.HostKeys.hash_host("gw1", SALT)),
        ("gw1", paramiko.HostKeys.hash_host("gw2", SALT)),
    ],
)
def test_a_line_speaks_of_the_names_that_openssh_says(tmp_path: Path, name: str, names: str) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"# a comment\nnonsense\n\n{names} {LINE}\n")
    found = subprocess.run(["ssh-keygen", "-F", name, "-f", str(known)], capture_output=True)
    assert (_known_keys(way(name, known), paramiko) == [KEY]) == (found.returncode == 0)


def test_a_certificate_authority_is_not_understood_and_trusts_nobody(tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"@cert-authority * {LINE}\n@revoked gw1 {LINE}\n")
    assert _known_keys(way("gw1", known), paramiko) == []
