"""LiteLLM's two configurations: every trap closed, and the on-prem one knows no cloud."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

ROLE = Path(__file__).parents[2] / "roles" / "litellm"
CLOUD = [
    {
        "model_name": "gpt-4o",
        "litellm_params": {
            "model": "openai/gpt-4o",
            "api_base": "https://api.test/v1",
            "api_key": "os.environ/OPENAI_API_KEY",
        },
    }
]
ONPREM = [{"model_name": "bge-m3", "litellm_params": {"model": "triton/bge-m3", "api_base": "http://10.0.0.2:8000/x"}}]


def rendered(name: str, instance: str) -> str:
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters["to_nice_yaml"] = lambda value, indent: yaml.safe_dump(value, indent=indent)
    variables = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    variables["litellm_instances"]["cloud"]["models"] = CLOUD
    variables["litellm_instances"]["onprem"]["models"] = ONPREM
    variables["litellm_engine_addresses"] = ["10.0.0.2"]
    text = (ROLE / "templates" / name).read_text()
    return environment.from_string(text).render({**variables, "litellm_instance": instance})


@pytest.mark.parametrize(("instance", "models"), [("cloud", CLOUD), ("onprem", ONPREM)])
def test_the_traps_are_closed(instance: str, models: list[dict[str, Any]]) -> None:
    config = yaml.safe_load(rendered("config.yaml.j2", instance))
    assert config["model_list"] == models
    assert config["litellm_settings"]["num_retries"] == 0
    assert config["litellm_settings"]["disable_hf_tokenizer_download"] is True
    assert config["litellm_settings"]["turn_off_message_logging"] is True
    assert config["router_settings"] == {"num_retries": 0, "disable_cooldowns": True, "fallbacks": []}
    assert "master_key" not in config["general_settings"]


def test_no_key_is_written_and_the_onprem_instance_names_no_cloud() -> None:
    assert "sk-" not in rendered("config.yaml.j2", "cloud")
    assert "api_key:" not in rendered("config.yaml.j2", "onprem")
    assert "api_key: os.environ/" in rendered("config.yaml.j2", "cloud")
    assert "api.test" not in rendered("config.yaml.j2", "onprem")


def test_an_instance_without_models_is_still_a_list() -> None:
    environment = jinja2.Environment(trim_blocks=True)
    text = (ROLE / "templates" / "config.yaml.j2").read_text()
    made = environment.from_string(text).render(
        litellm_instances={"onprem": {"models": []}}, litellm_instance="onprem", litellm_timeout_s=1
    )
    assert yaml.safe_load(made)["model_list"] == []


def test_the_unit_listens_on_loopback_and_fetches_nothing() -> None:
    unit = rendered("litellm@.service.j2", "cloud")
    assert "--host 127.0.0.1" in unit
    for setting in ("HF_HUB_OFFLINE=1", "LITELLM_LOCAL_MODEL_COST_MAP=True", "--telemetry False", "SSL_CERT_FILE="):
        assert setting in unit
    assert "IPAddressDeny=any" in rendered("seal.conf.j2", "onprem")


def owner_function() -> Any:
    """The pure function of auth.py, without the imports that only LiteLLM's environment has."""
    tree = ast.parse((ROLE / "files" / "auth.py").read_text())
    wanted = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "owner"]
    names: dict[str, Any] = {}
    exec(
        compile(ast.Module([ast.parse("from collections.abc import Iterable").body[0], *wanted], []), "auth", "exec"),
        names,
    )
    return names["owner"]


def test_the_caller_is_the_user_at_the_other_end() -> None:
    table = [
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
        "   0: 0100007F:0FA0 00000000:0000 0A 00000000:00000000 00:00000000 00000000   998        0 1",
        "   1: 0100007F:0FA0 0100007F:C001 01 00000000:00000000 00:00000000 00000000   998        0 2",
        "   2: 0100007F:C001 0100007F:0FA0 01 00000000:00000000 00:00000000 00000000   997        0 3",
        "short line",
    ]
    assert owner_function()(table, 0xC001, 0x0FA0) == 997
    assert owner_function()(table, 0xC002, 0x0FA0) is None
