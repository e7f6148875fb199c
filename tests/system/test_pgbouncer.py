"""A real PgBouncer in front of the database: session mode works, other modes are refused."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import URL

from domain.errors import LedgerUnavailable
from projections.store.database import open_database
from projections.store.postgresql_pooling import TransactionPooling
from tests.postgresql import Server, create_database, free_port, initdb, plain_user, running_server
from tests.programs import needs
from tests.system.processes import eventually, run

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")

pytestmark = [needs(initdb(), "postgresql"), needs(PGBOUNCER, "pgbouncer")]

_SETTINGS = """\
[databases]
* = host={url.host} port={url.port} user={url.username} password={url.password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
server_round_robin = {round_robin}
ignore_startup_parameters = extra_float_digits
"""


@contextmanager
def pooled(server: Server, database: str, mode: str, round_robin: int = 0) -> Iterator[URL]:
    """Run a PgBouncer in front of a server; its data are the clients' alone."""
    url = server.url(database)
    port = free_port()
    settings = _SETTINGS.format(url=url, port=port, mode=mode, round_robin=round_robin)
    folder = Path(tempfile.mkdtemp(prefix="keyledger-pgbouncer-"))
    file = folder / "pgbouncer.ini"
    file.touch(0o600)
    file.write_text(settings)
    user = plain_user()
    if user is not None:
        for path in (folder, file):
            shutil.chown(path, user)
    process = subprocess.Popen(
        [PGBOUNCER or "", str(file)],
        user=user,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    through = url.set(host="127.0.0.1", port=port)
    try:
        plain = through.set(drivername="postgresql").render_as_string(hide_password=False)

        def answers() -> bool:
            assert process.poll() is None, "PgBouncer has ended"
            try:
                psycopg.connect(plain, autocommit=True).close()
            except psycopg.OperationalError:
                return False
            return True

        eventually(answers, "PgBouncer answers")
        yield through
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def database(postgresql: Server) -> str:
    create_database(postgresql.url("pooled"))
    return "pooled"


@pytest.mark.parametrize(
    ("mode", "round_robin"), [("transaction", 0), ("transaction", 1), ("statement", 0)]
)
def test_a_pooler_without_sessions_is_refused_by_servers_commands_and_the_doctor(
    postgresql: Server, database: str, tmp_path: Path, mode: str, round_robin: int
) -> None:
    with pooled(postgresql, database, mode, round_robin) as url:
        with pytest.raises(TransactionPooling, match=f"pools by {mode}"):
            open_database(url)
        address = url.render_as_string(hide_password=False)
        for command in (["serve", "--port", "0"], ["keys", "list"]):
            ended = run(tmp_path / "data", *command, database_url=address)
            assert ended.code == 1, command
            assert f"pools by {mode}" in " ".join(ended.errors.split()), command
        ended = run(tmp_path / "data", "doctor", "--json", database_url=address)
        assert ended.code == 1
        found = {each["name"]: each for each in json.loads(ended.output)["checks"]}["database"]
        assert (found["result"], f"pools by {mode}" in found["found"]) == ("fail", True)
        assert "pool_mode = session" in found["remedy"]


def test_a_pooler_of_transactions_is_found_while_others_use_it(
    postgresql: Server, database: str
) -> None:
    with pooled(postgresql, database, "transaction") as url:
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        others = [psycopg.connect(plain) for _ in range(3)]
        for number, other in enumerate(others):
            other.execute("SELECT 1")
            if number:
                other.rollback()
        for _ in range(5):
            with pytest.raises(TransactionPooling):
                open_database(url)
        for other in others:
            other.close()


def test_a_pooler_of_sessions_is_used(postgresql: Server, database: str) -> None:
    with (
        pooled(postgresql, database, "session") as url,
        closing(open_database(url)) as opened,
        opened.read() as connection,
    ):
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1


def test_a_pooler_refuses_a_url_with_options(postgresql: Server, database: str) -> None:
    with pooled(postgresql, database, "session") as url:
        searching = url.update_query_dict({"options": "-csearch_path=public"})
        with pytest.raises(LedgerUnavailable, match="unsupported startup parameter"):
            open_database(searching)


def test_a_vanished_pooler_is_reported_as_unavailable(postgresql: Server, database: str) -> None:
    with pooled(postgresql, database, "session") as url:
        pass
    with pytest.raises(LedgerUnavailable, match="cannot open the database"):
        open_database(url)
