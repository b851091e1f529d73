"""How many hours a year a site is down, and what that leaves of the promised availability. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..catalog.outages import Outages


@dataclass(frozen=True)
class Availability:
    """Hours a year: `allowed` by the target, `reboot` one planned reboot, `planned` all of them and the de-rates,
    `repair` one failure of the host. `quiet` is the availability of a year without such a failure, `expected` of a year
    with the assumed number of them."""

    allowed: float
    reboot: float
    planned: float
    repair: float
    quiet: float
    expected: float


def assess(target: float, weights_bytes: int, derate_s: float, nodes: int, outages: Outages) -> Availability:
    """The year of one site. Hosts are assumed to fail independently, and planned work to take one host at a time.

    A reboot costs the boot, the reading of all weights and the engines' start: `boot + bytes / rate + start`.
    """
    reboot = (outages.boot_s + weights_bytes / outages.read_bytes_s + outages.engine_start_s) / 3600
    planned = outages.reboots_per_year * reboot + outages.lost_gpus_per_year * derate_s / 3600
    repair = float(outages.repair_h)
    down = planned + outages.host_failures_per_year * repair
    return Availability(
        allowed=(1 - target) * outages.hours_per_year,
        reboot=reboot,
        planned=planned,
        repair=repair,
        quiet=1 - (planned / outages.hours_per_year) ** nodes,
        expected=1 - (down / outages.hours_per_year) ** nodes,
    )
