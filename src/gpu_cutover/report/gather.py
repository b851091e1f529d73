"""What the report is made of, read from disk: the declared site, the ledger, its attachments, and if it verifies."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..catalog import load_catalog
from ..errors import InputError
from ..evidence.audit import verify
from ..evidence.records import Record, attachment_path, read_status
from ..site import Site, load_site


@dataclass(frozen=True, slots=True)
class Sources:
    """Plain data for `content.build`. `problems` says what could not be read; the report shows it."""

    name: str
    stage: str
    tier: str
    tenants: dict[str, dict[str, Any]]
    cutover_order: list[str]
    targets: list[dict[str, Any]]
    routes: list[str]
    records: list[Record]
    attachments: dict[str, Any]  # by sha256
    findings: list[tuple[str, str]]  # (level, words)
    made: str
    problems: list[str] = field(default_factory=list)
    limits: dict[str, Any] = field(default_factory=dict)


def gather(site_dir: Path, made: str) -> Sources:
    """Read a site. `made` is the report's own time. A part that cannot be read becomes a problem, not an end.

    Raises InputError for a ledger that cannot be read as records at all.
    """
    problems: list[str] = []
    site = _site(site_dir, problems)
    records = read_status(site_dir)
    return Sources(
        name=site.spec.name if site else site_dir.name,
        stage=site.spec.stage if site else "unknown",
        tier=site.spec.tier if site else "unknown",
        tenants={name: tenant.model_dump(mode="json") for name, tenant in site.spec.tenants.items()} if site else {},
        cutover_order=list(site.spec.cutover_order) if site else [],
        targets=_targets(site) if site else [],
        routes=list(site.spec.routes) if site else [],
        records=records,
        attachments=_attachments(site_dir, records, problems),
        findings=[(finding.level, f"{finding.file}: {finding.message}") for finding in verify(site_dir)],
        made=made,
        problems=problems,
        limits=site.spec.gates.model_dump(mode="json") if site else {},
    )


def _site(site_dir: Path, problems: list[str]) -> Site | None:
    try:
        return load_site(site_dir)
    except InputError as error:
        problems.append(f"The declared site cannot be read as it is now: {error}")
        return None


def _targets(site: Site) -> list[dict[str, Any]]:
    known = load_catalog().targets
    found = []
    for name, target in site.spec.targets.items():
        fact = known.get(name)
        restated = target.restated
        found.append(
            {
                "name": name,
                "title": fact.title if fact else name,
                "unit": fact.unit if fact else "",
                "better": fact.better if fact else "lower",
                "plan": target.plan,
                "accepted": restated.accepted if restated else target.plan,
                "reason": restated.reason if restated else "",
                "by": restated.by if restated else "",
            }
        )
    return found


def _attachments(site_dir: Path, records: list[Record], problems: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in records:
        for item in record.attachments:
            try:
                found[item.sha256] = json.loads(attachment_path(site_dir, item.sha256).read_bytes())
            except (OSError, ValueError) as error:
                problems.append(f"Attachment {item.name} of {record.file} cannot be read: {error}")
    return found
