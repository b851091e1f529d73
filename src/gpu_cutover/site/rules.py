"""What one key alone cannot say: names that must exist, memory that must suffice, cloud that must stay out of reach.

Every rule is a function of the declaration that yields its problems; `problems` runs them all in an order in which a
later rule may rely on the earlier ones. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

from ..catalog import Catalog, fix_for_unknown
from ..planning import fit as fitting
from .model import Calendar, Spec
from .problems import Problem, dotted, nearest, shown

HEALTHY = "healthy"
SEGMENT_PREFIX = 24  # as the role network configures it
Rule = Callable[[Spec, Catalog], Iterator[Problem]]


def placement_names(spec: Spec, catalog: Catalog) -> list[str]:
    """The placements a site of this tier declares: healthy, and one for each lost GPU."""
    return [HEALTHY, *(f"without-gpu{index}" for index in range(catalog.tiers[spec.tier].gpu_count))]


def lost_gpu(placement: str) -> int | None:
    """The GPU a placement does without; None for the healthy one."""
    return None if placement == HEALTHY else int(placement.removeprefix("without-gpu"))


def instances(spec: Spec, catalog: Catalog) -> dict[str, fitting.Instance]:
    """The declared models as the planner sees them."""
    return {
        name: fitting.Instance(
            model=catalog.models[name],
            weights=catalog.formats[model.format],
            engine=model.engine,
            kv_bytes=catalog.kv_formats[model.kv_cache_dtype].bytes_per_number(),
            max_model_len=model.max_model_len,
            kv_gib=model.kv_gib,
        )
        for name, model in spec.models.items()
    }


def fit_of(spec: Spec, placement: str, catalog: Catalog) -> fitting.Fit:
    """How a placement divides the tier's GPUs."""
    tier = catalog.tiers[spec.tier]
    return fitting.fit(
        instances(spec, catalog), spec.placements[placement], catalog.gpus[tier.gpu], tier.gpu_count, catalog
    )


def _tier(spec: Spec, catalog: Catalog) -> Iterator[Problem]:
    if spec.tier not in catalog.tiers:
        yield Problem("tier", f"{spec.tier} is not a tier of the catalog", fix_for_unknown("tier", spec.tier, catalog))


def _models(spec: Spec, catalog: Catalog) -> Iterator[Problem]:
    for name, model in spec.models.items():
        key = f"models.{name}"
        if name not in catalog.models:
            yield Problem(key, "is not a model of the catalog", fix_for_unknown("model", name, catalog))
            continue
        known = catalog.models[name]
        if model.format not in catalog.formats:
            fix = fix_for_unknown("format", model.format, catalog)
            yield Problem(f"{key}.format", f"{model.format} is not a format of the catalog", fix)
        elif known.kind != "decoder" and model.format != "bf16":
            yield Problem(f"{key}.format", f"{model.format} is for language models; {name} is not one", "use bf16")
        longest = known.architecture.max_positions
        if model.max_model_len > longest:
            problem = f"{model.max_model_len} tokens, but the model ends at {longest}"
            yield Problem(f"{key}.max_model_len", problem, f"use at most {longest}")
        if model.engine == "triton" and known.kind != "encoder":
            yield Problem(f"{key}.engine", "Triton serves only embedding and ranking models here", "use vllm")


def _formats(spec: Spec, catalog: Catalog) -> Iterator[Problem]:
    """Every format has a kernel on the tier's GPU, and an engine that can load it."""
    gpu = catalog.gpus[catalog.tiers[spec.tier].gpu]
    here = f"{gpu.name} (compute capability {gpu.compute_capability})"
    for name, model in spec.models.items():
        weights, cache = catalog.formats[model.format], catalog.kv_formats[model.kv_cache_dtype]
        if model.engine not in weights.engines:
            fix = f"use {' or '.join(weights.engines)}"
            yield Problem(f"models.{name}.engine", f"{model.engine} cannot load {model.format} files", fix)
        if not weights.runs_on(gpu):
            problem = f"{model.format} needs compute capability {weights.min_capability}, not there on {here}"
            fitting_formats = [known for known, form in catalog.formats.items() if form.runs_on(gpu)]
            yield Problem(f"models.{name}.format", problem, f"use {' or '.join(fitting_formats)}")
        if not cache.runs_on(gpu):
            problem = f"{model.kv_cache_dtype} needs compute capability {cache.min_capability}, not there on {here}"
            yield Problem(f"models.{name}.kv_cache_dtype", problem, "use auto")


def _routes(spec: Spec, catalog: Catalog) -> Iterator[Problem]:
    for name, route in spec.routes.items():
        key = f"routes.{name}"
        if route.model not in spec.models:
            problem = f"{route.model} is not declared under site.models"
            yield Problem(f"{key}.model", problem, nearest(route.model, spec.models))
        elif catalog.models[route.model].kind not in catalog.routes[name].kinds:
            problem = f"{route.model} is a {catalog.models[route.model].kind} model and cannot answer {name}"
            fitting_models = [m for m in spec.models if catalog.models[m].kind in catalog.routes[name].kinds]
            yield Problem(f"{key}.model", problem, nearest(route.model, fitting_models))
        if route.cloud and route.cloud.split("/")[0] not in catalog.providers:
            problem = f"{shown(route.cloud)} names no provider of the catalog"
            yield Problem(f"{key}.cloud", problem, nearest(route.cloud.split("/")[0], catalog.providers))


def _placement_names(spec: Spec, catalog: Catalog) -> Iterator[Problem]:
    wanted = placement_names(spec, catalog)
    for name in spec.placements:
        if name not in wanted:
            yield Problem(f"placements.{name}", f"is not a placement of tier {spec.tier}", nearest(name, wanted))
    for name in wanted:
        if name not in spec.placements:
            yield Problem(f"placements.{name}", "is missing", "declare what runs where in that case")


def _placement_engines(spec: Spec, catalog: Catalog) -> Iterator[Problem]:
    count = catalog.tiers[spec.tier].gpu_count
    known = instances(spec, catalog)
    for placement, engines in spec.placements.items():
        for model, gpus in engines.items():
            key = f"placements.{placement}.{model}"
            if model not in spec.models:
                yield Problem(key, "is not declared under site.models", nearest(model, spec.models))
                continue
            for gpu in gpus:
                if gpu >= count:
                    yield Problem(key, f"GPU {gpu} does not exist", f"{spec.tier} has GPUs 0 to {count - 1}")
                if gpu == lost_gpu(placement):
                    yield Problem(key, f"GPU {gpu} is the lost one", "place the model on the others")
            if len(set(gpus)) != len(gpus):
                yield Problem(key, f"{gpus} names a GPU twice", "name each GPU once")
            split = fitting.tensor_parallel_problem(known[model], len(gpus))
            if split:
                yield Problem(key, split, "use 1, 2 or 4 GPUs" if known[model].engine == "vllm" else "use one GPU")


def _memory(spec: Spec, catalog: Catalog) -> Iterator[Problem]:
    for placement in spec.placements:
        for gpu in fit_of(spec, placement, catalog).gpus:
            if gpu.over:
                parts = " + ".join(f"{s.name} {s.total / fitting.GIB:.1f}" for s in gpu.shares)
                problem = (
                    f"GPU {gpu.gpu}: {parts} GiB is more than the {gpu.budget / fitting.GIB:.1f} GiB engines may use"
                )
                yield Problem(
                    f"placements.{placement}", problem, "move a model, use a smaller format, or leave one out"
                )


def _served_routes(spec: Spec, catalog: Catalog) -> Iterator[Problem]:
    for name, route in spec.routes.items():
        if route.model not in spec.placements[HEALTHY]:
            problem = f"{route.model} answers {name} but runs nowhere"
            yield Problem(f"placements.{HEALTHY}", problem, f"place {route.model} on a GPU or take the route away")


def _aliases(spec: Spec, catalog: Catalog) -> Iterator[Problem]:
    for placement, routes in spec.aliases.items():
        key = f"aliases.{placement}"
        if placement not in spec.placements:
            yield Problem(key, "is not a placement", nearest(placement, spec.placements))
            continue
        for route, model in routes.items():
            running = spec.placements[placement]
            if route not in spec.routes:
                yield Problem(f"{key}.{route}", "is not a route of this site", nearest(route, spec.routes))
            elif model not in running:
                yield Problem(f"{key}.{route}", f"{model} does not run in {placement}", nearest(model, running))
            elif catalog.models[model].kind not in catalog.routes[route].kinds:
                yield Problem(f"{key}.{route}", f"{model} cannot answer {route}", "name a model of the right kind")
            elif spec.routes[route].model in running:
                problem = f"{spec.routes[route].model} runs in {placement} and answers {route} itself"
                yield Problem(f"{key}.{route}", problem, "remove the alias")


def _tenants(spec: Spec, catalog: Catalog) -> Iterator[Problem]:
    for name, tenant in spec.tenants.items():
        for route, state in tenant.routes.items():
            key = f"tenants.{name}.routes.{route}"
            if route not in spec.routes:
                yield Problem(key, "is not a route of this site", nearest(route, spec.routes))
            elif state == "cloud" and tenant.policy == "sensitive":
                yield Problem(key, f"{name} is sensitive: its data may never go to the cloud", "remove the line")
            elif state == "onprem" and tenant.policy == "cloud_only":
                yield Problem(key, f"{name} is cloud_only", "remove the line, or give the tenant another policy")
            elif state == "cloud" and spec.routes[route].cloud is None:
                yield Problem(key, f"{route} has no cloud model", f"declare routes.{route}.cloud or remove the line")
    names = [common_name(spec, tenant) for tenant in spec.tenants]
    for name in {name for name in names if names.count(name) > 1}:
        yield Problem("tenants", f"two tenants have the certificate name {name}", "give each its own common_name")
    if not any(tenant.synthetic for tenant in spec.tenants.values()):
        yield Problem("tenants", "there is no synthetic tenant to rehearse a rollback on", "add one, synthetic: true")


def common_name(spec: Spec, tenant: str) -> str:
    """The name in a tenant's client certificate."""
    return spec.tenants[tenant].common_name or f"{tenant}.tenants.{spec.network.domain}"


def _cutover(spec: Spec, catalog: Catalog) -> Iterator[Problem]:
    movable = [n for n, t in spec.tenants.items() if not t.synthetic and t.policy != "cloud_only"]
    for name in spec.cutover_order:
        if name not in spec.tenants:
            yield Problem("cutover_order", f"{name} is not a tenant", nearest(name, spec.tenants))
        elif name not in movable:
            why = "synthetic" if spec.tenants[name].synthetic else "cloud_only"
            yield Problem("cutover_order", f"{name} is {why} and is never cut over", "take it out of the order")
    if len(set(spec.cutover_order)) != len(spec.cutover_order):
        yield Problem("cutover_order", "names a tenant twice", "name each tenant once")
    for name in movable:
        if name not in spec.cutover_order:
            yield Problem("cutover_order", f"{name} is missing", "add it where it should be cut over")
    if spec.first_tenant not in spec.tenants:
        yield Problem("first_tenant", f"{spec.first_tenant} is not a tenant", nearest(spec.first_tenant, movable))
    elif spec.cutover_order[:1] != [spec.first_tenant]:
        yield Problem("first_tenant", f"{spec.first_tenant} is not first in cutover_order", "put it there")


def _targets(spec: Spec, catalog: Catalog) -> Iterator[Problem]:
    for name, target in spec.targets.items():
        if name not in catalog.targets:
            yield Problem(f"targets.{name}", "is not a target of the plan", nearest(name, catalog.targets))
        elif target.plan != catalog.targets[name].plan:
            problem = f"the plan says {catalog.targets[name].plan:g}, not {target.plan:g}"
            yield Problem(f"targets.{name}.plan", problem, "keep the plan's figure and restate it with a reason")
    for name in catalog.targets:
        if name not in spec.targets:
            yield Problem(f"targets.{name}", "is missing", f"declare {{plan: {catalog.targets[name].plan:g}}}")


def _power(spec: Spec, catalog: Catalog) -> Iterator[Problem]:
    if spec.power.feeds > spec.power.psu_count:
        problem = f"{spec.power.feeds} feeds for {spec.power.psu_count} supplies"
        yield Problem("power.feeds", problem, "each feed needs a supply")


def _network(spec: Spec, catalog: Catalog) -> Iterator[Problem]:
    low, high = spec.network.inlet_celsius
    if low >= high:
        yield Problem("network.inlet_celsius", f"{low:g} is not below {high:g}", "write [lowest, highest]")
    if any(int(part) > 255 for part in spec.network.resolver.split(".")):
        yield Problem("network.resolver", f"{spec.network.resolver} is not an address", "write an IPv4 address")


def _driver(spec: Spec, catalog: Catalog) -> Iterator[Problem]:
    driver = spec.driver
    if driver.branch not in catalog.drivers:
        fix = nearest(driver.branch, catalog.drivers)
        yield Problem("driver.branch", f"{driver.branch} is not a branch that is still maintained", fix)
        return
    for key, version in (("version", driver.version), ("previous", driver.previous)):
        if version and version.split(".")[0] != driver.branch:
            yield Problem(f"driver.{key}", f"{version} is not of branch {driver.branch}", "pin a version of the branch")
    known = catalog.drivers[driver.branch]
    if _numbers(driver.version) < _numbers(known.minimum_version):
        problem = f"{driver.version} is older than {known.minimum_version}, the first for CUDA {known.native_cuda}"
        yield Problem("driver.version", problem, "pin a newer one")
    if int(driver.cuda.split(".")[0]) > known.max_cuda_major:
        yield Problem("driver.cuda", f"branch {driver.branch} ends at CUDA {known.max_cuda_major}", "use an older CUDA")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("-")[0].split("."))


def _calendar(spec: Spec, catalog: Catalog) -> Iterator[Problem]:
    days = [f"day{number}" for number in range(1, len(Calendar.model_fields) + 1)]
    for earlier, later in pairwise(days):
        if getattr(spec.calendar, later) <= getattr(spec.calendar, earlier):
            yield Problem(f"calendar.{later}", f"is not after {earlier}", "correct the dates")


RULES: tuple[Rule, ...] = (
    _tier,
    _models,
    _formats,
    _routes,
    _placement_names,
    _placement_engines,
    _memory,
    _served_routes,
    _aliases,
    _tenants,
    _cutover,
    _targets,
    _power,
    _network,
    _driver,
    _calendar,
)


def first_problem(spec: Spec, catalog: Catalog) -> Problem | None:
    """The first problem of the first rule that has one; later rules rely on earlier ones and are not asked."""
    return next((problem for rule in RULES for problem in rule(spec, catalog)), None)


def gateway_problem(spec: Spec, hosts: Mapping[str, Mapping[str, str]]) -> Problem | None:
    """A shared address that is missing, unusable or somebody's own; a tenant that carries a gateway's name."""
    key, shared, gateways = "network.virtual_address", spec.network.virtual_address, hosts["gateway"]
    for name in spec.tenants:
        if common_name(spec, name) in {gateway_name(spec, host) for host in gateways}:
            return Problem(f"tenants.{name}.common_name", "is the name of a gateway", "give the tenant another name")
    if shared is None:
        problem = f"is missing, and there are {len(gateways)} gateways"
        fix = "give the address that clinics connect to and that moves from one gateway to the other"
        return Problem(key, problem, fix) if len(gateways) > 1 else None
    try:
        address = ipaddress.IPv4Address(shared)
    except ValueError:
        return Problem(key, f"{shared} is not an address", "write an IPv4 address")
    owners = {own: host for group in hosts.values() for host, own in group.items()}
    owner = owners.get(str(address)) or ("the resolver" if str(address) == spec.network.resolver else "")
    if owner:
        return Problem(key, f"{shared} is the address of {owner}", "take an address that no host has")
    for host, own in gateways.items():
        segment = ipaddress.ip_network(f"{own}/{SEGMENT_PREFIX}", strict=False)
        if address not in segment or address in (segment.network_address, segment.broadcast_address):
            return Problem(key, f"{shared} is no host's address of {segment}, where {host} is", "take a free one there")
    return None


def gateway_name(spec: Spec, host: str) -> str:
    """The name in a gateway's certificate, under which the others know it."""
    return f"{host}.{spec.network.domain}"


def host_problem(spec: Spec, catalog: Catalog, bought: Mapping[str, object], gpu_hosts: list[str]) -> Problem | None:
    """A GPU host without a purchase record, or a record without a host."""
    for host in gpu_hosts:
        if host not in bought:
            return Problem(dotted(("hosts", host)), "has no purchase record", "copy it from the delivery note")
    for host in bought:
        if host not in gpu_hosts:
            return Problem(f"hosts.{host}", "is not a host of the group gpu", nearest(host, gpu_hosts))
    return None
