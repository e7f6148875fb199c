"""Properties of a ledger on PostgreSQL beyond those of every engine."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from api.composition import OpenLedger
from domain.errors import LedgerUnavailable, RebuildRunning
from projections.auth.freshness_postgresql import PostgresqlFreshness
from projections.queries.filters import Filters
from projections.queries.keys_now import list_keys
from projections.rebuild.rebuild import check, rebuild
from projections.rebuild.shadow_table import Shadow
from projections.store import postgresql
from projections.store.database import open_database
from projections.store.locks import task_lock
from projections.store.postgresql import ConnectionLimits
from projections.store.postgresql_locks import block_readers
from projections.views import key_list
from projections.views.registry import VIEWS
from projections.views.view import View
from tests.conftest import NOON
from tests.engines import PostgreSQL
from tests.postgresql import administration, connected, running_server
from tests.projections.ledgers import Keys, keys_in
from tests.system.processes import eventually

pytestmark = pytest.mark.only_on("postgresql")

SETTINGS = {
    "application_name": "keyledger",
    "statement_timeout": "2s",
    "lock_timeout": "1s",
    "idle_in_transaction_session_timeout": "2s",
    "client_encoding": "UTF8",
}
LIMITS = ConnectionLimits(connections=2, statement_seconds=2, lock_seconds=1)


def noon() -> datetime:
    return datetime.now(UTC)


def names_of(opened: OpenLedger) -> list[str]:
    with opened.database.read() as connection:
        found = list_keys(connection, "default", Filters(), now=NOON, limit=100)
    return [key.name for key in found]


def made_five(keys: Keys) -> list[str]:
    names = [f"{number}" for number in range(5)]
    for name in names:
        keys.create(name)
    return names


def cut_all(opened: OpenLedger) -> None:
    """End all connections of the ledger's, as a server does that is stopped."""
    with administration(opened.database.url) as server:
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [opened.database.url.database],
        )


def set_in_database(opened: OpenLedger, name: str, value: str) -> None:
    """Let whoever connects from now on begin with another setting."""
    database = opened.database.url.database
    with connected(opened.database.url) as connection:
        connection.execute(f'ALTER DATABASE "{database}" SET {name} = {value}'.encode())


def connections_to(opened: OpenLedger) -> set[object]:
    with administration(opened.database.url) as server:
        found = server.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = %s", [opened.database.url.database]
        )
        return {pid for (pid,) in found}


def waiting_for_locks(opened: OpenLedger) -> int:
    with administration(opened.database.url) as server:
        found = server.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'",
            [opened.database.url.database],
        ).fetchone()
    return 0 if found is None else int(str(found[0]))


class TestConnections:
    @pytest.mark.parametrize("engine_of", ["reader", "writer"])
    def test_each_has_its_limits_and_says_whose_it_is(
        self, opened: OpenLedger, engine_of: str
    ) -> None:
        set_in_database(opened, "client_encoding", "LATIN1")
        database = open_database(opened.database.url, LIMITS)
        with getattr(database, engine_of).begin() as connection:
            found = {name: connection.scalar(text(f"SHOW {name}")) for name in SETTINGS}
        database.close()
        assert found == SETTINGS

    @pytest.mark.parametrize("encoding", ["WIN1252", "EUC_JP", "SQL_ASCII"])
    def test_every_name_is_kept_whatever_encoding_the_role_was_given(
        self, keys: Keys, encoding: str
    ) -> None:
        set_in_database(keys.opened, "client_encoding", encoding)
        with keys_in(keys.data_dir) as again:
            made = again.create("a — name 😀")
            assert again.show(made.key_id).name == "a — name 😀"
            assert again.verify(made.token).value == "VALID"

    def test_one_that_reads_can_write_nothing(self, opened: OpenLedger) -> None:
        with (
            pytest.raises(LedgerUnavailable),
            opened.database.read() as connection,
        ):
            connection.execute(text("DELETE FROM events"))

    def test_a_statement_that_takes_too_long_is_given_up(self, opened: OpenLedger) -> None:
        limits = ConnectionLimits(statement_seconds=0.05)
        database = open_database(opened.database.url, limits)
        with pytest.raises(LedgerUnavailable), database.read() as connection:
            connection.execute(text("SELECT pg_sleep(60)"))
        with database.read() as connection:
            postgresql.lift_timeouts(connection)
            connection.execute(text("SELECT pg_sleep(0.2)"))
        database.close()

    def test_a_database_that_cannot_keep_every_text_is_refused(self, opened: OpenLedger) -> None:
        url = opened.database.url
        name = f"{url.database}_ascii"
        with administration(url) as server:
            server.execute(
                f"CREATE DATABASE \"{name}\" ENCODING 'SQL_ASCII' LOCALE 'C' LOCALE_PROVIDER libc"
                " TEMPLATE template0".encode()
            )
        with pytest.raises(LedgerUnavailable, match="encoding of the database is SQL_ASCII"):
            open_database(url.set(database=name))

    def test_a_cut_connection_is_replaced_without_an_error(self, keys: Keys) -> None:
        made = keys.create("payments")
        assert keys.verify(made.token).value == "VALID"
        cut_all(keys.opened)
        assert names_of(keys.opened) == ["payments"]
        keys.revoke(made.key_id)
        assert keys.verify(made.token).value == "REVOKED"

    def test_a_hanging_server_is_given_up_and_asked_on_another_connection(
        self, keys: Keys, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keys.create("payments")
        monkeypatch.setattr("projections.store.postgresql._GRACE_SECONDS", 0.2)
        database = open_database(
            keys.database.url, ConnectionLimits(statement_seconds=0.2)
        ).sealed_by(keys.database.seals)
        check = PostgresqlFreshness(database)
        count = text("SELECT count(*) FROM key_list")
        hung: list[int] = []

        def count_while_they_hang() -> None:
            with database.read() as connection:
                for pid in connections_to(keys.opened):
                    hung.append(int(str(pid)))
                    os.kill(hung[-1], signal.SIGSTOP)
                connection.scalar(count)

        # What was waited for before, on the same connection, was so to its end and no longer.
        with database.read() as connection:
            postgresql.lift_timeouts(connection)
        try:
            with pytest.raises(LedgerUnavailable):
                count_while_they_hang()
            assert len(hung) > 2
            with database.read() as connection:
                assert connection.scalar(count) == 1
            assert check.find("0" * 16, "pepper") is None
        finally:
            for pid in hung:
                os.kill(pid, signal.SIGCONT)
        check.close()
        database.close()

    def test_a_long_transaction_without_a_timeout_is_waited_for(
        self, keys: Keys, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("projections.store.postgresql._GRACE_SECONDS", 0.1)
        database = open_database(keys.database.url, ConnectionLimits(statement_seconds=0.1))
        with database.read() as connection:
            postgresql.lift_timeouts(connection)
            connection.execute(text("SELECT pg_sleep(0.5)"))
        with pytest.raises(LedgerUnavailable), database.read() as connection:
            connection.execute(text("SELECT pg_sleep(0.5)"))
        database.close()


def test_a_revocation_survives_a_crash_though_the_server_was_told_not_to_wait(
    tmp_path: Path,
) -> None:
    shown = text("SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit'")
    with running_server() as server:
        data_dir = PostgreSQL(server).new_place(tmp_path / "data")
        with keys_in(data_dir) as keys:
            made = keys.create()

            def is_told() -> bool:
                with keys.database.write() as connection:
                    return bool(connection.scalar(shown) == "off")

            with administration(keys.database.url) as administrator:
                for setting in ("synchronous_commit = off", "wal_writer_delay = '10s'"):
                    administrator.execute(f"ALTER SYSTEM SET {setting}".encode())
                administrator.execute("SELECT pg_reload_conf()")
            eventually(is_told, "the connection that is open knows of it")
            keys.revoke(made.key_id)
            server.crash()
        server.start()
        with keys_in(data_dir) as keys:
            assert keys.verify(made.token).value == "REVOKED"


class TestLocks:
    def test_one_connection_at_a_time_holds_a_task_lock(self, opened: OpenLedger) -> None:
        other = open_database(opened.database.url)
        with (
            task_lock(opened.database, "signing") as first,
            task_lock(other, "signing") as second,
            task_lock(other, "expiring") as third,
        ):
            assert (first, second, third) == (True, False, True)
        with task_lock(other, "signing") as free:
            assert free
        other.close()

    def test_the_lock_of_a_connection_that_was_cut_is_free(self, opened: OpenLedger) -> None:
        other = open_database(opened.database.url)
        with task_lock(opened.database, "signing") as first:
            assert first
            cut_all(opened)
            with task_lock(other, "signing") as second:
                assert second
        other.close()

    def test_a_rebuild_that_lost_its_lock_writes_nothing_more(self, keys: Keys) -> None:
        keys.create("payments")
        slow, quick = (Shadow(keys.database, key_list.VIEW, "rebuild") for _ in range(2))
        slow.begin(resume=True)
        quick.begin(resume=True)
        quick.fill_batch()
        with pytest.raises(RebuildRunning, match="taken over"):
            slow.fill_batch()

    def test_appends_wait_for_each_other_and_not_for_what_is_no_event(self, keys: Keys) -> None:
        other = open_database(keys.database.url, ConnectionLimits(lock_seconds=0.05))
        with keys.database.append():
            with other.write() as connection:
                connection.execute(text("DELETE FROM console_sessions"))
            with pytest.raises(LedgerUnavailable), other.append():
                pass
        with other.append():
            pass
        other.close()

    def test_a_query_that_timed_out_is_not_sent_again(self, keys: Keys) -> None:
        database = open_database(keys.database.url, ConnectionLimits(lock_seconds=0.1)).sealed_by(
            keys.database.seals
        )
        check = PostgresqlFreshness(database)
        with connected(keys.database.url) as other, other.transaction():
            other.execute("LOCK TABLE auth_lookup IN ACCESS EXCLUSIVE MODE")
            backends = connections_to(keys.opened)
            with pytest.raises(LedgerUnavailable):
                check.find("0" * 16, "pepper")
            assert connections_to(keys.opened) == backends
        assert check.find("0" * 16, "pepper") is None
        check.close()
        database.close()


class TestExchange:
    @pytest.mark.parametrize("mode", ["ACCESS SHARE", "SHARE UPDATE EXCLUSIVE"])
    def test_it_waits_for_external_readers_and_vacuum(
        self, keys: Keys, mode: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = made_five(keys)
        monkeypatch.setattr("projections.rebuild.rebuild._PAUSE_SECONDS", 0.01)
        tried = threading.Semaphore(0)

        def noted(*arguments: Any) -> None:  # noqa: ANN401 - what it is given
            tried.release()
            block_readers(*arguments)

        monkeypatch.setattr("projections.rebuild.shadow_table.block_readers", noted)
        with ThreadPoolExecutor(1) as pool, connected(keys.database.url) as other:
            with other.transaction():
                other.execute(f"LOCK TABLE key_list IN {mode} MODE".encode())
                done = pool.submit(rebuild, keys.database, key_list.VIEW, clock=noon)
                for _ in range(2):
                    assert tried.acquire(timeout=60)
                assert not done.done()
            assert done.result().differing == 0
        assert sorted(names_of(keys.opened)) == names

    def test_a_reader_that_began_before_the_swap_finds_every_row(self, keys: Keys) -> None:
        names = made_five(keys)
        with ThreadPoolExecutor(1) as pool, ExitStack() as reading:
            connection = reading.enter_context(keys.database.read())
            connection.execute(text("SELECT count(*) FROM events"))
            done = pool.submit(rebuild, keys.database, key_list.VIEW, clock=noon)
            while not waiting_for_locks(keys.opened):
                assert not done.done(), "the exchange did not wait for the reader"
            found = list_keys(connection, "default", Filters(), now=NOON, limit=100)
            assert sorted(key.name for key in found) == names
            assert not done.done()
            reading.close()
            assert done.result().differing == 0
        assert sorted(names_of(keys.opened)) == names

    def test_readers_during_the_swap_find_every_row(self, keys: Keys) -> None:
        names = made_five(keys)
        ended = threading.Event()

        def read() -> int:
            times = 0
            while not ended.is_set():
                assert sorted(names_of(keys.opened)) == names
                times += 1
            return times

        with ThreadPoolExecutor(3) as pool:
            readers = [pool.submit(read) for _ in range(3)]
            try:
                for _ in range(10):
                    rebuild(keys.database, key_list.VIEW, clock=noon)
            finally:
                ended.set()
            assert all(reader.result() for reader in readers)

    def test_an_append_meanwhile_is_in_the_new_table(
        self, keys: Keys, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keys.create("before")
        monkeypatch.setattr("projections.rebuild.rebuild._PAUSE_SECONDS", 0.01)
        with ThreadPoolExecutor(1) as pool, ExitStack() as reading:
            reading.enter_context(keys.database.read())
            done = pool.submit(rebuild, keys.database, key_list.VIEW, clock=noon)
            while not waiting_for_locks(keys.opened):
                assert not done.done()
            keys.create("meanwhile")
            reading.close()
            assert done.result().position == 2
        assert names_of(keys.opened) == ["meanwhile", "before"]

    def test_a_change_that_a_failed_attempt_projected_is_projected_again(
        self, keys: Keys, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("projections.rebuild.rebuild._PAUSE_SECONDS", 0.01)
        tried = threading.Semaphore(0)

        def noted(*arguments: Any) -> None:  # noqa: ANN401 - what it is given
            tried.release()
            block_readers(*arguments)

        def create(*_progress: object) -> None:
            # The last one comes after the last batch, so that each attempt has to project it.
            made.append(keys.create("meanwhile").key_id)

        made = [keys.create("before").key_id]
        monkeypatch.setattr("projections.rebuild.shadow_table.block_readers", noted)
        with ThreadPoolExecutor(1) as pool, connected(keys.database.url) as other:
            with other.transaction():
                other.execute("LOCK TABLE key_list IN ACCESS SHARE MODE")
                done = pool.submit(
                    rebuild, keys.database, key_list.VIEW, clock=noon, progress=create
                )
                for _ in range(2):
                    assert tried.acquire(timeout=60)
            report = done.result()
        assert (report.differing, report.position, report.events) == (0, len(made), len(made))
        assert check(keys.database, key_list.VIEW).differing == 0


def test_times_and_names_are_in_the_order_of_their_bytes(keys: Keys) -> None:
    for name in ("b", "A", "a", "B", "_", "é"):
        keys.create(name)
    with connected(keys.database.url) as connection:
        assert isinstance(connection, psycopg.Connection)
        found = [name for (name,) in connection.execute("SELECT name FROM key_list ORDER BY name")]
    assert found == ["A", "B", "_", "a", "b", "é"]


def rows_known_of(connection: psycopg.Connection[tuple[object, ...]], table: str) -> object:
    """Return how many rows the server believes a table to have; -1 before it ever looked."""
    asked = "SELECT reltuples FROM pg_class WHERE oid = to_regclass(%s)"
    return connection.execute(asked, [table]).fetchone()


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: str(view.name))
def test_a_table_has_statistics_when_it_is_swapped_in(keys: Keys, view: View) -> None:
    made_five(keys)
    with connected(keys.database.url) as connection:
        rebuild(keys.database, view, clock=noon)
        assert rows_known_of(connection, view.name) == (5,)
