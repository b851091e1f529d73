"""The room `monitoring` for the role: settings in, texts of files out. Runs on the controller."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gpu_cutover.evidence.ledger import Ledger
from gpu_cutover.evidence.playbook import plain
from gpu_cutover.monitoring import gates, routing, rules
from gpu_cutover.monitoring.boards import files
from gpu_cutover.monitoring.settings import Settings

BOARDS = "/etc/gpu-cutover/dashboards"


def monitoring_rules(settings: Mapping[str, Any]) -> str:
    """The rule file."""
    return rules.text(Settings.of(plain(settings)))


def monitoring_shipped(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the gate compares with what is loaded: `{sha256, names}`."""
    made = Settings.of(plain(settings))
    return {"sha256": rules.digest(rules.text(made)), "names": rules.names(rules.rule_file(made))}


def monitoring_heartbeat_s(settings: Mapping[str, Any]) -> int:
    """Seconds between two notices of the watchdog."""
    return Settings.of(plain(settings)).heartbeat_s


def monitoring_alertmanager(ways: Mapping[str, Any]) -> str:
    """Alertmanager's configuration."""
    data = plain(ways)
    return routing.text(
        routing.Ways(data["listeners"], int(data["heartbeat_s"]), data["webhook"] or "", data["mail"] or None)
    )


def monitoring_dashboards(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """Files for `service_files`."""
    made = files.texts(Settings.of(plain(settings)))
    return [{"path": f"{BOARDS}/{name}", "content": content} for name, content in sorted(made.items())]


def monitoring_gates(site_dir: str) -> str:
    """The ledger's verdicts as metrics."""
    return gates.exposition(Ledger.open(str(site_dir)).records())


class FilterModule:
    """Ansible's way to find them."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """By name."""
        return {
            made.__name__: made
            for made in (
                monitoring_rules,
                monitoring_shipped,
                monitoring_heartbeat_s,
                monitoring_alertmanager,
                monitoring_dashboards,
                monitoring_gates,
            )
        }
