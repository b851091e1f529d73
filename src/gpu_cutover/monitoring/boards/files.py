"""All dashboards as the files that Grafana reads."""

from __future__ import annotations

import json

from ..settings import Settings
from . import burn_in, engines, gateways, gpus, router, service
from .panel import Dashboard


def every_dashboard(settings: Settings) -> list[Dashboard]:
    """One per subject."""
    return [
        service.dashboard(settings),
        gpus.dashboard(settings),
        engines.dashboard(),
        router.dashboard(),
        gateways.dashboard(),
        burn_in.dashboard(settings),
    ]


def texts(settings: Settings) -> dict[str, str]:
    """{file name: JSON}; equal settings give equal bytes."""
    return {
        f"{board.name}.json": json.dumps(board.as_json(), indent=1, ensure_ascii=False) + "\n"
        for board in every_dashboard(settings)
    }
