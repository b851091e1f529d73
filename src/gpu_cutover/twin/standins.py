"""What the stand-ins need on the hosts' disks and in the lab's network. The production roles know nothing of it.

`files_for` says what lies on a host's disk before its first boot, `infrastructure` what runs beside the hosts.
"""

from __future__ import annotations

import datetime
import json
import sys
import threading
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..catalog import Catalog, load_catalog
from ..errors import InputError
from ..pki.authority import server_pair
from .base import cache_directory
from .lab import LABS, load_lab
from .network import run_in_host
from .parts import FACTORY_DRIVER, LIBRARY, SHARED, nvml_library
from .services import Command

CHECKOUT = Path(__file__).resolve().parents[3]
SOURCES = CHECKOUT / "twin"
CLOUD_NAMES = ("api.openai.com", "api.cohere.com")
ROUTE_WEIGHTS = {"chat": 3, "soap": 2, "embed": 2, "rerank": 2, "reason": 1, "audio": 1, "vision": 1}
CLINIC_RATE_PER_S = 8.0
MACHINE_TOOLS = ("dmidecode", "ipmitool", "nvme", "lspci", "ethtool")
DIMM_GIB = 64


@dataclass(frozen=True)
class StandinFile:
    """A file for a host's disk: its content, or a source to copy, or the target of a symbolic link."""

    content: bytes | None = None
    source: Path | None = None
    mode: int = 0o644
    symlink: str | None = None


def files_for(host: str, site: Mapping[str, Any], site_dir: Path | None = None) -> dict[str, StandinFile]:
    """The stand-ins' files on a host's disk, by absolute path; `site_dir` defaults to the checkout's directory of
    that name.

    A lab without a declared site (a test's) gets none. Raises InputError when the site's records cannot be read.
    """
    if not site.get("tier"):
        return {}
    directory = site_dir or CHECKOUT / "inventory" / str(site["name"])
    trust = {} if host in ("cloud", "clinic") else _trust(directory)
    by_host = {"cloud": _cloud, "clinic": _clinic}
    if host in by_host:
        return by_host[host](site, directory)
    bought = _records(directory, "purchase.yml").get("hosts", {}).get(host)
    gpus = _gpu_host(host, site, directory, bought) if bought else _ports_only(host, directory)
    return {**trust, **gpus}


def infrastructure(site_dir: Path, lab: str) -> list[Command]:
    """Daemons in the lab's own network: the GPU host's BMC, on the switch's address."""
    described = load_lab(site_dir)
    if not described.site.get("tier"):
        return []
    state = _state(site_dir)
    purchase = _records(site_dir, "purchase.yml").get("hosts", {})
    if not purchase:
        return []
    host, bought = next(iter(purchase.items()))
    machine = state / "bmc-machine.json"
    machine.write_text(json.dumps(_machine(host, described.site, site_dir, bought)))
    bmc_name = str(described.site["network"]["bmc"]).split("//", 1)[-1].partition("/")[0].partition(":")[0]
    certificate, key = _certificate(site_dir, "bmc", (bmc_name, described.gateway))
    gpu_state = LABS / lab / "hosts" / host / "upper" / "var/lib/twin/nvml.state"
    bmc = (
        sys.executable,
        "-I",
        str(SOURCES / "outside" / "bmc.py"),
        "--host",
        described.gateway,
        "--port",
        "443",
        "--certificate",
        str(certificate),
        "--key",
        str(key),
        "--machine",
        str(machine),
        "--faults",
        str(state / "bmc-faults.json"),
        "--gpu-state",
        str(gpu_state),
    )
    return [Command("bmc", bmc)]


def deliver_client_certificates(lab: str, site_dir: Path, host: str = "clinic") -> list[str]:
    """Copy the tenants' certificates from the site's PKI to the clinics; returns the tenants' names.

    Raises InputError when there is no PKI yet (day 4 makes it) or the host is off.
    """
    pki = site_dir / ".state" / "pki"
    certificates = sorted((pki / "tenants").glob("*.crt"))
    if not certificates or not (pki / "ca.pem").exists():
        raise InputError(str(pki), "tenants", "there are no client certificates yet", "run day 4 first")
    run_in_host(lab, host, ["mkdir", "-p", "/etc/twin/pki"])
    for path in (pki / "ca.pem", *certificates, *(path.with_suffix(".key") for path in certificates)):
        write_in_host(lab, host, f"/etc/twin/pki/{path.name}", path.read_bytes(), 0o600)
    return [path.stem for path in certificates]


def write_in_host(lab: str, host: str, path: str, content: bytes, mode: int = 0o644) -> None:
    """Replace a file in a running host, whole. Raises InputError when it cannot be written."""
    script = f'umask 077; cat > "$1.new" && chmod {mode:o} "$1.new" && mv "$1.new" "$1"'
    result = run_in_host(lab, host, ["sh", "-c", script, "sh", path], input=content)
    if result.returncode:
        raise InputError(
            f"lab {lab}", f"{host}:{path}", result.stderr.decode(errors="replace").strip(), "is the disk full?"
        )


# --- the GPU host ---------------------------------------------------------------------------------------------------


def _gpu_host(host: str, site: Mapping[str, Any], site_dir: Path, bought: Mapping[str, Any]) -> dict[str, StandinFile]:
    catalog = load_catalog()
    branch = str(site["driver"]["branch"])
    library = f"libnvidia-ml.so.{FACTORY_DRIVER}"
    environment = f"TWIN_DRIVER_BRANCH={branch} TWIN_FACTORY_DRIVER={FACTORY_DRIVER}"
    machine = json.dumps(_machine(host, site, site_dir, bought), indent=1).encode()
    return {
        f"{LIBRARY}/{library}": StandinFile(source=nvml_library(CHECKOUT, cache_directory(), FACTORY_DRIVER)),
        f"{LIBRARY}/libnvidia-ml.so.1": StandinFile(symlink=library),
        **_shared(("state", "load")),
        "/usr/bin/nvidia-smi": _program("gpu_host/nvidia_smi.py"),
        "/usr/local/bin/tensor-load": _program("gpu_host/tensor_load.py"),
        f"{SHARED}/thermals.py": _program("gpu_host/thermals.py"),
        f"{SHARED}/loaded_driver.py": _program("gpu_host/loaded_driver.py"),
        "/etc/twin/gpus.json": StandinFile(json.dumps(boards(site, bought, catalog), indent=1).encode()),
        "/etc/twin/engine-speed.json": StandinFile(json.dumps(engine_speed(site, catalog), indent=1).encode()),
        **_machine_tools(machine, MACHINE_TOOLS),
        **_unit(
            "twin-driver",
            "The installed driver is loaded (twin)",
            f"{SHARED}/loaded_driver.py",
            once=environment,
            before="twin-thermals.service",
        ),
        **_unit(
            "twin-thermals", "The simulated GPUs' physics (twin)", f"{SHARED}/thermals.py", before="multi-user.target"
        ),
    }


def boards(site: Mapping[str, Any], bought: Mapping[str, Any], catalog: Catalog) -> list[dict[str, Any]]:
    """The simulated GPUs: the tier's board with the purchase record's serial numbers (thermals.Board)."""
    tier = catalog.tiers[site["tier"]]
    gpu = catalog.gpus[tier.gpu]
    return [
        {
            "name": gpu.name,
            "uuid": f"GPU-{uuid.uuid5(uuid.NAMESPACE_OID, part['serial'])}",
            "serial": str(part["serial"]),
            "bus_id": bus_id(index),
            "part_number": "900-2G133-0080-000",
            "vbios": "95.02.66.00.02",
            "pci_device": "0x233010DE" if gpu.nvlink else "0x26B910DE",
            "memory_mib": gpu.memory_mib,
            "reserved_mib": gpu.memory_mib - _known(gpu.free_mib, gpu.memory_mib),
            "power_min_w": _known(gpu.power_min_w, gpu.power_max_w),
            "power_max_w": gpu.power_max_w,
            "max_operating_celsius": _known(gpu.max_operating_celsius, 87),
            "tlimit_slowdown": _known(gpu.tlimit_slowdown, -2),
            "tlimit_shutdown": _known(gpu.tlimit_shutdown, -5),
            "memory_sensor": gpu.memory_sensor,
            "mig": gpu.mig,
            "remap_banks": _known(gpu.ecc_sram_banks, 192),
            "pcie_gen": gpu.pcie_gen,
            "pcie_width": gpu.pcie_width,
            "nvlinks": 18 if gpu.nvlink else 0,
        }
        for index, part in enumerate(bought["gpus"])
    ]


def _known(value: int | None, otherwise: int) -> int:
    """The catalog's figure; where nobody has read one from such a board, one a simulated board can live with."""
    return otherwise if value is None else value


def bus_id(index: int) -> str:
    """Two boards per socket: 41, 61, C1, E1."""
    return f"00000000:{(0x41, 0x61, 0xC1, 0xE1)[index % 4]:02X}:00.0"


def engine_speed(site: Mapping[str, Any], catalog: Catalog) -> dict[str, dict[str, float]]:
    """The planner's prediction for every engine on the healthy placement's number of GPUs, and its weights in bytes."""
    from ..planning import latency

    gpu = catalog.gpus[catalog.tiers[site["tier"]].gpu]
    found = {}
    for name, gpus in site["placements"]["healthy"].items():
        model, weights = catalog.models[name], catalog.formats[site["models"][name]["format"]]
        found[name] = {
            **latency.speed(model, weights, gpu, len(gpus), catalog),
            "weights_bytes": float(model.weight_bytes(weights)),
        }
    return found


def _machine(host: str, site: Mapping[str, Any], site_dir: Path, bought: Mapping[str, Any]) -> dict[str, Any]:
    """What DMI, BMC and bus tools show: the purchase record, with the tier's core count and idle power."""
    tier = load_catalog().tiers[site["tier"]]
    return {
        **{name: bought[name] for name in ("system", "gpus", "nvme", "nics", "psus")},
        "cpus": {**bought["cpus"], "cores": tier.cpu_cores},
        "dimms": {"count": bought["memory_gib"] // DIMM_GIB, "gib": DIMM_GIB},
        "gpu_bus_ids": [bus_id(index) for index in range(len(bought["gpus"]))],
        "feeds": site["power"]["feeds"],
        "idle_watts": round(tier.rest_w * 0.6 + tier.cpu_count * tier.cpu_tdp_w * 0.3),
        "ports": _ports(host, site_dir),
    }


def _ports(host: str, site_dir: Path) -> dict[str, float]:
    links = _records(site_dir, "cabling.yml").get("links", [])
    return {str(link["port"]): float(link["gbit_s"]) for link in links if link.get("host") == host}


def _ports_only(host: str, site_dir: Path) -> dict[str, StandinFile]:
    ports = _ports(host, site_dir)
    return _machine_tools(json.dumps({"ports": ports}).encode(), ("ethtool",)) if ports else {}


def _machine_tools(machine: bytes, names: Iterable[str]) -> dict[str, StandinFile]:
    files = {f"/usr/local/sbin/{name}": _program("gpu_host/machine_tool.py") for name in names}
    return {**files, "/etc/twin/machine.json": StandinFile(machine)}


# --- the outside ----------------------------------------------------------------------------------------------------


def _cloud(site: Mapping[str, Any], site_dir: Path) -> dict[str, StandinFile]:
    certificate, key = _certificate(site_dir, "cloud", CLOUD_NAMES)
    command = f"{SHARED}/cloud.py --certificate /etc/twin/cloud.crt --key /etc/twin/cloud.key"
    return {
        **_shared(("answers",)),
        f"{SHARED}/cloud.py": _program("outside/cloud.py"),
        "/etc/twin/cloud.crt": StandinFile(certificate.read_bytes()),
        "/etc/twin/cloud.key": StandinFile(key.read_bytes(), mode=0o600),
        **_unit("twin-cloud", "The cloud, as far as a rehearsal can see it (twin)", command),
    }


def _clinic(site: Mapping[str, Any], site_dir: Path) -> dict[str, StandinFile]:
    tenants = {name: 1 for name, tenant in site["tenants"].items() if not tenant.get("synthetic")}
    weights = {name: weight for name, weight in ROUTE_WEIGHTS.items() if name in site["routes"] or name == "soap"}
    config = {
        "edge": f"https://{site['network']['edge_name']}:8443",
        "rate_per_s": CLINIC_RATE_PER_S,
        "paused": False,
        "tenants": tenants,
        "routes": weights,
    }
    return {
        f"{SHARED}/clinic.py": _program("outside/clinic.py"),
        "/etc/twin/clinic.json": StandinFile(json.dumps(config, indent=1).encode()),
        **_unit("twin-clinic", "The clinics' traffic (twin)", f"{SHARED}/clinic.py"),
    }


def _trust(site_dir: Path) -> dict[str, StandinFile]:
    """The twin's own CA among the system's authorities: in production the cloud's and the BMC's are there already."""
    _certificate(site_dir, "cloud", CLOUD_NAMES)  # makes the CA on first use
    authority = StandinFile((_outside(site_dir) / "ca.pem").read_bytes())
    unit = _unit(
        "twin-trust",
        "The twin's CA is trusted (twin)",
        "/usr/sbin/update-ca-certificates",
        once="LC_ALL=C",
        before="ssh.service",
        unless="/etc/ssl/certs/twin-cloud.pem",
    )
    return {"/usr/local/share/ca-certificates/twin-cloud.crt": authority, **unit}


# --- small parts ----------------------------------------------------------------------------------------------------


def _program(name: str) -> StandinFile:
    return StandinFile(source=SOURCES / name, mode=0o755)


def _shared(names: Iterable[str]) -> dict[str, StandinFile]:
    return {f"{SHARED}/{name}.py": StandinFile(source=SOURCES / "shared" / f"{name}.py") for name in names}


def _unit(
    name: str, description: str, command: str, once: str = "", before: str = "", unless: str = ""
) -> dict[str, StandinFile]:
    """A unit that is enabled; `once` makes it a oneshot with that environment, skipped when the file `unless`
    exists.
    """
    kind = f"Type=oneshot\nRemainAfterExit=yes\nEnvironment={once}" if once else "Restart=always\nRestartSec=1"
    order = f"Before={before}\n" if before else ""
    condition = f"ConditionPathExists=!{unless}\n" if unless else ""
    text = (
        f"[Unit]\nDescription={description}\n{order}{condition}\n"
        f"[Service]\n{kind}\nExecStart={command}\n\n[Install]\nWantedBy=multi-user.target\n"
    )
    path = f"/etc/systemd/system/{name}.service"
    wanted = f"/etc/systemd/system/multi-user.target.wants/{name}.service"
    return {path: StandinFile(text.encode()), wanted: StandinFile(symlink=path)}


def _records(site_dir: Path, name: str) -> dict[str, Any]:
    path = site_dir / "records" / name
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(str(path), "file", " ".join(str(error).split()), "gpu-cutover site check") from error
    return data if isinstance(data, dict) else {}


# --- certificates of the outside world ------------------------------------------------------------------------------


def _state(site_dir: Path) -> Path:
    directory = site_dir / ".state" / "lab"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return directory


_ISSUING = threading.Lock()  # hosts are prepared side by side, and all of them ask for the one CA


def _certificate(site_dir: Path, name: str, names: tuple[str, ...]) -> tuple[Path, Path]:
    """A server of the outside world under the twin's own CA, which its hosts trust as they trust public ones."""
    with _ISSUING:
        return server_pair(_outside(site_dir), "twin, outside world", name, names, datetime.datetime.now(datetime.UTC))


def _outside(site_dir: Path) -> Path:
    return _state(site_dir) / "outside"
