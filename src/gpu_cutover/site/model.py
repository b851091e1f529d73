"""The declared site: every key of `site:` and of the records beside it. Unknown keys and wrong types are refused.

This module is the law for `inventory/<site>/group_vars/all/site.yml`; README.md beside it explains every key in one
line. What one key alone cannot say (a route's model is declared, a model fits its GPUs) is in `rules.py`.
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Policy = Literal["standard", "sensitive", "cloud_only"]
RouteName = Literal["audio", "chat", "reason", "embed", "rerank", "vision"]

Text = Annotated[str, Field(min_length=1, max_length=2000, pattern=r"^[^\x00-\x1f\x7f]+$")]  # one line
Slug = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
HostName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}(\.[a-z0-9-]{1,63})*$")]
Url = Annotated[str, Field(pattern=r"^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[!-~]*)?$")]
MailAddress = Annotated[str, Field(pattern=r"^[0-9A-Za-z._%+-]{1,64}@[0-9A-Za-z.-]{1,253}$")]
Seconds = Annotated[int, Field(ge=1, le=31 * 86400)]
ShortSeconds = Annotated[float, Field(gt=0, le=3600)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
GpuIndex = Annotated[int, Field(ge=0, le=63)]
Celsius = Annotated[float, Field(ge=-40, le=120)]


def _day(value: object) -> object:
    """A quoted date is a date too. Raises ValueError, which becomes the message."""
    try:
        return date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"not a date as 2026-12-24: {error}") from None


Day = Annotated[date, BeforeValidator(_day)]


class Strict(BaseModel):
    """No unknown keys, no silent conversion, no infinite numbers, no change after validation."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Route(Strict):
    """Which model answers a route on-prem, which one in the cloud, and how large a request may be."""

    model: ModelName
    cloud: Annotated[str, Field(pattern=r"^[a-z0-9_]+/[A-Za-z0-9._:/-]+$")] | None
    body_limit_mb: Annotated[int, Field(ge=1, le=1024)]


class Model(Strict):
    """A model as it is served here: its file format, its engine and exactly which files."""

    format: Slug
    engine: Literal["vllm", "triton"]
    repository: Text
    revision: Revision
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    max_model_len: Annotated[int, Field(ge=64, le=1_048_576)]
    kv_gib: Annotated[float, Field(gt=0, le=1024)] | None = None


class Tenant(Strict):
    """A clinic: where its data may go, and routes it wants elsewhere than its policy's default."""

    display_name: Text
    policy: Policy
    synthetic: bool = False
    common_name: HostName | None = None
    routes: dict[RouteName, Literal["cloud", "onprem"]] = Field(default_factory=dict)


class Fallback(Strict):
    """When an on-prem answer is given up for the cloud's: per request (first byte), per model (errors in a window)."""

    first_byte_s: ShortSeconds
    error_rate: Share
    window_s: ShortSeconds
    minimum_requests: Count
    open_s: ShortSeconds


class ReverseShadow(Strict):
    """Which share of a standard tenant's on-prem answers is asked again of the cloud and compared."""

    share: Share = 0.0


class Restated(Strict):
    """What is accepted instead of the plan's figure, why, and who decided."""

    accepted: Annotated[float, Field(gt=0)]
    reason: Annotated[Text, Field(min_length=20)]
    by: Text


class Target(Strict):
    """A target of the plan and, where physics or the founder says so, the one that gates judge."""

    plan: Annotated[float, Field(gt=0)]
    restated: Restated | None = None


class Durations(Strict):
    """How long things take or may take, in seconds."""

    burn_in_s: Seconds
    telemetry_interval_s: ShortSeconds
    mirror_s: Seconds
    watch_s: Seconds
    drill_max_age_s: Seconds
    engine_ready_s: Seconds
    drain_s: Annotated[int, Field(ge=0, le=3600)]


class Margins(Strict):
    """How much worse an on-prem answer may score than the cloud's, 0..1, per route."""

    audio: Share
    chat: Share
    reason: Share
    embed: Share
    rerank: Share
    vision: Share


class Minimums(Strict):
    """How many compared answers a route needs before its verdict counts."""

    audio: Count
    chat: Count
    reason: Count
    embed: Count
    rerank: Count
    vision: Count


class Gates(Strict):
    """Limits and minimum counts of the gates. Floors that belong to a GPU (bus bandwidth) come from the catalog."""

    psu_load_max: Share
    thermal_margin_min_celsius: Celsius
    throughput_spread_max: Share
    throughput_drift_max: Share
    telemetry_coverage_min: Share
    smoke_requests_min: Count
    recovery_max_s: Seconds
    alert_max_s: Seconds
    mirror_comparisons_min: Minimums
    mirror_coverage_min: Share
    mirror_margins: Margins
    confidence_alpha: Annotated[float, Field(gt=0, lt=0.5)]
    watch_requests_min: Count
    watch_error_rate_max: Share
    rollback_max_s: ShortSeconds
    derate_max_s: Seconds


class Power(Strict):
    """Supplies, feeds and battery of the GPU host's rack."""

    psu_count: Annotated[int, Field(ge=1, le=16)]
    psu_watts: Annotated[int, Field(ge=100, le=20_000)]
    feeds: Annotated[int, Field(ge=1, le=4)]
    ups_kva: Annotated[float, Field(gt=0, le=10_000)]
    ups_minutes_min: Annotated[float, Field(gt=0, le=1440)]
    ups_battery_kwh: Annotated[float, Field(gt=0, le=10_000)]


class Network(Strict):
    """Names, addresses and the air in front of the server."""

    domain: HostName
    resolver: Annotated[str, Field(pattern=r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$")]
    mtu: Annotated[int, Field(ge=1280, le=9216)]
    inlet_celsius: Annotated[list[Celsius], Field(min_length=2, max_length=2)]
    bmc: Url
    edge_name: HostName
    virtual_address: Annotated[str, Field(pattern=r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$")] | None = None
    vlan: Annotated[int, Field(ge=1, le=4094)] | None = None
    apply: bool = False
    time_servers: Annotated[list[Text], Field(min_length=1, max_length=8)]


class Driver(Strict):
    """The pinned driver. `previous` is the version a rollback goes back to."""

    branch: Annotated[str, Field(pattern=r"^[0-9]{3}$")]
    version: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+){1,3}(-[0-9A-Za-z.~+]+)?$")]
    previous: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+){1,3}(-[0-9A-Za-z.~+]+)?$")] | None = None
    packages: Annotated[list[Text], Field(min_length=1)] | None = None
    cuda: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+$")]
    reboot_allowed: bool


class Mail(Strict):
    """Who is mailed, by which server of the house (host:port, STARTTLS, no login)."""

    to: MailAddress
    sender: MailAddress
    smarthost: Annotated[str, Field(pattern=r"^[0-9A-Za-z.-]{1,253}:[0-9]{1,5}$")]


class Monitoring(Strict):
    """How often figures are read, who is told and how, and what else stands on the hosts."""

    scrape_interval_s: Annotated[int, Field(ge=1, le=300)]
    retention_days: Annotated[int, Field(ge=1, le=3650)]
    page: Text
    webhook: Annotated[str, Field(pattern=r"^https?://\S{1,500}$")] | None = None
    mail: Mail | None = None
    dcgm_exporter: bool = False
    grafana: bool = False


class Calendar(Strict):
    """The plan's dates, for reports; no gate depends on them."""

    day1: Day
    day2: Day
    day3: Day
    day4: Day
    day5: Day
    day6: Day
    day7: Day
    day8: Day
    day9: Day
    day10: Day


class Spec(Strict):
    """Everything under `site:`."""

    name: Slug
    stage: Literal["twin", "production"]
    tier: Slug
    routes: Annotated[dict[RouteName, Route], Field(min_length=1)]
    models: Annotated[dict[ModelName, Model], Field(min_length=1)]
    placements: dict[
        Slug, Annotated[dict[ModelName, Annotated[list[GpuIndex], Field(min_length=1)]], Field(min_length=1)]
    ]
    aliases: dict[Slug, dict[RouteName, ModelName]] = Field(default_factory=dict)
    tenants: Annotated[dict[Slug, Tenant], Field(min_length=1)]
    first_tenant: Slug
    cutover_order: list[Slug]
    fallback: Fallback
    reverse_shadow: ReverseShadow = Field(default_factory=ReverseShadow)
    targets: dict[Slug | Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Target]
    durations: Durations
    gates: Gates
    power: Power
    network: Network
    driver: Driver
    monitoring: Monitoring
    calendar: Calendar


class Part(Strict):
    """One delivered part with the serial number of the delivery note."""

    model: Text
    serial: Text


class Disk(Part):
    """An NVMe drive; decimal gigabytes."""

    gb: Count


class Nic(Part):
    """A network adapter and the speed of one port."""

    gbit_s: Count


class Supply(Part):
    """A power supply."""

    watts: Count


class System(Strict):
    """The chassis, as DMI names it."""

    manufacturer: Text
    product: Text
    serial: Text


class Cpus(Strict):
    """Processors; serial numbers are not readable from a running system."""

    model: Text
    count: Annotated[int, Field(ge=1, le=16)]


class Bought(Strict):
    """One server as ordered and delivered."""

    system: System
    gpus: Annotated[list[Part], Field(min_length=1)]
    cpus: Cpus
    memory_gib: Count
    nvme: Annotated[list[Disk], Field(min_length=1)]
    nics: Annotated[list[Nic], Field(min_length=1)]
    psus: Annotated[list[Supply], Field(min_length=1)]


class Purchase(Strict):
    """records/purchase.yml: what was bought, per GPU host."""

    order: Text
    delivered: Day
    hosts: dict[HostName, Bought]


class Link(Strict):
    """One cable: host and port, switch and port, speed."""

    host: HostName
    port: Text
    switch: Text
    switch_port: Text
    gbit_s: Count


class Cabling(Strict):
    """records/cabling.yml: the drawing LLDP is compared with."""

    links: Annotated[list[Link], Field(min_length=1)]


class LockedFile(Strict):
    """One file of a model's revision."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class LockedModel(Strict):
    """The files of one revision. `locked: false` says that nobody has seen the files yet: day 5 refuses it."""

    revision: Revision
    files: dict[Text, LockedFile]
    locked: bool = True
    note: Text | None = None


@dataclass(frozen=True)
class Site:
    """A validated site directory. `hosts` is group → {host: address}; `targets_from` is `site` or `plan`."""

    directory: Path
    spec: Spec
    hosts: dict[str, dict[str, str]]
    purchase: Purchase
    cabling: Cabling
    lock: dict[str, LockedModel]
    targets_from: str = "site"

    def declared(self) -> dict[str, Any]:
        """`site:` as plain JSON values, with defaults filled in."""
        return self.spec.model_dump(mode="json")

    def gpu_host(self) -> str:
        """The name of the one GPU host."""
        return next(iter(self.hosts["gpu"]))

    def edge_address(self) -> str:
        """Where clinics reach the edge: the address that the gateways share, or the only gateway's own."""
        return self.spec.network.virtual_address or next(iter(self.hosts["gateway"].values()))

    def gpu_address(self) -> str:
        """The address engines listen on."""
        return self.hosts["gpu"][self.gpu_host()]
