"""Proofs of a damaged tree: missing nodes are reported, and never invented."""

import pytest

from domain.errors import HistoryInDoubt, ProjectionInconsistent
from projections.audit_log.proofs import prove_consistency, prove_inclusion
from projections.audit_log.tile_reader import read_tile
from tests.projections.ledgers import Keys
from tests.raw_sql import delete_rows, value_at


@pytest.fixture
def signed(keys: Keys) -> Keys:
    """A ledger of four entries, at the positions 1 to 4, with a checkpoint."""
    for _ in range(4):
        keys.create()
    assert value_at(keys.address, "entries", 4, "leaf_index") == 3
    checkpoint = keys.opened.signer.sign()
    assert checkpoint is not None
    assert checkpoint.size == 4
    return keys


def test_no_proof_or_tile_is_made_of_a_log_with_a_missing_entry(signed: Keys) -> None:
    delete_rows(signed.address, "entries", 2)
    with signed.database.read() as connection:
        for ask in (
            lambda: prove_inclusion(connection, 0, 4),
            lambda: prove_consistency(connection, 2, 4),
            lambda: read_tile(connection, "/tile/0/000.p/4"),
            lambda: read_tile(connection, "/tile/entries/000.p/4"),
        ):
            with pytest.raises(ProjectionInconsistent, match="run keyledger audit verify"):
                ask()


def test_smaller_than_its_checkpoint_it_is_proved_for_nobody_who_names_no_size(
    signed: Keys,
) -> None:
    delete_rows(signed.address, "entries", 4)
    with signed.database.read() as connection:
        for ask in (
            lambda: prove_inclusion(connection, 0, None),
            lambda: prove_consistency(connection, 1, None),
        ):
            with pytest.raises(HistoryInDoubt, match=r"3 entries, .* was signed for 4"):
                ask()
        assert prove_inclusion(connection, 0, 3).size == 3
