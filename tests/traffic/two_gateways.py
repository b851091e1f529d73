"""A site with two gateways on loopback: real `gpu-cutover-route` processes behind SSH servers made of paramiko's own
ServerInterface. Those servers stand in for sshd: real handshake, host keys and public-key login; no users, no PAM."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import paramiko
import yaml

from gpu_cutover.evidence.records import Record, read_status
from gpu_cutover.traffic.session import COMMAND
from router.gateway import Gateway
from router.tables import table, tenant

ROOT = Path(__file__).parents[2]
TENANTS = {
    "doc-zam": tenant(chat="onprem", audio="onprem"),
    "klinik-seri": tenant(chat="onprem", embed="mirror"),
    "klinik-harmoni": tenant("cloud_only", chat="cloud"),
    "drill": tenant(chat="off"),
}
SEALED = {"klinik-amanah": tenant("sensitive", chat="onprem", audio="onprem")}
ADDRESSES = {"gw1": "127.0.0.1", "gw2": "127.0.0.2"}
SHARED = "127.0.0.10"


class Door(paramiko.ServerInterface):
    """Lets one key in and runs the gateway's program for it."""

    def __init__(self, server: SshServer) -> None:
        self.server = server

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_SUCCESSFUL if key == self.server.client_key else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        assert command.decode() == COMMAND
        threading.Thread(target=self.server.serve, args=(channel,), daemon=True).start()
        return True


class SshServer:
    """One gateway's SSH port. `trouble`: hang (answers to writes never come), dies (killed instead of writing)."""

    def __init__(
        self, address: str, gateway: Gateway, client_key: paramiko.PKey, listening: socket.socket | None = None
    ) -> None:
        self.gateway, self.client_key, self.trouble = gateway, client_key, ""
        self.host_key = paramiko.ECDSAKey.generate()
        self.listening = listening or socket.create_server((address, 0))
        self.port = self.listening.getsockname()[1]
        self.transports: list[paramiko.Transport] = []
        self.orders: list[dict[str, Any]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError, paramiko.SSHException, EOFError):
            while True:
                connection, _ = self.listening.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                transport = paramiko.Transport(connection)
                transport.add_server_key(self.host_key)
                self.transports.append(transport)
                with suppress(paramiko.SSHException, EOFError):
                    transport.start_server(event=threading.Event(), server=Door(self))

    def serve(self, channel: paramiko.Channel) -> None:
        command = [sys.executable, "-m", "gpu_cutover.router.route", "serve", *self.gateway.arguments()]
        with (
            channel,
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PYTHONPATH": str(ROOT / "src")}
            ) as process,
        ):
            assert process.stdin and process.stdout
            for line in channel.makefile("rb"):
                order = json.loads(line)
                self.orders.append(order)
                writes = order.get("write") is True
                if writes and self.trouble == "dies":
                    process.kill()
                    break
                process.stdin.write(line)
                process.stdin.flush()
                answer = process.stdout.readline()
                self.carried_out(order)
                if not (writes and self.trouble == "hangs"):
                    with suppress(OSError):  # whoever asked is gone
                        channel.sendall(answer)
            process.stdin.close()

    def carried_out(self, order: dict[str, Any]) -> None:
        """The gateway's program has answered; nobody was told yet."""

    def stop(self) -> None:
        with suppress(OSError):
            self.listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self.listening.close()
        for transport in self.transports:
            transport.close()


class Site:
    """A site directory whose two gateways answer on loopback."""

    def __init__(self, folder: Path) -> None:
        self.directory = folder / "site"
        shutil.copytree(
            ROOT / "inventory" / "twin",
            self.directory,
            ignore=shutil.ignore_patterns(".state", "evidence", "connection.yml", "stand_ins.yml"),
        )
        self.key = paramiko.ECDSAKey.generate()
        key_file = folder / "key"
        self.key.write_private_key_file(str(key_file))
        self.gateways = {name: gateway_in(folder / name) for name in ADDRESSES}
        self.servers = {name: SshServer(address, self.gateways[name], self.key) for name, address in ADDRESSES.items()}
        self._declare(key_file)
        self.know({name: server.host_key for name, server in self.servers.items()})

    def _declare(self, key_file: Path) -> None:
        gateways = {name: {"ansible_host": ADDRESSES[name], "ansible_port": s.port} for name, s in self.servers.items()}
        groups = {
            "gpu": {"hosts": {"gpu1": {"ansible_host": "192.0.2.21"}}},
            "gateway": {"hosts": gateways},
            "monitor": {"hosts": {"mon1": {"ansible_host": "192.0.2.31"}}},
        }
        write(self.directory / "hosts.yml", {"site_hosts": {"children": groups}})
        declared = self.directory / "group_vars" / "all" / "site.yml"
        site = yaml.safe_load(declared.read_text())
        site["site"]["network"]["virtual_address"] = SHARED
        write(declared, site)
        links = [
            {"host": name, "port": "eth0", "switch": "sw1", "switch_port": f"e{number}", "gbit_s": 25}
            for number, name in enumerate(("gpu1", "mon1", *ADDRESSES))
        ]
        write(self.directory / "records" / "cabling.yml", {"links": links})
        known = "-o StrictHostKeyChecking=yes -o UserKnownHostsFile={{ inventory_dir }}/records/known_hosts"
        connection = {
            "ansible_user": "root",
            "ansible_ssh_common_args": f"-F /dev/null {known} -o GlobalKnownHostsFile=/dev/null -o IdentitiesOnly=yes",
            "ansible_ssh_private_key_file": str(key_file),
        }
        write(self.directory / "group_vars" / "all" / "connection.yml", connection)

    def know(self, keys: dict[str, paramiko.PKey]) -> None:
        """Record host keys, as a person does from each machine's console."""
        lines = [
            f"[{ADDRESSES[name]}]:{self.servers[name].port} {key.get_name()} {key.get_base64()}\n"
            for name, key in keys.items()
        ]
        (self.directory / "records" / "known_hosts").write_text("".join(lines))

    def records(self) -> list[Record]:
        return read_status(self.directory)

    def states(self, pool: str = "hybrid") -> dict[str, dict[str, dict[str, str]]]:
        return {name: gateway.states(pool) for name, gateway in self.gateways.items()}

    def stop(self) -> None:
        for name, server in self.servers.items():
            server.stop()
            self.gateways[name].stop()


def gateway_in(folder: Path) -> Gateway:
    """A gateway whose tables hold the tenants of the twin's site."""
    gateway = Gateway(folder)
    fill(gateway)
    return gateway


def fill(gateway: Gateway) -> None:
    """Its tables as they were at first."""
    for pool, tenants in (("hybrid", TENANTS), ("sealed", SEALED)):
        raw = table(pool, onprem=gateway.engine.url, cloud=gateway.cloud.url, tenants=tenants)
        gateway.place.table(pool).write_text(json.dumps(raw, indent=1, sort_keys=True) + "\n")


def write(path: Path, data: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(data))


@contextmanager
def running_site(folder: Path) -> Iterator[Site]:
    site = Site(folder)
    try:
        yield site
    finally:
        site.stop()
