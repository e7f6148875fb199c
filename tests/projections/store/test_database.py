import logging
import os
import stat
import threading
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event, insert, make_url, text

import projections.store.sqlite
from domain.errors import LedgerError, LedgerUnavailable, ProjectionInconsistent
from projections.store.database import Database, open_database, url_without_passwords
from projections.store.schema import key_digests, upgrade_schema
from projections.store.sqlite import READ_CONNECTIONS
from tests.engines import file_address
from tests.projections.ledgers import Keys, keys_in
from tests.projections.processes import CONTEXT, run, start
from tests.raw_sql import rows_of, sql

DEMANDED = {
    "journal_mode": "wal",
    "synchronous": 2,
    "busy_timeout": 10_000,
    "foreign_keys": 1,
    "trusted_schema": 0,
    "journal_size_limit": 67_108_864,
}
DIGEST = {"lookup_id": "0123456789abcdef", "pepper_id": "0" * 16, "digest": bytes(32)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{path}")
    upgrade_schema(database)
    yield database
    database.close()


def pragmas(connection: Connection) -> dict[str, object]:
    return {
        name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
        for name in [*DEMANDED, "query_only"]
    }


def all_at_once(engine: Engine, number: int) -> list[dict[str, object]]:
    with ExitStack() as stack:
        connections = [stack.enter_context(engine.connect()) for _ in range(number)]
        return [pragmas(connection) for connection in connections]


def test_every_reading_connection_has_the_required_settings(database: Database) -> None:
    number = 2 * READ_CONNECTIONS
    assert all_at_once(database.reader, number) == [DEMANDED | {"query_only": 1}] * number


def test_every_writing_connection_has_the_required_settings(
    database: Database,
) -> None:
    for _ in range(2):
        assert all_at_once(database.writer, 1) == [DEMANDED | {"query_only": 0}]
        database.close()


def test_a_connection_that_does_not_comply_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A database keeps the encoding it was made with, whatever is asked for later.
    sql(file_address(path), "CREATE TABLE made (in_utf8)")
    monkeypatch.setitem(vars(projections.store.sqlite)["_PRAGMAS"], "encoding", "'UTF-16'")
    with pytest.raises(LedgerUnavailable, match="encoding = UTF-8, but the ledger needs 'UTF-16'"):
        open_database(f"sqlite:///{path}")


def test_a_reader_cannot_write(database: Database, path: Path) -> None:
    with pytest.raises(LedgerUnavailable), database.read() as connection:
        connection.execute(insert(key_digests).values(DIGEST))
    with pytest.raises(LedgerUnavailable), database.read() as connection:
        connection.execute(text("DROP TABLE key_digests"))
    assert rows_of(file_address(path), "key_digests") == []


def test_a_reader_sees_one_unchanging_state(database: Database) -> None:
    count = text("SELECT count(*) FROM key_digests")
    with database.read() as reading:
        assert reading.scalar(count) == 0
        with database.write() as writing:
            writing.execute(insert(key_digests).values(DIGEST))
        assert reading.scalar(count) == 0
    with database.read() as reading:
        assert reading.scalar(count) == 1


def test_a_failed_write_transaction_is_rolled_back(database: Database, path: Path) -> None:
    def write_and_fail() -> None:
        with database.write() as connection:
            connection.execute(insert(key_digests).values(DIGEST))
            raise LookupError

    with pytest.raises(LookupError):
        write_and_fail()
    assert rows_of(file_address(path), "key_digests") == []


def hold_the_append_lock(path: Path, told: Pipe) -> None:
    database = open_database(f"sqlite:///{path}")
    with database.write() as connection:
        connection.execute(insert(key_digests).values(DIGEST))
        told.send("held")
        told.recv()
    database.close()


def test_a_second_writer_waits_and_then_sees_what_the_first_one_wrote(
    database: Database, path: Path
) -> None:
    ours, theirs = CONTEXT.Pipe()
    begins, found = threading.Event(), []

    def see_the_begin(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if statement == "BEGIN IMMEDIATE":
            begins.set()

    event.listen(database.writer, "before_cursor_execute", see_the_begin)

    def write() -> None:
        with database.write() as connection:
            found.append(connection.scalar(text("SELECT count(*) FROM key_digests")))

    second = threading.Thread(target=write)
    with start(hold_the_append_lock, path, theirs) as first:
        assert ours.recv() == "held"
        second.start()
        assert begins.wait(10)
        ours.send("let go")
        first.result()
    second.join(10)
    assert found == [1]


def be_impatient(database: Database) -> None:
    """Shorten the wait for another process on the one connection that writes."""
    with database.writer.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 50")


def test_a_writer_that_waits_too_long_for_another_process_is_refused(
    database: Database, path: Path
) -> None:
    be_impatient(database)
    ours, theirs = CONTEXT.Pipe()
    with start(hold_the_append_lock, path, theirs) as first:
        assert ours.recv() == "held"
        # It fails where it begins, before a statement could have been half done.
        with pytest.raises(LedgerUnavailable, match="try again later"), database.write():
            pytest.fail("two writers at once")
        with database.read() as connection:
            assert connection.scalar(text("SELECT count(*) FROM key_digests")) == 0
        ours.send("let go")
        first.result()


@pytest.mark.parametrize("how", ["read", "write"])
def test_a_writer_that_waits_too_long_for_another_thread_is_refused(
    how: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.store.sqlite.BUSY_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr("projections.store.sqlite.READ_CONNECTIONS", 1)
    database = open_database(f"sqlite:///{path}")
    transaction = getattr(database, how)
    with ExitStack() as stack:
        for _ in range(2 if how == "read" else 1):
            stack.enter_context(transaction())
        with pytest.raises(LedgerUnavailable, match="try again later"):
            stack.enter_context(transaction())
    database.close()


def modes_of_a_ledger_in_use(data_dir: Path) -> dict[str, int]:
    os.umask(0)
    with keys_in(data_dir) as keys:
        keys.create()
        files = [data_dir, *data_dir.iterdir()]
        return {file.name: stat.S_IMODE(file.stat().st_mode) for file in files}


@pytest.mark.only_on("sqlite")
def test_all_files_are_private_whatever_the_umask(data_dir: Path) -> None:
    modes = run(modes_of_a_ledger_in_use, data_dir)
    assert modes.pop(data_dir.name) == 0o700
    assert set(modes) >= {
        "keyledger.sqlite3",
        "keyledger.sqlite3-wal",
        "keyledger.sqlite3-shm",
        "pepper",
    }
    assert set(modes.values()) == {0o600}


def test_a_damaged_file_is_named_and_kept(path: Path) -> None:
    path.write_bytes(b"no database at all. " * 500)
    before = path.read_bytes()
    with pytest.raises(LedgerUnavailable, match=r"ledger\.sqlite3: file is not a database"):
        open_database(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_file_damaged_behind_its_first_bytes_is_refused_too(path: Path) -> None:
    database = open_database(f"sqlite:///{path}")
    upgrade_schema(database)
    database.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes(byte ^ 0xA5 for byte in whole[100:]))
    with pytest.raises(LedgerUnavailable):  # noqa: PT012 - where it is noticed is SQLite's to say
        database = open_database(f"sqlite:///{path}")
        upgrade_schema(database)
    database.close()


def test_a_folder_in_place_of_the_file_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(LedgerUnavailable, match=r"ledger\.sqlite3: unable to open database file"):
        open_database(f"sqlite:///{path}")


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match=r"No such file or directory: .*nowhere/.x"):
        open_database(f"sqlite:///{tmp_path}/nowhere/x.sqlite3")


def refusal_without_privileges(path: Path) -> str:
    """Open a database as somebody whom a file's mode stops, which root is not."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65_534)
        os.setuid(65_534)
    try:
        database = open_database(f"sqlite:///{path}")
        upgrade_schema(database)
    except LedgerError as error:
        return f"{error.code}: {error}"
    database.close()
    return "opened"


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that whoever gave up root's privileges can still find."""
    from tempfile import TemporaryDirectory  # noqa: PLC0415 - pytest's own folders are private

    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.parametrize(
    ("exists", "folder_mode", "file_mode", "refusal"),
    [
        (False, 0o555, 0o666, "Permission denied"),
        (True, 0o555, 0o666, "cannot open the database"),
        (True, 0o777, 0o444, "attempt to write a readonly database"),
        (True, 0o777, 0o000, "unable to open database file"),
    ],
    ids=["new file", "read-only folder", "read-only file", "unreadable file"],
)
def test_a_malformed_value_cannot_be_written(
    open_to_all: Path, *, exists: bool, folder_mode: int, file_mode: int, refusal: str
) -> None:
    folder = open_to_all / "data"
    folder.mkdir()
    path = folder / "ledger.sqlite3"
    if exists:
        sql(file_address(path), "PRAGMA user_version = 1")
        path.chmod(file_mode)
    folder.chmod(folder_mode)
    told = run(refusal_without_privileges, path)
    assert told.startswith("LEDGER_UNAVAILABLE: ")
    assert refusal in told
    assert str(path) in told


@pytest.mark.parametrize(
    "url",
    [
        "mysql://ada:lovelace@localhost/ledger",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///",
        "sqlite:///file:ledger?mode=memory&uri=true",
    ],
)
def test_another_kind_of_database_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not supported: use") as caught:
        open_database(url)
    assert "lovelace" not in str(caught.value)


def secrets_in(message: str, keys: Keys) -> list[str]:
    verifiers = [verifier for (verifier,) in sql(keys.address, "SELECT verifier FROM auth_lookup")]
    digests = [digest for (digest,) in sql(keys.address, "SELECT digest FROM key_digests")]
    forbidden = ["$argon2", *verifiers, *map(repr, digests), *(each.hex() for each in digests)]
    return [secret for secret in forbidden if secret in message]


@pytest.mark.parametrize("table", ["events", "key_list", "auth_lookup", "key_digests"])
def test_no_error_shows_what_was_to_be_written(keys: Keys, table: str) -> None:
    keys.create()
    if keys.database.is_a_file:
        what = f"CREATE TRIGGER stop BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END"
    else:
        # The server tells the whole row that does not comply.
        what = f"ALTER TABLE {table} ADD CONSTRAINT stop CHECK (false) NOT VALID"
    sql(keys.address, what)
    with pytest.raises(LedgerError) as caught:
        keys.create()
    whole_chain = "".join(traceback.format_exception(caught.value))
    assert "INSERT INTO" in whole_chain
    assert "parameters hidden" in whole_chain
    assert secrets_in(whole_chain, keys) == []


def test_a_log_of_all_statements_does_not_show_what_is_written(
    keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sqlalchemy.engine")
    made = keys.create(lives=timedelta(days=1))
    keys.database.close()
    keys.verify(made.token)
    sql(keys.address, "DROP TABLE auth_lookup")
    with pytest.raises(LedgerUnavailable):
        keys.create()
    assert "INSERT INTO auth_lookup" in caplog.text
    assert made.token not in caplog.text
    assert "$argon2" not in caplog.text


def test_an_inconsistent_view_is_reported_without_its_row(keys: Keys) -> None:
    made = keys.create()
    sql(keys.address, "DELETE FROM auth_lookup")
    with pytest.raises(ProjectionInconsistent) as caught:
        keys.rename(made.key_id, "another")
    assert "$argon2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", ["password", "sslpassword"])
def test_no_password_is_shown_wherever_it_stands(name: str) -> None:
    url = make_url(f"postgresql+psycopg://me:hunter2@db/keys?{name}=hunter3&sslmode=require")
    shown = url_without_passwords(url)
    assert "hunter" not in shown
    assert shown.startswith("postgresql+psycopg://me:***@db/keys?")
    assert "sslmode=require" in shown
