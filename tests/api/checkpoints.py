"""Checkpoints of the ledgers that the tests serve, signed as by whoever keeps the log's key."""

from projections.checkpoint import Checkpoint, sign_checkpoint
from projections.checkpoints import keep_note
from projections.entries import reader, size_of
from projections.merkle import root
from projections.signed_note import SigningKey
from tests.api.served import Api

KEY = SigningKey("ledger.example/audit", bytes(range(32)))


def sign_a_checkpoint(api: Api) -> Checkpoint:
    """Sign the tree as it is."""
    with api.app.state.ledger.database.write() as connection:
        size = size_of(connection)
        checkpoint = Checkpoint(KEY.name, size, root(size, reader(connection)))
        keep_note(connection, checkpoint, sign_checkpoint(checkpoint, KEY), api.clock())
    return checkpoint
