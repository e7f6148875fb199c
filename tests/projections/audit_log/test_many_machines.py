"""Several machines on one ledger: each has its own checkpoint file, and any of them signs."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from secrets import token_bytes, token_hex

import pytest
from sqlalchemy import URL
from structlog.testing import capture_logs

from api.composition import OpenLedger, opened_ledger
from api.settings import read_settings
from domain.errors import HistoryInDoubt
from domain.verifiers import CHEAPEST
from projections.audit_log.checkpoint_file import notes_in
from projections.audit_log.fork import fork
from projections.store.locks import task_lock
from projections.tlog.checkpoint import open_checkpoint
from projections.views.registry import VIEWS
from tests.conftest import NOON
from tests.postgresql import Server, connected, create_database, initdb, running_server
from tests.programs import needs
from tests.projections.ledgers import ADA, Keys

pytestmark = needs(initdb(), "postgresql")


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def url(postgresql: Server) -> URL:
    url = postgresql.url(f"ledger_{token_hex(6)}")
    create_database(url)
    return url


class Machine:
    """A folder with the ledger's pepper and signing key, and checkpoints of its own."""

    def __init__(self, data_dir: Path, url: URL) -> None:
        address = url.render_as_string(hide_password=False)
        self._settings = read_settings(data_dir=data_dir, database_url=address)
        self._opening = opened_ledger(self._settings, clock=lambda: NOON, argon2_profile=CHEAPEST)
        self.opened: OpenLedger = self._opening.__enter__()

    def close(self) -> None:
        self._opening.__exit__(None, None, None)

    @property
    def file(self) -> Path:
        return self._settings.checkpoint_path

    def append(self) -> None:
        Keys(self.opened).create()

    def signed(self) -> int | None:
        """Sign, and return the size of the new checkpoint."""
        checkpoint = self.opened.signer.sign()
        return None if checkpoint is None else checkpoint.size

    def sizes(self) -> list[int]:
        key = self.opened.signer.key.verifier_key
        return [open_checkpoint(note, [key]).size for note in notes_in(self.file)]


@pytest.fixture
def machines(url: URL, tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """Two machines; the first one signed a checkpoint before the second one was added."""
    one = Machine(tmp_path / "one", url)
    one.append()
    assert one.signed() == 1
    (tmp_path / "other").mkdir()
    for name in ("pepper", "signing-key"):
        shutil.copy(tmp_path / "one" / name, tmp_path / "other" / name)
    other = Machine(tmp_path / "other", url)
    yield one, other
    one.close()
    other.close()


def one_ahead(machines: tuple[Machine, Machine]) -> tuple[Machine, Machine]:
    """Both machines know a checkpoint, and one of them has signed another after it."""
    one, other = machines
    other.signed()
    one.append()
    one.signed()
    return machines


def test_a_new_machine_adopts_the_signed_checkpoint_and_logs_that_it_trusts_it(
    machines: tuple[Machine, Machine],
) -> None:
    _, other = machines
    assert other.opened.signer.doubt is None
    with capture_logs() as logs:
        assert other.signed() is None
        assert other.signed() is None
    assert [(each["event"], each["log_level"]) for each in logs] == [
        ("checkpoint_file_begun", "warning")
    ]
    assert other.sizes() == [1]


def test_the_holder_of_the_lock_signs_and_the_others_adopt_it(
    machines: tuple[Machine, Machine],
) -> None:
    one, other = machines
    for size in range(2, 8, 2):
        other.append()
        assert other.signed() == size
        assert one.signed() is None
        one.append()
        assert one.signed() == size + 1
        assert other.signed() is None
    assert one.sizes() == other.sizes() == [1, *range(2, 8)]


def test_a_machine_that_was_away_adopts_the_last_checkpoint_and_continues(
    machines: tuple[Machine, Machine],
) -> None:
    one, other = machines
    other.signed()
    for _ in range(3):
        one.append()
        one.signed()
    other.append()
    assert other.signed() == 5
    assert other.sizes() == [1, 4, 5]


def test_a_signer_without_the_lock_is_not_in_doubt_and_leaves_the_file(
    machines: tuple[Machine, Machine],
) -> None:
    one, other = one_ahead(machines)
    with task_lock(one.opened.database, "signing") as alone:
        assert alone
        assert other.signed() is None
    assert other.sizes() == [1]
    other.append()


def test_a_log_smaller_than_another_machines_checkpoint_is_refused(
    machines: tuple[Machine, Machine], url: URL
) -> None:
    _, other = one_ahead(machines)
    with connected(url) as connection:
        connection.execute(b"DELETE FROM entries WHERE leaf_index > 0")
    with pytest.raises(HistoryInDoubt, match="has 1 entries, but 2 were signed: entry 1"):
        other.signed()
    with pytest.raises(HistoryInDoubt):
        other.append()
    assert other.sizes() == [1]


def test_a_machine_with_a_later_checkpoint_refuses_an_older_history(
    machines: tuple[Machine, Machine], url: URL
) -> None:
    one, other = one_ahead(machines)
    with connected(url) as connection:
        connection.execute(b"DELETE FROM entries WHERE leaf_index > 0")
        connection.execute(b"DELETE FROM checkpoints WHERE size > 1")
    with pytest.raises(HistoryInDoubt, match="has 1 entries, but 2 were signed: entry 1"):
        one.signed()
    # The other machine does not know of the lost entries: nothing that it has mentions them.
    assert other.signed() is None


@pytest.mark.parametrize(
    ("forged", "said"),
    [
        ("replace(note, chr(8212), '-')", "the last checkpoint in the database was not signed by"),
        ("(SELECT note FROM checkpoints WHERE size = 1)", "at 2 entries says 1"),
    ],
)
def test_a_checkpoint_of_another_key_is_not_adopted(
    machines: tuple[Machine, Machine], url: URL, forged: str, said: str
) -> None:
    _, other = one_ahead(machines)
    with connected(url) as connection:
        statement = f"UPDATE checkpoints SET note = {forged} WHERE size = 2"  # noqa: S608 - ours
        connection.execute(statement.encode())
    with pytest.raises(HistoryInDoubt, match=said):
        other.signed()
    assert other.sizes() == [1]


def test_after_a_fork_another_machine_goes_on_with_the_new_key_and_a_file_of_its_own(
    machines: tuple[Machine, Machine], url: URL, tmp_path: Path
) -> None:
    one, other = machines
    other.signed()
    settings, opened = one.opened.settings, one.opened
    fork(
        opened.database,
        VIEWS,
        opened.signer,
        key_path=settings.signing_key_path,
        reason="the disk was lost",
        by=ADA,
        at=NOON,
        random=token_bytes,
    )
    assert one.signed() == 2
    with pytest.raises(
        HistoryInDoubt, match="On another machine, copy the new signing key"
    ) as told:
        other.signed()
    assert "audit fork --reason" not in str(told.value)
    folder = tmp_path / "other"
    shutil.copy(settings.signing_key_path, folder / "signing-key")
    with_old_file = Machine(folder, url)
    with pytest.raises(HistoryInDoubt, match="move the file away") as told:
        with_old_file.signed()
    assert "audit fork" not in str(told.value)
    with_old_file.close()
    (folder / "checkpoints.txt").rename(folder / "checkpoints-before.txt")
    again = Machine(folder, url)
    again.append()
    assert again.signed() == 3
    assert again.sizes() == [2, 3]
    again.close()
