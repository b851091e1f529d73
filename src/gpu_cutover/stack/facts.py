"""What really runs on a GPU host and on a gateway, asked from the outside: sockets, units, environments. Never raises.

Every probe has a bound in seconds. What could not be read is told as `error` with the reason, never guessed.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import pwd
import re
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

PROBE_S = 5.0
REFUSED = "refused"
NO_ROUTER = b"no router is ready"  # in the edge's own 503, role edge
SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)", re.IGNORECASE)
# Made at every start and known to nobody: it opens nothing outside its own process.
OWN_SECRETS = frozenset({"LITELLM_MASTER_KEY"})


def told(error: Exception) -> str:
    """An exception as a short sentence."""
    return f"{type(error).__name__}: {error}"


def get_json(url: str, timeout_s: float = PROBE_S) -> Any:
    """GET a JSON document (None for an empty 200). Raises OSError, ValueError, HTTPException."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout_s)
    try:
        connection.request("GET", parts.path or "/")
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(f"{url} answered {answer.status}")
    return json.loads(body) if body.strip() else None


def wait_for(probe: Callable[[], Any], bound_s: float, pause_s: float = 0.2) -> tuple[Any, str]:
    """Repeat a probe until it does not raise; (its value, "") or (None, the last reason) when `bound_s` are over."""
    deadline = time.monotonic() + bound_s
    while True:
        try:
            return probe(), ""
        except (OSError, ValueError, KeyError, IndexError, TypeError, http.client.HTTPException) as error:
            if time.monotonic() >= deadline:
                return None, told(error)
        time.sleep(pause_s)


# --- engines ---------------------------------------------------------------------------------------------------------


def _vllm(url: str, model: str) -> dict[str, Any]:
    served = [entry["id"] for entry in get_json(f"{url}/v1/models")["data"]]
    return {
        "model_id": served[0] if len(served) == 1 else ", ".join(served),
        "version": get_json(f"{url}/version")["version"],
    }


def _triton(url: str, model: str) -> dict[str, Any]:
    get_json(f"{url}/v2/models/{model}/ready")
    return {"model_id": get_json(f"{url}/v2/models/{model}")["name"], "version": get_json(f"{url}/v2")["version"]}


def engine(kind: str, url: str, model: str, bound_s: float) -> dict[str, Any]:
    """What an engine says of itself: `model_id`, `version`, `waited_s`; or `error`."""
    ask = _vllm if kind == "vllm" else _triton
    started = time.monotonic()
    value, why = wait_for(lambda: ask(url, model), bound_s)
    answer: dict[str, Any] = value or {"error": why}
    return answer | {"waited_s": round(time.monotonic() - started, 2)}


def engines(wanted: Mapping[str, Mapping[str, str]], bound_s: float) -> dict[str, dict[str, Any]]:
    """All engines at once; `wanted` is model → {kind, url}."""
    with ThreadPoolExecutor(max(1, len(wanted))) as pool:
        asked = {model: pool.submit(engine, e["kind"], e["url"], model, bound_s) for model, e in wanted.items()}
        return {model: future.result() for model, future in asked.items()}


# --- units -----------------------------------------------------------------------------------------------------------


def units(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """ActiveState, UnitFileState, MainPID, NRestarts and the sandbox of units."""
    listed = sorted(names)
    if not listed:
        return {}
    properties = "Id,ActiveState,UnitFileState,MainPID,NRestarts,IPAddressDeny"
    try:
        command = ["systemctl", "show", "--property", properties, "--", *listed]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return {name: {"error": told(error)} for name in listed}
    blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in done.stdout.split("\n\n")]
    found = {block["Id"]: block for block in blocks if "Id" in block}
    return {name: found.get(name, {"error": "systemd does not know it"}) for name in listed}


def secret_names(pid: str) -> dict[str, Any]:
    """Names (never values) of what looks like a secret in a process's environment; `error` when it cannot be read."""
    try:
        entries = Path(f"/proc/{int(pid)}/environ").read_bytes().split(b"\0")
    except (OSError, ValueError) as error:
        return {"error": told(error)}
    names = {entry.split(b"=", 1)[0].decode(errors="replace") for entry in entries if entry}
    return {"names": sorted(name for name in names if SECRET_NAME.search(name) and name not in OWN_SECRETS)}


# --- the edge --------------------------------------------------------------------------------------------------------


def _whole(tls: ssl.SSLSocket) -> bytes:
    """The answer until its end. A refused certificate is an error at the first byte; later, an abrupt end is an end."""
    answer = b""
    while True:
        try:
            part = tls.recv(4096)
        except OSError:
            if not answer:
                raise
            return answer
        if not part:
            return answer
        answer += part


def edge_answer(address: str, port: int, ca: str, certificate: str | None, method: str, path: str) -> int | str:
    """The edge's HTTP status for an empty request; `refused` when TLS is; `unreachable: …` when nobody answers."""
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = False  # reached by address; the chain is still verified
    if certificate:
        context.load_cert_chain(certificate)
    try:
        raw = socket.create_connection((address, port), PROBE_S)
    except OSError as error:
        return f"unreachable: {told(error)}"
    try:
        with raw, context.wrap_socket(raw) as tls:
            request = f"{method} {path} HTTP/1.1\r\nhost: probe\r\ncontent-length: 2\r\nconnection: close\r\n"
            tls.sendall(f"{request}content-type: application/json\r\n\r\n{{}}".encode())
            answer = _whole(tls)
    except TimeoutError as error:
        return f"unreachable: {told(error)}"
    except (ssl.SSLError, OSError):
        return REFUSED
    if NO_ROUTER in answer:
        return "no router"
    match = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
    return int(match[1]) if match else REFUSED


@contextlib.contextmanager
def foreign_certificate(common_name: str) -> Any:
    """Path of a certificate with a tenant's name, not signed by us. Raises OSError, SubprocessError."""
    with tempfile.TemporaryDirectory(prefix="foreign-") as directory:
        key, certificate, both = (Path(directory) / name for name in ("key", "crt", "pem"))
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
             "-subj", f"/CN={common_name}", "-keyout", str(key), "-out", str(certificate)],
            capture_output=True, check=True, timeout=20,
        )  # fmt: skip
        both.write_bytes(certificate.read_bytes() + key.read_bytes())
        yield str(both)


def edge(address: str, port: int, ca: str, certificate: str, tenant_cn: str, path: str) -> dict[str, Any]:
    """Who gets in: no certificate, a foreign one, an unknown path, GET, and the synthetic tenant as it should be."""

    def ask(with_certificate: str | None, method: str = "POST", at: str = path) -> int | str:
        return edge_answer(address, port, ca, with_certificate, method, at)

    try:
        answers: dict[str, Any] = {
            "good": ask(certificate),
            "no_certificate": ask(None),
            "unknown_path": ask(certificate, at="/v1/models"),
            "get": ask(certificate, method="GET"),
        }
        with foreign_certificate(tenant_cn) as foreign:
            answers["foreign_authority"] = ask(foreign)
    except (OSError, subprocess.SubprocessError, ssl.SSLError) as error:
        return {"error": told(error)}
    return answers


def certificate_days(address: str, port: int, ca: str, certificate: str, now: float) -> float | None:
    """Days that the certificate an edge really shows is still good for; None when it shows none."""
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = False
    try:
        context.load_cert_chain(certificate)
        with socket.create_connection((address, port), PROBE_S) as raw, context.wrap_socket(raw) as tls:
            ends = (tls.getpeercert() or {}).get("notAfter")
    except (OSError, ssl.SSLError):
        return None
    return round((ssl.cert_time_to_seconds(str(ends)) - now) / 86400, 1) if ends else None


def shared_address(shared: str, answer: Callable[[], int | str], bound_s: float) -> dict[str, Any]:
    """Is the shared address on this host, and what does the edge behind it answer? Waits for one to take it."""
    deadline = time.monotonic() + bound_s
    while str(answered := answer()).startswith("unreachable") and time.monotonic() < deadline:
        time.sleep(0.25)
    try:
        shown = subprocess.run(["ip", "-json", "-4", "address"], capture_output=True, text=True, timeout=5, check=True)
        own = {one["local"] for link in json.loads(shown.stdout) for one in link.get("addr_info", []) if "local" in one}
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        return {"answered": answered, "error": told(error)}
    return {"answered": answered, "held": shared in own}


# --- the seal --------------------------------------------------------------------------------------------------------


def connect_as(user: str, address: str, port: int) -> str:
    """`connected`, `refused` or `silent`: what a connection of this user comes to; `error: …` when not tried."""
    code = (
        "import socket,sys\n"
        "try: socket.create_connection((sys.argv[1], int(sys.argv[2])), 3).close(); print('connected')\n"
        "except TimeoutError: print('silent')\n"
        "except OSError: print('refused')\n"
    )
    return _as_user(user, ["/usr/bin/python3", "-I", "-c", code, address, str(port)])


def post_as(user: str, url: str) -> str:
    """The HTTP status (as text) that a user's empty POST gets; or why there is none."""
    code = (
        "import http.client,sys,urllib.parse\n"
        "u=urllib.parse.urlsplit(sys.argv[1]); c=http.client.HTTPConnection(u.hostname,u.port,timeout=10)\n"
        "try: c.request('POST',u.path,b'{}',{'content-type':'application/json'}); print(c.getresponse().status)\n"
        "except OSError as e: print('refused')\n"
    )
    return _as_user(user, ["/usr/bin/python3", "-I", "-c", code, url])


def _as_user(user: str, command: list[str]) -> str:
    try:
        entry = pwd.getpwnam(user)
        become = ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", "--"]
        done = subprocess.run([*become, *command], capture_output=True, text=True, timeout=20, check=True)
    except (KeyError, OSError, subprocess.SubprocessError) as error:
        return f"error: {told(error)}"
    return done.stdout.strip() or "error: no answer"


def addresses(host: str) -> list[str]:
    """IPv4 addresses of a name; empty when it does not resolve."""
    try:
        return sorted({str(info[4][0]) for info in socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)})
    except OSError:
        return []


def foreign_bases(config: str, allowed: Iterable[str]) -> list[str]:
    """Hosts of every URL in a configuration that are not among the allowed addresses."""
    hosts = {urllib.parse.urlsplit(url).hostname or "" for url in re.findall(r"https?://[^\s\"']+", config)}
    return sorted(hosts - set(allowed))


def file_digest(path: Path) -> str | None:
    """sha256 of a file, None when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def is_absent(path: Path) -> bool:
    """Is there really no such file (a file that cannot be seen counts as there)?"""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False
