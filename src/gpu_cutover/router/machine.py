"""What the guard says of its machine: which board each GPU is, which version each engine runs. Pure, for the records.

The placement document is the one source, because it is live: after a de-rate, an exchanged board or an upgraded engine
a record names what answered, not what once was installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .table import Leg


@dataclass(frozen=True, slots=True)
class Identity:
    """What answered: the engine's version and its GPUs by the driver's names; empty where nobody told."""

    engine_version: str
    gpu_uuids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Machine:
    """GPU UUIDs by index and engine versions by model."""

    gpu_uuids: Mapping[int, str] = field(default_factory=dict)
    engine_versions: Mapping[str, str] = field(default_factory=dict)
    _known: dict[tuple[str, tuple[int, ...]], Identity] = field(default_factory=dict, compare=False)

    def identity(self, leg: Leg) -> Identity:
        """Of one leg. A GPU whose name is not known makes all of them unknown: half a list would be read as whole."""
        key = (leg.model, leg.gpus)
        found = self._known.get(key)
        if found is None:
            uuids = tuple(self.gpu_uuids.get(gpu, "") for gpu in leg.gpus)
            found = Identity(
                self.engine_versions.get(leg.model, "") or leg.engine_version,
                uuids if uuids and all(uuids) else leg.gpu_uuids,
            )
            self._known[key] = found
        return found


def machine_of(document: Mapping[str, Any], before: Machine) -> Machine:
    """The machine as a placement document tells it; `before` itself when nothing changed.

    An engine that is down tells no version: the last one known stands until it is back.
    """
    try:
        uuids = {int(index): str(uuid) for index, uuid in document.get("gpu_uuids", {}).items()}
        told = {name: str(one.get("engine_version", "")) for name, one in document.get("engines", {}).items()}
    except (AttributeError, TypeError, ValueError):
        return before
    versions = {**before.engine_versions, **{name: version for name, version in told.items() if version}}
    fresh = Machine(uuids or before.gpu_uuids, versions)
    return before if fresh == before else fresh
