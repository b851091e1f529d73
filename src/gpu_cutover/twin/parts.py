"""What the twin puts into an offline bundle: stand-in packages, the engine's stand-in wheel, stand-in weights.

Sources are in the checkout's `twin/`; each says at its top what it does not imitate.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..bundle.build import Parts
from ..bundle.debs import build_deb
from ..bundle.wheels import digest_of_tree, write_pure_wheel
from ..errors import InputError
from . import base

FACTORY_DRIVER = "570.195.03"  # what the machine was delivered with: an ended branch, so day 3 has something to replace
VLLM_VERSION = "0.20.2+standin"
LIBRARY = "/usr/lib/x86_64-linux-gnu"
SHARED = "/usr/local/lib/twin"
WEIGHT_FILES = 2
WEIGHT_BYTES = 64 * 1024
# Real names; versions as of CUDA 13.0. The driver's own packages carry the site's driver version.
COMPANIONS = {
    "cuda-toolkit-13-0": "13.0.2-1",
    "libcudnn9-cuda-13": "9.14.0.64-1",
    "libnccl2": "2.28.9-1+cuda13.0",
    "nvidia-container-toolkit": "1.18.0-1",
}
DCGM_VERSION = "1:4.4.1-1"
NCCL_TESTS_VERSION = "2.17.6-1"
ARCHITECTURES = {
    "speech": "WhisperForConditionalGeneration",
    "decoder": "LlamaForCausalLM",
    "encoder": "XLMRobertaModel",
}


def upstream(version: str) -> str:
    """`580.105.08` of `580.105.08-1`."""
    return version.partition("-")[0]


def nvml_library(checkout: Path, cache: Path, version: str | None) -> Path:
    """The simulated libnvidia-ml.so.1, compiled for a driver version (None: it accepts any). Raises InputError
    without gcc.
    """
    source = checkout / "twin" / "nvml" / "libnvidia-ml.c"
    key = hashlib.sha256(source.read_bytes() + str(version).encode()).hexdigest()[:16]
    library = cache / "nvml" / key / "libnvidia-ml.so.1"
    if library.exists():
        return library
    if not shutil.which("gcc"):
        raise InputError(
            "this machine", "gcc", "is needed to build the simulated NVML", "apt-get install gcc libc6-dev"
        )
    library.parent.mkdir(parents=True, exist_ok=True)
    flags = [f'-DLIBRARY_VERSION="{version}"'] if version else []
    with tempfile.TemporaryDirectory(dir=library.parent) as temporary:
        made = Path(temporary) / library.name
        command = [
            "gcc",
            "-O2",
            "-shared",
            "-fPIC",
            "-Wl,-soname,libnvidia-ml.so.1",
            "-Wl,--build-id=none",
            *flags,
            "-o",
            str(made),
            str(source),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        made.chmod(0o644)
        made.rename(library)
    return library


def bundle_parts(
    site_dir: Path, site: Mapping[str, Any], checkout: Path, cache: Path, locks: Mapping[str, Path], suite: str | None
) -> Parts:
    """Everything that a twin's bundle needs beside the locked wheels; raises InputError."""
    tree = base.ensure_tree(suite or base.DEFAULT_SUITE)
    return Parts(
        locks={**locks, "vllm": checkout / "requirements" / "vllm-twin.lock"},
        status=tree / "var/lib/dpkg/status",
        apt_options=apt_options(suite or base.DEFAULT_SUITE, cache),
        extra_debs=tuple(standin_debs(site["driver"], checkout, cache)),
        extra_wheels={"vllm": (vllm_wheel(checkout, cache),)},
        models=weights(site_dir, site["models"], cache),
        triton_models=checkout / "twin" / "triton_models",
    )


def apt_options(suite: str, cache: Path) -> tuple[str, ...]:
    """apt-get options that resolve for `suite` with the machine's own sources, whatever release the machine runs."""
    sources = base.sources_for(suite, base.machine_sources())
    if not sources:
        return ()
    directory = cache / "apt" / f"{suite}-{hashlib.sha256(sources.encode()).hexdigest()[:8]}"
    (directory / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (directory / "sources.list").write_text(sources)
    pairs = (
        f"Dir::Etc::sourcelist={directory}/sources.list",
        "Dir::Etc::sourceparts=-",
        "Dir::Etc::preferencesparts=-",
        f"Dir::State::lists={directory}/lists",
        f"Dir::Cache::pkgcache={directory}/pkgcache.bin",
        f"Dir::Cache::srcpkgcache={directory}/srcpkgcache.bin",
        "Acquire::Check-Valid-Until=false",
        "Acquire::Languages=none",
    )
    return tuple(word for pair in pairs for word in ("-o", pair))


# --- packages -------------------------------------------------------------------------------------------------------


def _script(checkout: Path, name: str) -> tuple[bytes, int]:
    return (checkout / "twin" / "gpu_host" / name).read_bytes(), 0o755


def _unit(description: str, command: str) -> tuple[bytes, int]:
    service = f"[Service]\nExecStart={command}\n\n[Install]\nWantedBy=multi-user.target\n"
    text = f"[Unit]\nDescription={description}\n\n{service}"
    return text.encode(), 0o644


def _control(package: str, version: str, depends: str = "", **more: str) -> dict[str, str]:
    fields = {
        "Package": package,
        "Version": version,
        "Architecture": "amd64",
        "Maintainer": "gpu-cutover twin <twin@gpu-cutover.invalid>",
        "Section": "misc",
        "Priority": "optional",
        **more,
    }
    if depends:
        fields["Depends"] = depends
    return {**fields, "Description": "stand-in for rehearsals; holds nothing of NVIDIA's"}


def driver_debs(branch: str, version: str, checkout: Path, library: bytes, directory: Path) -> list[Path]:
    """The packages of one driver version, as NVIDIA's repository names them."""
    compute, open_modules, utilities = f"libnvidia-compute-{branch}", f"nvidia-open-{branch}", f"nvidia-utils-{branch}"
    shared_object = f"libnvidia-ml.so.{upstream(version)}"
    pin = f"Package: *nvidia*\nPin: version {branch}.*\nPin-Priority: 1001\n"
    persistence = _unit("NVIDIA Persistence Daemon (stand-in)", "/usr/bin/nvidia-persistenced")
    return [
        build_deb(
            directory,
            _control(f"nvidia-driver-pinning-{branch}", version),
            {f"/etc/apt/preferences.d/nvidia-driver-pinning-{branch}": (pin.encode(), 0o644)},
            {},
        ),
        build_deb(
            directory,
            _control(compute, version),
            {f"{LIBRARY}/{shared_object}": (library, 0o644)},
            {f"{LIBRARY}/libnvidia-ml.so.1": shared_object, f"{LIBRARY}/libnvidia-ml.so": "libnvidia-ml.so.1"},
        ),
        build_deb(
            directory,
            _control(utilities, version, f"{compute} (= {version})"),
            {"/usr/bin/nvidia-smi": _script(checkout, "nvidia_smi.py")},
            {},
        ),
        build_deb(
            directory, _control(open_modules, version, f"{compute} (= {version}), {utilities} (= {version})"), {}, {}
        ),
        build_deb(
            directory,
            _control("nvidia-persistenced", version),
            {
                "/usr/bin/nvidia-persistenced": (b"#!/bin/sh\nexec sleep infinity\n", 0o755),
                "/lib/systemd/system/nvidia-persistenced.service": persistence,
            },
            {},
        ),
    ]


def companion_debs(checkout: Path, directory: Path) -> list[Path]:
    """CUDA, cuDNN, NCCL, DCGM, the container toolkit, nccl-tests."""
    plain = [build_deb(directory, _control(name, version), {}, {}) for name, version in COMPANIONS.items()]
    dcgm = {
        "/usr/bin/dcgmi": _script(checkout, "dcgmi.py"),
        "/usr/bin/nv-hostengine": (b"#!/bin/sh\nexec sleep infinity\n", 0o755),
        "/lib/systemd/system/nvidia-dcgm.service": _unit("NVIDIA DCGM service (stand-in)", "/usr/bin/nv-hostengine"),
    }
    core = "datacenter-gpu-manager-4-core"
    return [
        *plain,
        build_deb(directory, _control(core, DCGM_VERSION), dcgm, {}),
        build_deb(
            directory, _control("datacenter-gpu-manager-4-cuda13", DCGM_VERSION, f"{core} (= {DCGM_VERSION})"), {}, {}
        ),
        build_deb(
            directory,
            _control("nccl-tests", NCCL_TESTS_VERSION, "libnccl2"),
            {"/usr/bin/all_reduce_perf": _script(checkout, "all_reduce_perf.py")},
            {},
        ),
    ]


def standin_debs(driver: Mapping[str, Any], checkout: Path, cache: Path) -> list[Path]:
    """Packages of the pinned driver and of the one a rollback goes back to; from the cache when nothing changed."""
    versions = [version for version in (driver["version"], driver.get("previous")) if version]
    recipe = [
        digest_of_tree(checkout / "twin" / "gpu_host"),
        digest_of_tree(checkout / "twin" / "nvml"),
        versions,
        Path(__file__).read_text(),
    ]
    directory = cache / "standin-debs" / hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]
    if not directory.is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".build-") as temporary:
            target = Path(temporary) / "debs"
            target.mkdir()
            companion_debs(checkout, target)
            for version in versions:
                library = nvml_library(checkout, cache, upstream(version)).read_bytes()
                driver_debs(branch_of(version), version, checkout, library, target)
            target.rename(directory)
    return sorted(directory.glob("*.deb"))


def branch_of(version: str) -> str:
    """`580` of `580.105.08-1`."""
    return version.partition(".")[0]


# --- the engine's wheel ---------------------------------------------------------------------------------------------


def vllm_files(checkout: Path) -> dict[str, bytes]:
    """The stand-in's package: its own modules and the shared ones beside them."""
    twin = checkout / "twin"
    modules = [*(twin / "vllm_standin" / "vllm").glob("*.py"), *(twin / "shared").glob("*.py")]
    return {f"vllm/{path.name}": path.read_bytes() for path in sorted(modules)}


def vllm_wheel(checkout: Path, cache: Path) -> Path:
    """The stand-in as a wheel named `vllm`; its version says what it is."""
    directory = (
        cache
        / "standin-wheels"
        / (digest_of_tree(checkout / "twin" / "vllm_standin") + digest_of_tree(checkout / "twin" / "shared"))[::4]
    )
    directory.mkdir(parents=True, exist_ok=True)
    return write_pure_wheel(
        directory, "vllm", VLLM_VERSION, vllm_files(checkout), ["aiohttp>=3.12"], {"vllm": "vllm.cli:main"}
    )


# --- weights --------------------------------------------------------------------------------------------------------


def safetensors(seed: str, size: int) -> bytes:
    """A valid safetensors file with one tensor of `size` bytes that depend on `seed` alone."""
    header = json.dumps({"weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + hashlib.shake_256(seed.encode()).digest(size)


def model_files(name: str, revision: str) -> dict[str, bytes]:
    """The files of one model: configuration, tokenizer, index and weights."""
    from ..catalog import load_catalog

    model = load_catalog().models.get(name)
    kind = model.kind if model else "decoder"
    shards = [f"model-{number:05d}-of-{WEIGHT_FILES:05d}.safetensors" for number in range(1, WEIGHT_FILES + 1)]
    config = {"architectures": [ARCHITECTURES[kind]], "model_type": kind, "_stand_in": f"{name}@{revision}"}
    index = {
        "metadata": {"total_size": WEIGHT_FILES * WEIGHT_BYTES},
        "weight_map": {f"layer.{number}": shard for number, shard in enumerate(shards)},
    }
    return {
        "config.json": (json.dumps(config, indent=1) + "\n").encode(),
        "tokenizer.json": b'{"version": "1.0"}\n',
        "model.safetensors.index.json": (json.dumps(index, indent=1) + "\n").encode(),
        **{shard: safetensors(f"{name}@{revision}/{shard}", WEIGHT_BYTES) for shard in shards},
    }


def models_lock(models: Mapping[str, Any]) -> dict[str, Any]:
    """What `records/models.lock.json` must say for these models: revision, and digest and size per file."""
    lock = {}
    for name, model in sorted(models.items()):
        files = model_files(name, model["revision"])
        listed = {
            path: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for path, data in sorted(files.items())
        }
        lock[name] = {"revision": model["revision"], "files": listed}
    return lock


def weights(site_dir: Path, models: Mapping[str, Any], cache: Path) -> Path:
    """A directory `<model>/<revision>/…` of stand-in files, equal to the site's lock. Raises InputError where they
    differ.
    """
    record = site_dir / "records" / "models.lock.json"
    expected = models_lock(models)
    try:
        given = json.loads(record.read_text())
    except (OSError, ValueError) as error:
        raise InputError(str(record), "file", f"cannot be read ({error})", LOCK_FIX) from error
    for name, entry in expected.items():
        if {key: given.get(name, {}).get(key) for key in entry} != entry:
            raise InputError(str(record), name, "is not what the twin's stand-in weights are", LOCK_FIX)
    directory = cache / "standin-models" / hashlib.sha256(json.dumps(expected).encode()).hexdigest()[:16]
    if not directory.is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".build-") as temporary:
            for name, model in models.items():
                place = Path(temporary) / "models" / name / model["revision"]
                place.mkdir(parents=True)
                for path, data in model_files(name, model["revision"]).items():
                    (place / path).write_bytes(data)
            (Path(temporary) / "models").rename(directory)
    return directory


LOCK_FIX = "write it anew: python -m gpu_cutover.twin.parts SITE"


def main() -> None:
    """`python -m gpu_cutover.twin.parts SITE`: write the site's models.lock.json from its declared models."""
    import sys

    import yaml

    site_dir = Path(sys.argv[1])
    site = yaml.safe_load((site_dir / "group_vars/all/site.yml").read_text())["site"]
    (site_dir / "records" / "models.lock.json").write_text(json.dumps(models_lock(site["models"]), indent=1) + "\n")


if __name__ == "__main__":
    main()
