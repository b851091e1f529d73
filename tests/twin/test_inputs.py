"""What the lab reads: the inventory, the machine's package sources, the cabling record. No host is booted here."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_cutover.errors import InputError
from gpu_cutover.twin import access, base, hosts, lab, lldp, ntp, services

ROOT = Path(__file__).parents[2]

DEB822 = """# comment
Types: deb
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://mirror.test/debian-security
Suites: bookworm-security
Components: main

Types: deb
URIs: http://tools.test/repo
Suites: nodistro
Components: main

Enabled: no
Types: deb
URIs: http://off.test/debian
Suites: bookworm
Components: main
"""


def test_only_the_machines_sources_of_the_same_distribution_are_used_with_the_wanted_suite() -> None:
    one_line = "deb [arch=amd64] http://ports.test/debian bookworm-backports main # why\ndeb-src http://x.test a b\n"
    found = base.sources_for("trixie", {"a.sources": DEB822, "b.list": one_line}).splitlines()
    signed = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    assert found == [
        f"deb {signed} http://mirror.test/debian trixie main contrib",
        f"deb {signed} http://mirror.test/debian trixie-updates main contrib",
        "deb http://mirror.test/debian-security trixie-security main",
        "deb [arch=amd64] http://ports.test/debian trixie-backports main",
    ]


def test_an_ubuntu_machine_has_no_source_for_debian_hosts_but_one_for_its_own() -> None:
    ubuntu = {"u.sources": DEB822.replace("bookworm", "noble")}
    assert base.sources_for("bookworm", ubuntu) == ""
    assert "noble-security" in base.sources_for("noble", ubuntu)


def test_an_unknown_suite_is_refused() -> None:
    with pytest.raises(InputError, match="one of bullseye, bookworm"):
        base.family_of("potato")


def test_another_package_list_is_another_tree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GPU_CUTOVER_CACHE", str(tmp_path))
    before = base.tree_path("bookworm")
    assert before.parent == tmp_path / "base"
    monkeypatch.setattr(base, "PACKAGES", (*base.PACKAGES, "jq"))
    assert base.tree_path("bookworm") != before


def test_missing_tools_are_named_with_the_line_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda tool: None if tool in ("mmdebstrap", "dnsmasq") else f"/bin/{tool}")
    with pytest.raises(InputError, match="apt-get install --no-install-recommends dnsmasq-base mmdebstrap"):
        base.check_machine()


def test_without_root_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(InputError, match="needs root"):
        base.check_machine()


@pytest.mark.parametrize(("now", "after"), [("128", "1024"), ("1024", "1024"), ("8192", "8192")])
def test_a_low_inotify_limit_is_raised_and_a_high_one_is_left_alone(tmp_path: Path, now: str, after: str) -> None:
    limit = tmp_path / "max_user_instances"
    limit.write_text(f"{now}\n")
    said = base.allow_inotify_instances(1024, limit)
    assert limit.read_text().strip() == after
    assert (said is not None) == (now != after)


def test_an_inotify_limit_that_cannot_be_raised_is_said_with_the_line_that_does(tmp_path: Path) -> None:
    class ReadOnly:
        def read_text(self) -> str:
            return "128\n"

        def write_text(self, text: str) -> None:
            raise PermissionError(13, "Read-only file system")

    with pytest.raises(InputError, match=r"sysctl -w fs\.inotify\.max_user_instances=1024"):
        base.allow_inotify_instances(1024, ReadOnly())  # type: ignore[arg-type]


def test_the_twins_own_inventory_has_the_hosts_of_the_architecture() -> None:
    found = lab.read_hosts(ROOT / "inventory" / "twin" / "hosts.yml")
    assert {host.name: host.address for host in found.values()} == {
        "gpu1": "10.87.0.21",
        "gw1": "10.87.0.11",
        "gw2": "10.87.0.12",
        "mon1": "10.87.0.31",
        "cloud": "10.87.0.41",
        "clinic": "10.87.0.51",
    }
    assert found["cloud"].aliases == ("api.openai.com", "api.cohere.com")


def test_the_twins_names_are_those_its_site_declares() -> None:
    twin = lab.load_lab(ROOT / "inventory" / "twin")
    declared = twin.site["network"]
    config = services.dnsmasq_config(twin).splitlines()
    assert f"host-record={declared['edge_name']},{declared['virtual_address']}" in config
    assert f"address=/{declared['bmc'].removeprefix('https://')}/10.87.0.1" in config


def test_the_twins_wiring_is_its_cabling_record() -> None:
    site = ROOT / "inventory" / "twin"
    said = services.wiring(lab.load_lab(site), services.read_cables(site / "records" / "cabling.yml"))
    assert said["ports"]["v-gpu1"] == {"port": "Ethernet1/21", "description": "gpu1 eth0"}


def test_a_time_answer_returns_the_askers_stamp_and_this_clock() -> None:
    asked = b"\x1b" + bytes(39) + b"ASKED-AT"
    answer = ntp.reply(asked, 1000.0, 1000.5)
    assert answer is not None
    assert answer[0] == 0x1C  # version 3, server
    assert answer[24:32] == b"ASKED-AT"
    assert int.from_bytes(answer[40:44], "big") - ntp.EPOCH_1900 == 1000
    assert answer[44] == 0x80  # half a second
    assert ntp.reply(b"short", 0, 0) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("gpu: {hosts: {gpu1: {ansible_host: 10.87.0.999}}}", "not an IPv4 address"),
        ("gpu: {hosts: {gpu1: {ansible_host: [10]}}}", "not an IPv4 address"),
        ("gpu: {hosts: {a-very-long-host-name: {ansible_host: 10.87.0.2}}}", "cannot be a host's name"),
        ("gpu: {hosts: {../../x: {ansible_host: 10.87.0.2}}}", "cannot be a host's name"),
        ("gpu: {hosts: {a: {ansible_host: 10.87.0.2}, b: {ansible_host: 10.87.0.2}}}", "the same address"),
        ("gpu: {hosts: {a: }}", "no host has an address"),
        ("- gpu", "not a mapping"),
        ("gpu: [", "expected"),
        ("gpu: {hosts: [gpu1]}", "not a mapping"),
        ("gpu: {children: gpu1}", "not a mapping"),
    ],
)
def test_a_wrong_inventory_is_refused_with_file_and_key(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "hosts.yml").write_text(text)
    with pytest.raises(InputError, match=problem) as refusal:
        lab.load_lab(tmp_path)
    assert refusal.value.file.endswith("hosts.yml")


def test_a_missing_site_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        lab.load_lab(tmp_path)


def test_the_labs_name_follows_the_real_path_and_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TWIN_LAB", raising=False)
    (tmp_path / "site").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "site")
    assert lab.lab_name(tmp_path / "site") == lab.lab_name(tmp_path / "link")
    assert lab.LAB_NAME.fullmatch(lab.lab_name(tmp_path / "site"))
    monkeypatch.setenv("TWIN_LAB", "mine")
    assert lab.lab_name(tmp_path) == "mine"
    monkeypatch.setenv("TWIN_LAB", "../mine")
    with pytest.raises(InputError, match="cannot name a lab"):
        lab.lab_name(tmp_path)


def small_lab(site: Path) -> lab.Lab:
    members = {"gpu1": lab.Host("gpu1", "10.87.0.21"), "cloud": lab.Host("cloud", "10.87.0.41", ("api.x.test",))}
    return lab.Lab("tw1", site, {}, members)


def test_the_resolver_knows_every_host_and_asks_nobody(tmp_path: Path) -> None:
    config = services.dnsmasq_config(small_lab(tmp_path)).splitlines()
    assert "host-record=gpu1.clinic.test,gpu1,10.87.0.21" in config
    assert "address=/api.x.test/10.87.0.41" in config
    assert {"no-resolv", "no-hosts", "local=/#/"} <= set(config)


def test_the_wiring_says_what_the_cabling_record_says(tmp_path: Path) -> None:
    cables = [{"host": "gpu1", "port": "eth0", "switch": "leaf1", "switch_port": "Ethernet1/21"}, {"host": "other"}]
    assert services.wiring(small_lab(tmp_path), cables) == {
        "switch": "leaf1",
        "ports": {
            "v-gpu1": {"port": "Ethernet1/21", "description": "gpu1 eth0"},
            "v-cloud": {"port": "Ethernet1/2", "description": "cloud eth0"},
        },
    }


def test_an_lldp_frame_is_what_the_standard_says() -> None:
    sent = lldp.frame(bytes(6), "leaf1", "Ethernet1/21", "gpu1 eth0")
    assert sent[:14].hex() == "0180c200000e" + "00" * 6 + "88cc"
    elements, rest = {}, sent[14:]
    while rest[0] or rest[1]:
        kind, size = rest[0] >> 1, (rest[0] & 1) << 8 | rest[1]
        elements[kind], rest = rest[2 : 2 + size], rest[2 + size :]
    assert elements[2] == b"\x05Ethernet1/21"
    assert elements[4] == b"gpu1 eth0"
    assert elements[5] == b"leaf1"
    assert len(sent) >= 60


def test_the_ssh_configuration_checks_host_keys_and_names_the_sites_own_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWIN_LAB", "other")
    text = access.ssh_config(small_lab(tmp_path), "/usr/bin/python3")
    assert "StrictHostKeyChecking yes" in text
    assert f"{lab.own_name(tmp_path)} %h %p" in text
    assert "Host gpu1 gpu1.clinic.test 10.87.0.21" in text


def test_a_laid_file_gives_its_directories_the_modes_of_the_base(tmp_path: Path) -> None:
    upper, tree = tmp_path / "upper", tmp_path / "base"
    (tree / "root").mkdir(parents=True)
    (tree / "root").chmod(0o700)
    upper.mkdir()
    hosts.lay(upper, tree, "/root/new/file", b"x", 0o600)
    assert [oct((upper / path).stat().st_mode & 0o777) for path in ("root", "root/new", "root/new/file")] == [
        "0o700",
        "0o755",
        "0o600",
    ]
