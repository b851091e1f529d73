"""Heat, power, errors of every GPU, and what the guard did about them."""

from __future__ import annotations

from ..settings import Settings
from .panel import Dashboard, Panel

GPU = "{{host}} GPU {{gpu}}"
HEAT = (
    Panel("Temperature", [("gpu_guard_temperature_celsius", GPU)], "celsius", "Degrees of the GPU itself."),
    Panel("Power", [("gpu_guard_power_watts", GPU)], "watt", "Drawn now."),
    Panel("Power limit", [("gpu_guard_power_limit_watts", GPU)], "watt", "A step down is the guard capping a hot GPU."),
    Panel(
        "Clocks-event bits",
        [("gpu_guard_clocks_event_bits", GPU)],
        "short",
        "NVML's bits: 4 power cap, 32 and 64 thermal.",
    ),
    Panel(
        "Memory used",
        [("gpu_guard_memory_used_bytes", GPU)],
        "bytes",
        "Engines reserve it at their start: flat is right.",
    ),
    Panel(
        "Memory errors",
        [("gpu_guard_ecc_uncorrected", GPU), ("gpu_guard_remap_pending", f"{GPU} remap pending")],
        "short",
        "Uncorrectable since the driver was loaded; must stay flat.",
    ),
)


def margin(settings: Settings) -> Panel:
    """The margin with the site's floor as a line."""
    return Panel(
        "Margin to the limit",
        [("gpu_guard_margin_celsius", GPU)],
        "celsius",
        "T.Limit; below the line an alert comes, and the guard acts.",
        limit=settings.margin_celsius,
    )


def dashboard(settings: Settings) -> Dashboard:
    """GPUs and thermals."""
    return Dashboard(
        "gpus",
        "GPUs and heat",
        [
            margin(settings),
            *HEAT,
            Panel(
                "Level of each GPU",
                [("gpu_guard_level == 1", f"{GPU} {{{{level}}}}")],
                "short",
                "normal, watch, capped, derated, recovering; one of them is 1.",
            ),
            Panel(
                "Heat collected",
                [("gpu_guard_heat_seconds", GPU)],
                "s",
                "Seconds over the limit that count towards a de-rate.",
            ),
            Panel("Lost", [("gpu_guard_lost", GPU)], "bool_yes_no", "1 is a GPU that does not answer the driver."),
            Panel(
                "Placement in force",
                [("gpu_guard_placement == 1", "{{host}} {{name}}")],
                "short",
                "healthy, or without the lost GPU.",
            ),
            Panel(
                "The guard itself",
                [
                    ("gpu_guard_sample_age_seconds", "{{host}} age of the sample, s"),
                    ("gpu_guard_pages", "{{host}} pages"),
                    ("gpu_guard_observe_only", "{{host}} only observes"),
                    ("gpu_guard_changing", "{{host}} changes the placement"),
                ],
                "short",
                "The age saws between 0 and 1.",
            ),
        ],
    )
