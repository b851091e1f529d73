"""Day 6 while it runs. The verdict's own figures (TFLOPS, spread, drift) are in the report, from telemetry at 1 Hz."""

from __future__ import annotations

from ..settings import Settings
from . import gpus
from .panel import Dashboard, Panel


def dashboard(settings: Settings) -> Dashboard:
    """Burn-in."""
    return Dashboard(
        "burn-in",
        "Burn-in",
        [
            Panel(
                "The unit",
                [('node_systemd_unit_state{name="gpu-cutover-burn-in.service"}', "{{host}} {{state}}")],
                "short",
                "active while it loads; failed is a stop before the end.",
            ),
            Panel(
                "Spread of the temperatures",
                [
                    (
                        "max by (host) (gpu_guard_temperature_celsius) - min by (host) (gpu_guard_temperature_celsius)",
                        "{{host}}",
                    )
                ],
                "celsius",
                "Under equal load a GPU that stands out has a cooling fault.",
            ),
            gpus.margin(settings),
            *gpus.HEAT,
            Panel(
                "Power of all GPUs",
                [("sum by (host) (gpu_guard_power_watts)", "{{host}}")],
                "watt",
                "Against the limits of supplies and UPS.",
            ),
        ],
    )
