"""A server whose role can append to the history but not change it, set up by the script."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg
import pytest
from sqlalchemy import URL

from domain.times import to_text
from projections.store.schema import HEAD, metadata
from projections.views.registry import VIEWS
from tests.postgresql import Server, connected, create_database, initdb, running_server
from tests.programs import needs
from tests.system.clients import Client, answered, types
from tests.system.ledgers import admin_token
from tests.system.live_streams import Tail
from tests.system.processes import Ran, Servers, eventually, run, servers_in

pytestmark = needs(initdb(), "postgresql")

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "postgresql-roles.sql"
OWNER = "keyledger_owner"
SERVER = "keyledger_server"
NO_CHANGE = "suppress_redundant_updates_trigger"
"""A function for triggers that PostgreSQL brings along."""


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Server]:
    with running_server(password_encryption="scram-sha-256") as server:
        yield server


@dataclass
class Guarded:
    """A database with the two roles, and the servers of its ledger."""

    administrator: URL
    servers: Servers
    token: str = ""

    def url(self, role: str) -> URL:
        return self.administrator.set(username=role)

    def url_to_set(self, role: str) -> str:
        return self.url(role).render_as_string(hide_password=False)

    def run_script(self) -> None:
        options = ("--no-psqlrc", "--quiet", "--file", str(SCRIPT))
        assert self.run_program("psql", *options) == b""
        with connected(self.administrator) as connection:
            for role in (OWNER, SERVER):
                # A statement about a role takes no parameters; the password is hexadecimal.
                password = self.administrator.password
                connection.execute(f"ALTER ROLE {role} PASSWORD '{password}'".encode())

    def run_program(self, program: str, *arguments: str) -> bytes:
        """Run a program of PostgreSQL's on the database; return all that it says."""
        url = self.administrator.set(drivername="postgresql")
        name = url.render_as_string(hide_password=False)
        path = Path(initdb() or "").with_name(program)
        ran = subprocess.run(
            [path, "--dbname", name, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout
        return ran.stdout

    def command(self, role: str, *arguments: str) -> Ran:
        return run(self.servers.data_dir, *arguments, database_url=self.url_to_set(role))

    def execute(self, role: str, statement: str) -> None:
        with connected(self.url(role)) as connection:
            connection.execute(statement.encode())


def _guarded(postgresql: Server, servers: Servers, name: str) -> Guarded:
    guarded = Guarded(postgresql.url(name), servers)
    create_database(guarded.administrator)
    guarded.run_script()
    return guarded


@pytest.fixture(scope="module")
def guarded(postgresql: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A ledger made by its owner, with a server that runs as the other role."""
    with servers_in(tmp_path_factory.mktemp("guarded")) as servers:
        guarded = _guarded(postgresql, servers, "guarded")
        made = guarded.command(
            OWNER, "keys", "create", "--workspace", "root", "--name", "root", "--scopes", "*"
        )
        guarded.token = re.findall(r"^key_\w{65}$", made.output, re.MULTILINE)[0]
        # The second time it finds the tables, and the third time nothing to do.
        for _ in range(2):
            guarded.run_script()
        servers.start(
            database_url=guarded.url_to_set(SERVER),
            expirer_seconds=0.05,
            last_used_seconds=0.05,
            attestation_hours=0.001,
        )
        yield guarded


@pytest.fixture
def root(guarded: Guarded) -> Client:
    return guarded.servers.started[0].client(guarded.token)


def test_it_makes_checks_changes_and_ends_keys(root: Client) -> None:
    made = answered(root.create("made", idempotency_key="made-once"), 201)
    assert answered(root.create("made", idempotency_key="made-once"), 201)["token"] is None
    assert root.verify(made["token"]) == "VALID"
    answered(root.update(made["key_id"], name="renamed", scopes=["mcp:write"]))
    successor = answered(root.rotate(made["key_id"], 3600), 201)
    answered(root.revoke(made["key_id"], "leaked"))
    assert root.verify(made["token"]) == "REVOKED"
    assert root.verify(successor["token"]) == "VALID"
    assert [each["name"] for each in root.list_keys(q="rename")] == ["renamed"] * 2
    history = types(root.history(made["key_id"]))
    assert history == ["Created", "Renamed", "ScopesChanged", "Rotated", "Revoked"]


def test_it_records_that_a_key_has_expired_and_when_it_was_last_used(root: Client) -> None:
    used = answered(root.create("used"), 201)
    assert root.verify(used["token"]) == "VALID"
    end = datetime.now(UTC) + timedelta(seconds=1)
    ended = answered(root.create("ended", expires_at=to_text(end)), 201)
    eventually(
        lambda: types(root.history(ended["key_id"])) == ["Created", "Expired"],
        "the end of a key is recorded",
    )
    eventually(
        lambda: root.show(used["key_id"])["last_used_at"] is not None,
        "the use of a key is written down",
    )


def test_it_shows_the_event_and_its_proof(guarded: Guarded, root: Client) -> None:
    made = answered(root.create("proved"), 201)
    leaf = answered(root.http.get("/v1/events", params={"key_id": made["key_id"]}))["data"][0]
    with Tail(guarded.servers.started[0].client(guarded.token), {"after": "0"}).opened() as pieces:
        assert next(pieces)

    def is_signed() -> bool:
        proof = root.http.get("/v1/proofs/inclusion", params={"position": leaf["position"]})
        return proof.status_code == 200

    eventually(is_signed, "a checkpoint of the key is signed")


def test_a_user_signs_in_and_out(guarded: Guarded) -> None:
    url = guarded.servers.started[0].url
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as browser:
        signed_in = browser.post("/console/sign-in", data={"token": guarded.token})
        assert signed_in.status_code == 303
        page = browser.get("/console/projections")
        form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text))
        refused = browser.post("/console/projections/key_list/rebuild", data=form)
        assert refused.status_code == 409
        assert "run as their owner: keyledger projections rebuild key_list" in refused.text
        assert browser.post("/console/sign-out", data=form).status_code == 303
        assert browser.get("/console/keys").status_code == 303


def test_it_checks_the_ledgers_integrity(guarded: Guarded) -> None:
    (server,) = guarded.servers.started

    def checked() -> bool:
        found = [each for each in server.log_lines if each.get("event") == "ledger_attested"]
        assert {each["findings"] for each in found} <= {0}
        return bool(found)

    eventually(checked, "the ledger is checked, with its views made anew to compare them")


def test_only_the_owner_may_rebuild_and_the_refusal_says_so(root: Client) -> None:
    refused = answered(root.rebuild("key_list"), 409)
    assert refused["code"] == "NOT_OWNER"
    assert refused["detail"].startswith(SERVER)
    assert "run as their owner: keyledger projections rebuild key_list" in refused["detail"]
    assert root.projections()["key_list"]["rebuild"] is None


@pytest.mark.parametrize("table", [*metadata.tables, *(view.name for view in VIEWS)])
def test_no_table_can_be_dropped_changed_or_emptied(guarded: Guarded, table: str) -> None:
    for statement in (
        f"DROP TABLE {table}",
        f"ALTER TABLE {table} ADD COLUMN more text",
        f"TRUNCATE {table}",
        f"CREATE TRIGGER no_more BEFORE UPDATE ON {table} EXECUTE FUNCTION {NO_CHANGE}()",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            guarded.execute(SERVER, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET topic = topic",
        "UPDATE entries SET entry = entry",
        "UPDATE checkpoints SET note = note",
        "UPDATE alembic_version SET version_num = '0001'",
        "DELETE FROM events",
        "DELETE FROM entries",
        "DELETE FROM checkpoints",
        "DELETE FROM alembic_version",
        "DELETE FROM key_list",
        "SELECT setval('events_id_seq', 1)",
        "CREATE TABLE public.events_of_mine (id int)",
        "CREATE TEMPORARY TABLE events (id int)",
        "CREATE SCHEMA mine",
        "SET ROLE keyledger_owner",
    ],
)
def test_the_database_itself_keeps_the_server_from_changing_history(
    guarded: Guarded, statement: str
) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        guarded.execute(SERVER, statement)


def test_another_table_does_not_replace_one_of_the_ledgers(guarded: Guarded) -> None:
    with connected(guarded.url(SERVER)) as connection:
        connection.execute(b"CREATE TABLE keyledger_server.events (id int)")
        try:
            (count,) = connection.execute(b"SELECT count(*) FROM events").fetchone() or (0,)
            assert count
        finally:
            connection.execute(b"DROP TABLE keyledger_server.events")


def test_changing_the_search_path_is_detected_or_has_no_effect(
    guarded: Guarded,
) -> None:
    """A role may change its own settings, but not those that a connection is made with."""
    with connected(guarded.url(SERVER)) as connection:
        connection.execute(
            b"ALTER ROLE keyledger_server SET search_path = keyledger_server, public"
        )
        connection.execute(
            b"ALTER ROLE keyledger_server IN DATABASE guarded"
            b" SET search_path = keyledger_server, public"
        )
        connection.execute(b"CREATE TABLE keyledger_server.auth_lookup (LIKE public.auth_lookup)")
        try:
            verified = guarded.command(SERVER, "audit", "verify")
            pinned = guarded.url(SERVER).update_query_dict(
                {"options": "-csearch_path=public,keyledger_server"}
            )
            unimpressed = run(
                guarded.servers.data_dir,
                *("audit", "verify"),
                database_url=pinned.render_as_string(hide_password=False),
            )
        finally:
            connection.execute(b"DROP TABLE keyledger_server.auth_lookup")
            connection.execute(b"ALTER ROLE keyledger_server RESET search_path")
            guarded.run_script()
    assert verified.code != 0
    assert "auth_lookup" in verified.output
    assert unimpressed.code == 0, unimpressed


def test_after_the_owners_rebuild_the_server_goes_on_and_may_no_more_than_before(
    guarded: Guarded, root: Client
) -> None:
    made = answered(root.create("before"), 201)
    rebuilt = guarded.command(OWNER, "projections", "rebuild", "--all")
    assert rebuilt.code == 0, rebuilt
    answered(root.revoke(made["key_id"]))
    assert root.verify(made["token"]) == "REVOKED"
    for statement in ("UPDATE entries SET entry = entry", "DELETE FROM entries"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            guarded.execute(SERVER, statement)
    verified = guarded.command(SERVER, "audit", "verify")
    assert verified.code == 0, verified


def test_doctor_tells_the_two_roles_apart(guarded: Guarded) -> None:
    said = f"{SERVER} cannot change or delete events and entries"
    assert said in guarded.command(SERVER, "doctor").output
    output = re.sub(r"\s+", " ", guarded.command(OWNER, "doctor", "--json").output)
    assert "run the server as a role that cannot: docs/postgresql-roles.sql" in output
    assert SCRIPT.is_file()


OUTDATED: dict[str, tuple[str, str, str]] = {
    "a view": (
        "UPDATE projection_states SET view_version = 0 WHERE table_name = 'key_list'",
        "UPDATE projection_states SET view_version = {view.version} WHERE table_name = 'key_list'",
        "keyledger projections rebuild key_list",
    ),
    "the tables": (
        "UPDATE alembic_version SET version_num = '0001'",
        f"UPDATE alembic_version SET version_num = '{HEAD}'",  # noqa: S608 - ours
        "keyledger projections status",
    ),
}


@pytest.mark.parametrize("what", OUTDATED)
def test_a_server_that_finds_what_only_the_owner_can_upgrade_says_what_to_run(
    guarded: Guarded, what: str
) -> None:
    damage, mend, command = OUTDATED[what]
    guarded.execute(OWNER, damage)
    try:
        ended = guarded.command(SERVER, "serve", "--port", "0")
    finally:
        guarded.execute(OWNER, mend.format(view=VIEWS[0]))
    assert ended.code == 1
    assert f"{SERVER} does not own the ledger's tables" in ended.errors
    assert f"run as their owner: {command}" in ended.errors


def test_missing_privileges_are_reported_at_startup(postgresql: Server, tmp_path: Path) -> None:
    with servers_in(tmp_path) as servers:
        new = _guarded(postgresql, servers, "half_granted")
        made = new.command(OWNER, "keys", "create", "--name", "first", "--scopes", "a:b")
        assert made.code == 0, made
        refused = new.command(SERVER, "serve", "--port", "0")
        assert refused.code == 1
        assert f"the role {SERVER} lacks privileges of a server: " in refused.errors
        assert "docs/postgresql-roles.sql again" in refused.errors
        refused = new.command(SERVER, "keys", "create", "--name", "second", "--scopes", "a:b")
        assert refused.code == 1
        assert "docs/postgresql-roles.sql again" in refused.errors
        assert "permission denied for table" in refused.errors
        assert "docs/postgresql-roles.sql again" in new.command(SERVER, "doctor").output
        new.run_script()
        made = new.command(SERVER, "keys", "create", "--name", "second", "--scopes", "a:b")
        assert made.code == 0, made


GRANTED = {
    table: ", ".join(sorted(set(re.findall(r"[A-Z]{2,}", privileges))))
    for table, privileges in re.findall(r"\('(\w+)', ('[A-Z].*?')\)", SCRIPT.read_text(), re.DOTALL)
}
"""What the script grants on each table, without the columns."""


def test_doctor_misses_each_privilege_that_the_script_grants(guarded: Guarded) -> None:
    assert len(GRANTED) > 10
    for table, privileges in GRANTED.items():
        guarded.execute(OWNER, f"REVOKE {privileges} ON {table} FROM {SERVER}")
    try:
        said = guarded.command(SERVER, "doctor", "--json").output
        guarded.execute(OWNER, f"REVOKE ALL ON projection_states FROM {SERVER}")
        blind = guarded.command(SERVER, "doctor").output
    finally:
        guarded.run_script()
    for table, privileges in GRANTED.items():
        assert f"{privileges} on {table}" in said
    assert "docs/postgresql-roles.sql again" in said
    assert "permission denied for table projection_states" in blind
    assert "docs/postgresql-roles.sql again" in blind


def test_another_role_can_check_although_the_owners_check_was_killed(guarded: Guarded) -> None:
    guarded.execute(OWNER, "CREATE TABLE key_list_check (LIKE key_list)")
    ran: list[Ran] = []

    def has_run() -> bool:
        ran.append(guarded.command(SERVER, "projections", "check", "key_list"))
        # The server attests all the time, and one of them checks.
        return "is already running" not in ran[-1].errors

    try:
        eventually(has_run, "no other check runs")
    finally:
        guarded.execute(OWNER, "DROP TABLE key_list_check")
    assert ran[-1].code == 0, ran[-1]


def test_a_copy_is_the_owners_and_is_refused_before_it_begins(
    guarded: Guarded, tmp_path: Path
) -> None:
    admin_token(tmp_path)
    refused = run(tmp_path, "copy", "--to", guarded.url_to_set(SERVER))
    assert refused.code == 1
    assert f"{SERVER} does not own the ledger's tables: run as their owner: keyledger copy" in (
        refused.errors
    )


def test_a_new_ledger_is_made_by_its_owner_alone(postgresql: Server, tmp_path: Path) -> None:
    with servers_in(tmp_path) as servers:
        new = _guarded(postgresql, servers, "new")
        refused = new.command(SERVER, "serve", "--port", "0")
        assert refused.code == 1
        assert f"there is no ledger in this database yet, and {SERVER} cannot create one" in (
            refused.errors
        )
        assert "run as the owner: keyledger keys create --workspace root" in refused.errors
        first = servers.start(database_url=new.url_to_set(OWNER))
        first.stop()
        new.run_script()
        client = servers.start(database_url=new.url_to_set(SERVER)).client(first.root_token)
        answered(client.create("made by the server"), 201)


def test_a_ledger_of_a_single_role_can_be_given_to_the_owner_role(
    postgresql: Server, tmp_path: Path
) -> None:
    with servers_in(tmp_path) as servers:
        kept = Guarded(postgresql.url("kept"), servers)
        create_database(kept.administrator)
        alone = str(kept.administrator.username)
        token = servers.start(database_url=kept.url_to_set(alone)).root_token
        servers.started[0].stop()
        kept.run_script()
        client = servers.start(database_url=kept.url_to_set(SERVER)).client(token)
        answered(client.create("made by the server"), 201)
        rebuilt = kept.command(OWNER, "projections", "rebuild", "--all")
        assert rebuilt.code == 0, rebuilt
        answered(client.create("made after the rebuild"), 201)


def test_a_restored_dump_has_all_rows_and_the_same_privileges(
    guarded: Guarded, postgresql: Server, root: Client
) -> None:
    made = answered(root.create("dumped"), 201)
    dump = guarded.servers.folder / "keyledger.dump"
    guarded.run_program("pg_dump", "--format", "custom", "--file", str(dump))
    restored = replace(guarded, administrator=postgresql.url("restored"))
    create_database(restored.administrator)
    restored.run_script()
    restored.run_program("pg_restore", "--clean", "--if-exists", str(dump))
    restored.run_script()
    for command in (("audit", "verify"), ("projections", "check")):
        ran = restored.command(SERVER, *command)
        assert ran.code == 0, ran
    shown = restored.command(SERVER, "keys", "show", made["key_id"])
    assert "dumped" in shown.output
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        restored.execute(SERVER, "DELETE FROM events")
