"""Find the first difference between a log and its signed checkpoints, for error messages."""

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection

from domain.errors import ProjectionInconsistent
from projections.audit_log.checkpoint_file import notes_in
from projections.tlog.checkpoint import Checkpoint
from projections.tlog.merkle import root
from projections.tlog.notes import text_of
from projections.views.entries import reader


def describe_difference(connection: Connection, path: Path) -> str:
    """Say between which checkpoints of a file the log was changed.

    A signature has already proved that there is a difference, so none is verified here.
    """
    signed = list(_checkpoints_in(path))

    def differs(checkpoint: Checkpoint) -> bool:
        return root_at(connection, checkpoint.size) != checkpoint.root

    # If a log differs at some size, it differs at all larger sizes.
    first = bisect_left(signed, True, key=differs)  # noqa: FBT003 - what to look for
    wrong = "the log does not match its signed checkpoints"
    if first == len(signed):
        return wrong
    begin = signed[first - 1].size if first else 0
    return f"{wrong}: one of the entries {begin} to {signed[first].size - 1} was changed"


def root_at(connection: Connection, size: int) -> bytes | None:
    """Return the root over the log's first entries; ``None`` if a node of the tree is missing."""
    try:
        return root(size, reader(connection))
    except ProjectionInconsistent:
        # A damaged tree is not the one that was signed either.
        return None


def _checkpoints_in(path: Path) -> Iterator[Checkpoint]:
    """Yield the checkpoints in a file without verifying signatures; skip malformed ones."""
    with suppress(ValueError):
        for note in notes_in(path):
            with suppress(ValueError):
                yield Checkpoint.from_text(text_of(note))
