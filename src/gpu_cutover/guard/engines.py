"""How the engines of a placement are, by systemd and by themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from ..probes.web import answers, get_json
from . import placement, systemd


class EngineStates:
    """Asks systemd and the engines; a running one is asked for its version once."""

    def __init__(self) -> None:
        self._versions: dict[tuple[str, str], str] = {}  # by unit and main process: a restart may bring another

    def __call__(self, engines: Mapping[str, placement.Engine]) -> dict[str, dict[str, Any]]:
        """Model → unit, GPUs, URL, up, state, restarts of its unit, engine_version ("": not told yet)."""
        shown = systemd.show(engine.unit for engine in engines.values())
        return {model: self._state(engine, shown.get(engine.unit, {})) for model, engine in engines.items()}

    def _state(self, engine: placement.Engine, unit: Mapping[str, str]) -> dict[str, Any]:
        up = unit.get("ActiveState") == "active" and answers(engine.health)
        return {
            "unit": engine.unit,
            "gpus": list(engine.gpus),
            "url": engine.url,
            "up": up,
            "state": unit.get("ActiveState", "unknown"),
            "restarts": int(unit.get("NRestarts") or 0),
            "engine_version": self._version(engine, unit.get("MainPID", "")) if up else "",
        }

    def _version(self, engine: placement.Engine, process: str) -> str:
        known = (engine.unit, process)
        if not self._versions.get(known):
            path = placement.VERSION_PATH[engine.unit.partition("@")[0]]
            with contextlib.suppress(OSError, KeyError, TypeError):
                self._versions = {key: told for key, told in self._versions.items() if key[0] != engine.unit}
                self._versions[known] = str(get_json(engine.url + path)["version"])
        return self._versions.get(known, "")
