"""Several servers on one ledger are linearizable, while they are killed and views are rebuilt.

Clients create, change, rotate, revoke and verify keys at random, each call through a random server.
Every call is recorded with its beginning and end, and then the whole history is checked. The seed
decides the calls; the variable SEED sets it.
"""

import json
import os
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from itertools import cycle
from math import inf
from typing import Any
from urllib.parse import urlsplit

from domain.names import ROOT_WORKSPACE
from domain.times import to_text
from projections.views.registry import VIEWS
from tests.engines import address_of
from tests.raw_sql import raw
from tests.system.ledgers import SOUND, admin_token, differences, make_keys
from tests.system.linearizability import Change, Check, violations
from tests.system.processes import Server, Servers

SECONDS = 24
CLIENTS = 6
KEYS_AT_A_TIME = 16
OPTIONS = ((), (), ("--workers", "2"))
SCOPES = ("mcp:read", "mcp:write")
OTHER_KEYS = 2000
"""Keys that nobody asks for, so that a rebuild takes some time."""

Effect = Callable[[float, float], Change]
"""Makes the change of a call out of the call's beginning and end."""


class NotSent(Exception):
    """The server was not there, so that nothing was asked of it."""


class Lost(Exception):
    """The server went away during the call: it may have done what it was asked, or not."""

    def __init__(self, began: float) -> None:
        self.began = began


@dataclass(frozen=True)
class Answer:
    began: float
    ended: float
    status: int
    document: dict[str, Any]


class ServerConnections:
    """One client's connections to all the servers, which come and go."""

    def __init__(self, servers: list[Server]) -> None:
        self._servers = servers
        self._open: dict[int, tuple[Server, HTTPConnection]] = {}

    def call(self, number: int, token: str, method: str, path: str, body: object = None) -> Answer:
        """Call one of the servers.

        Raises:
            NotSent, Lost: it is gone.
        """
        connection = self._connection(number)
        headers = {"Authorization": f"Bearer {token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        began = time.monotonic()
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            content = response.read()
        except (ConnectionError, HTTPException) as error:
            self._close(number)
            raise Lost(began) from error
        ended = time.monotonic()
        return Answer(began, ended, response.status, json.loads(content) if content else {})

    def _connection(self, number: int) -> HTTPConnection:
        server = self._servers[number]
        if number in self._open and self._open[number][0] is not server:
            self._close(number)
        if number not in self._open:
            connection = HTTPConnection("127.0.0.1", urlsplit(server.url).port, timeout=30)
            try:
                connection.connect()
            except ConnectionError as error:
                connection.close()
                raise NotSent from error
            self._open[number] = server, connection
        return self._open[number][1]

    def _close(self, number: int) -> None:
        self._open.pop(number)[1].close()

    def close(self) -> None:
        for number in list(self._open):
            self._close(number)


@dataclass
class Load:
    """What the clients share: the keys that they are at, and what they wrote down."""

    servers: list[Server]
    admin: str
    deadline: float
    keys: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=KEYS_AT_A_TIME))
    tokens: dict[str, str] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)
    changes: list[Change] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    # By how much the servers' clock, which is this machine's, is ahead of the history's.
    ahead: float = field(default_factory=lambda: time.time() - time.monotonic())

    def in_progress(self) -> bool:
        return time.monotonic() < self.deadline


class Client:
    """One client, that does this and that."""

    def __init__(self, load: Load, chance: random.Random) -> None:
        self._load = load
        self._chance = chance
        self._connections = ServerConnections(load.servers)
        self._counted: Counter[str] = Counter()

    def run(self) -> Counter[str]:
        """Work until the end of the load; return how often each thing was done."""
        while not self._load.keys:
            self.create()
        commands = [self.check_some, self.create, self.rescope, self.end, self.rotate, self.revoke]
        try:
            while self._load.in_progress():
                (command,) = self._chance.choices(commands, [40, 4, 5, 3, 3, 3])
                command()
        finally:
            self._connections.close()
        return self._counted

    def check_all(self) -> None:
        """Check every key that there was, through every server."""
        for key_id, token in self._load.tokens.items():
            for number in range(len(self._load.servers)):
                self.check(key_id, token, number)
        self._connections.close()

    def check_some(self) -> None:
        for _ in range(4):
            self.check(*self._some_key())

    def check(self, key_id: str, token: str, number: int | None = None) -> None:
        number = self._some_server() if number is None else number
        wanted = self._chance.choice(SCOPES)
        try:
            if self._chance.random() < 0.5:
                path = f"/v1/forward-auth?scope={wanted}"
                answer = self._connections.call(number, token, "GET", path)
                assert answer.status in (204, 401, 403), answer
                code = answer.document.get("code", "VALID")
            else:
                body = {"token": token, "scopes": [wanted]}
                answer = self._connections.call(
                    number, self._load.admin, "POST", "/v1/verify", body
                )
                assert answer.status == 200, answer
                code = answer.document["code"]
        except (NotSent, Lost):
            self._counted["check lost"] += 1
            return
        self._counted[code] += 1
        if code in ("REVOKED", "EXPIRED"):
            self._load.over.add(key_id)
        self._load.checks.append(
            Check(key_id, answer.began, answer.ended, wanted, code, f"server {number}")
        )

    def create(self) -> None:
        lives = self._chance.choice([None, None, 0.3, 1, 3])
        end = None if lives is None else _text(time.time() + lives)
        body = {"name": "key", "scopes": self._some_scopes(), "expires_at": end}
        self._made(self._change("create", "POST", "/v1/keys", body))

    def rescope(self) -> None:
        key_id, token = self._some_live_key()
        scopes = self._some_scopes()

        def effect(began: float, ended: float) -> Change:
            return Change(key_id, began, ended, scopes=frozenset(scopes))

        self._change("rescope", "PATCH", f"/v1/keys/{key_id}", {"scopes": scopes}, effect)
        self.check(key_id, token)
        self.check(key_id, token)

    def end(self) -> None:
        key_id, token = self._some_live_key()
        at = time.monotonic() + self._chance.choice([0.1, 0.5, 2, 20])

        def effect(began: float, ended: float) -> Change:
            return Change(key_id, began, ended, end=(at, at))

        body = {"expires_at": _text(at + self._load.ahead)}
        self._change("end", "PATCH", f"/v1/keys/{key_id}", body, effect)
        self.check(key_id, token)

    def rotate(self) -> None:
        key_id, token = self._some_live_key()
        grace = self._chance.choice([0, 1])

        def effect(began: float, ended: float) -> Change:
            return Change(
                key_id, began, ended, end=(began + grace, ended + grace), only_sooner=True
            )

        kind = "rotate with grace" if grace else "rotate"
        path = f"/v1/keys/{key_id}/rotate"
        self._made(self._change(kind, "POST", path, {"grace_seconds": grace}, effect))
        self.check(key_id, token)
        self.check(key_id, token)

    def revoke(self) -> None:
        key_id, token = self._some_key()

        def effect(began: float, ended: float) -> Change:
            return Change(key_id, began, ended, revokes=True)

        self._change("revoke", "POST", f"/v1/keys/{key_id}/revoke", {}, effect)
        self._load.over.add(key_id)
        for _ in range(3):
            self.check(key_id, token)

    def _change(
        self, kind: str, method: str, path: str, body: object, effect: Effect | None = None
    ) -> Answer | None:
        """Ask for a change, and write it down unless it surely did not happen."""
        try:
            answer = self._connections.call(
                self._some_server(), self._load.admin, method, path, body
            )
        except NotSent:
            return None
        except Lost as lost:
            self._counted["change of unknown outcome"] += 1
            if effect is not None:
                self._load.changes.append(effect(lost.began, inf))
            return None
        if answer.status not in (200, 201):
            # The key's life is over, or somebody else was faster, or the new end has passed.
            assert answer.status in (409, 422), answer
            self._counted["change refused"] += 1
            return None
        self._counted[kind] += 1
        if effect is not None:
            self._load.changes.append(effect(answer.began, answer.ended))
        return answer

    def _made(self, answer: Answer | None) -> None:
        """Write down that a key was made, and let the others at it."""
        if answer is None:
            return
        made = answer.document
        ends = made["expires_at"]
        end = inf if ends is None else datetime.fromisoformat(ends).timestamp() - self._load.ahead
        scopes = frozenset(made["scopes"])
        self._load.changes.append(
            Change(made["key_id"], answer.began, answer.ended, scopes=scopes, end=(end, end))
        )
        self._load.tokens[made["key_id"]] = made["token"]
        self._load.keys.append((made["key_id"], made["token"]))

    def _some_key(self) -> tuple[str, str]:
        return self._chance.choice(list(self._load.keys))

    def _some_live_key(self) -> tuple[str, str]:
        """Return a key whose life is not over yet, as far as that is known."""
        live = [key for key in list(self._load.keys) if key[0] not in self._load.over]
        return self._chance.choice(live) if live else self._some_key()

    def _some_server(self) -> int:
        return self._chance.randrange(len(self._load.servers))

    def _some_scopes(self) -> list[str]:
        return self._chance.choice([[SCOPES[0]], [SCOPES[1]], list(SCOPES), list(SCOPES)])


def kill_and_restart(load: Load, servers: Servers, chance: random.Random) -> Counter[str]:
    """Kill one server after the other, in the middle of whatever it does, and start it again."""
    counted: Counter[str] = Counter()
    while load.in_progress():
        time.sleep(chance.uniform(0.2, 2))
        number = chance.randrange(len(load.servers))
        load.servers[number].kill()
        load.servers[number] = servers.start(*OPTIONS[number])
        counted["killed"] += 1
    return counted


def rebuild_again_and_again(load: Load, root: str, chance: random.Random) -> Counter[str]:
    """Make the views anew, in turn, through whichever server is there."""
    counted: Counter[str] = Counter()
    connections = ServerConnections(load.servers)
    for view in cycle(VIEWS):
        if not load.in_progress():
            break
        number = chance.randrange(len(load.servers))
        try:
            answer = connections.call(number, root, "POST", f"/v1/projections/{view.name}/rebuild")
        except (NotSent, Lost):
            continue
        assert answer.status in (202, 409), answer
        counted["rebuild begun"] += answer.status == 202
        time.sleep(0.2)
    connections.close()
    return counted


def _text(seconds: float) -> str:
    return to_text(datetime.fromtimestamp(seconds, UTC))


def rebuilds_done(servers: Servers) -> dict[str, int]:
    with raw(address_of(servers.data_dir)) as connection:
        rows = connection.execute("SELECT table_name, generation FROM projection_states")
        generations = dict(rows.fetchall())
    return {view.name: generations[view.name] for view in VIEWS}


AT_LEAST = {
    "VALID": 300,
    "REVOKED": 100,
    "EXPIRED": 100,
    "INSUFFICIENT_SCOPE": 50,
    "check lost": 5,
    "create": 20,
    "rescope": 20,
    "end": 10,
    "rotate": 3,
    "rotate with grace": 3,
    "revoke": 20,
    "killed": 1,
    "rebuild begun": 10,
}
"""How often each thing must have been done for the test to mean something."""


def test_several_servers_are_indistinguishable_from_one(servers: Servers) -> None:
    seed = int(os.environ.get("SEED", "1"))
    make_keys(servers.data_dir, [f"other {number}" for number in range(OTHER_KEYS)])
    admin, root = admin_token(servers.data_dir), admin_token(servers.data_dir, ROOT_WORKSPACE)
    begun = [servers.begin(*options) for options in OPTIONS]
    running = [server.wait_until_ready() for server in begun]
    generations = rebuilds_done(servers)
    load = Load(running, admin, time.monotonic() + SECONDS)
    counted: Counter[str] = Counter()
    with ThreadPoolExecutor(CLIENTS + 2) as pool:
        threads = [
            pool.submit(Client(load, random.Random(f"{seed} client {number}")).run)
            for number in range(CLIENTS)
        ]
        threads += [
            pool.submit(kill_and_restart, load, servers, random.Random(f"{seed} kill")),
            pool.submit(rebuild_again_and_again, load, root, random.Random(f"{seed} rebuild")),
        ]
        for thread in threads:
            counted += thread.result()
    Client(load, random.Random(f"{seed} end")).check_all()
    clock_error = abs(time.time() - time.monotonic() - load.ahead) + 0.001
    wrong = violations(load.changes, load.checks, clock_error=clock_error)
    told = f"SEED={seed}: {len(load.checks)} checks, {dict(counted)}"
    assert not wrong, "\n".join([told, *wrong[:5], *histories(load, wrong)])
    too_few = {what: counted[what] for what, least in AT_LEAST.items() if counted[what] < least}
    assert not too_few, told
    assert len(load.checks) > 1000, told
    for view, generation in rebuilds_done(servers).items():
        assert generation >= generations[view] + 3, told
    assert differences(servers.data_dir) == SOUND


def histories(load: Load, wrong: list[str]) -> list[str]:
    """Return all the changes of the first key that something was wrong with."""
    changes = [change for change in load.changes if change.key_id in wrong[0]]
    return [str(change) for change in sorted(changes, key=lambda change: change.began)]
