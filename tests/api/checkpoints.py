"""Checkpoints of the ledgers that the tests serve."""

from projections.checkpoint import Checkpoint, open_checkpoint
from projections.checkpoints import latest_note
from tests.api.served import Api


def sign_a_checkpoint(api: Api) -> Checkpoint:
    """Sign the tree as it is, unless the app was faster; return its latest checkpoint."""
    ledger = api.app.state.ledger
    ledger.signer.sign()
    with ledger.database.read() as connection:
        note = latest_note(connection)
    assert note is not None
    return open_checkpoint(note, [ledger.signer.key.verifier_key])
