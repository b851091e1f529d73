"""The system every host starts from: one directory tree per suite and package list, made once and never written again.

It holds what a freshly installed server has and nothing of the product: roles install that from the offline bundle.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError

DEFAULT_SUITE = "bookworm"
CACHE = Path("/var/cache/gpu-cutover")
RECIPE = 1  # raise when `_finish` changes, so that old trees are not used again
PACKAGES = (
    *("systemd", "systemd-sysv", "libpam-systemd", "dbus", "openssh-server", "sudo", "python3", "python3-apt"),
    *(
        "ca-certificates",
        "curl",
        "iproute2",
        "iputils-ping",
        "kmod",
        "less",
        "lsb-release",
        "nftables",
        "procps",
        "rsync",
    ),
)
DEBIAN = ("bullseye", "bookworm", "trixie", "forky", "sid")
UBUNTU = ("jammy", "noble", "plucky", "questing", "resolute")
KEYRING = {
    "debian": Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    "ubuntu": Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg"),
}
# Only noise in a lab: timers that would wake five hosts at once, and a console nobody reads.
MASKED_UNITS = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    *("fstrim.timer", "man-db.timer", "console-getty.service"),
)
TOOLS = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "ssh-keygen": "openssh-client",
    "dnsmasq": "dnsmasq-base",
    "nsenter": "util-linux",
    "sysctl": "procps",
    "unshare": "util-linux",
}


INOTIFY_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_INSTANCES = 1024


def cache_directory() -> Path:
    """Where trees are kept between runs; `GPU_CUTOVER_CACHE` overrides it."""
    return Path(os.environ.get("GPU_CUTOVER_CACHE") or CACHE)


def check_machine() -> None:
    """Raise InputError unless this machine can boot hosts: root, and the tools of a few Debian packages."""
    if os.geteuid() != 0:
        raise InputError("this machine", "user", "booting hosts needs root", "run the command with sudo")
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    if missing:
        fix = f"apt-get install --no-install-recommends {' '.join(missing)}"
        raise InputError("this machine", "packages", f"not installed: {', '.join(missing)}", fix)


def allow_inotify_instances(wanted: int = INOTIFY_INSTANCES, limit: Path = INOTIFY_LIMIT) -> str | None:
    """Raise the machine's inotify limit when it is below `wanted`; returns what was done, for a person to read.

    Every systemd needs a dozen inotify instances and all hosts count as one user, root: with the default of 128 the
    hosts of a second lab end while booting ("Too many open files"). Raises InputError when the limit cannot be raised.
    """
    now = int(limit.read_text())
    if now >= wanted:
        return None
    try:
        limit.write_text(str(wanted))
    except OSError as error:
        fix = f"on the machine itself: sysctl -w fs.inotify.max_user_instances={wanted}"
        raise InputError("this machine", "fs.inotify.max_user_instances", f"{now} is too low for hosts", fix) from error
    return f"fs.inotify.max_user_instances raised from {now} to {wanted}: each systemd host needs a dozen"


def family_of(suite: str) -> str:
    """`debian` or `ubuntu`; raises InputError for a suite of neither."""
    for family, suites in (("debian", DEBIAN), ("ubuntu", UBUNTU)):
        if suite in suites:
            return family
    known = ", ".join((*DEBIAN, *UBUNTU))
    raise InputError("--suite", suite, "is not a suite this tool knows", f"one of {known}")


def sources_for(suite: str, files: dict[str, str]) -> str:
    """The machine's own apt sources that can serve `suite`, with its name put in; "" where there are none.

    `files` maps a file's name to its text: deb822 (`*.sources`) or one line per source (`*.list`). Kept are the
    entries for suites of the same distribution; the result is one-line format.
    """
    siblings = DEBIAN if family_of(suite) == "debian" else UBUNTU
    found: list[str] = []
    for name, text in sorted(files.items()):
        entries = _deb822(text) if name.endswith(".sources") else _one_line(text)
        for options, uri, named, components in entries:
            codename, _, pocket = named.partition("-")
            if codename in siblings:
                wanted = f"{suite}-{pocket}" if pocket else suite
                found.append(" ".join(part for part in ("deb", options, uri, wanted, components) if part))
    return "".join(f"{line}\n" for line in dict.fromkeys(found))


def _deb822(text: str) -> Iterator[tuple[str, str, str, str]]:
    for stanza in re.split(r"\n\s*\n", text):
        lines = "\n".join(line for line in stanza.splitlines() if not line.startswith("#"))
        fields = {key.lower(): value.strip() for key, value in re.findall(r"(?m)^([\w-]+):[ \t]*(.*)$", lines)}
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes") == "no":
            continue
        signed = fields.get("signed-by", "")
        options = f"[signed-by={signed}]" if signed.startswith("/") else ""
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield options, uri, suite, fields.get("components", "")


def _one_line(text: str) -> Iterator[tuple[str, str, str, str]]:
    for match in re.finditer(r"(?m)^deb\s+(\[[^\]]*\])?\s*(\S+)\s+(\S+)[ \t]*(.*)$", text):
        yield match[1] or "", match[2], match[3], match[4].partition("#")[0].strip()


def machine_sources() -> dict[str, str]:
    """The texts of the machine's apt source files."""
    etc = Path("/etc/apt")
    files = [etc / "sources.list", *etc.glob("sources.list.d/*.list"), *etc.glob("sources.list.d/*.sources")]
    return {str(path): path.read_text() for path in files if path.is_file()}


def tree_path(suite: str) -> Path:
    """Where the tree of a suite is or will be: its name changes with the package list."""
    digest = hashlib.sha256(f"{RECIPE} {suite} {' '.join(sorted(PACKAGES))}".encode()).hexdigest()[:12]
    return cache_directory() / "base" / f"{suite}-{digest}"


def ensure_tree(suite: str) -> Path:
    """The tree of a suite, made if it is not there (about a minute and 70 MB of downloads); raises InputError."""
    tree = tree_path(suite)
    tree.parent.mkdir(parents=True, exist_ok=True)
    with (tree.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            for leftover in tree.parent.glob("*.part"):  # of a build that was killed
                shutil.rmtree(leftover)
            print(f"base system {suite}: building once (about a minute), kept in {tree.parent}", flush=True)
            part = tree.with_name(f"{tree.name}.part")
            try:
                _build(suite, part)
                _finish(part)
                part.rename(tree)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    return tree


def _build(suite: str, target: Path) -> None:
    family = family_of(suite)
    if not KEYRING[family].exists():
        package = f"{family}-archive-keyring" if family == "debian" else "ubuntu-keyring"
        raise InputError("this machine", package, f"cannot verify packages of {suite}", f"apt-get install {package}")
    sources = sources_for(suite, machine_sources())
    if not sources:
        print(
            f"base system {suite}: this machine has no {family} source; using the usual mirror of {family}", flush=True
        )
    log = target.with_suffix(".log")
    with tempfile.NamedTemporaryFile("w", suffix=".list") as file, log.open("w") as output:
        file.write(sources)
        file.flush()
        result = subprocess.run(_mmdebstrap(suite, target, file.name if sources else ""), stderr=output, check=False)
    if result.returncode != 0:
        last = " | ".join(log.read_text().splitlines()[-3:])
        raise InputError(str(log), suite, f"the base system could not be built: {last}", "see the log, then again")


def _mmdebstrap(suite: str, target: Path, sources: str) -> list[str]:
    """The build in namespaces of its own: when it is killed, nothing stays mounted or running."""
    excluded = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")
    return [
        *("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"),
        *("mmdebstrap", "--variant=minbase", "--mode=root", "--format=directory", f"--include={','.join(PACKAGES)}"),
        *("--aptopt=Acquire::Languages none", "--aptopt=Acquire::Check-Valid-Until false"),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in excluded),
        *(suite, str(target), *([sources] if sources else [])),
    ]


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _finish(tree: Path) -> None:
    """What an installer would have left: an administrator, no package source (there is no way out), quiet timers."""
    subprocess.run(["chroot", str(tree), "useradd", "--create-home", "--shell", "/bin/bash", "ops"], check=True)
    _write(tree / "etc/sudoers.d/ops", "ops ALL=(ALL) NOPASSWD:ALL\n", 0o440)
    _write(tree / "etc/ssh/sshd_config.d/twin.conf", "UseDNS no\nPasswordAuthentication no\n")
    _write(tree / "etc/systemd/journald.conf.d/twin.conf", "[Journal]\nStorage=persistent\nSystemMaxUse=32M\n")
    for key in (tree / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    for source in (tree / "etc/apt/sources.list", *(tree / "etc/apt/sources.list.d").iterdir()):
        source.unlink(missing_ok=True)
    for unit in MASKED_UNITS:
        (tree / "etc/systemd/system" / unit).unlink(missing_ok=True)
        (tree / "etc/systemd/system" / unit).symlink_to("/dev/null")
    (tree / "etc/machine-id").write_text("")
    with contextlib.suppress(FileNotFoundError):
        (tree / "var/lib/dbus/machine-id").unlink()
