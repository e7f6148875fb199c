"""A ledger with values of other types than the program writes opens, and reports them."""

import pytest

from api.composition import OpenLedger
from domain.errors import HistoryInDoubt
from projections.integrity.verify import check_integrity
from tests.projections.ledgers import Keys, keys_in
from tests.raw_sql import sql

# PostgreSQL takes no value of another type.
pytestmark = pytest.mark.only_on("sqlite")


@pytest.fixture
def keys(opened: OpenLedger) -> Keys:
    return Keys(opened)


@pytest.mark.parametrize(
    "column", ["view_version", "generation", "position", "completed_at", "filled_to"]
)
def test_a_view_whose_state_cannot_be_read_is_made_anew(keys: Keys, column: str) -> None:
    made = keys.create()
    sql(keys.address, f"UPDATE projection_states SET {column} = x'ff'")  # noqa: S608 - ours
    with keys_in(keys.data_dir) as again:
        assert again.show(made.key_id).version == 1
        assert check_integrity(again.database, notes=[], keys=None, now=again.now).findings == ()


def test_a_checkpoint_whose_size_is_no_number_stops_changes(keys: Keys) -> None:
    made = keys.create()
    keys.opened.signer.sign()
    sql(keys.address, "UPDATE checkpoints SET size = x'ff00'")
    with keys_in(keys.data_dir) as again:
        assert again.show(made.key_id).version == 1
        with pytest.raises(HistoryInDoubt, match="is not a number"):
            again.create("refused")


def test_a_revoked_key_without_an_actor_can_be_shown(keys: Keys) -> None:
    made = keys.create()
    sql(keys.address, "UPDATE key_list SET revoked_by_type = '', revoked_by_id = ''")
    shown = keys.show(made.key_id).revoked_by
    assert shown is not None
    assert shown.as_json() == {"type": "", "id": ""}
