"""The audit trail: what happened, whether it is still what was written, and the proof of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, cast

from fastapi import APIRouter, Depends, Path, Query, Request, Security
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection
from starlette.responses import Response

from api.composition import OpenLedger
from api.console.by_hand import script_by_hand
from api.console.feed_queries import FeedQuery, find_entries, keys_in, tell_entry
from api.console.forms import read_own_form
from api.console.history import what_happened
from api.console.pages import ROOT, page, see
from api.console.queries import read_query
from api.console.visitors import Visitor, enter
from api.console.workspaces import workspaces_for
from api.http.dependencies import ledger_of
from api.http.schemas.requests import Workspace
from api.http.work import WorkRoute
from api.jobs.integrity_runs import STAGES, IntegrityRuns
from api.jobs.started_runs import RunState
from domain.errors import EntryNotFound, Invalid
from domain.serialization import EVENT_CLASSES
from domain.times import from_text
from projections.audit_log.checkpoint_table import last_signed, shown_note
from projections.audit_log.proofs import prove_inclusion
from projections.integrity.last_result import LastFinding, LastResult, read_last_result
from projections.queries.feed import FeedFilters, read_feed
from projections.queries.key_names import names_of_keys
from projections.store.unreadable_rows import readable
from projections.tlog.checkpoint import open_checkpoint
from projections.tlog.merkle import leaf_hash, steps_to_root
from projections.views.entries import size_of

router = APIRouter(prefix=ROOT, include_in_schema=False, route_class=WorkRoute)

SCOPE = "audit:read"
Auditing = Annotated[Visitor, Security(enter, scopes=[SCOPE])]

_LARGEST = 2**63 - 1
_STAGES = {
    "log": "events, entries and hashes",
    "key histories": "key histories",
    "checkpoints": "signed checkpoints",
}
Verdict = Literal["doubt", "unknown", "wrong", "unsigned", "right"]


class EntryQuery(BaseModel):
    """What an address of an entry asks for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workspace: Workspace | None = None


@dataclass(frozen=True, slots=True)
class Signed:
    """The latest checkpoint, if this ledger's key has signed it.

    Args:
        at: when it was signed; ``None`` if that is not known.
    """

    size: int
    root: bytes
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Genuineness:
    """What is known of whether the history is the one that was written.

    Args:
        signed: the latest checkpoint; ``None`` if this ledger's key has signed none yet.
        doubt: why changes are refused; ``None`` if they are not.
        last: what the last attestation found.
        run: how the one goes that runs now, or went.
        size: how many entries there are.
        public_key: what checkpoints are checked with.
    """

    signed: Signed | None
    doubt: str | None
    last: LastResult | None
    run: RunState | None
    size: int
    public_key: str

    @property
    def verdict(self) -> Verdict:
        """What it comes to."""
        if self.doubt is not None:
            return "doubt"
        if self.last is None:
            return "unknown"
        if self.last.findings:
            return "wrong"
        return "right" if self.last.checkpoints else "unsigned"

    @property
    def findings(self) -> Sequence[LastFinding]:
        """The findings that were kept, which are about all workspaces."""
        return () if self.last is None else self.last.listed

    @property
    def is_running(self) -> bool:
        """Tell whether an attestation runs."""
        return self.run is not None and self.run.is_running

    @property
    def stage(self) -> str | None:
        """Say what is being attested; ``None`` where that is not known."""
        if self.run is None or self.run.stage not in STAGES:
            return None
        number = STAGES.index(self.run.stage) + 1
        what = _STAGES.get(self.run.stage, f"projection {self.run.stage}")
        return f"Step {number} of {len(STAGES)}: {what}"


@router.get("/audit")
def show_the_feed(request: Request, visitor: Auditing) -> Response:
    """Show what happened in the workspace, and whether the log is genuine."""
    ledger = ledger_of(request)
    run = _runs(request).state()
    asked = read_query(FeedQuery, request.query_params)
    found, names = None, {}
    with ledger.database.read() as connection:
        try:
            if not asked.wrong:
                found = find_entries(connection, asked.query, visitor.reading_in())
                in_feed = keys_in(found.entries)
                names = names_of_keys(connection, visitor.readable_workspace, in_feed)
        except Invalid as error:
            asked = asked.refused(error)
        genuineness = _genuineness(connection, ledger, run)
        workspaces = workspaces_for(connection, visitor)
    return page(
        request,
        "audit.html",
        422 if asked.wrong else 200,
        asked=asked,
        query=asked.query,
        workspaces=workspaces,
        kept_query=asked.query.repeated(),
        found=found,
        names=names,
        genuine=genuineness,
        since=asked.query.since and from_text(asked.query.since),
        until=asked.query.until and from_text(asked.query.until),
        types=[(name, what_happened(name)) for name in EVENT_CLASSES],
    )


@router.get("/audit/entries/{leaf_index}")
def prove_the_entry(
    request: Request,
    visitor: Auditing,
    leaf_index: Annotated[int, Path(ge=0, le=_LARGEST)],
    _query: Annotated[EntryQuery, Query()],
) -> Response:
    """Show an entry of the workspace, and that the latest checkpoint has it."""
    ledger = ledger_of(request)
    with ledger.database.read() as connection:
        only_it = range(leaf_index, leaf_index + 1)
        filters = FeedFilters(workspace=visitor.reading_in())
        entries = read_feed(connection, filters, only_it, limit=1)
        if not entries:
            raise EntryNotFound("there is no such entry in this workspace")
        (found,) = entries
        proof = prove_inclusion(connection, leaf_index, None)
        signed = _signed(connection, ledger)
        told = tell_entry(found)
        names = names_of_keys(connection, visitor.readable_workspace, keys_in([told]))
    leaf = leaf_hash(found.entry)
    steps = steps_to_root(leaf, leaf_index, proof.size, proof.hashes)
    covering = signed if signed is not None and signed.size == proof.size else None
    root = proof.root if covering is None else covering.root
    return page(
        request,
        "entry.html",
        entry=found,
        line=found.entry.decode(errors="backslashreplace"),
        told=told,
        names=names,
        leaf=leaf,
        proof=proof,
        steps=steps,
        signed=covering,
        root=root,
        holds=(steps[-1].node if steps else leaf) == root,
        script=script_by_hand(found.entry, steps),
    )


@router.post("/audit/verify", dependencies=[Depends(read_own_form)])
def verify_now(request: Request, visitor: Auditing) -> Response:
    """Begin to attest the ledger, which concerns all workspaces; one attestation at a time."""
    visitor.requester.check_root()
    _runs(request).start()
    return see(visitor, "/audit")


def _genuineness(connection: Connection, ledger: OpenLedger, run: RunState | None) -> Genuineness:
    return Genuineness(
        signed=_signed(connection, ledger),
        doubt=ledger.signer.doubt,
        last=read_last_result(ledger.database, ledger.clock()),
        run=run,
        size=size_of(connection),
        public_key=str(ledger.signer.key.verifier_key),
    )


def _signed(connection: Connection, ledger: OpenLedger) -> Signed | None:
    note = shown_note(connection, ledger.signer.key.name)
    if note is None:
        return None
    key = ledger.signer.key.verifier_key
    try:
        checkpoint = open_checkpoint(note, [key])
    except ValueError:
        return None
    last = last_signed(connection, key.name)
    with readable("checkpoints"):
        at = from_text(last[1]) if last is not None and last[0] == checkpoint.size else None
    return Signed(checkpoint.size, checkpoint.root, at)


def _runs(request: Request) -> IntegrityRuns:
    return cast("IntegrityRuns", request.app.state.integrity_runs)
