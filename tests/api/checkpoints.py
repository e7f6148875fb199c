"""Checkpoints of the ledgers that the tests serve."""

from projections.audit_log.checkpoint_table import latest_note
from projections.tlog.checkpoint import Checkpoint, open_checkpoint
from projections.views.entries import size_of
from tests.api.served import Api
from tests.system.processes import eventually


def sign_a_checkpoint(api: Api) -> Checkpoint:
    """Have the tree signed, here or by the app; return the checkpoint."""
    ledger = api.app.state.ledger
    signed: list[Checkpoint] = []

    def is_signed() -> bool:
        ledger.signer.sign()
        with ledger.database.read() as connection:
            note = latest_note(connection)
            size = size_of(connection)
        if note is not None:
            signed.append(open_checkpoint(note, [ledger.signer.key.verifier_key]))
        return note is not None and signed[-1].size == size

    eventually(is_signed, "the whole tree is signed")
    return signed[-1]
