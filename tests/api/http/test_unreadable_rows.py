"""A row that cannot be decoded is answered with 503 and a documented code, never with 500.

Every column of every table is damaged in every way that the engine allows. After each damage, every
reading route that reads the table is called. Which tables a route reads is observed, not listed.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from httpx2 import Response
from sqlalchemy import Column, Engine, LargeBinary, String, event
from structlog.testing import capture_logs

from api.http.problems import STATUSES
from api.jobs.integrity_check import check_ledger
from projections.integrity.schema_check import TABLES
from projections.store.schema import events
from projections.store.sqlite_driver import driver as sqlite3
from tests.api.checkpoints import sign_a_checkpoint
from tests.api.console.console_routes import CONSOLE_ROUTES
from tests.api.console.visits import Visit
from tests.api.http.routes.test_every_route import Route, operations
from tests.api.served import Api
from tests.engines import SQLITE
from tests.raw_sql import sql

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"
CODES = set(re.findall(r"^\| `(?!KEYLEDGER_)([A-Z_]+)` \|", OPERATIONS.read_text(), re.MULTILINE))
"""The documented codes of a 503."""

VERIFYING = {"/v1/verify", "/v1/verify/batch", "/v1/introspect", "/v1/forward-auth"}
FRESHNESS = {"auth_lookup", "key_digests", "events", "projection_states"}
"""Read by verification, on the driver's own connection."""

NAMED = re.compile(rf"\b({'|'.join(table.name for table in TABLES)})\b")
_MOST = 14
"""Maximum number of requests after one damage; the next damage of the table gets the others."""

QUERIES = {
    "/v1/keys": (
        "workspace=*",
        "workspace=acme&status=expired",
        "workspace=acme&as_of=2026-03-03T12:00:00Z",
        "workspace=acme&status=revoked&as_of=2026-03-03T12:00:00Z",
    ),
    "/v1/keys/{key_id}": ("workspace=acme", "workspace=acme&as_of=2026-03-03T12:00:00Z"),
    "/v1/keys/{key_id}/events": ("workspace=acme",),
    "/v1/events": ("workspace=*", "workspace=*&from=2026-03-03T11:00:00Z", "workspace=*&after=1"),
    "/v1/proofs/inclusion": (
        "leaf_index=0",
        "position={position}&workspace=acme",
        "key_id={key_id}&version=1&workspace=acme",
    ),
    "/v1/proofs/consistency": ("from=1",),
}
"""Further requests of routes that read different rows with different queries."""


@dataclass(frozen=True)
class Question:
    """A reading request, and the tables that its answer depends on."""

    name: str
    ask: Callable[[], Response]
    reads: frozenset[str]


@dataclass(frozen=True)
class World:
    """A ledger with a row in every table, and every reading request."""

    api: Api
    position: int
    """Position of the first event of a key whose rows are damaged; the caller has another key."""

    questions: tuple[Question, ...]


@pytest.fixture(scope="module")
def world(shared_api: Api) -> Iterator[World]:
    with capture_logs():
        # Writing a traceback takes longer than the request.
        yield made_in(shared_api)


def made_in(api: Api) -> World:
    subject = api.make("mcp:read", expires_at="2026-03-03T13:00:00Z")
    position = api.position()
    rotated = api.make("mcp:read")
    later = {"grace_seconds": 100}
    api.post(f"{rotated.path}/rotate", params={"workspace": "acme"}, json=later)
    api.patch(subject.path, params={"workspace": "acme"}, json={"name": "renamed"})
    api.post(f"{rotated.path}/revoke", params={"workspace": "acme"})
    # The newest event belongs to another key: without it the whole database would be refused.
    api.make("mcp:read")
    sign_a_checkpoint(api)
    check_ledger(api.app.state.ledger)
    asked = [*api_requests(api, subject.key_id, subject.token, position)]
    asked += console_requests(api, subject.key_id)
    questions = []
    for name, ask in asked:
        with tables_read() as read:
            answer = ask()
        assert answer.status_code < 400, (name, answer.text)
        if any(path in name for path in VERIFYING) or name.startswith("GET /v1/keys?"):
            read |= FRESHNESS
        questions.append(Question(name, ask, frozenset(read)))
    api.app.state.ledger.last_uses.flush(api.app.state.ledger.database)
    assert {name for each in questions for name in each.reads} >= {
        table.name for table in TABLES if table.name not in {"alembic_version", "ledger_secret"}
    }
    return World(api, position, tuple(questions))


def api_requests(
    api: Api, key_id: str, token: str, position: int
) -> Iterator[tuple[str, Callable[[], Response]]]:
    bodies: dict[str, dict[str, Any]] = {
        "/v1/verify": {"json": {"token": token}},
        "/v1/verify/batch": {"json": {"tokens": [{"token": token}]}},
        "/v1/introspect": {"data": {"token": token}},
    }
    for method, path, operation in operations():
        by: Any = "root" if operation.get("security") else None
        if path in bodies:
            request: dict[str, Any] = bodies[path]
            yield f"{method} {path}", lambda path=path, r=request: api.post(path, **r)  # type: ignore[misc]
        if method != "GET":
            continue
        route = Route(method, path, operation) if by else None
        for query in QUERIES.get(path, (route.demanded[1:] if route else "",)):
            if path == "/v1/forward-auth":
                by = token
            for tile in ("0/000.p/1", "entries/000.p/2") if "{tile" in path else ("",):
                values = {"key_id": key_id, "position": position, "tile": tile}
                filled = f"{path}?{query}".rstrip("?").format(**values)
                yield f"{method} {filled}", lambda p=filled, by=by: api.get(p, by=by)  # type: ignore[misc]


def console_requests(api: Api, key_id: str) -> Iterator[tuple[str, Callable[[], Response]]]:
    visit = Visit.signed_in(api, api.root)
    for route in CONSOLE_ROUTES:
        if route.method != "GET" or not route.scopes:
            continue
        path = route.path.format(key_id=key_id, leaf_index=1)
        yield str(route), lambda path=path: visit.get(path, params={"workspace": "acme"})  # type: ignore[misc]


@contextmanager
def tables_read() -> Iterator[set[str]]:
    """Record which tables of the ledger this process queries."""
    read: set[str] = set()

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:  # noqa: ANN401 - SQLAlchemy's
        read.update(NAMED.findall(statement))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield read
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def damages(column: Column[Any], backend: str) -> Iterator[str]:
    """Yield values as SQL; SQLite accepts each type in each column."""
    on_sqlite = backend == SQLITE
    if on_sqlite:
        yield "CAST(x'ff22' AS TEXT)"
    if on_sqlite or isinstance(column.type, LargeBinary):
        yield "x'ff00'"
    if on_sqlite or isinstance(column.type, String):
        yield "'[1,null]'"
    if column is events.c.id:
        # A later position would be the newest event that the server has seen.
        yield "-1"
    elif not isinstance(column.type, LargeBinary | String):
        yield "9223372036854775807"
    if column.nullable:
        yield "NULL"


@contextmanager
def damaged(world: World, table: str, column: str, value: str) -> Iterator[bool]:
    """Damage a value, and restore it later; yield whether the database accepted it."""
    address = world.api.address
    backend = address.get_backend_name()
    place = "rowid" if backend == SQLITE else "ctid"
    names = {each.name for each in next(t for t in TABLES if t.name == table).c}
    by = "position" if "position" in names else "id"
    chosen = f"SELECT {place}, {column} FROM {table}"  # noqa: S608 - names of ours, as below
    if table in {"events", *VIEWS_OF_KEYS}:
        ((row, before),) = sql(address, f"{chosen} WHERE {by} = ? LIMIT 1", world.position)
    else:
        row, before = sql(address, chosen)[-1]
    update = f"UPDATE {table} SET {column} = {{}} WHERE {place} = ? RETURNING {place}"  # noqa: S608
    moved = None
    with suppress(sqlite3.Error, psycopg.Error):
        ((moved,),) = sql(address, update.format(value), row)
    if column == "originator_id":
        before = UUID(bytes=before)
    if table in FRESHNESS and column != "generation":
        # A rebuilt table is read again, so the cache does not hide the damage.
        more = "UPDATE projection_states SET generation = generation + 1"
        sql(address, f"{more} WHERE table_name = 'auth_lookup'")
    try:
        yield moved is not None
    finally:
        if moved is not None:
            try:
                sql(address, update.format("?"), before, moved)
            except (sqlite3.IntegrityError, psycopg.IntegrityError):
                # The program has written the row since.
                sql(address, f"DELETE FROM {table} WHERE {place} = ?", moved)  # noqa: S608


VIEWS_OF_KEYS = ("key_list", "auth_lookup", "key_versions", "entries", "last_uses")


@pytest.mark.parametrize("table", [table.name for table in TABLES])
def test_no_damaged_value_is_an_internal_error_at_any_route(world: World, table: str) -> None:
    backend = world.api.address.get_backend_name()
    questions = [each for each in world.questions if table in each.reads]
    wrong = []
    taken = 0
    for column in next(each for each in TABLES if each.name == table).c:
        for value in damages(column, backend):
            with damaged(world, table, column.name, value) as is_taken:
                taken += is_taken
                for question in questions[:_MOST] if is_taken else ():
                    answer = question.ask()
                    if not is_documented(answer):
                        wrong.append((column.name, value, question.name, answer.text[:200]))
            # Tables that every route reads for its credential are read by the same code.
            questions = questions[_MOST:] + questions[:_MOST]
    assert not wrong, "\n".join(map(str, wrong))
    assert taken
    for question in world.questions:
        assert question.ask().status_code < 400, f"{question.name}, after all was put back"


def test_each_code_of_a_503_is_documented() -> None:
    assert {error.code for error, (status, _) in STATUSES.items() if status == 503} == CODES


def is_documented(answer: Response) -> bool:
    """Return whether an answer is ordinary, or a 503 with a documented code."""
    if answer.status_code != 503:
        return answer.status_code < 500
    if answer.headers["Content-Type"] == "application/problem+json":
        return answer.json()["code"] in CODES
    return True
