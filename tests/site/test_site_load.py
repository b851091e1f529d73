"""A right site loads; every wrong one is told with file, key, problem and fix."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from site_lab import LOCK, ROOT, SITE_FILE, TWIN, Change, change_file

from gpu_cutover.errors import InputError
from gpu_cutover.site import is_site, load_site
from gpu_cutover.site.model import Spec

SITES = ["twin", "example-l40s", "example-h100"]


def refusal(directory: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        load_site(directory)
    return caught.value


@pytest.mark.parametrize("name", SITES)
def test_the_sites_of_the_repository_are_valid(name: str) -> None:
    site = load_site(ROOT / "inventory" / name)
    assert site.spec.name == name
    assert set(site.hosts) == {"gpu", "gateway", "monitor"}


@pytest.mark.parametrize("name", SITES)
def test_the_plans_tenants_are_all_there(name: str) -> None:
    tenants = load_site(ROOT / "inventory" / name).spec.tenants
    assert sum(not tenant.synthetic for tenant in tenants.values()) == 4
    assert {"sensitive", "cloud_only", "standard"} <= {tenant.policy for tenant in tenants.values()}
    assert tenants["doc-zam"].display_name == "Doc Zam"


def pop(*path: str) -> Change:
    def change(site: dict[str, Any]) -> None:
        for part in path[:-1]:
            site = site[part]
        del site[path[-1]]

    return change


def put(value: Any, *path: str) -> Change:
    def change(site: dict[str, Any]) -> None:
        for part in path[:-1]:
            site = site.setdefault(part, {})
        site[path[-1]] = value

    return change


WRONG: list[tuple[str, Change, str, str]] = [
    ("unknown key", put(1, "tennants"), "site.tennants", "did you mean tenants?"),
    ("unknown key inside", put(1, "routes", "chat", "modle"), "site.routes.chat.modle", "did you mean model?"),
    ("unknown key in a tenant", put(1, "tenants", "doc-zam", "polcy"), "site.tenants.doc-zam.polcy", "policy"),
    ("wrong type", put("40", "durations", "mirror_s"), "site.durations.mirror_s", "a whole number"),
    ("wrong boolean", put("yes", "tenants", "drill", "synthetic"), "site.tenants.drill.synthetic", "true or false"),
    ("wrong type of name", put(7, "name"), "site.name", "text"),
    ("not a mapping", put([], "tenants"), "site.tenants", "a mapping"),
    ("tenant without policy", pop("tenants", "klinik-seri", "policy"), "site.tenants.klinik-seri.policy", "cloud_only"),
    ("unknown policy", put("sensitve", "tenants", "doc-zam", "policy"), "site.tenants.doc-zam.policy", "sensitive"),
    (
        "sensitive tenant routed to the cloud",
        put({"chat": "cloud"}, "tenants", "klinik-amanah", "routes"),
        "site.tenants.klinik-amanah.routes.chat",
        "may never go to the cloud",
    ),
    (
        "cloud-only tenant routed on-prem",
        put({"chat": "onprem"}, "tenants", "klinik-harmoni", "routes"),
        "site.tenants.klinik-harmoni.routes.chat",
        "cloud_only",
    ),
    (
        "two models on one GPU over its memory",
        put([1], "placements", "healthy", "whisper-large-v3"),
        "site.placements.healthy",
        "GPU 1: ",
    ),
    (
        "a 70B on one GPU of 48 GB with a neighbour",
        put([0], "placements", "healthy", "llama-3.1-70b-instruct"),
        "site.placements.healthy",
        "more than the 41.4 GiB",
    ),
    (
        "tensor parallel over three GPUs",
        put([1, 2, 3], "placements", "healthy", "llama-3.1-70b-instruct"),
        "site.placements.healthy.llama-3.1-70b-instruct",
        "64 attention heads cannot be divided by 3",
    ),
    (
        "a GPU that does not exist",
        put([3, 4], "placements", "healthy", "llama-3.1-70b-instruct"),
        "site.placements.healthy.llama-3.1-70b-instruct",
        "GPU 4 does not exist",
    ),
    (
        "the lost GPU in use",
        put([2, 3], "placements", "without-gpu2", "llama-3.1-70b-instruct"),
        "site.placements.without-gpu2.llama-3.1-70b-instruct",
        "GPU 2 is the lost one",
    ),
    (
        "a GPU named twice",
        put([2, 2], "placements", "healthy", "llama-3.1-70b-instruct"),
        "site.placements.healthy.llama-3.1-70b-instruct",
        "twice",
    ),
    ("a placement missing", pop("placements", "without-gpu3"), "site.placements.without-gpu3", "is missing"),
    (
        "a placement too many",
        put({"bge-m3": [0]}, "placements", "without-gpu4"),
        "site.placements.without-gpu4",
        "without-gpu3",
    ),
    (
        "an unknown model placed",
        put([0], "placements", "healthy", "bge-m4"),
        "site.placements.healthy.bge-m4",
        "did you mean bge-m3?",
    ),
    ("a route without model", pop("routes", "chat", "model"), "site.routes.chat.model", "is missing"),
    (
        "a route with an unknown model",
        put("llama-3.1-70b", "routes", "chat", "model"),
        "site.routes.chat.model",
        "llama-3.1-70b-instruct?",
    ),
    (
        "a route with a model of the wrong kind",
        put("bge-m3", "routes", "chat", "model"),
        "site.routes.chat.model",
        "cannot answer chat",
    ),
    ("an unknown route", put({}, "routes", "chatt"), "site.routes.chatt", "did you mean chat?"),
    (
        "an unknown provider",
        put("opanai/gpt-4o", "routes", "chat", "cloud"),
        "site.routes.chat.cloud",
        "did you mean openai?",
    ),
    (
        "a routed model that runs nowhere",
        pop("placements", "healthy", "bge-m3"),
        "site.placements.healthy",
        "runs nowhere",
    ),
    ("an unknown tier", put("l40-4", "tier"), "site.tier", "did you mean l40s-4?"),
    (
        "an unknown format",
        put("awq-int3", "models", "llama-3.1-70b-instruct", "format"),
        "site.models.llama-3.1-70b-instruct.format",
        "did you mean awq-int4",
    ),
    ("a short revision", put("main", "models", "bge-m3", "revision"), "site.models.bge-m3.revision", "[0-9a-f]{40}"),
    (
        "a request longer than the model",
        put(9000, "models", "bge-m3", "max_model_len"),
        "site.models.bge-m3.max_model_len",
        "8194",
    ),
    (
        "Triton for a language model",
        put("triton", "models", "llava-1.6-mistral-7b", "engine"),
        "site.models.llava-1.6-mistral-7b.engine",
        "vllm",
    ),
    (
        "an alias to a model that does not run there",
        put("qwen2.5-32b-instruct", "aliases", "without-gpu0", "reason"),
        "site.aliases.without-gpu0.reason",
        "does not run",
    ),
    (
        "an alias of the wrong kind",
        put("bge-m3", "aliases", "without-gpu0", "reason"),
        "site.aliases.without-gpu0.reason",
        "cannot answer",
    ),
    (
        "an alias nobody needs",
        put("llama-3.1-70b-instruct", "aliases", "healthy", "reason"),
        "site.aliases.healthy.reason",
        "remove the alias",
    ),
    ("cutover order incomplete", put(["doc-zam"], "cutover_order"), "site.cutover_order", "klinik-seri is missing"),
    (
        "cutover order with a cloud-only tenant",
        lambda s: s["cutover_order"].append("klinik-harmoni"),
        "site.cutover_order",
        "cloud_only",
    ),
    (
        "cutover order with the synthetic tenant",
        lambda s: s["cutover_order"].append("drill"),
        "site.cutover_order",
        "synthetic",
    ),
    (
        "cutover order with an unknown tenant",
        lambda s: s["cutover_order"].append("klinik-sri"),
        "site.cutover_order",
        "klinik-seri?",
    ),
    (
        "cutover order with a tenant twice",
        lambda s: s["cutover_order"].append("doc-zam"),
        "site.cutover_order",
        "twice",
    ),
    ("first tenant unknown", put("doc-zan", "first_tenant"), "site.first_tenant", "did you mean doc-zam?"),
    ("first tenant not first", put("klinik-seri", "first_tenant"), "site.first_tenant", "not first"),
    ("no synthetic tenant", pop("tenants", "drill"), "site.tenants", "synthetic"),
    (
        "restated without reason",
        pop("targets", "soap_p95_s", "restated", "reason"),
        "site.targets.soap_p95_s.restated.reason",
        "arithmetic",
    ),
    (
        "restated without name",
        pop("targets", "soap_p95_s", "restated", "by"),
        "site.targets.soap_p95_s.restated.by",
        "who",
    ),
    (
        "the plan's figure changed",
        put(20.0, "targets", "soap_p95_s", "plan"),
        "site.targets.soap_p95_s.plan",
        "the plan says 2",
    ),
    (
        "an unknown target",
        put({"plan": 1.0}, "targets", "soap_p99_s"),
        "site.targets.soap_p99_s",
        "did you mean soap_p95_s?",
    ),
    ("a target missing", pop("targets", "availability"), "site.targets.availability", "is missing"),
    ("a duration of zero", put(0, "durations", "burn_in_s"), "site.durations.burn_in_s", "greater than or equal to 1"),
    (
        "a duration of a year",
        put(365 * 86400, "durations", "watch_s"),
        "site.durations.watch_s",
        "less than or equal to",
    ),
    ("a day that is none", put("2026-12-32", "calendar", "day1"), "site.calendar.day1", "date"),
    (
        "days out of order",
        lambda s: s["calendar"].update(day2=s["calendar"]["day1"]),
        "site.calendar.day2",
        "not after day1",
    ),
    ("an eleventh day", lambda s: s["calendar"].update(day11=s["calendar"]["day1"]), "site.calendar.day11", "day1"),
    ("infinity", put(float("inf"), "gates", "rollback_max_s"), "site.gates.rollback_max_s", "finite"),
    ("not a number", put(float("nan"), "fallback", "error_rate"), "site.fallback.error_rate", ""),
    ("a share above one", put({"share": 1.5}, "reverse_shadow"), "site.reverse_shadow.share", "less than or equal"),
    ("a share of what", put({"part": 0.1}, "reverse_shadow"), "site.reverse_shadow.part", "share"),
    ("more feeds than supplies", put(1, "power", "psu_count"), "site.power.feeds", "supply"),
    (
        "inlet range upside down",
        put([35.0, 10.0], "network", "inlet_celsius"),
        "site.network.inlet_celsius",
        "[lowest, highest]",
    ),
    ("a dead driver branch", put("535", "driver", "branch"), "site.driver.branch", "580"),
    (
        "a driver of another branch",
        put("570.124.06-1", "driver", "version"),
        "site.driver.version",
        "not of branch 580",
    ),
    ("a driver too old", put("580.50.01-1", "driver", "version"), "site.driver.version", "580.65.06"),
    (
        "a certificate name twice",
        put("doc-zam.tenants.clinic.test", "tenants", "klinik-seri", "common_name"),
        "site.tenants",
        "certificate name",
    ),
]


@pytest.mark.parametrize(("change", "key", "words"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_wrong_declaration_is_told(changed: Callable[[Change], Path], change: Change, key: str, words: str) -> None:
    directory = changed(change)
    error = refusal(directory)
    assert (error.file, error.key) == (str(directory / SITE_FILE), key)
    assert words in f"{error.problem}. {error.fix}"
    assert error.problem and error.fix


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a mapping"),
        ("sites: {}\n", "unknown key"),
        ("site:\n  name: a\n  name: b\n", "stands twice"),
        ("site: {name: [}\n", "line 1"),
        ("site: !vault |\n  x\n", "tag"),
        ("site: &a {name: *a}\n", ""),
        ("1: 2\n", "is not text"),
        ("site: {calendar: {day1: 2026-13-40}}\n", "month"),
        ("site: " + "9" * 5000 + "\n", "digit"),
        ("site: " + "[" * 900 + "]" * 900 + "\n", ""),
        ("#" * (1024 * 1024 + 1), "larger than"),
    ],
    ids=[
        "empty",
        "other key",
        "key twice",
        "broken",
        "tag",
        "recursive",
        "number as key",
        "no date",
        "digits",
        "deep",
        "large",
    ],
)
def test_a_broken_file_is_told(directory: Path, text: str, words: str) -> None:
    (directory / SITE_FILE).write_text(text)
    error = refusal(directory)
    assert error.file == str(directory / SITE_FILE)
    assert words in str(error)


def test_bytes_that_are_no_text_are_told(directory: Path) -> None:
    (directory / SITE_FILE).write_bytes(b"site: \xff\xfe")
    assert "UTF-8" in str(refusal(directory))


@pytest.mark.parametrize(
    "part", [SITE_FILE, Path("hosts.yml"), Path("records/purchase.yml"), Path("records/cabling.yml")]
)
def test_a_missing_file_is_told(directory: Path, part: Path) -> None:
    (directory / part).unlink()
    error = refusal(directory)
    assert error.file == str(directory / part)
    assert "no such file" in error.problem


def test_a_directory_in_place_of_a_file_is_told(directory: Path) -> None:
    (directory / SITE_FILE).unlink()
    (directory / SITE_FILE).mkdir()
    assert refusal(directory).file == str(directory / SITE_FILE)


def group(data: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = data["site_hosts"]["children"][name]
    return found


HOSTS: list[tuple[str, Change, str, str]] = [
    ("group missing", lambda d: d["site_hosts"]["children"].pop("monitor"), "monitor", "is missing"),
    ("group empty", lambda d: group(d, "gateway").update(hosts={}), "gateway", "has no host"),
    ("no parent group", lambda d: d.update(hosts=d.pop("site_hosts")), "site_hosts", "is missing"),
    (
        "address missing",
        lambda d: group(d, "gpu")["hosts"]["gpu1"].pop("ansible_host"),
        "gpu1.ansible_host",
        "is missing",
    ),
    (
        "no address",
        lambda d: group(d, "gpu")["hosts"]["gpu1"].update(ansible_host="gpu one"),
        "gpu1.ansible_host",
        "IP address",
    ),
    (
        "address twice",
        lambda d: group(d, "gateway")["hosts"]["gw1"].update(ansible_host="10.87.0.21"),
        "gw1.ansible_host",
        "gpu1",
    ),
    (
        "a gateway in another segment",
        lambda d: group(d, "gateway")["hosts"].update(gw3={"ansible_host": "10.88.0.13"}),
        "network.virtual_address",
        "is no host's address of 10.88.0.0/24",
    ),
    (
        "the shared address is somebody's own",
        lambda d: group(d, "monitor")["hosts"]["mon1"].update(ansible_host="10.87.0.10"),
        "network.virtual_address",
        "is the address of mon1",
    ),
    (
        "two GPU hosts",
        lambda d: group(d, "gpu")["hosts"].update(gpu2={"ansible_host": "10.87.0.22"}),
        "gpu",
        "more than one",
    ),
]


@pytest.mark.parametrize(("change", "key", "words"), [case[1:] for case in HOSTS], ids=[case[0] for case in HOSTS])
def test_wrong_hosts_are_told(directory: Path, change: Change, key: str, words: str) -> None:
    error = refusal(change_file(directory, Path("hosts.yml"), change))
    assert error.key.endswith(key)
    assert words in f"{error.problem}. {error.fix}"


RECORDS: list[tuple[str, str, Change, str, str]] = [
    (
        "no record of the GPU host",
        "purchase",
        lambda d: d["hosts"].update(gpu9=d["hosts"].pop("gpu1")),
        "hosts.gpu1",
        "no purchase record",
    ),
    (
        "a record of no host",
        "purchase",
        lambda d: d["hosts"].update(gpu2=d["hosts"]["gpu1"]),
        "hosts.gpu2",
        "did you mean gpu1?",
    ),
    ("unknown key", "purchase", lambda d: d["hosts"]["gpu1"].update(gpu=[]), "hosts.gpu1.gpu", "did you mean gpus?"),
    (
        "serial twice",
        "purchase",
        lambda d: d["hosts"]["gpu1"]["gpus"][1].update(serial=d["hosts"]["gpu1"]["gpus"][0]["serial"]),
        "hosts",
        "stands twice",
    ),
    (
        "serial as a number",
        "purchase",
        lambda d: d["hosts"]["gpu1"]["gpus"][1].update(serial=17),
        "hosts.gpu1.gpus[1].serial",
        "text",
    ),
    ("cable of no host", "cabling", lambda d: d["links"][0].update(host="gpu9"), "links[0].host", "did you mean gpu1?"),
    ("host without cable", "cabling", lambda d: d["links"].pop(), "links", "has no cable"),
    ("port with two cables", "cabling", lambda d: d["links"].append(dict(d["links"][0])), "two cables", ""),
]


@pytest.mark.parametrize(
    ("record", "change", "key", "words"), [case[1:] for case in RECORDS], ids=[case[0] for case in RECORDS]
)
def test_wrong_records_are_told(directory: Path, record: str, change: Change, key: str, words: str) -> None:
    error = refusal(change_file(directory, Path(f"records/{record}.yml"), change))
    assert key in str(error)
    assert words in str(error)


def lock(directory: Path, **changes: Any) -> Path:
    revision = load_site(TWIN).spec.models["bge-m3"].revision
    entry = {"revision": revision, "files": {"a": {"sha256": "0" * 64, "bytes": 1}}, **changes}
    (directory / LOCK).write_text(json.dumps({"bge-m3": entry}))
    return directory


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"revision": "0" * 40}, "lock the declared revision again"),
        ({"files": {}}, "locked: false"),
        ({"files": {"a": {"sha256": "x", "bytes": 1}}}, "sha256"),
    ],
)
def test_a_wrong_lock_is_told(directory: Path, changes: dict[str, Any], words: str) -> None:
    assert words in str(refusal(lock(directory, **changes)))


def test_an_unlocked_model_is_valid_but_known_as_such(directory: Path) -> None:
    assert load_site(lock(directory, files={}, locked=False)).lock["bge-m3"].locked is False
    (directory / LOCK).unlink()
    assert load_site(directory).lock == {}


def test_targets_as_the_plan_wrote_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_site(TWIN).spec.targets["soap_p95_s"].restated
    assert load_site(TWIN, targets="plan").spec.targets["soap_p95_s"].restated is None
    monkeypatch.setenv("TARGETS", "plan")
    assert load_site(TWIN).targets_from == "plan"
    monkeypatch.setenv("TARGETS", "plans")
    assert refusal(TWIN).key == "TARGETS"


def test_other_inventories_are_no_sites(tmp_path: Path) -> None:
    assert is_site(TWIN)
    assert not is_site(tmp_path)


def test_reading_a_site_takes_less_than_a_quarter_of_a_second() -> None:
    load_site(TWIN)
    began = time.process_time()
    load_site(TWIN)
    assert time.process_time() - began < 0.25


def test_the_page_lists_every_key() -> None:
    page = (ROOT / "src/gpu_cutover/site/README.md").read_text()
    missing = [name for name in Spec.model_fields if f"`{name}" not in page]
    for name in (
        "Durations",
        "Gates",
        "Power",
        "Network",
        "Driver",
        "Monitoring",
        "Fallback",
        "Model",
        "Route",
        "Tenant",
    ):
        import gpu_cutover.site.model as model

        missing += [f"{name}.{key}" for key in getattr(model, name).model_fields if key not in page]
    assert missing == []


def network(directory: Path, **values: Any) -> InputError:
    return refusal(change_file(directory, SITE_FILE, lambda data: data["site"]["network"].update(values)))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "there are 2 gateways"),
        ("10.87.0.300", "is not an address"),
        ("10.87.0.11", "is the address of gw1"),
        ("10.87.0.1", "is the address of the resolver"),
        ("10.87.0.255", "is no host's address of 10.87.0.0/24"),
        ("10.87.9.10", "is no host's address of 10.87.0.0/24"),
    ],
)
def test_an_address_that_gateways_cannot_share_is_told(directory: Path, value: str | None, words: str) -> None:
    error = network(directory, virtual_address=value)
    assert error.key == "site.network.virtual_address"
    assert words in error.problem


def test_one_gateway_needs_no_shared_address(directory: Path) -> None:
    change_file(directory, Path("hosts.yml"), lambda data: group(data, "gateway")["hosts"].pop("gw2"))
    change_file(directory, Path("records/cabling.yml"), lambda data: data["links"].pop(2))
    change_file(directory, SITE_FILE, lambda data: data["site"]["network"].pop("virtual_address"))
    site = load_site(directory)
    assert site.edge_address() == "10.87.0.11"


def test_a_tenant_with_a_gateways_name_is_refused(directory: Path) -> None:
    def rename(data: dict[str, Any]) -> None:
        data["site"]["tenants"]["doc-zam"]["common_name"] = "gw2.clinic.test"

    assert "name of a gateway" in refusal(change_file(directory, SITE_FILE, rename)).problem
