"""Day 4: does every engine, router and door run, is each what the plan says, and is the sealed side really sealed?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .check import Check, at_least, at_most, equals, reading_of, unproven

Plan = Mapping[str, Any]
Readings = Mapping[str, Mapping[str, Mapping[str, Any]]]

MEMORY_SHARE_MAX = 0.92
MEMORY_SOURCE = "vLLM's default of gpu_memory_utilization: what it leaves is needed by the CUDA contexts"
PLAN = "site_plan"
CONTRACT = "docs/architecture.md, section 5"
SEAL = "design: a sensitive tenant never reaches the cloud"
CERTIFICATE_DAYS_MIN = 21
RENEWAL = "role site_pki renews 30 days before the end; the alarm rings at 21"
_FRACTION = re.compile(r"--gpu-memory-utilization (\d+(?:\.\d+)?)")


def checks(plan: Plan, readings: Readings) -> list[Check]:
    """All checks of day 4. `readings`: `stack` of GPU hosts and gateways, `router` of gateways."""
    found = _fits(plan)
    for host in plan["hosts"]["gpu"]:
        found += _gpu_host(plan, host, *reading_of(readings, "stack", host))
    for host in plan["hosts"]["gateway"]:
        found += _gateway(host, *reading_of(readings, "stack", host))
        found += _routers(plan, host, *reading_of(readings, "router", host))
    found += _one_holder(plan, readings)
    return [*found, _one_bundle(readings.get("stack", {}))]


def _one_holder(plan: Plan, readings: Readings) -> list[Check]:
    """Clinics reach exactly one gateway at the address they share."""
    told = {
        host: reading_of(readings, "stack", host)[0].get("virtual_address") or {} for host in plan["hosts"]["gateway"]
    }
    if len(told) == 1 and not any(told.values()):
        return []  # one gateway, and no address to share
    holders = sorted(host for host, one in told.items() if one.get("held"))
    known = all("held" in one for one in told.values())
    why = next((str(one["error"]) for one in told.values() if "error" in one), "a gateway was not read")
    answered = {str(one.get("answered")) for one in told.values() if "answered" in one}
    reached = None if not answered else all(one.isdigit() and int(one) not in EDGE_REFUSALS for one in answered)
    return [
        equals("address.holders", len(holders) if known else None, 1, "gateways", CONTRACT,
               f"one gateway holds the shared address ({', '.join(holders) or 'none'})", None, why),
        equals("address.answers", reached, True, "", CONTRACT,
               f"the synthetic tenant reaches a router there (answered {', '.join(sorted(answered)) or 'nothing'})",
               None, why),
    ]  # fmt: skip


def memory_share(placement: Mapping[str, Any]) -> dict[int, float]:
    """GPU → sum of what its engines may take of its memory, from their flags."""
    shares: dict[int, float] = {}
    for engine in placement["engines"].values():
        match = _FRACTION.search(engine["env"].get("VLLM_ARGS", ""))
        for gpu in engine["gpus"] if match else []:
            shares[gpu] = shares.get(gpu, 0.0) + float(match[1] if match else 0)
    return shares


def _fits(plan: Plan) -> list[Check]:
    found = []
    for name, placement in sorted(plan["placements"].items()):
        shares = memory_share(placement)
        sentence = f"placement {name}: no GPU is promised more than its memory"
        fullest = round(max(shares.values()), 3) if shares else None
        found.append(at_most(f"placement.{name}.fits", fullest, MEMORY_SHARE_MAX, "of memory", MEMORY_SOURCE, sentence))
    return found


def _gpu_host(plan: Plan, host: str, reading: Mapping[str, Any], why: str) -> list[Check]:
    if why:
        return [unproven("stack.gpu_host", CONTRACT, "the GPU host was read", host, why)]
    placement = reading.get("placement", {})
    name = placement.get("name")
    found = [
        equals(
            "placement.on_disk", len(placement["differing"]) if "differing" in placement else None, 0, "files", PLAN,
            "placements on the disk differ from the plan in no file", host, str(placement.get("error", "")),
        ),
        equals("placement.current", name, "healthy", "", PLAN, "the healthy placement is the current one", host),
    ]  # fmt: skip
    running = plan["placements"].get(name or "healthy", plan["placements"]["healthy"])["engines"]
    for model in sorted(running):
        found += _engine(plan["engines"][model], model, host, reading)
    return found


def _engine(planned: Mapping[str, Any], model: str, host: str, reading: Mapping[str, Any]) -> list[Check]:
    answer = reading.get("engines", {}).get(model, {})
    unit = reading.get("units", {}).get(planned["unit"], {})
    why = str(answer.get("error", ""))
    version = answer.get("version")
    told = f" (version {version})" if version else ""
    found = [
        equals(
            f"engine.{model}.model", answer.get("model_id"), model, "", PLAN, f"answers as {model}{told}", host, why
        ),
        equals(
            f"engine.{model}.enabled", unit.get("UnitFileState"), "enabled", "", CONTRACT, "starts with the host", host
        ),
    ]
    if not version:
        found.append(unproven(f"engine.{model}.version", CONTRACT, f"{model} tells its engine's version", host, why))
    return found


EDGE_REFUSALS = (403, 404, 405, 413, 502, 504)  # what HAProxy answers by itself


def _gateway(host: str, reading: Mapping[str, Any], why: str) -> list[Check]:
    if why:
        return [unproven("stack.gateway", CONTRACT, "the gateway was read", host, why)]
    return [*_edge(host, reading), *_litellm(host, reading), *_sealed(host, reading), *_units(host, reading)]


def _edge(host: str, reading: Mapping[str, Any]) -> list[Check]:
    edge = reading.get("edge", {})
    why = str(edge.get("error", ""))
    good = edge.get("good")
    found = [
        equals(
            f"edge.{name}",
            _answered(edge.get(name)),
            wanted,
            "",
            CONTRACT,
            sentence,
            host,
            why or _unreachable(edge.get(name)),
        )
        for name, wanted, sentence in (
            ("no_certificate", "refused", "without a certificate no connection comes about"),
            ("foreign_authority", "refused", "a certificate of another authority is refused"),
            ("unknown_path", "404", "a path that is not a route is refused"),
            ("get", "405", "anything but POST is refused"),
        )
    ]
    # The probe's body is empty: off (503), "not a request" (400) and an engine's 422 all come from behind the edge.
    reached = None if _answered(good) is None else str(good).isdigit() and good not in EDGE_REFUSALS
    sentence = f"the synthetic tenant reaches its router (answered {good})"
    days = at_least("edge.certificate_days", reading.get("certificate_days"), CERTIFICATE_DAYS_MIN, "days", RENEWAL,
                    "the certificate that the edge shows is good for a while", host, why)  # fmt: skip
    return [
        *found,
        days,
        equals("edge.reaches_router", reached, True, "", CONTRACT, sentence, host, why or _unreachable(good)),
    ]


def _answered(answer: object) -> str | None:
    """A probe's answer as a word; None where the edge could not be reached at all."""
    return None if answer is None or str(answer).startswith("unreachable") else str(answer)


def _unreachable(answer: object) -> str:
    return str(answer) if str(answer).startswith("unreachable") else ""


def _litellm(host: str, reading: Mapping[str, Any]) -> list[Check]:
    told = reading.get("litellm", {})
    return [
        equals(f"litellm.{name}", told.get(name), "ready", "", CONTRACT, f"LiteLLM {name} is ready", host)
        for name in ("cloud", "onprem")
    ]


def _sealed(host: str, reading: Mapping[str, Any]) -> list[Check]:
    found = []
    control = str(reading.get("open_to_cloud", "error: not tried"))
    proven = control == "connected"
    tried = None if control.startswith("error") else control
    found.append(
        equals(
            "seal.probe",
            tried,
            "connected",
            "",
            SEAL,
            "the same probe by the permitted user does get through",
            host,
            control,
        )
    )
    sealed = reading.get("sealed", {})
    if not sealed:
        found.append(unproven("seal.units", SEAL, "the sealed services were tried", host))
    for unit, facts in sorted(sealed.items()):
        secrets = facts.get("secrets", {})
        names = secrets.get("names")
        to_cloud = facts.get("to_cloud") if proven else None
        if str(to_cloud).startswith("error"):
            to_cloud = None
        found += [
            equals(f"seal.{unit}.secrets", None if names is None else ", ".join(names) or "none", "none", "", SEAL,
                   f"{unit} holds no key", host, str(secrets.get("error", ""))),
            equals(f"seal.{unit}.cloud", None if to_cloud is None else to_cloud != "connected", True, "", SEAL,
                   f"{unit}'s user cannot reach the cloud ({to_cloud})", host, str(facts.get("to_cloud"))),
            equals(f"seal.{unit}.litellm", _turned_away(facts.get("to_cloud_litellm")), True, "", SEAL,
                   f"{unit}'s user may not ask the cloud's LiteLLM ({facts.get('to_cloud_litellm')})", host),
            equals(f"seal.{unit}.sandbox", "0.0.0.0/0" in facts.get("sandbox", ""), True, "", SEAL,
                   f"systemd denies {unit} every address it does not need", host),
        ]  # fmt: skip
    return [*found, *_configs(host, reading.get("configs", {}))]


def _turned_away(answer: object) -> bool | None:
    """Was a caller refused, by LiteLLM (403) or by the kernel? None when nobody could ask."""
    return None if answer is None or str(answer).startswith("error") else answer in ("403", "refused", "silent")


def _configs(host: str, told: Mapping[str, Any]) -> list[Check]:
    found = [
        equals(
            "seal.key_file", told.get("key_file_absent"), True, "", SEAL, "the on-prem instance has no key file", host
        )
    ]
    for name, entry in sorted(told.items()):
        if isinstance(entry, Mapping):
            foreign = entry.get("foreign")
            figure = None if foreign is None else ", ".join(foreign) or "none"
            sentence = f"the configuration of {name} names no address but engines and loopback"
            found.append(
                equals(f"seal.{name}.config", figure, "none", "", SEAL, sentence, host, str(entry.get("error", "")))
            )
    return found


def _units(host: str, reading: Mapping[str, Any]) -> list[Check]:
    return [
        equals(f"unit.{name}", f"{unit.get('ActiveState')} {unit.get('UnitFileState')}", "active enabled", "", CONTRACT,
               "runs and starts with the host", host)
        for name, unit in sorted(reading.get("units", {}).items())
    ]  # fmt: skip


def _routers(plan: Plan, host: str, reading: Mapping[str, Any], why: str) -> list[Check]:
    found = []
    for pool in sorted(plan["route_tables"]):
        health = reading.get("pools", {}).get(pool, {})
        sentence = f"the {pool} router is healthy"
        figure = None if why or not health else "error" not in health
        found.append(
            equals(f"router.{pool}", figure, True, "", CONTRACT, sentence, host, why or str(health.get("error", "")))
        )
    return found


def _one_bundle(stack: Mapping[str, Mapping[str, Any]]) -> Check:
    """Every host was installed from the same bundle."""
    digests = {str(reading.get("bundle") or "") for reading in stack.values()}
    figure = None if not digests or "" in digests else len(digests)
    digest = next(iter(digests), "")
    sentence = f"all hosts were installed from one bundle ({digest[:12]})"
    return equals("bundle.digest", figure, 1, "bundle", CONTRACT, sentence)
