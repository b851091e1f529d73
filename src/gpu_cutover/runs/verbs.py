"""What a verb may be told with `-e`: judged against the declared site before Ansible starts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import InputError
from ..router.table import ROUTES, STATES
from ..site.problems import nearest, shown

# What the playbooks of these names read.
VARIABLES: dict[str, tuple[str, ...]] = {
    "certificates": ("rotate", "retire", "revoke", "reason"),
    "derate": ("gpu", "cause"),
    "restore": (),
    "cutover": ("tenant", "routes", "state", "reason"),
    "rollback": ("tenant", "route", "model", "all", "clear", "accept_off", "reason"),
}
WORDS_MAX = 200  # characters of a reason or cause: it is recorded and shown on one line
_SWITCHES = ("all", "clear", "accept_off")
_SENTENCES = ("cause", "reason")


@dataclass(frozen=True, slots=True)
class Known:
    """What the site declares: each tenant's policy, the models that answer its routes, how many GPUs its tier has."""

    policies: Mapping[str, str]
    models: frozenset[str]
    gpu_count: int


def check_variables(verb: str, variables: Mapping[str, str], known: Known) -> None:
    """Raise InputError for the first variable that the verb does not have, or whose value it cannot mean."""
    allowed = VARIABLES.get(verb, ())
    for key in variables:
        if key not in allowed:
            fix = nearest(key, allowed) if allowed else "leave it out"
            raise _wrong(key, f"{verb} has no such variable", fix)
    for key in _SENTENCES:
        _check_sentence(key, variables.get(key, ""))
    for key in _SWITCHES:
        if variables.get(key, "true") not in ("true", "false"):
            raise _wrong(key, f"{shown(variables[key])} is neither true nor false", f"write {key}=true")
    if "gpu" in variables:
        _check_gpu(variables["gpu"], known.gpu_count)
    for key in ("rotate", "retire", "revoke"):
        if key in variables and variables[key] not in known.policies:
            fix = nearest(variables[key], known.policies)
            raise _wrong(key, f"{shown(variables[key])} is not a tenant of this site", fix)
    if verb == "rollback":
        _check_rollback(variables, known)
    if verb == "cutover":
        _check_cutover(variables, known)


def _wrong(key: str, problem: str, fix: str) -> InputError:
    return InputError("command line", f"-e {key}", problem, fix)


def _check_sentence(key: str, text: str) -> None:
    if not text.isprintable() or len(text) > WORDS_MAX:
        raise _wrong(key, f"is not one line of at most {WORDS_MAX} characters", "say it shorter: it is recorded")
    if "{{" in text or "{%" in text or "{#" in text:
        raise _wrong(key, "holds a template, which Ansible would compute", "write plain words")


def _check_gpu(text: str, count: int) -> None:
    if not (text.isascii() and text.isdecimal() and len(text) < 4 and int(text) < count):
        raise _wrong("gpu", f"there is no GPU {shown(text)}", f"give a number from 0 to {count - 1}")


def _check_cutover(variables: Mapping[str, str], known: Known) -> None:
    tenant = variables.get("tenant", "")
    if tenant not in known.policies:
        raise _wrong("tenant", f"{shown(tenant)} is not a tenant of this site", nearest(tenant, known.policies))
    for route in variables.get("routes", "").split(",") if "routes" in variables else ():
        _check_route("routes", route)
    state = variables.get("state", "onprem")
    if state not in STATES:
        raise _wrong("state", f"{shown(state)} is no state", nearest(state, STATES))


def _check_route(key: str, route: str) -> None:
    if route not in ROUTES:
        raise _wrong(key, f"{shown(route)} is no route", nearest(route, ROUTES))


def _check_rollback(variables: Mapping[str, str], known: Known) -> None:
    tenant, model = variables.get("tenant"), variables.get("model")
    clear, accept_off = variables.get("clear") == "true", variables.get("accept_off") == "true"
    named = ["tenant"] if tenant else ["route"] if "route" in variables else []
    named += ["model"] if model else []
    named += ["all"] if variables.get("all") == "true" else []
    if len(named) != 1:
        problem = f"names {' and '.join(named)} at once" if named else "does not say what goes back"
        fix = "give one of tenant=NAME, route=NAME (or both), model=NAME, all=true"
        raise InputError("command line", "-e", f"rollback {problem}", fix)
    if "route" in variables:
        _check_route("route", variables["route"])
    if tenant is not None and tenant not in known.policies:
        raise _wrong("tenant", f"{shown(tenant)} is not a tenant of this site", nearest(tenant, known.policies))
    if model is not None and model not in known.models:
        raise _wrong("model", f"{shown(model)} answers no route of this site", nearest(model, known.models))
    if clear and model is None:
        raise _wrong("clear", "gives a model back, and no model is named", "add -e model=NAME, or leave clear out")
    if tenant is not None and known.policies[tenant] == "sensitive" and not accept_off:
        raise _wrong(
            "tenant",
            f"{tenant} is sensitive: it has no cloud to go back to and would stay where it is",
            "add -e accept_off=true to take it out of service, or roll back the model that answers badly",
        )
