"""Configurations of the gateways that are measured.

Ours: the route table and the edge's own template. The others': what an operator would write for the same job, with
whatever slows them for nothing switched off.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .install import ROOT
from .jobs import OPENAI, PACE

TENANTS = {"zam": "onprem", "seri": "mirror", "fern": "cloud"}
# Our routes that carry the jobs: three of them are chats.
ROUTES = {"chat": "chat", "think": "reason", "stream": "vision", "embed": "embed", "audio": "audio"}
KEY = "sk-bench"


@dataclass(frozen=True, slots=True)
class Engines:
    """Ports of the engines: both legs, a copy's slow one, and a port where nobody listens."""

    onprem: int
    cloud: int
    slow: int
    dead: int


def table(engines: Engines, more_tenants: dict[str, Any] | None = None) -> dict[str, Any]:
    """Our route table: every job a route, a tenant for each state."""
    onprem = {route: _leg(engines.onprem, job) for job, route in ROUTES.items()}
    return routes_table(onprem, {route: _leg(engines.cloud, job) for job, route in ROUTES.items()}, more_tenants)


def mirror_table(engines: Engines) -> dict[str, Any]:
    """Our route table with a healthy, a slow and a dead on-prem leg behind a cloud that takes 20 ms."""
    legs = {"chat": engines.onprem, "reason": engines.slow, "vision": engines.dead}
    onprem = {route: _leg(port, "think") for route, port in legs.items()} | {"audio": _leg(engines.onprem, "audio")}
    cloud = {route: _leg(engines.cloud, "think") for route in legs} | {"audio": _leg(engines.cloud, "audio")}
    return routes_table(onprem, cloud)


def routes_table(
    onprem: dict[str, Any], cloud: dict[str, Any], more_tenants: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A whole hybrid table of these legs."""
    tenants = {name: {"policy": "standard", "routes": dict.fromkeys(onprem, state)} for name, state in TENANTS.items()}
    return {
        "schema": 1,
        "version": 1,
        "pool": "hybrid",
        "changed": "2026-12-30T10:00:00Z",
        "reason": "bench",
        "placement": "healthy",
        "placement_source": None,
        "onprem": {"healthy": onprem},
        "cloud": cloud,
        "tenants": {**(more_tenants or {}), **tenants},
        "models_rolled_back": [],
        "fallback": {"first_byte_s": 10, "error_rate": 0.05, "window_s": 60, "minimum_requests": 20, "open_s": 30},
    }


def _leg(port: int, job: str) -> dict[str, Any]:
    return {
        "url": f"http://127.0.0.1:{port}",
        "path": PACE[job] + OPENAI[job],
        "model": f"model-{job}",
        "version": "w1",
    }


def edge(folder: Path, port: int, pool: str, health_port: int, paths: dict[str, str]) -> tuple[Path, dict[str, Any]]:
    """The edge's own template rendered for that router, and {tenant: how a caller of it speaks TLS}."""
    sys.path.insert(0, str(ROOT / "tests" / "edge"))
    from edge_lab import Authority, free_port, render

    folder.mkdir(parents=True)
    authority = Authority("site-ca", folder)
    router = {"address": pool, "health_port": health_port}
    text = render(
        {
            "edge_bind": f"127.0.0.1:{port}",
            "edge_metrics_bind": f"127.0.0.1:{free_port()}",
            "edge_certificate": str(authority.issue("edge.test")),
            "edge_client_ca": str(authority.path),
            "edge_revoked": str(authority.list_revoked()),
            "edge_admin_socket": str(folder / "admin.sock"),
            "edge_tenants": [{"name": name, "cn": f"{name}.test", "pool": "hybrid"} for name in TENANTS],
            "edge_routes": [{"name": name, "path": path, "body_limit_mb": 26} for name, path in paths.items()],
            "edge_pools": {"hybrid": router, "sealed": router},
        }
    )
    # Whoever runs the bench may not change user; on a gateway HAProxy does.
    kept = [line for line in text.splitlines() if line.strip() not in ("user haproxy", "group haproxy")]
    config = folder / "haproxy.cfg"
    config.write_text("\n".join(kept) + "\n")
    tls = {name: {"ca": str(authority.path), "cert": str(authority.issue(f"{name}.test"))} for name in TENANTS}
    return config, tls


def nginx(port: int, engines: Engines) -> str:
    """`/JOB`: on-prem, the cloud where that fails. `/copied/JOB`: the cloud, with a copy to on-prem (nginx' `mirror`).

    `/healthy`, `/slow`, `/dead` and `/off`: a cloud of 20 ms with a copy to such an engine or none. `/20mb…`: audio.
    """
    locations = [_location(f"/{job}", "onprem", PACE[job] + OPENAI[job]) for job in OPENAI]
    for job in OPENAI:
        path = PACE[job] + OPENAI[job]
        locations.append(_location(f"/copied/{job}", "cloud", path, copy=f"/to-onprem/{job}"))
        locations.append(_location(f"/to-onprem/{job}", "onprem", path, internal=True))
    think, audio = PACE["think"] + OPENAI["think"], OPENAI["audio"]
    locations += [_location(f"/copy-{name}", name, think, internal=True) for name in ("onprem", "slow", "dead")]
    for path, copy in (("off", ""), ("healthy", "onprem"), ("slow", "slow"), ("dead", "dead")):
        locations.append(_location(f"/{path}", "cloud", think, copy=f"/copy-{copy}" if copy else ""))
    locations.append(_location("/20mb-off", "cloud", audio))
    locations.append(_location("/20mb", "cloud", audio, copy="/to-onprem/audio"))
    backup = f" server 127.0.0.1:{engines.cloud} backup;"
    ports = {"onprem": engines.onprem, "cloud": engines.cloud, "slow": engines.slow, "dead": engines.dead}
    upstreams = "\n".join(
        f"  upstream {name} {{ server 127.0.0.1:{number};{backup if name == 'onprem' else ''} keepalive 128; }}"
        for name, number in ports.items()
    )
    return f"""daemon off; worker_processes 1; pid nginx.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_max_body_size 64m; client_body_buffer_size 32m; keepalive_requests 100000000; tcp_nodelay on;
  client_body_temp_path body; proxy_temp_path proxy;
  fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; proxy_read_timeout 60s;
  proxy_next_upstream error timeout http_500 http_502 http_503 non_idempotent;
{upstreams}
  server {{
    listen 127.0.0.1:{port};
    {chr(10).join(locations)}
  }}
}}
"""


def _location(path: str, upstream: str, to: str, copy: str = "", internal: bool = False) -> str:
    rules = [f"proxy_pass http://{upstream}{to};"]
    rules += [f"mirror {copy};"] if copy else []
    rules += ["internal;"] if internal else []
    return f"location = {path} {{ {' '.join(rules)} }}"


def envoy(port: int, engines: Engines) -> dict[str, Any]:
    """The same paths as nginx', with Envoy's `request_mirror_policies`."""
    routes = [_envoy_route(f"/{job}", "onprem", PACE[job] + OPENAI[job]) for job in OPENAI]
    routes += [_envoy_route(f"/copied/{job}", "cloud", PACE[job] + OPENAI[job], "onprem") for job in OPENAI]
    think = PACE["think"] + OPENAI["think"]
    for path, copy in (("off", ""), ("healthy", "onprem"), ("slow", "slow"), ("dead", "dead")):
        routes.append(_envoy_route(f"/{path}", "cloud", think, copy))
    routes.append(_envoy_route("/20mb-off", "cloud", OPENAI["audio"]))
    routes.append(_envoy_route("/20mb", "cloud", OPENAI["audio"], "onprem"))
    ports = {"onprem": engines.onprem, "cloud": engines.cloud, "slow": engines.slow, "dead": engines.dead}
    filters = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{filters}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{filters}.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "address": _envoy_address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
        "name": "bench",
    }
    clusters = [_envoy_cluster(name, number) for name, number in ports.items()]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def _envoy_address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _envoy_cluster(name: str, port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _envoy_address(port)}}
    return {
        "name": name,
        "connect_timeout": "3s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "circuit_breakers": {"thresholds": [{"max_requests": 4096, "max_pending_requests": 4096}]},
    }


def _envoy_route(path: str, cluster: str, to: str, copy: str = "") -> dict[str, Any]:
    action: dict[str, Any] = {"cluster": cluster, "prefix_rewrite": to, "timeout": "60s"}
    if copy:
        action["request_mirror_policies"] = [{"cluster": copy}]
    else:
        action["retry_policy"] = {"retry_on": "connect-failure,5xx", "num_retries": 1}
    return {"match": {"path": path}, "route": action}


def litellm(engines: Engines) -> dict[str, Any]:
    """A model per job with the cloud as its fallback, and one per kind of copy (`silent_model`)."""
    models = [_litellm_model(job, engines.onprem, job) for job in OPENAI]
    models += [_litellm_model(f"{job}-cloud", engines.cloud, job) for job in OPENAI]
    models += [_litellm_model(f"{job}-copied", engines.cloud, job, f"{job}") for job in OPENAI]
    models.append(_litellm_model("off", engines.cloud, "think"))
    for name, port in (("healthy", engines.onprem), ("slow", engines.slow), ("dead", engines.dead)):
        models.append(_litellm_model(name, engines.cloud, "think", f"{name}-copy"))
        models.append(_litellm_model(f"{name}-copy", port, "think"))
    return {
        "model_list": models,
        "litellm_settings": {
            "num_retries": 0,
            "request_timeout": 60,
            "drop_params": True,
            "telemetry": False,
            "disable_hf_tokenizer_download": True,
            "turn_off_message_logging": True,
        },
        "router_settings": {"num_retries": 0, "fallbacks": [{job: [f"{job}-cloud"]} for job in OPENAI]},
        "general_settings": {"master_key": KEY, "disable_spend_logs": True},
    }


def _litellm_model(name: str, port: int, job: str, copy: str = "") -> dict[str, Any]:
    kept = {"model": "openai/bench", "api_base": f"http://127.0.0.1:{port}{PACE[job]}/v1", "api_key": "none"}
    return {"model_name": name, "litellm_params": {**kept, "silent_model": copy} if copy else kept}


def portkey(engines: Engines, job: str) -> dict[str, Any]:
    """What a request tells Portkey: on-prem first, the cloud where that fails."""
    targets = [
        {"provider": "openai", "api_key": "none", "custom_host": f"http://127.0.0.1:{port}{PACE[job]}/v1"}
        for port in (engines.onprem, engines.cloud)
    ]
    return {"strategy": {"mode": "fallback"}, "targets": targets}
