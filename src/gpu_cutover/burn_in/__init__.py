"""The burn-in on the GPU host: load, telemetry, evidence. `summary` is pure and travels with modules."""
