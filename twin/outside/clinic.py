#!/usr/bin/python3
"""The clinics: every tenant's traffic to the edge, each with its own client certificate.

Imitates: six kinds of request at the edge's paths, in changing content and order, over kept-alive mTLS connections;
a tenant without a
certificate is silent, an edge that is not there is asked again after two seconds. `/etc/twin/clinic.json` is read
again every
second: {"edge": URL, "rate_per_s": n, "tenants": {name: share}, "routes": {name: weight}, "paused": bool, "sni": name}.
Every answer is a line of `/var/lib/twin/clinic.jsonl`: t, tenant, route, status, served_by, ms, error. Every
request says `tenant=NAME` in
its text, so that the cloud stand-in can count leaks.
Does NOT imitate: people, real speech or pictures, bursts, long conversations; notes are short so that a rehearsal
is quick.
Standard library only.
"""

from __future__ import annotations

import base64
import http.client
import json
import random
import ssl
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CONFIG = Path("/etc/twin/clinic.json")
KEYS = Path("/etc/twin/pki")
BOOK = Path("/var/lib/twin/clinic.jsonl")
LARGEST_LOG = 32 * 2**20
MOST_AT_ONCE = 24
MOST_PER_SECOND = 50.0
TIMEOUT_S = 60.0
PAUSE_AFTER_FAILURE_S = 2.0
BOUNDARY = "twin-clip-boundary"

COMPLAINTS = (
    "a dry cough for five days",
    "pain in the left knee",
    "dizziness in the morning",
    "chest tightness on exertion",
)
MEDICINES = ("metformin 500 mg", "lisinopril 10 mg", "ibuprofen 400 mg", "amoxicillin 250 mg", "atorvastatin 20 mg")
PASSAGES = (
    "metformin is the first choice in type two diabetes and is continued while renal function is stable",
    "a dry cough is a known effect of lisinopril and other drugs of this class",
    "dressing of a clean wound is changed every second day until the skin has closed",
    "the vaccination calendar for children lists the doses by month of age",
)
# Three texts that are alike in clearly different degrees: 7, 5 and 3 words in common, pair by pair.
VOCABULARY = [
    *("metformin", "cough", "fever", "knee", "wound", "dressing", "renal", "glucose"),
    *("pressure", "dose", "daily", "evening", "tablet", "vaccination", "calendar"),
]
OVERLAPS = (range(10), (0, 1, 2, 3, 4, 5, 6, 10, 11, 12), (0, 1, 2, 10, 11, 13, 14))
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def request_of(route: str, tenant: str, dice: random.Random) -> tuple[str, dict[str, str], bytes]:
    """Path, headers and body of one request."""
    who = f"tenant={tenant} case {dice.randrange(10_000)}."
    if route == "audio":
        return "/audio", {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}, clip(who, dice)
    if route == "embed":
        data: dict[str, Any] = {"model": "embed", "user": tenant, "input": texts(who, dice)}
    elif route == "rerank":
        query = f"{who} {dice.choice(MEDICINES)} with {dice.choice(COMPLAINTS)}"
        data = {"model": "rerank", "query": query, "documents": dice.sample(PASSAGES, 4), "top_n": 4}
    else:
        data = {"model": route, "user": tenant, "messages": messages(route, who, dice), "temperature": 0}
        if dice.random() < 0.5:
            data |= {"stream": True, "stream_options": {"include_usage": True}}
    headers = {"Content-Type": "application/json"}
    if route == "soap":
        headers["x-workload"] = "soap"
    return f"/{'chat' if route == 'soap' else route}", headers, json.dumps(data).encode()


def texts(who: str, dice: random.Random) -> list[str]:
    """Three inputs to embed, in changing words."""
    words = dice.sample(VOCABULARY, len(VOCABULARY))
    return [" ".join([who, *(words[place] for place in places)]) for places in OVERLAPS]


def messages(route: str, who: str, dice: random.Random) -> list[dict[str, Any]]:
    """A short conversation of the route's kind."""
    complaint, medicine = dice.choice(COMPLAINTS), dice.choice(MEDICINES)
    if route == "soap":
        pressure = f"{dice.randrange(110, 150)}/{dice.randrange(65, 95)}"
        told = f"{who} Patient reports {complaint}. Blood pressure {pressure}. Takes {medicine} daily. Denies fever."
        return [{"role": "system", "content": "Write a SOAP note."}, {"role": "user", "content": told}]
    if route == "vision":
        picture = {"type": "image_url", "image_url": {"url": PIXEL}}
        text = {"type": "text", "text": f"{who} Give the fields of this document as JSON."}
        return [{"role": "user", "content": [text, picture]}]
    question = "Which interactions matter" if route == "reason" else "What should be watched"
    return [{"role": "user", "content": f"{who} {question} for a patient with {complaint} who takes {medicine}"}]


def clip(who: str, dice: random.Random) -> bytes:
    """A multipart upload: a second of noise as a WAV file, and the tenant in the prompt."""
    sound = dice.randbytes(32_000)
    size = (36 + len(sound)).to_bytes(4, "little")
    pcm = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16)  # 16 kHz, mono, 16 bit
    wav = b"RIFF" + size + b"WAVE" + pcm + b"data" + len(sound).to_bytes(4, "little") + sound
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="model"\r\n\r\naudio\r\n'.encode(),
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n{who}\r\n'.encode(),
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="clip.wav"\r\n'.encode(),
        b"Content-Type: audio/wav\r\n\r\n",
    ]
    return b"".join(parts) + wav + f"\r\n--{BOUNDARY}--\r\n".encode()


class Clinic:
    """Connections per thread and tenant, the log, the pause after a failed connection."""

    def __init__(self, book: Path, keys: Path) -> None:
        self._book, self._keys = book, keys
        self._file = book.open("a", buffering=1)
        self._lock, self._local = threading.Lock(), threading.local()
        self.resume_at = 0.0

    def has_certificate(self, tenant: str) -> bool:
        """Has the site delivered this tenant's certificate?"""
        return all((self._keys / name).exists() for name in (f"{tenant}.crt", f"{tenant}.key", "ca.pem"))

    def note(self, **entry: Any) -> None:
        """One line of the log."""
        with self._lock:
            if self._file.tell() > LARGEST_LOG:
                self._file.close()
                self._book.replace(self._book.with_suffix(".jsonl.1"))
                self._file = self._book.open("a", buffering=1)
            self._file.write(json.dumps(entry) + "\n")

    def _connection(self, edge: str, tenant: str) -> http.client.HTTPSConnection:
        mark = (self._keys / f"{tenant}.crt").stat().st_mtime_ns
        held = getattr(self._local, "held", None)
        if held is None:
            held = self._local.held = {}
        known = held.get((edge, tenant))
        if known and known[0] == mark:
            found: http.client.HTTPSConnection = known[1]
            return found
        context = ssl.create_default_context(cafile=str(self._keys / "ca.pem"))
        context.load_cert_chain(self._keys / f"{tenant}.crt", self._keys / f"{tenant}.key")
        parts = urlsplit(edge)
        made = http.client.HTTPSConnection(parts.hostname or "", parts.port or 443, timeout=TIMEOUT_S, context=context)
        held[edge, tenant] = (mark, made)
        return made

    def send(self, edge: str, tenant: str, route: str, seed: int) -> None:
        """One request; its outcome is logged, whatever it is."""
        path, headers, body = request_of(route, tenant, random.Random(seed))
        began, entry = time.monotonic(), {"t": round(time.time(), 3), "tenant": tenant, "route": route}
        try:
            connection = self._connection(edge, tenant)
            fresh = connection.sock is None
            try:
                status, served_by = self._exchange(connection, path, headers, body)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
                connection.close()
                if fresh:
                    raise
                status, served_by = self._exchange(
                    connection, path, headers, body
                )  # closed while idle, by the edge or because the address has moved to another gateway
            entry |= {"status": status, "served_by": served_by}
        except (OSError, http.client.HTTPException, ssl.SSLError) as error:
            connection_failed = getattr(self._local, "held", {}).pop((edge, tenant), None)
            if connection_failed:
                connection_failed[1].close()
            entry |= {"status": 0, "error": f"{type(error).__name__}: {error}"[:120]}
            self.resume_at = time.monotonic() + PAUSE_AFTER_FAILURE_S
        self.note(**entry, ms=round((time.monotonic() - began) * 1000, 1))

    @staticmethod
    def _exchange(
        connection: http.client.HTTPSConnection, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, str | None]:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        while response.read(65536):
            pass
        return response.status, response.headers.get("x-served-by")


def choose(weights: dict[str, float], dice: random.Random) -> str:
    """One name, by weight."""
    return dice.choices(list(weights), [max(0.0, float(weight)) for weight in weights.values()])[0]


def run(clinic: Clinic, config: Path, seed: int) -> None:
    """Send at the configured rate until ended."""
    dice = random.Random(seed)
    with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
        free = threading.BoundedSemaphore(MOST_AT_ONCE)
        while True:
            try:
                wanted = json.loads(config.read_text())
            except (OSError, ValueError):
                wanted = {"paused": True}
            tenants = {name: share for name, share in wanted.get("tenants", {}).items() if clinic.has_certificate(name)}
            rate = min(MOST_PER_SECOND, float(wanted.get("rate_per_s", 0)))
            ends = time.monotonic() + 1.0
            while time.monotonic() < ends:
                idle = wanted.get("paused") or not tenants or rate <= 0 or time.monotonic() < clinic.resume_at
                if not idle and free.acquire(timeout=1.0):
                    future = pool.submit(
                        clinic.send,
                        wanted["edge"],
                        choose(tenants, dice),
                        choose(wanted["routes"], dice),
                        dice.getrandbits(48),
                    )
                    future.add_done_callback(lambda _: free.release())
                time.sleep(0.2 if idle else 1.0 / rate)


def main() -> int:
    """Run until ended."""
    BOOK.parent.mkdir(parents=True, exist_ok=True)
    run(Clinic(BOOK, KEYS), CONFIG, seed=int.from_bytes(base64.b64decode("dHdpbg=="), "big"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
