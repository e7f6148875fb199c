"""The server's PostgreSQL role may write what the program writes, and nothing else."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event

from api.composition import opened_ledger
from api.console.installation import open_sessions
from api.jobs.integrity_check import check_ledger
from api.settings import Settings, read_settings
from domain.key_ledger import Changes
from domain.verdict import Verified
from domain.verifiers import CHEAPEST
from projections.integrity.last_result import read_last_result
from projections.integrity.schema_check import TABLES
from tests.conftest import SettableClock
from tests.postgresql import connected, create_database, initdb, running_server
from tests.programs import needs
from tests.projections.ledgers import HOUR, Keys
from tests.system.processes import servers_in
from tests.system.test_roles import OWNER, SERVER, Guarded

pytestmark = needs(initdb(), "postgresql")

Privilege = tuple[str, str, str]
"""A table, a verb, and a column; the column is empty where the verb is about whole rows."""

LEDGER = {table.name: table for table in TABLES}
_SET = re.compile(r"(?:UPDATE (\w+)|DO UPDATE) SET (.*?)(?: WHERE|$)", re.DOTALL)
_INSERT = re.compile(r"INSERT INTO (\w+) \(([^)]*)\)")
_DELETE = re.compile(r"DELETE FROM (\w+)")
_GRANTED = """
SELECT table_name, privilege_type, column_name FROM information_schema.column_privileges
WHERE grantee = 'keyledger_server' AND table_schema = 'public' AND privilege_type <> 'SELECT'
UNION
SELECT table_name, privilege_type, '' FROM information_schema.table_privileges
WHERE grantee = 'keyledger_server' AND table_schema = 'public'
AND privilege_type NOT IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
"""


def written_by(statement: str) -> Iterator[Privilege]:
    """Yield the privileges on the ledger's tables that a statement of the program needs."""
    inserted = _INSERT.match(statement)
    if inserted:
        for column in inserted[2].split(", "):
            yield inserted[1], "INSERT", column
    for table, columns in _SET.findall(statement):
        for column in re.findall(r"(\w+) ?=", columns):
            yield table or (inserted[1] if inserted else ""), "UPDATE", column
    deleted = _DELETE.match(statement)
    if deleted:
        yield deleted[1], "DELETE", ""


@contextmanager
def noting() -> Iterator[set[Privilege]]:
    """Note what this process writes to the ledger's tables."""
    noted: set[Privilege] = set()

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:  # noqa: ANN401 - SQLAlchemy's
        noted.update(each for each in written_by(statement) if each[0] in LEDGER)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield noted
    finally:
        event.remove(Engine, "before_cursor_execute", note)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A ledger that its owner has made, without a server."""
    with (
        running_server(password_encryption="scram-sha-256") as postgresql,
        servers_in(tmp_path_factory.mktemp("privileges")) as servers,
    ):
        guarded = Guarded(postgresql.url("privileges"), servers)
        create_database(guarded.administrator)
        guarded.run_script()
        with opened_ledger(settings_of(guarded, OWNER), argon2_profile=CHEAPEST) as opened:
            Keys(opened).create()
        guarded.run_script()
        yield guarded


def settings_of(guarded: Guarded, role: str) -> Settings:
    folder = guarded.servers.data_dir
    return read_settings(data_dir=folder, database_url=guarded.url_to_set(role))


def granted(guarded: Guarded) -> set[Privilege]:
    with connected(guarded.administrator) as connection:
        rows = connection.execute(_GRANTED.encode()).fetchall()
    return {(str(table), str(privilege), str(column)) for table, privilege, column in rows}


def do_everything(settings: Settings) -> None:
    """Do with a ledger what a server does."""
    clock = SettableClock()
    with opened_ledger(settings, clock=clock, argon2_profile=CHEAPEST) as opened:
        keys = Keys(opened)
        made = keys.create()
        changes = Changes(name="renamed", scopes=["mcp:write"], expires_at=keys.now + HOUR)
        keys.update(made.key_id, changes)
        answer = opened.authentication.verify(made.token, (), now=keys.now)
        assert isinstance(answer.verdict, Verified)
        sessions = open_sessions(opened, lambda length: b"s" * length)
        value = sessions.begin(answer.verdict.key, now=keys.now)
        assert sessions.find(value, now=keys.now + timedelta(minutes=5))
        sessions.end(value)
        opened.last_uses.flush(opened.database)
        keys.rotate(made.key_id)
        keys.revoke(made.key_id)
        keys.create(lives=HOUR)
        clock.advance(hours=2)
        assert keys.expire_due() > 0
        opened.signer.sign()
        check_ledger(opened)
        assert read_last_result(opened.database, clock.now) is not None


def test_the_role_may_write_what_the_program_writes_and_nothing_else(guarded: Guarded) -> None:
    with noting() as written:
        do_everything(settings_of(guarded, SERVER))
    assert written == granted(guarded)


def test_a_rebuild_leaves_the_role_its_privileges_on_single_columns(guarded: Guarded) -> None:
    before = granted(guarded)
    rebuilt = guarded.command(OWNER, "projections", "rebuild", "--all")
    assert rebuilt.code == 0, rebuilt
    assert granted(guarded) == before


def test_the_script_takes_away_what_it_granted_in_an_earlier_version(guarded: Guarded) -> None:
    before = granted(guarded)
    for table in LEDGER:
        guarded.execute(OWNER, f"GRANT ALL ON {table} TO {SERVER}")
    assert granted(guarded) != before
    guarded.run_script()
    assert granted(guarded) == before


def test_a_new_table_is_not_written_before_the_script_grants_it(guarded: Guarded) -> None:
    guarded.execute(OWNER, "CREATE TABLE new (id int)")
    try:
        for statement in ("INSERT INTO new VALUES (1)", "DELETE FROM new"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                guarded.execute(SERVER, statement)
    finally:
        guarded.execute(OWNER, "DROP TABLE new")


@pytest.mark.parametrize("name", LEDGER)
def test_each_statement_that_the_program_does_not_need_is_refused(
    guarded: Guarded, name: str
) -> None:
    allowed = granted(guarded)
    statements = {(name, "DELETE", ""): f"DELETE FROM {name} WHERE false"}  # noqa: S608 - names of ours
    for column in LEDGER[name].c:
        statements[name, "UPDATE", column.name] = (
            f"UPDATE {name} SET {column.name} = {column.name} WHERE false"  # noqa: S608
        )
        statements[name, "INSERT", column.name] = (
            f"INSERT INTO {name} ({column.name})"  # noqa: S608
            f" SELECT {column.name} FROM {name} WHERE false"
        )
    for privilege, statement in statements.items():
        if privilege in allowed:
            guarded.execute(SERVER, statement)
        else:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                guarded.execute(SERVER, statement)


@pytest.mark.parametrize("privilege", ["INSERT", "UPDATE"])
def test_doctor_misses_a_privilege_on_a_single_column(guarded: Guarded, privilege: str) -> None:
    needed = sorted(each for each in granted(guarded) if each[1] == privilege)
    for table, _, column in (needed[0], needed[-1]):
        guarded.execute(OWNER, f"REVOKE {privilege} ON {table} FROM {SERVER}")
        rest = [each[2] for each in needed if each[0] == table and each[2] != column]
        if rest:
            guarded.execute(OWNER, f"GRANT {privilege} ({', '.join(rest)}) ON {table} TO {SERVER}")
        try:
            said = guarded.command(SERVER, "doctor", "--json").output
        finally:
            guarded.run_script()
        assert f"{privilege} on {table}" in said
