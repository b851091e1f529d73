"""`audit export`: one file for an auditor, who needs nothing of ours to check it but Python and `cryptography`."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

from ..evidence.records import FOLDER as EVIDENCE
from ..evidence.records import read_status
from ..router.log_key import verifies
from . import store
from .kept import kept_checkpoints
from .proof import Proof, moment

SCRIPT = Path(__file__).with_name("verify_audit.py")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same evidence gives the same bytes
README = """# Audit export of the site {site}

{lines} lines of {logs} logs of request records, the site's ledger ({records} records), and a script that checks both.

    unzip {name}
    pip install cryptography        # or any Python that has it
    python verify_audit.py .        # exit code 0: whole; 1: not, and it says where

What is here
* `logs/<gateway>/<log>/<id>/<first line>.jsonl`: one JSON object per attempt: when, tenant, route, leg (cloud, onprem),
  why, model, weights digest, GPUs, outcome, times, digest of the request. No content of any request or answer.
* `evidence/`: the ledger, signed statements that each name the digest of the one before. Those of the kind `checkpoint`
  say how many lines every log had at their time and the hash of the last of them, with the public key of that log.
* `aside/`: torn ends that a gateway set aside after a crash. `findings.txt`: what this tool's own verification said.

What the script proves
1. No line was changed, dropped, moved or added: each carries `h` = sha256(`h` of the line before + the line up to
   `,"h"`).
2. Checkpoints inside the logs are signed (Ed25519) by the key that the ledger names for that log.
3. Every checkpoint in the ledger agrees with the log: a log rewritten later and signed again by who holds the gateway's
   key differs from what the controller had kept by then.
4. The ledger's statements are signed by `evidence/ledger.pub` and chained.

What it does not prove
* Lines after a log's last checkpoint in the ledger rest on the gateway's own key.
* Who holds the controller's key and a gateway's key can rewrite both: compare `evidence/head.json` with a copy that was
  kept elsewhere.
* A request that never passed a router, or a false statement at the time of writing, is found by no signature. Gaps that
  a log itself tells of are in `findings.txt`.
"""


def export(site_dir: Path, target: Path, proof: Proof) -> Path:
    """Write the export beside and rename it to `target`. Raises OSError."""
    fresh = target.with_name(f".{target.name}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    digests: dict[str, str] = {}
    with zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in _files(site_dir):
            digests[name] = _add_file(archive, name, path)
        for name, text in _texts(site_dir, target, proof).items():
            digests[name] = _add_text(archive, name, text)
        _add_text(archive, "SHA256SUMS", "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())))
    fresh.chmod(0o600)
    return fresh.rename(target)


def _files(site_dir: Path) -> list[tuple[str, Path]]:
    found = [("verify_audit.py", SCRIPT)]
    evidence = site_dir / EVIDENCE
    found += [(f"evidence/{path.relative_to(evidence)}", path) for path in evidence.rglob("*") if path.is_file()]
    for log in store.logs(site_dir):
        base = f"logs/{log.host}/{log.name}/{log.log}"
        found += [(f"{base}/{path.name}", path) for path in store.copies(site_dir, log)]
        found += [(f"aside/{log.host}/{path.name}", path) for path in store.aside(site_dir, log.host, log.name)]
    return sorted(dict(found).items())


def _texts(site_dir: Path, target: Path, proof: Proof) -> dict[str, str]:
    records = read_status(site_dir)
    kept, _ = kept_checkpoints(records, verifies)
    shown = [
        {"log": str(log), "key": one.public, "lines": one.last, "at": moment(one.last_t)} for log, one in kept.items()
    ]
    words = {"site": site_dir.name, "lines": proof.lines, "logs": len(proof.logs), "records": len(records)}
    return {
        "README.md": README.format(name=target.name, **words),
        "findings.txt": "".join(f"{finding}\n" for finding in proof.findings) or "nothing to tell: whole\n",
        "checkpoints.json": json.dumps(shown, indent=1) + "\n",
    }


def _add_file(archive: zipfile.ZipFile, name: str, path: Path) -> str:
    digest = hashlib.sha256()
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as into:
        while chunk := source.read(store.CHUNK):
            digest.update(chunk)
            into.write(chunk)
    return digest.hexdigest()


def _add_text(archive: zipfile.ZipFile, name: str, text: str) -> str:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, text)
    return hashlib.sha256(text.encode()).hexdigest()
