#!/usr/bin/python
"""Ansible module: what of the inference stack really runs on a host."""

from __future__ import annotations

import time
import urllib.parse
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.guard import placement
from ansible.module_utils.gpu_cutover.stack import facts

DOCUMENTATION = r"""
module: stack_facts
short_description: What of the inference stack really runs on a host
description:
  - On a GPU host asks every engine of O(engines) who it is, compares the placements on the disk with the plan, and
    reads the units.
  - On a gateway tries the edge as a stranger would, waits for LiteLLM, looks for secrets where none may be, and tries
    to reach the cloud as the users that must not.
  - Reads only. Every probe is bounded; what could not be read is told, not guessed.
author: gpu-cutover
options:
  engines:
    description: Engines of the plan, C({model: {engine, unit, port}}).
    type: dict
    default: {}
  placements:
    description: Placements of the plan, to compare with the disk.
    type: dict
    default: {}
  address:
    description: Address on which the host is reached by others.
    type: str
    required: true
  bound:
    description: Seconds that engines and LiteLLM may take to be ready.
    type: float
    default: 60
  gateway:
    description: >-
      C({edge: {port, ca, certificate, tenant_cn, path}, litellm: {name: health URL}, cloud_litellm: URL, cloud_url,
      sealed_units: {unit: user}, open_user, sealed_configs: {name: path}, engine_addresses, forbidden_key_file,
      units: [...], virtual_address: the address that gateways share, or empty}). Empty on a GPU host.
    type: dict
    default: {}
  bundle:
    description: The bundle's list of digests.
    type: path
    default: /srv/bundle/SHA256SUMS
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: What really runs
  stack_facts:
    engines: "{{ site_plan.engines }}"
    placements: "{{ site_plan.placements }}"
    address: "{{ ansible_host }}"
  register: reading_stack
"""

RETURN = r"""
reading:
  description: C(engines), C(placement), C(units) on a GPU host; C(edge), C(litellm), C(sealed), C(units) on a gateway.
  type: dict
  returned: always
"""


def _placement(params: dict[str, Any]) -> dict[str, Any]:
    """Which placement is current, and which files on the disk differ from the plan's."""
    try:
        wanted = placement.render(params["placements"], params["engines"], params["address"])
    except (ValueError, KeyError) as error:
        return {"error": facts.told(error)}
    directory = placement.DIRECTORY
    differing = [
        name
        for name, content in sorted(wanted.items())
        if not (directory / name).is_file() or (directory / name).read_text() != content
    ]
    return {"name": placement.current_name(directory), "files": len(wanted), "differing": differing}


def _gpu_host(params: dict[str, Any]) -> dict[str, Any]:
    current = placement.current_name(placement.DIRECTORY) or placement.HEALTHY
    running = params["placements"].get(current, {}).get("engines", {})
    wanted = {
        model: {"kind": engine["engine"], "url": f"http://{params['address']}:{engine['port']}"}
        for model, engine in params["engines"].items()
        if model in running
    }
    answers = facts.engines(wanted, params["bound"])  # first: what is asked for while it starts is not yet enabled
    return {
        "engines": answers,
        "placement": _placement(params),
        "units": facts.units(params["engines"][model]["unit"] for model in wanted),
    }


def _sealed(gateway: dict[str, Any], cloud: list[str], cloud_port: int) -> dict[str, Any]:
    """For each sealed unit: secrets by name, and what a connection to the cloud as its user comes to."""
    shown = facts.units(gateway["sealed_units"])
    told = {}
    for unit, user in gateway["sealed_units"].items():
        told[unit] = {
            "secrets": facts.secret_names(shown[unit].get("MainPID", "")),
            "to_cloud": facts.connect_as(user, cloud[0], cloud_port)
            if cloud
            else "error: the cloud's name has no address",
            "to_cloud_litellm": facts.post_as(user, f"{gateway['cloud_litellm']}/v1/chat/completions"),
            "sandbox": shown[unit].get("IPAddressDeny", ""),
        }
    return told


def _configs(gateway: dict[str, Any]) -> dict[str, Any]:
    """URLs in the sealed side's configurations that lead elsewhere than to engines and loopback."""
    told: dict[str, Any] = {"key_file_absent": facts.is_absent(Path(gateway["forbidden_key_file"]))}
    for name, path in gateway["sealed_configs"].items():
        try:
            told[name] = {"foreign": facts.foreign_bases(Path(path).read_text(), gateway["engine_addresses"])}
        except OSError as error:
            told[name] = {"error": facts.told(error)}
    return told


def _certificate_days(address: str, edge: dict[str, Any]) -> float | None:
    days: float | None = facts.certificate_days(address, edge["port"], edge["ca"], edge["certificate"], time.time())
    return days


def _shared(gateway: dict[str, Any], bound: float) -> dict[str, Any]:
    """The address that gateways share, where they do."""
    shared, edge = gateway.get("virtual_address"), gateway["edge"]
    if not shared:
        return {}

    def ask() -> int | str:
        answer: int | str = facts.edge_answer(
            shared, edge["port"], edge["ca"], edge["certificate"], "POST", edge["path"]
        )
        return answer

    return {"virtual_address": facts.shared_address(shared, ask, bound)}


def _gateway(params: dict[str, Any]) -> dict[str, Any]:
    gateway = params["gateway"]
    litellm = {
        name: dict(
            zip(("answer", "error"), facts.wait_for(lambda url=url: facts.get_json(url), params["bound"]), strict=True)
        )
        for name, url in gateway["litellm"].items()
    }
    cloud = urllib.parse.urlsplit(gateway["cloud_url"])
    cloud_port = cloud.port or (443 if cloud.scheme == "https" else 80)
    found = facts.addresses(cloud.hostname or "")
    return {
        "litellm": {name: entry["error"] or "ready" for name, entry in litellm.items()},
        "edge": facts.edge(params["address"], **gateway["edge"]),
        "certificate_days": _certificate_days(params["address"], gateway["edge"]),
        **_shared(gateway, params["bound"]),
        "sealed": _sealed(gateway, found, cloud_port),
        "configs": _configs(gateway),
        # The same attempt by the one user that may: a probe that can only say no would prove nothing.
        "open_to_cloud": facts.connect_as(gateway["open_user"], found[0], cloud_port) if found else "error: no address",
        "units": facts.units(gateway["units"]),
    }


def main() -> None:
    """Arguments, probes, one reading."""
    module = AnsibleModule(
        argument_spec={
            "engines": {"type": "dict", "default": {}},
            "placements": {"type": "dict", "default": {}},
            "address": {"type": "str", "required": True},
            "bound": {"type": "float", "default": 60.0},
            "gateway": {"type": "dict", "default": {}},
            "bundle": {"type": "path", "default": "/srv/bundle/SHA256SUMS"},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        params["bound"] = 0.0  # a dry run does not wait for what it has not started
    reading: dict[str, Any] = {"bundle": facts.file_digest(Path(params["bundle"]))}
    if params["engines"]:
        reading |= _gpu_host(params)
    if params["gateway"]:
        reading |= _gateway(params)
    module.exit_json(changed=False, reading=reading)


if __name__ == "__main__":
    main()
