"""What rules and dashboards need to know of a site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Jobs that the role adds to what the plan says.
OWN_JOBS = ("alarms", "alertmanager", "node", "prometheus")


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in seconds, margins in °C. `targets`: accepted figures of the plan's targets, by name."""

    interval_s: int
    page: str
    first_token_s: float
    margin_celsius: float
    targets: Mapping[str, float]
    jobs: tuple[str, ...]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Settings:
        """From a role's variables. Raises KeyError, ValueError."""
        return cls(
            interval_s=int(data["interval_s"]),
            page=str(data["page"]),
            first_token_s=float(data["first_token_s"]),
            margin_celsius=float(data["margin_celsius"]),
            targets={str(name): float(value) for name, value in data["targets"].items()},
            jobs=tuple(sorted({*OWN_JOBS, *(str(job) for job in data["jobs"])})),
        )

    @classmethod
    def of_plan(cls, plan: Mapping[str, Any]) -> Settings:
        """From `site_plan`, as playbooks/group_vars/all/monitoring.yml wires it. Raises KeyError, ValueError."""
        targets = {target["name"]: target["accepted"] for target in plan["targets"]}
        data = {
            "interval_s": plan["monitoring"]["scrape_interval_s"],
            "page": plan["monitoring"]["page"],
            "first_token_s": targets["soap_first_token_p95_s"],
            "margin_celsius": plan["gates"]["thermal_margin_min_celsius"],
            "targets": targets,
            "jobs": [scrape["job"] for scrape in plan["monitoring"]["scrapes"]],
        }
        return cls.of(data)

    @property
    def missed_scrapes_s(self) -> int:
        """How long something is away before it counts: three scrapes, so that one lost answer is none."""
        return 3 * self.interval_s

    @property
    def window_s(self) -> int:
        """Over which an increase is looked for: at least four scrapes, or a counter's step is missed."""
        return max(30, 4 * self.interval_s)

    @property
    def heartbeat_s(self) -> int:
        """How often the watchdog's notice is sent again."""
        return max(5, 4 * self.interval_s)
