"""The page docs/operations.md, followed exactly on three real PostgreSQL servers."""

import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.postgresql import free_port, initdb, plain_user
from tests.programs import needs
from tests.system.clients import answered
from tests.system.operations_page import (
    Machine,
    Page,
    give,
    machines,
    run_by_the_service,
    write_certificate,
    write_passwords,
)
from tests.system.processes import Server, Servers, eventually, run, servers_in
from tests.system.test_pgbouncer import PGBOUNCER

pytestmark = [needs(initdb(), "postgresql"), needs(PGBOUNCER, "pgbouncer")]

MANY = "on the servers: several members"
QUORUM = ("streaming", "quorum")


class Walk:
    """Somebody who follows the page, and starts and stops PostgreSQL where it says so."""

    def __init__(self, servers: Servers, members: list[Machine], folder: Path) -> None:
        self.servers = servers
        self.members = members
        self.folder = folder
        port = str(members[0].url("postgres").port)
        self.bouncer = free_port()
        self.page = Page(
            {
                r"\bdb-(\d)\b": r"127.0.0.\1",
                r"\b5432\b": port,
                r"\b6432\b": str(self.bouncer),
                re.escape("10.0.0.0/24"): "127.0.0.0/8",
                "/etc/keyledger/root.crt": str(folder / "server.crt"),
            }
        )

    def sh(self, machine: Machine, title: str, **replaced: str) -> str:
        return machine.run("sh", self._text(machine, title, replaced))

    def sql(self, machine: Machine, title: str) -> str:
        return machine.run("sql", self._text(machine, title, {}))

    def let_in(self, machine: Machine, title: str) -> None:
        """Add lines to pg_hba.conf, and restart PostgreSQL."""
        with (machine.data / "pg_hba.conf").open("a") as file:
            file.write(self.page.text(title))
        machine.crash()
        machine.start()

    def by_the_service(self, title: str, data_dir: Path, **environment: str) -> str:
        return run_by_the_service(self.page.text(title), data_dir, **environment)

    def _text(self, machine: Machine, title: str, replaced: dict[str, str]) -> str:
        text = self.page.text(title).replace("/var/lib/postgresql/15/main", str(machine.data))
        for old, new in replaced.items():
            text = text.replace(old, new)
        return text


@pytest.fixture
def walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Walk]:
    # Where the user of PostgreSQL can read it.
    folder = Path(tempfile.mkdtemp(prefix="keyledger-operations-"))
    folder.chmod(0o755)
    try:
        with machines() as members, servers_in(tmp_path) as servers:
            write_certificate(folder)
            write_passwords(tmp_path / "passwords")
            # PostgreSQL's user cannot look for certificates in the tests' own.
            monkeypatch.setenv("HOME", str(folder))
            monkeypatch.setenv("PGPASSFILE", str(tmp_path / "passwords"))
            monkeypatch.setenv("PGPORT", str(members[0].url("postgres").port))
            monkeypatch.setenv("PGSSLROOTCERT", str(folder / "server.crt"))
            yield Walk(servers, members, folder)
    finally:
        shutil.rmtree(folder)


@pytest.mark.timeout(600)
def test_the_operations_page_works_from_setup_to_failover_and_restore(
    walk: Walk, tmp_path: Path
) -> None:
    one, two, three = walk.members
    _begin(walk, one)
    _make_a_ledger_from_nothing(walk, one, tmp_path / "new")
    token = _copy_a_ledger(walk, one)
    _pool_connections(walk, one)

    _begin_to_replicate(walk)
    server = walk.servers.start(database_url=walk.page.database_url(MANY))
    client = server.client(token)
    made = answered(client.create("revoked on the new primary"), 201)
    assert client.verify(made["token"]) == "VALID"
    _come_back_after_much_was_written(one, three)

    primary = _fail_over(walk, one, [two, three])
    eventually(lambda: client.revoke(made["key_id"]).is_success, "it is revoked")
    assert client.verify(made["token"]) == "REVOKED"
    assert client.http.get("/readyz").json()["changes_refused"] is False
    _bring_the_old_primary_back(walk, one, primary)
    assert client.verify(made["token"]) == "REVOKED"

    _restore_a_backup(walk, primary, server)
    again = walk.servers.start(database_url=walk.page.database_url(MANY)).client(token)
    assert again.verify(made["token"]) == "REVOKED"
    assert walk.page.unused == set()


def _begin(walk: Walk, machine: Machine) -> None:
    """Have PostgreSQL on a machine, with a certificate."""
    machine.initialise()
    for name in ("server.crt", "server.key"):
        shutil.copy(walk.folder / name, machine.data)
        give(machine.data / name)
    machine.start()


def _make_a_ledger_from_nothing(walk: Walk, machine: Machine, data_dir: Path) -> None:
    data_dir.mkdir()
    walk.sh(machine, "on db-1, as postgres: make the database and the roles")
    walk.let_in(machine, "on db-1, pg_hba.conf: let the owner and the servers in")
    said = walk.by_the_service("on a server: make the tables and the first key", data_dir)
    token = _token_in(said)
    walk.sh(machine, "on db-1, as postgres: grant what servers may do with the tables")
    url = walk.page.database_url("on a server: serve")
    assert walk.page.database_url("on the servers: one PostgreSQL") == url
    server = walk.servers.start(database_url=url, data_dir=data_dir)
    assert [each["name"] for each in server.client(token).list_keys(workspace="root")] == ["root"]
    server.stop()
    machine.run("sh", "dropdb keyledger")


def _copy_a_ledger(walk: Walk, machine: Machine) -> str:
    """Copy a ledger from SQLite, and return the token of its root key."""
    data_dir = walk.servers.data_dir
    create = ("keys", "create", "--workspace", "root", "--name", "root", "--scopes", "*")
    token = _token_in(run(data_dir, *create).output)
    walk.sh(machine, "on db-1, as postgres: make the database and the roles")
    copy = (
        "on the machine of the SQLite ledger: copy, the first time and again after the servers"
        " were stopped"
    )
    for copied in (1, 0):
        said = walk.by_the_service(copy, data_dir)
        assert f"copied {copied} event" in said
        # The servers are not to be run as the owner.
        assert "set KEYLEDGER_DATABASE_URL=postgresql+psycopg://keyledger_server@" in said
        assert "docs/postgresql-roles.sql" in said
    walk.sh(machine, "on db-1, as postgres: grant what servers may do with the copied tables")
    return token


def _token_in(said: str) -> str:
    (token,) = re.findall(r"^key_\w{65}$", said, re.MULTILINE)
    return str(token)


def _pool_connections(walk: Walk, machine: Machine) -> None:
    """Go through PgBouncer with the page's settings."""
    data_dir = walk.servers.data_dir
    walk.sh(machine, "on db-1, as postgres: write the file of PgBouncer's users")
    users = machine.data.with_name("userlist.txt").read_text()
    settings = walk.page.text("on a server, pgbouncer.ini")
    url = walk.page.database_url("on the servers: through PgBouncer")
    with _pgbouncer(settings, users, walk.bouncer):
        listed = run(data_dir, "keys", "list", database_url=url)
        assert listed.code == 0, listed


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def _pgbouncer(settings: str, users: str, port: int) -> Iterator[None]:
    folder = Path(tempfile.mkdtemp(prefix="keyledger-pgbouncer-"))
    try:
        file = folder / "pgbouncer.ini"
        file.write_text(settings + "unix_socket_dir =\n")
        (folder / "userlist.txt").write_text(users)
        for path in (folder, file, folder / "userlist.txt"):
            give(path)
        process = subprocess.Popen(
            [PGBOUNCER or "", "--quiet", str(file)],
            cwd=folder,
            user=plain_user(),
            stderr=subprocess.PIPE,
        )
        try:
            eventually(partial(_listens, port), "PgBouncer listens")
            yield
        finally:
            process.terminate()
            process.communicate(timeout=20)
    finally:
        shutil.rmtree(folder)


def _begin_to_replicate(walk: Walk) -> None:
    one, two, three = walk.members
    walk.sql(one, "on db-1, as a superuser: prepare the primary")
    walk.let_in(one, "on db-1, db-2 and db-3, pg_hba.conf: let the members in")
    for standby in (two, three):
        standby.empty()
        walk.sh(standby, "on db-2, as postgres: copy the primary", db_2=standby.name)
        standby.start()
    for member in walk.members:
        walk.sql(member, "on db-1, db-2 and db-3, as a superuser: wait for a standby")
    _wait_for_standbys(one, {two, three})
    shown = walk.sql(one, "on the primary, as a superuser: see which standbys it waits for")
    assert sorted(shown.split()) == ["db_2|streaming|quorum", "db_3|streaming|quorum"]


def _wait_for_standbys(primary: Machine, standbys: set[Machine]) -> None:
    expected = {each.name: QUORUM for each in standbys}
    eventually(lambda: primary.standbys() == expected, f"{set(expected)} follow {primary.name}")


def _come_back_after_much_was_written(primary: Machine, standby: Machine) -> None:
    followed = primary.standbys()
    standby.kill()
    primary.write_much()
    standby.start()
    eventually(lambda: primary.standbys() == followed, "the standby has returned")


def _fail_over(walk: Walk, dead: Machine, standbys: list[Machine]) -> Machine:
    """Lose the primary, and return the new one."""
    dead.kill()
    title = "on db-2 and db-3, as a superuser: see how much a standby has received"
    received = {each: _position(walk.sql(each, title)) for each in standbys}
    primary = max(standbys, key=lambda each: received[each])
    walk.sql(primary, "on db-2, as a superuser: promote it")
    _wait_for_standbys(primary, set(standbys) - {primary})
    return primary


def _position(lsn: str) -> tuple[int, ...]:
    return tuple(int(part, 16) for part in lsn.strip().split("/"))


def _bring_the_old_primary_back(walk: Walk, old: Machine, primary: Machine) -> None:
    """Let it have what nobody acknowledged, so that it cannot simply follow."""
    old.start()
    alone = "SET synchronous_commit = local; CREATE TABLE of_nobody AS SELECT generate_series(1, 9)"
    old.run("sql", alone)
    old.kill()
    walk.sh(old, "on db-1, as postgres: make the old primary a standby")
    old.start()
    _wait_for_standbys(primary, set(walk.members) - {primary})
    eventually(
        lambda: old.run("sql", "SELECT to_regclass('of_nobody') IS NULL") == "t\n",
        "what nobody acknowledged is gone",
    )


def _restore_a_backup(walk: Walk, primary: Machine, server: Server) -> None:
    server.stop()
    walk.sh(primary, "on the primary, as postgres: back up a ledger")
    primary.run("sh", "dropdb keyledger")
    walk.sh(primary, "on the primary, as postgres: restore a ledger into a new database")
    url = walk.page.database_url(MANY)
    checked = partial(walk.by_the_service, data_dir=walk.servers.data_dir)
    said = checked("on a server: check what was restored", KEYLEDGER_DATABASE_URL=url)
    assert "no findings" in said
    owner = url.replace("keyledger_server", "keyledger_owner")
    checked(
        "on a server, as the owner: return to the views of an older version",
        KEYLEDGER_DATABASE_URL=owner,
    )
