"""Put an offline bundle together from cached downloads; equal inputs give the same directory, found again at once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import debs, manifest, wheels

LAYOUT = 1  # raise when the same inputs shall give another bundle
LOCKS = ("agent", "litellm", "triton", "vllm")


@dataclass(frozen=True)
class Parts:
    """What goes into a bundle beside the locked wheels. Directories are taken whole.

    `status` is the dpkg status file of the hosts' image, or None where the site brings its own packages.
    `locks` names the lock file of each environment; `extra_wheels` maps an environment to wheels that no index has.
    """

    locks: Mapping[str, Path]
    status: Path | None = None
    apt_options: tuple[str, ...] = ()
    extra_debs: tuple[Path, ...] = ()
    extra_wheels: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    models: Path | None = None
    triton_models: Path | None = None


@dataclass(frozen=True)
class Bundle:
    """A finished bundle; `digest` is that of its SHA256SUMS."""

    path: Path
    digest: str
    built: bool


def build(checkout: Path, cache: Path, parts: Parts) -> Bundle:
    """The bundle for these parts, from the cache when it is there. Raises InputError when a download fails."""
    os.umask(0o022)  # daemons on the targets read the bundle as users of their own
    cache.mkdir(parents=True, exist_ok=True)
    own = wheels.own_wheel(checkout, cache)
    packages = debs.closure(parts.status, cache, suite_options=parts.apt_options) if parts.status else None
    uv = wheels.downloaded(checkout / "requirements" / "uv.lock", cache)
    downloads = {name: wheels.downloaded(lock, cache) for name, lock in parts.locks.items()}
    sources = {
        "own": own, "uv": uv, "packages": packages, "models": parts.models, "triton_models": parts.triton_models,
        **{f"wheels {name}": path for name, path in downloads.items()},
    }  # fmt: skip
    path = cache / "bundles" / _key(sources, parts)
    if (path / manifest.MANIFEST).is_file():
        return Bundle(path, manifest.sha256_of(path / manifest.MANIFEST), built=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as temporary:
        root = Path(temporary) / "bundle"
        root.mkdir()
        _link(own, root / own.name)
        wheels.uv_binary(uv, root / "bin" / "uv")
        _environments(root, downloads, parts)
        _repository(root / "debs", packages, parts.extra_debs)
        for source, name in ((parts.models, "models"), (parts.triton_models, "triton-models")):
            if source:
                shutil.copytree(source, root / name, copy_function=_link, ignore=shutil.ignore_patterns("__pycache__"))
        wheels.readable(root)
        digest = manifest.write_manifest(root)
        root.rename(path)
    return Bundle(path, digest, built=True)


def _key(sources: Mapping[str, Path | None], parts: Parts) -> str:
    """Cached downloads are named by their content's digest already; small trees are read."""
    named = {
        name: path.name if name not in ("models", "triton_models") else wheels.digest_of_tree(path)
        for name, path in sources.items()
        if path
    }
    extras = {
        path.name: manifest.sha256_of(path)
        for path in (*parts.extra_debs, *(wheel for group in parts.extra_wheels.values() for wheel in group))
    }
    named["own"] = manifest.sha256_of(path) if (path := sources["own"]) else ""
    return hashlib.sha256(json.dumps([LAYOUT, named, extras], sort_keys=True).encode()).hexdigest()[:16]


def _link(source: str | Path, target: str | Path) -> str:
    """Hard link where the file system can, else copy: cached files are never written again."""
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)
    return str(target)


def _environments(root: Path, downloads: Mapping[str, Path], parts: Parts) -> None:
    """`wheels/<name>/` and `locks/<name>.lock`; a wheel that no index has joins the lock with its hash."""
    for name, directory in downloads.items():
        lock = parts.locks[name].read_text()
        for wheel in directory.glob("*.whl"):
            _link(wheel, root / "wheels" / name / wheel.name)
        for wheel in parts.extra_wheels.get(name, ()):
            _link(wheel, root / "wheels" / name / wheel.name)
            distribution, version = wheel.name.split("-")[:2]
            lock += f"{distribution}=={version} \\\n    --hash=sha256:{manifest.sha256_of(wheel)}\n"
        (root / "locks").mkdir(exist_ok=True)
        (root / "locks" / f"{name}.lock").write_text(lock)


def _repository(directory: Path, packages: Path | None, extra: tuple[Path, ...]) -> None:
    directory.mkdir()
    for deb in (*(packages.glob("*.deb") if packages else ()), *extra):
        _link(deb, directory / deb.name)
    debs.write_index(directory)
