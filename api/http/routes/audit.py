"""The Merkle tree over all events: checkpoints, proofs and tiles.

Checkpoints and proofs contain only hashes and sizes, so auditors of every workspace may read them.
To find an entry by key or position, a credential must be allowed to read its event. Tiles contain
entries of all workspaces, or their hashes, so they need a key of the workspace `root`.
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

_NOTE = texts("text/plain", "The signed note (C2SP `tlog-checkpoint`).")
_TILE = texts("application/octet-stream", "A tile or a bundle of entries (C2SP `tlog-tiles`).")
# A tile never changes. Shared caches may not store it: it needs a credential.
_FOR_EVER = "private, max-age=31536000, immutable"


@router.get(
    "/v1/checkpoint",
    operation_id="get_checkpoint",
    summary="Get the latest checkpoint",
    responses=answers(404) | _NOTE,
    response_class=PlainTextResponse,
)
@does(Work.READ)
def show_the_checkpoint(request: Request, _requester: Auditor, _query: NoQuery) -> Response:
    """Return the latest checkpoint: the signed size and root of the Merkle tree.

    It is the same for every workspace and discloses no event.
    """
    return _checkpoint(request)


@router.get(
    "/v1/proofs/inclusion",
    operation_id="get_inclusion_proof",
    summary="Prove that the log contains an entry",
    responses=answers(404, ok=InclusionAnswer),
)
def prove_the_inclusion(
    request: Request, requester: Auditor, query: Annotated[NameEntry, Query()]
) -> Response:
    """Prove that the Merkle tree contains an entry (RFC 9162, section 2.1.3).

    Select the entry by `leaf_index`, by `position`, or by `key_id` and `version`. Every leaf can be
    selected by its index, because a proof contains only hashes. By `position` or `key_id`, an entry
    of another workspace is not found.
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


@router.get(
    "/v1/proofs/consistency",
    operation_id="get_consistency_proof",
    summary="Prove that the log only grew",
    responses=answers(ok=ConsistencyAnswer),
)
def prove_the_consistency(
    request: Request, _requester: Auditor, query: Annotated[CompareTrees, Query()]
) -> Response:
    """Prove that the tree of one size is a prefix of a larger one (RFC 9162, section 2.1.4)."""
    with ledger_of(request).database.read() as connection:
        proof = prove_consistency(connection, query.old_size, query.size)
    return JSONResponse(consistency_as_json(proof))


@router.get(
    "/v1/log/checkpoint",
    operation_id="get_log_checkpoint",
    summary="Get the latest checkpoint, for tile clients",
    responses=answers(404) | _NOTE,
    response_class=PlainTextResponse,
)
@does(Work.READ)
def show_the_checkpoint_of_the_log(
    request: Request, requester: Auditor, _query: NoQuery
) -> Response:
    """Return the latest checkpoint at the path that clients of C2SP `tlog-tiles` expect.

    The log needs a key of the workspace `root`.
    """
    requester.check_root()
    return _checkpoint(request)


@router.get(
    "/v1/log/tile/{tile:path}",
    operation_id="get_log_tile",
    summary="Get a tile of the log",
    responses=answers(404) | _TILE,
    response_class=Response,
)
def read_the_tile(
    request: Request,
    requester: Auditor,
    _query: NoQuery,
    tile: Annotated[
        str,
        Path(
            description="Level and index of a tile, or `entries` and the index of a bundle. A"
            " partial tile ends in its width.",
            examples=["0/000.p/1", "entries/x001/234"],
        ),
    ],
) -> Response:
    """Return a tile of the Merkle tree, or a bundle of entries (C2SP `tlog-tiles`).

    Tiles cover the events of all workspaces, so the log needs a key of the workspace `root`.
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
        raise NoCheckpoint("no checkpoint was signed yet: try again in a second")
    return PlainTextResponse(note)
