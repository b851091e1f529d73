"""Verify an audit export: `python verify_audit.py FOLDER`. Needs Python 3.9, `cryptography`, and nothing of ours."""

import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

CHECKPOINT = "gpu-cutover record log, checkpoint 1\n{log}\n{name}\n{t:.3f}\n{covers}\n{head}\n"
wrong: list[str] = []


def check(good: bool, where: object, sentence: str) -> None:
    if not good:
        wrong.append(f"{where}: {sentence}")


def signed(key: Any, signature: bytes, payload: bytes) -> bool:
    try:
        return bool(key.verify(signature, payload) is None)
    except InvalidSignature:
        return False


def ledger(folder: Path) -> dict[tuple[str, ...], Any]:
    """Chain and signatures of the statements; what they keep: {(host, log name, id): (public key, {line: hash})}."""
    key, previous = load_pem_public_key((folder / "ledger.pub").read_bytes()), "0" * 64
    kept: dict[tuple[str, ...], Any] = {}
    for path in sorted(folder.glob("[0-9]*-*.json")):
        envelope = json.loads(path.read_bytes())
        payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"]
        message = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)
        check(
            signed(key, base64.b64decode(envelope["signatures"][0]["sig"]), message), path, "signature does not match"
        )
        predicate = json.loads(payload)["predicate"]
        check(predicate["previous"] == previous, path, "does not follow from the statement before it")
        previous = hashlib.sha256(path.read_bytes()).hexdigest()
        is_checkpoint = "-checkpoint-" in path.name and "accepted" not in predicate["data"]
        for host, logs in predicate["data"].items() if is_checkpoint else ():
            for name, one in logs.items():
                public, heads = kept.setdefault((host, name, one["log"]), (one["public"], {}))
                same = public == one["public"] and heads.setdefault(one["covers"], one["head"]) == one["head"]
                check(same, path, f"contradicts an earlier checkpoint of {host} {name}")
    return kept


def log(folder: Path, public: str, heads: dict[int, str]) -> int:
    """Every line of one log, over all of its files. Returns how many."""
    key, n, h, lines = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)), 0, "", 0
    for path in sorted(folder.glob("*.jsonl")):
        for number, raw in enumerate(path.open("rb"), 1):
            data, where, lines = json.loads(raw), f"{path}:{number}", lines + 1
            if number == 1:
                before = data["n"] - 1, data.get("previous", "0" * 64)
                check(h == "" or before == (n, h), where, "does not continue the file before it")
                n, h = before
            good = hashlib.sha256(h.encode() + raw[:-73]).hexdigest()
            chained = data["n"] == n + 1 and data["h"] == good and raw[-73:] == b',"h":"%b"}\n' % good.encode()
            check(chained, where, "changed, dropped, moved or added, or the line before it was")
            n, h = data["n"], data["h"]
            check(heads.get(n, h) == h, where, "is not the line that the ledger's checkpoint speaks of")
            if data.get("entry") == "checkpoint":
                genuine = signed(key, bytes.fromhex(data["sig"]), CHECKPOINT.format(**data).encode())
                check(genuine, where, "the checkpoint's signature does not match")
    check(n >= max(heads), folder, f"ends at line {n}; the ledger's checkpoint covers {max(heads)}")
    return lines


def main(folder: Path) -> int:
    total, kept = 0, ledger(folder / "evidence")
    here = {path.parts[-3:]: path for path in sorted(folder.glob("logs/*/*/*"))}
    for name in sorted({*here, *kept}):
        check(name in kept, " ".join(name), "the ledger keeps no checkpoint of this log, so nothing proves it")
        check(name in here, " ".join(name), "the ledger speaks of this log, and it is not here")
        try:
            total += log(here[name], *kept[name]) if name in here and name in kept else 0
        except (ValueError, KeyError, TypeError) as error:
            check(False, " ".join(name), f"holds something that is no line of a log: {error!r}")
    print("\n".join(wrong) or f"whole: {total} lines of {len(here)} logs")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
