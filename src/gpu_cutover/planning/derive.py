"""Everything a site's declaration implies, as plain data: `site_plan` of docs/architecture.md, section 4. Pure.

Roles, daemons and gates read this and nothing else of the site's meaning; each value is decided here once.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from ..catalog import Catalog, load_catalog
from ..catalog.power import load_power_rule
from ..site import rules
from ..site.model import RouteName, Site, Tenant
from . import latency, power
from .flags import vllm_flags
from .targets import estimates, setting_of, verdict

MODELS_DIR = "/srv/models"
LITELLM_CLOUD = "http://127.0.0.1:4000"
LITELLM_ONPREM = "http://127.0.0.1:4001"
EDGE_PORT, EDGE_METRICS_PORT = 8443, 8405
ROUTER_METRICS_PORT = {"hybrid": 9402, "sealed": 9403}
GUARD_PORT = 9401
POOLS = ("hybrid", "sealed")
NEVER = "1970-01-01T00:00:00Z"  # the initial tables are the same whenever they are derived


def derive(site: Site) -> dict[str, Any]:
    """`site_plan` of a validated site."""
    catalog = load_catalog()
    placements = {name: _placement(site, name, catalog) for name in site.spec.placements}
    declared = site.declared()
    return {
        "name": site.spec.name,
        "stage": site.spec.stage,
        "digest": digest(declared),
        "targets_from": site.targets_from,
        "tier": _tier(site, catalog),
        "durations": declared["durations"],
        "gates": {**declared["gates"], **_floors(site, catalog)},
        "targets": _targets(site, catalog),
        "engines": {name: _engine(site, name, catalog) for name in sorted(site.spec.models)},
        "placements": placements,
        "route_tables": {pool: _route_table(site, pool, catalog) for pool in POOLS},
        "tenants": {name: _tenant(site, name) for name in site.spec.tenants},
        "cutover": {"first": site.spec.first_tenant, "order": list(site.spec.cutover_order)},
        "edge": _edge(site),
        "litellm": {"cloud": _cloud_models(site, catalog), "onprem": _onprem_models(site, catalog)},
        "driver": _driver(site, catalog),
        "power": _power(site),
        "monitoring": _monitoring(site, catalog),
    }


def digest(data: Any) -> str:
    """sha256 of the canonical JSON of plain data."""
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def engine_speed(site: Site, placement: str = rules.HEALTHY) -> dict[str, dict[str, float]]:
    """What to expect of each engine of a placement; see `latency.speed` for the figures."""
    catalog = load_catalog()
    gpu = catalog.gpus[catalog.tiers[site.spec.tier].gpu]
    return {
        model: latency.speed(
            catalog.models[model], catalog.formats[site.spec.models[model].format], gpu, len(gpus), catalog
        )
        for model, gpus in sorted(site.spec.placements[placement].items())
    }


# --- engines and placements ------------------------------------------------------------------------------------------


def _port(site: Site, model: str, catalog: Catalog) -> int:
    if site.spec.models[model].engine == "triton":
        return catalog.triton.http_port
    vllm = sorted(name for name, declared in site.spec.models.items() if declared.engine == "vllm")
    return catalog.vllm.first_port + vllm.index(model)


def _engine(site: Site, name: str, catalog: Catalog) -> dict[str, Any]:
    declared = site.spec.models[name]
    return {
        "model": name,
        "kind": catalog.models[name].kind,
        "engine": declared.engine,
        "unit": f"{declared.engine}@{name}.service",
        "port": _port(site, name, catalog),
        "format": declared.format,
        "repository": declared.repository,
        "revision": declared.revision,
        "model_dir": f"{MODELS_DIR}/{name}/{declared.revision}",
        "weights_digest": weights_digest(site, name),
        "locked": name in site.lock and site.lock[name].locked,
        "weights_bytes": catalog.models[name].weight_bytes(catalog.formats[declared.format]),
    }


def weights_digest(site: Site, name: str) -> str:
    """What identifies the weights a request was answered by: revision and every file's sha256.

    A model whose files nobody has locked is told by its revision alone, marked as such.
    """
    entry = site.lock.get(name)
    if entry is None or not entry.locked:
        return f"unlocked-{site.spec.models[name].revision}"
    return digest({"revision": entry.revision, "files": {path: file.sha256 for path, file in entry.files.items()}})


def _placement(site: Site, name: str, catalog: Catalog) -> dict[str, Any]:
    running = site.spec.placements[name]
    fractions = rules.fit_of(site.spec, name, catalog).fractions
    routes: dict[str, str | None] = {}
    degraded: dict[str, str] = {}
    for route, declared in site.spec.routes.items():
        routes[route] = declared.model if declared.model in running else site.spec.aliases.get(name, {}).get(route)
        if routes[route] is None:
            degraded[route] = f"{declared.model} has no GPU left"
        elif routes[route] != declared.model:
            degraded[route] = f"{declared.model} has no GPU left; {routes[route]} answers"
    return {
        "engines": {
            model: {"gpus": list(gpus), "env": _env(site, model, list(gpus), fractions[model], catalog)}
            for model, gpus in sorted(running.items())
        },
        "routes": routes,
        "off": [route for route, model in routes.items() if model is None],
        "degraded": degraded,
    }


def _env(site: Site, model: str, gpus: list[int], fraction: float, catalog: Catalog) -> dict[str, str]:
    """The environment of an engine's unit; a change of any value makes a restart necessary."""
    engine = _engine(site, model, catalog)
    common = {
        "CUDA_VISIBLE_DEVICES": ",".join(str(gpu) for gpu in gpus),
        "ENGINE_HOST": site.gpu_address(),
        "ENGINE_PORT": str(engine["port"]),
        "MODEL_DIR": engine["model_dir"],
        "MODEL_NAME": model,
    }
    if engine["engine"] == "triton":
        return {**common, "TRITON_METRICS_PORT": str(catalog.triton.metrics_port)}
    return {**common, "VLLM_ARGS": " ".join(_vllm_arguments(site, model, len(gpus), fraction, catalog))}


def _vllm_arguments(site: Site, model: str, gpus: int, fraction: float, catalog: Catalog) -> list[str]:
    declared = site.spec.models[model]
    return [
        *("--host", site.gpu_address()),
        *("--port", str(_port(site, model, catalog))),
        *("--served-model-name", model),
        *vllm_flags(catalog.models[model].kind, gpus, fraction, declared.max_model_len, declared.kv_cache_dtype),
    ]


# --- routes ----------------------------------------------------------------------------------------------------------


def _pool(tenant: Tenant) -> str:
    return "sealed" if tenant.policy == "sensitive" else "hybrid"


def _onprem_leg(site: Site, route: str, model: str, placement: str, catalog: Catalog) -> dict[str, Any]:
    """Where a route's model answers: vLLM directly, Triton through LiteLLM, which speaks its protocol."""
    engine = _engine(site, model, catalog)
    direct = f"http://{site.gpu_address()}:{engine['port']}"
    return {
        "url": LITELLM_ONPREM if engine["engine"] == "triton" else direct,
        "path": catalog.routes[route].path,
        "model": model,
        "version": engine["weights_digest"],
        "gpus": list(site.spec.placements[placement][model]),
        "engine": engine["engine"],
    }


def _onprem_legs(site: Site, placement: str, catalog: Catalog) -> dict[str, Any]:
    aliases = site.spec.aliases.get(placement, {})
    legs: dict[str, Any] = {}
    for route, declared in site.spec.routes.items():
        model = declared.model if declared.model in site.spec.placements[placement] else aliases.get(route)
        if model is not None:
            legs[route] = _onprem_leg(site, route, model, placement, catalog)
    return legs


def _initial_state(site: Site, tenant: Tenant, route: RouteName) -> str:
    """Before any cutover: everything on the cloud; what may not go there, or has no cloud model, is off."""
    cloudless = site.spec.routes[route].cloud is None
    return "off" if tenant.policy == "sensitive" or tenant.synthetic or cloudless else "cloud"


def _route_table(site: Site, pool: str, catalog: Catalog) -> dict[str, Any]:
    table: dict[str, Any] = {
        "schema": 1,
        "version": 1,
        "pool": pool,
        "changed": NEVER,
        "reason": "initial",
        "placement": rules.HEALTHY,
        "placement_source": f"http://{site.gpu_address()}:{GUARD_PORT}/placement",
        "onprem": {name: _onprem_legs(site, name, catalog) for name in site.spec.placements},
        "tenants": {
            name: {
                "policy": tenant.policy,
                "routes": {route: _initial_state(site, tenant, route) for route in site.spec.routes},
                **({"synthetic": True} if tenant.synthetic else {}),
            }
            for name, tenant in site.spec.tenants.items()
            if _pool(tenant) == pool
        },
        "models_rolled_back": [],
        "fallback": site.spec.fallback.model_dump(mode="json"),
    }
    if pool == "hybrid":
        table["cloud"] = {
            route: {"url": LITELLM_CLOUD, "path": catalog.routes[route].path, "model": declared.cloud.split("/", 1)[1]}
            for route, declared in site.spec.routes.items()
            if declared.cloud
        }
        if site.spec.reverse_shadow.share:
            table["reverse_shadow"] = site.spec.reverse_shadow.model_dump(mode="json")
    return table


def _tenant(site: Site, name: str) -> dict[str, Any]:
    """A tenant with the state each of its routes has once its cutover is done."""
    tenant = site.spec.tenants[name]
    default = "cloud" if tenant.policy == "cloud_only" else "onprem"
    return {
        "display_name": tenant.display_name,
        "policy": tenant.policy,
        "synthetic": tenant.synthetic,
        "pool": _pool(tenant),
        "cn": rules.common_name(site.spec, name),
        "declared": {route: tenant.routes.get(route, default) for route in site.spec.routes},
    }


def _edge(site: Site) -> dict[str, Any]:
    return {
        "host": site.spec.network.edge_name,
        "address": site.edge_address(),
        "virtual_address": site.spec.network.virtual_address,
        "gateways": {host: rules.gateway_name(site.spec, host) for host in site.hosts["gateway"]},
        "port": EDGE_PORT,
        "tenants": [
            {"name": name, "cn": rules.common_name(site.spec, name), "pool": _pool(tenant)}
            for name, tenant in site.spec.tenants.items()
        ],
        "routes": [
            {"name": name, "path": f"/{name}", "body_limit_mb": route.body_limit_mb}
            for name, route in site.spec.routes.items()
        ],
    }


def _cloud_models(site: Site, catalog: Catalog) -> list[dict[str, Any]]:
    """LiteLLM's model_list for the cloud: one entry per provider model, whichever routes use it."""
    entries: dict[str, dict[str, Any]] = {}
    for route, declared in site.spec.routes.items():
        if declared.cloud is None:
            continue
        provider, name = declared.cloud.split("/", 1)
        known = catalog.providers[provider]
        entries.setdefault(
            name,
            {
                "model_name": name,
                "litellm_params": {
                    "model": declared.cloud,
                    "api_base": known.api_base,
                    "api_key": f"os.environ/{known.key_variable}",
                },
                "model_info": {"mode": catalog.routes[route].mode},
            },
        )
    return list(entries.values())


def _onprem_models(site: Site, catalog: Catalog) -> list[dict[str, Any]]:
    """LiteLLM's model_list for what it must translate: the models on Triton."""
    modes = {declared.model: catalog.routes[route].mode for route, declared in site.spec.routes.items()}
    return [
        {
            "model_name": name,
            "litellm_params": {
                "model": f"triton/{name}",
                "api_base": f"http://{site.gpu_address()}:{_port(site, name, catalog)}/v2/models/{name}/infer",
            },
            "model_info": {"mode": modes.get(name, "embedding")},
        }
        for name, declared in sorted(site.spec.models.items())
        if declared.engine == "triton"
    ]


# --- hardware, targets, monitoring -----------------------------------------------------------------------------------


def _json(data: dict[str, Any]) -> dict[str, Any]:
    """The same as JSON keeps it: text keys, lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(data))
    return plain


def _plain(value: Any) -> dict[str, Any]:
    """A catalog entry without its sources."""
    return _json({key: item for key, item in asdict(value).items() if key != "sources"})


def _tier(site: Site, catalog: Catalog) -> dict[str, Any]:
    tier = catalog.tiers[site.spec.tier]
    gpu = catalog.gpus[tier.gpu]
    return {
        "name": site.spec.tier,
        "profile": _plain(tier),
        "gpu": _plain(gpu),
        "sources": _json({**tier.sources, **{f"gpu.{key}": source for key, source in gpu.sources.items()}}),
    }


def _floors(site: Site, catalog: Catalog) -> dict[str, Any]:
    """The floors that belong to the GPU: bus bandwidth by GPU count, host-to-device copies."""
    gpu = catalog.gpus[catalog.tiers[site.spec.tier].gpu]
    return {
        "nccl_busbw_min_gb_s": {str(count): floor for count, floor in gpu.busbw_floor_gb_s.items()},
        "h2d_min_gb_s": gpu.h2d_floor_gb_s,
    }


def _targets(site: Site, catalog: Catalog) -> list[dict[str, Any]]:
    """The plan's figure, the accepted one, and what arithmetic says (`floor`, `expected`: null where silent)."""
    arithmetic = estimates(setting_of(site, catalog), catalog, site.spec.targets["availability"].plan)
    targets = []
    for name, known in catalog.targets.items():
        declared = site.spec.targets[name]
        restated = declared.restated
        accepted = restated.accepted if restated else declared.plan
        estimate = arithmetic.get(name)
        targets.append(
            {
                "name": name,
                "title": known.title,
                "plan": declared.plan,
                "accepted": accepted,
                "unit": known.unit,
                "better": known.better,
                "reason": restated.reason if restated else "",
                "by": restated.by if restated else "",
                "floor": round(estimate.floor, 4) if estimate and estimate.floor is not None else None,
                "expected": round(estimate.expected, 4) if estimate else None,
                "how": estimate.how if estimate else "",
                "verdict": verdict(known.better, accepted, estimate),
            }
        )
    return targets


def _driver(site: Site, catalog: Catalog) -> dict[str, Any]:
    declared = site.spec.driver
    known = catalog.drivers[declared.branch]
    return {
        **declared.model_dump(mode="json"),
        "packages": list(declared.packages or known.packages),
        "matrix": _plain(known),
        "sources": dict(known.sources),
    }


def power_sum(site: Site) -> dict[str, float]:
    """Nameplate power of the GPU host in W: DC sum, AC at the supplies' efficiency, what is left with one feed lost."""
    catalog = load_catalog()
    tier = catalog.tiers[site.spec.tier]
    declared = site.spec.power
    supplies = power.Supplies(declared.psu_count, declared.psu_watts, declared.feeds)
    dc = power.dc_w(tier, catalog.gpus[tier.gpu])
    return {
        "dc_w": dc,
        "ac_w": round(power.ac_w(dc, tier.psu_efficiency)),
        "usable_w": supplies.usable_w(),
        "usable_redundant_w": supplies.remaining_w(),
    }


def _power(site: Site) -> dict[str, Any]:
    """The declared power, the sums, and the rule that UPS and battery are sized by."""
    return {**site.spec.power.model_dump(mode="json"), **power_sum(site), "rule": _plain(load_power_rule())}


def _monitoring(site: Site, catalog: Catalog) -> dict[str, Any]:
    """What the monitor scrapes, apart from what each role adds itself."""
    gpu_host, gpu = site.gpu_host(), site.gpu_address()
    scrapes: list[dict[str, Any]] = [{"job": "guard", "host": gpu_host, "address": f"{gpu}:{GUARD_PORT}"}]
    for name, declared in sorted(site.spec.models.items()):
        triton = declared.engine == "triton"
        port = catalog.triton.metrics_port if triton else _port(site, name, catalog)
        scrapes.append({"job": declared.engine, "host": gpu_host, "address": f"{gpu}:{port}", "model": name})
    for host, address in site.hosts["gateway"].items():
        for pool, port in ROUTER_METRICS_PORT.items():
            scrapes.append({"job": f"router-{pool}", "host": host, "address": f"{address}:{port}"})
        edge = {"host": host, "address": f"{address}:{EDGE_METRICS_PORT}"}
        scrapes += [{"job": "edge", **edge}, {"job": "routes", **edge, "path": "/routes"}]
    shared = site.spec.network.virtual_address
    if shared:  # whoever holds it answers; nobody holding it is an alarm of its own
        scrapes.append(
            {"job": "virtual-address", "host": site.spec.network.edge_name, "address": f"{shared}:{EDGE_METRICS_PORT}"}
        )
    return {**site.spec.monitoring.model_dump(mode="json"), "scrapes": scrapes}
