"""The Merkle tree over all events: its checkpoints, its proofs, and its tiles.

Checkpoints and proofs are made of hashes and sizes, and are for auditors of every workspace. An
entry is found by its key or position by whoever may read its event; a tile holds entries of all
workspaces, or the hashes of each of them, and is for root's.
"""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response, Security
from fastapi.responses import JSONResponse, PlainTextResponse

from api.formats.as_json import consistency_as_json, inclusion_as_json
from api.http.credentials import Requester, require
from api.http.dependencies import StrictRoute, ledger_of
from api.http.openapi import answers, texts
from api.http.schemas.audit import CompareTrees, NameEntry
from api.http.schemas.requests import NoQuery
from api.http.schemas.responses import ConsistencyAnswer, InclusionAnswer
from api.http.work import Work, does
from domain.errors import NoCheckpoint
from projections.audit_log.checkpoint_table import shown_note
from projections.audit_log.proofs import find_leaf, prove_consistency, prove_inclusion
from projections.audit_log.tile_reader import read_tile

router = APIRouter(tags=["audit"], route_class=StrictRoute)

Auditor = Annotated[Requester, Security(require, scopes=["audit:read"])]

_NOTE = texts("text/plain", "A signed note (C2SP `tlog-checkpoint`).")
_TILE = texts("application/octet-stream", "A tile or a bundle of entries (C2SP `tlog-tiles`).")
# A tile never changes. It is for who holds the credential, and for no cache that others share.
_FOR_EVER = "private, max-age=31536000, immutable"


@router.get("/v1/checkpoint", responses=answers(404) | _NOTE, response_class=PlainTextResponse)
@does(Work.READ)
def show_the_checkpoint(request: Request, _requester: Auditor, _query: NoQuery) -> Response:
    """Give the latest checkpoint: size and root of the tree, signed.

    It is the same for all workspaces, and tells nothing of any event.
    """
    return _checkpoint(request)


@router.get("/v1/proofs/inclusion", responses=answers(404, ok=InclusionAnswer))
def prove_the_inclusion(
    request: Request, requester: Auditor, query: Annotated[NameEntry, Query()]
) -> Response:
    """Prove that an entry is in the tree (RFC 9162, section 2.1.3).

    Name the entry by its `leaf_index`, its `position`, or its `key_id` and `version`. Any leaf of
    the tree can be named by its index, for a proof is made of hashes alone; by anything else, an
    entry of another workspace does not exist.
    """
    workspace = requester.reading_in(query.workspace)
    with ledger_of(request).database.read() as connection:
        leaf_index = find_leaf(
            connection,
            leaf_index=query.leaf_index,
            position=query.position,
            key_id=query.key_id,
            version=query.version,
            workspace=workspace,
        )
        proof = prove_inclusion(connection, leaf_index, query.size)
    return JSONResponse(inclusion_as_json(proof))


@router.get("/v1/proofs/consistency", responses=answers(ok=ConsistencyAnswer))
def prove_the_consistency(
    request: Request, _requester: Auditor, query: Annotated[CompareTrees, Query()]
) -> Response:
    """Prove that the tree only grew between two sizes (RFC 9162, section 2.1.4)."""
    with ledger_of(request).database.read() as connection:
        proof = prove_consistency(connection, query.old_size, query.size)
    return JSONResponse(consistency_as_json(proof))


@router.get("/v1/log/checkpoint", responses=answers(404) | _NOTE, response_class=PlainTextResponse)
@does(Work.READ)
def show_the_checkpoint_of_the_log(
    request: Request, requester: Auditor, _query: NoQuery
) -> Response:
    """Give the latest checkpoint where a client of `tlog-tiles` looks for it.

    The log is for keys of the workspace `root`.
    """
    requester.check_root()
    return _checkpoint(request)


@router.get("/v1/log/tile/{tile:path}", responses=answers(404) | _TILE, response_class=Response)
def read_the_tile(
    request: Request,
    requester: Auditor,
    _query: NoQuery,
    tile: Annotated[
        str,
        Path(
            description="Level and index of a tile, or `entries` and the index of a bundle; a"
            " partial one has its width too.",
            examples=["0/000.p/1", "entries/x001/234"],
        ),
    ],
) -> Response:
    """Give a tile of the tree, or a bundle of entries (C2SP `tlog-tiles`).

    Each holds what happened in all workspaces, so that the log is for keys of the workspace `root`.
    """
    requester.check_root()
    with ledger_of(request).database.read() as connection:
        content = read_tile(connection, f"/tile/{tile}")
    return Response(
        content, media_type="application/octet-stream", headers={"Cache-Control": _FOR_EVER}
    )


def _checkpoint(request: Request) -> Response:
    with ledger_of(request).database.read() as connection:
        note = shown_note(connection, ledger_of(request).signer.key.name)
    if note is None:
        raise NoCheckpoint("no checkpoint was signed yet; ask again in a second")
    return PlainTextResponse(note)
