"""How keys, events and projections look in JSON, the same at every door."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from domain.caller import Actor
from domain.public_event import public_event
from domain.times import to_text
from domain.verdict import Code
from projections.audit_log.proofs import ConsistencyProof, InclusionProof
from projections.auth.authentication import Answer
from projections.integrity.verify import IntegrityReport
from projections.queries.access_report import Access
from projections.queries.workspaces import WorkspaceSummary
from projections.rebuild.comparison import Difference
from projections.rebuild.rebuild import ReplayReport
from projections.rebuild.status import ProjectionStatus
from projections.store.events import Recorded
from projections.views.key_fields import FIELDS, ListedKey

JsonObject = dict[str, Any]


def key_as_json(key: ListedKey) -> JsonObject:
    """Return a key; what it does not have is ``None``."""
    return {name: _field(getattr(key, name)) for name in FIELDS}


def workspace_as_json(workspace: WorkspaceSummary) -> JsonObject:
    """Return a workspace with the numbers of its keys."""
    return asdict(workspace)


def event_as_json(recorded: Recorded) -> JsonObject:
    """Return an event in its public form, with its place in the global order first."""
    return {"position": recorded.position, **public_event(recorded.event)}


def inclusion_as_json(proof: InclusionProof) -> JsonObject:
    """Return the proof that an entry is in the tree."""
    return {
        "leaf_index": proof.leaf_index,
        "leaf_hash": _base64(proof.leaf_hash),
        "size": proof.size,
        "root": _base64(proof.root),
        "hashes": [_base64(each) for each in proof.hashes],
    }


def consistency_as_json(proof: ConsistencyProof) -> JsonObject:
    """Return the proof that the tree only grew."""
    return {
        "old_size": proof.old_size,
        "old_root": _base64(proof.old_root),
        "size": proof.size,
        "root": _base64(proof.root),
        "hashes": [_base64(each) for each in proof.hashes],
    }


def page_as_json(items: Sequence[JsonObject], next_cursor: str | None) -> JsonObject:
    """Return one page of a list; ``next_cursor`` is ``None`` on the last."""
    return {"data": list(items), "next_cursor": next_cursor}


def verdict_as_json(answer: Answer) -> JsonObject:
    """Return a verdict; of the key no more than the verdict may tell."""
    key = answer.verdict.key
    return {
        "valid": answer.verdict.code is Code.VALID,
        "code": answer.verdict.code,
        "key_id": key and key.key_id,
        "name": key and key.name,
        "workspace": key and key.workspace,
        "role": key and key.role,
        "scopes": key and list(key.scopes),
        "expires_at": key and _time(key.expires_at),
        "position": answer.position,
    }


def status_as_json(status: ProjectionStatus) -> JsonObject:
    """Return how far a projection has come."""
    return {
        "name": status.name,
        "view_version": status.view_version,
        "position": status.position,
        "last_position": status.last_position,
        "lag": status.lag,
        "rows": status.rows,
        "completed_at": _time(status.completed_at),
        "rebuild_position": status.rebuild_position,
    }


def report_as_json(report: ReplayReport) -> JsonObject:
    """Return what a rebuild or a check of a projection did and found."""
    return {
        "name": report.view,
        "events": report.events,
        "position": report.position,
        "differing": report.differing,
        "differences": [_difference(each) for each in report.differences],
        "seconds": report.seconds,
        "locked_seconds": report.locked_seconds,
    }


def access_as_json(access: Access) -> JsonObject:
    """Return a key in a report, with its last change."""
    changed = {"changed_at": to_text(access.changed_at), "changed_by": access.changed_by.as_json()}
    return key_as_json(access.key) | changed


def attestation_as_json(attestation: IntegrityReport) -> JsonObject:
    """Return what was attested, and what is wrong with it."""
    return {
        "sound": not attestation.found,
        "position": attestation.position,
        "events": attestation.events,
        "entries": attestation.entries,
        "keys": attestation.keys,
        "checkpoints": attestation.checkpoints,
        "root": None if attestation.root is None else b64encode(attestation.root).decode(),
        "findings": [asdict(finding) for finding in attestation.findings],
        "not_listed": attestation.not_listed,
        "seconds": attestation.seconds,
    }


def _difference(difference: Difference) -> JsonObject:
    return {
        "key_id": difference.key_id,
        "problem": difference.problem,
        "columns": {
            name: {"live": _value(live), "right": _value(right)}
            for name, (live, right) in difference.columns.items()
        },
    }


def _value(value: object) -> str | int | None:
    """Return a value of a damaged row, which may be of a type that JSON does not have."""
    return value if value is None or isinstance(value, str | int) else repr(value)


def _base64(value: bytes) -> str:
    return b64encode(value).decode()


def _field(value: object) -> object:
    """Return the value of a field of a key in JSON's own types."""
    if isinstance(value, datetime):
        return to_text(value)
    if isinstance(value, Actor):
        return value.as_json()
    return list(value) if isinstance(value, tuple) else value


def _time(at: datetime | None) -> str | None:
    return None if at is None else to_text(at)
