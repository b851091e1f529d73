"""Route tables for the tests, as plain data."""

from __future__ import annotations

from typing import Any

FALLBACK = {"first_byte_s": 0.5, "error_rate": 0.05, "window_s": 60, "minimum_requests": 20, "open_s": 30}
PATHS = {
    "audio": "/v1/audio/transcriptions",
    "chat": "/v1/chat/completions",
    "reason": "/v1/chat/completions",
    "embed": "/v1/embeddings",
    "rerank": "/v1/rerank",
    "vision": "/v1/chat/completions",
}


def legs(url: str, prefix: str, without: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        route: {"url": url, "path": path, "model": f"{prefix}-{route}", "version": "w1", "gpus": [0]}
        for route, path in PATHS.items()
        if route not in without
    }


def table(
    pool: str = "hybrid",
    onprem: str = "http://127.0.0.1:1",
    cloud: str = "http://127.0.0.1:2",
    tenants: dict[str, Any] | None = None,
    rolled_back: tuple[str, ...] = (),
    source: str | None = None,
) -> dict[str, Any]:
    data: dict[str, Any] = {
        "schema": 1,
        "version": 1,
        "pool": pool,
        "changed": "2026-12-30T10:00:00Z",
        "reason": "test",
        "placement": "healthy",
        "placement_source": source,
        "onprem": {"healthy": legs(onprem, "own"), "without-gpu0": legs(onprem, "own", without=("audio", "embed"))},
        "tenants": tenants or {},
        "models_rolled_back": list(rolled_back),
        "fallback": dict(FALLBACK),
    }
    if pool == "hybrid":
        data["cloud"] = legs(cloud, "cloud")
    return data


def tenant(policy: str = "standard", **routes: str) -> dict[str, Any]:
    return {"policy": policy, "routes": routes}
