"""The netplan configuration that role network renders: one port, a bond, a bond with a VLAN."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parents[2] / "roles" / "network" / "templates"
COMMON: dict[str, Any] = {
    "network_ports": ["eno1np0"],
    "network_address": "10.87.0.21",
    "network_prefix": 24,
    "network_mtu": 9000,
    "network_domain": "clinic.test",
    "network_resolver": "10.87.0.1",
    "network_gateway": "",
    "network_bond_mode": "802.3ad",
    "network_vlan": 0,
}
BOND = ["eno1np0", "eno2np1"]


def render(**changes: Any) -> dict[str, Any]:
    """As Ansible renders it: block lines leave no empty lines behind."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    environment.filters["to_json"] = json.dumps
    text = environment.get_template("netplan.yaml.j2").render(**{**COMMON, **changes})
    network: dict[str, Any] = yaml.safe_load(text)["network"]
    return network


def carriers(network: dict[str, Any]) -> list[str]:
    """Every interface that carries an address."""
    kinds = ("ethernets", "bonds", "vlans")
    return [name for kind in kinds for name, body in network.get(kind, {}).items() if "addresses" in body]


def test_one_port_carries_the_address_itself() -> None:
    network = render()
    port = network["ethernets"]["eno1np0"]
    assert (port["addresses"], port["mtu"], port["dhcp4"]) == (["10.87.0.21/24"], 9000, False)
    assert port["nameservers"] == {"search": ["clinic.test"], "addresses": ["10.87.0.1"]}
    assert "routes" not in port
    assert set(network) == {"version", "renderer", "ethernets"}


def test_two_ports_become_a_bond_that_carries_it() -> None:
    network = render(network_ports=BOND, network_gateway="10.87.0.254")
    bond = network["bonds"]["bond0"]
    assert (bond["interfaces"], bond["mtu"], bond["parameters"]["mode"]) == (BOND, 9000, "802.3ad")
    assert bond["routes"] == [{"to": "default", "via": "10.87.0.254"}]
    assert carriers(network) == ["bond0"]


def test_another_bond_mode_has_no_lacp() -> None:
    parameters = render(network_ports=BOND, network_bond_mode="active-backup")["bonds"]["bond0"]["parameters"]
    assert parameters == {"mode": "active-backup", "mii-monitor-interval": 100}


@pytest.mark.parametrize(("ports", "link"), [(["eno1np0"], "eno1np0"), (BOND, "bond0")])
def test_a_vlan_carries_it_where_there_is_one(ports: list[str], link: str) -> None:
    network = render(network_ports=ports, network_vlan=120)
    vlan = network["vlans"]["vlan120"]
    assert (vlan["id"], vlan["link"], vlan["addresses"]) == (120, link, ["10.87.0.21/24"])
    assert carriers(network) == ["vlan120"]
