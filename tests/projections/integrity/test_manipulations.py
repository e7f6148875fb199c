"""Changing the database by SQL grants no access, and every change is found and named."""

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_bytes

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from structlog.testing import capture_logs

from api.app import create_app
from api.command_line import run
from api.composition import OpenLedger, opened_ledger
from api.console.installation import open_sessions
from api.http.work import Threads
from api.jobs.integrity_check import check_ledger
from domain.errors import LedgerError
from domain.key_ledger import Changes
from domain.tokens import Token, parse
from domain.verdict import Code, Verified
from domain.verifiers import CHEAPEST
from projections.integrity.findings import Finding
from projections.integrity.schema_check import TABLES, refuse_schema
from tests.conftest import SettableClock
from tests.engines import Engine, fresh_copy, settings_of, url_to_set
from tests.projections.integrity.manipulations import (
    NAMED,
    PLANTED,
    Manipulation,
    Victim,
    of_every_column,
)
from tests.projections.ledgers import HOUR, Keys, keys_in

CASES = (*of_every_column(), *NAMED)
NOW = SettableClock().advance(hours=2)
_VALUE = b"a session that somebody has begu"
LEGIT = urlsafe_b64encode(_VALUE).decode().rstrip("=")

Answer = tuple[str, ...]


@dataclass
class Seen:
    """The observable results of a manipulated ledger.

    Args:
        answers: for each token after a restart, a verdict and its scopes, or a refusal.
        running: the same for a server that was running when the database was changed.
        signed_in: tokens with which one can sign in to that server's console.
        sessions: the presented sessions that are active, and their keys.
        refusal: why the ledger could not be opened; ``None`` if it was.
        said: findings and refusals as text.
        doctor: problems that ``keyledger doctor`` reports.
    """

    answers: dict[str, Answer] = field(default_factory=dict)
    running: dict[str, Answer] = field(default_factory=dict)
    signed_in: set[str] = field(default_factory=set)
    sessions: dict[str, str] = field(default_factory=dict)
    refusal: str | None = None
    said: str = ""
    doctor: str = ""


@pytest.fixture(scope="module")
def sound(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Victim:
    """A ledger with a row in every table, and keys of all kinds."""
    place = engine.new_place(tmp_path_factory.mktemp("sound") / "keyledger-data")
    clock = SettableClock()
    with keys_in(place, clock=clock) as keys:
        made = {
            "root": keys.create("root", workspace="root", scopes=("*",)),
            "mine": keys.create("mine"),
            "other": keys.create("other", scopes=("mcp:write",)),
            "narrowed": keys.create("narrowed", scopes=("mcp:read", "mcp:write")),
            "revoked": keys.create("revoked"),
            "expired": keys.create("expired", lives=HOUR),
        }
        keys.opened.signer.sign()
        keys.update(made["narrowed"].key_id, Changes(scopes=["mcp:read"]))
        keys.revoke(made["revoked"].key_id)
        keys.opened.signer.sign()
        keys.rename(made["mine"].key_id, "my own")
        clock.advance(hours=2)
        keys.expire_due()
        keys.opened.signer.sign()
        for each in made.values():
            keys.verify(each.token)
        keys.opened.last_uses.flush(keys.database)
        victim = Victim(
            place,
            tokens={name: each.token for name, each in made.items()},
            key_ids={name: each.key_id for name, each in made.items()},
            positions={
                name: keys.show(
                    each.key_id, workspace="root" if name == "root" else "default"
                ).position
                for name, each in made.items()
            },
        )
        begin_session(keys, victim)
        assert check_ledger(keys.opened).findings == ()
        return victim


def begin_session(keys: Keys, victim: Victim) -> None:
    """Sign in to the console with a key of few scopes."""
    verdict = keys.opened.authentication.verify(victim.tokens["other"], (), now=keys.now).verdict
    assert isinstance(verdict, Verified)
    open_sessions(keys.opened, lambda _: _VALUE).begin(verdict.key, now=keys.now)


@contextmanager
def opened(place: Path, *, tolerant: list[Finding] | None = None) -> Iterator[OpenLedger]:
    with opened_ledger(
        settings_of(place),
        clock=lambda: NOW,
        argon2_profile=CHEAPEST,
        on_schema=refuse_schema if tolerant is None else tolerant.extend,
    ) as ledger:
        yield ledger


def forged(victim: Victim) -> dict[str, str]:
    """Return the attacker's own secret under the lookup ids of other keys."""
    mine = parse(victim.tokens["mine"])
    assert mine is not None
    return {
        f"forged for {name}": Token("key", victim.lookup_id(name), mine.secret).reveal()
        for name in victim.tokens
        if name != "mine"
    }


def answer_to(ledger: OpenLedger, token: str) -> Answer:
    try:
        verdict = ledger.authentication.verify(token, (), now=NOW).verdict
    except LedgerError as error:
        return ("refused", error.code)
    if not isinstance(verdict, Verified):
        return (verdict.code,)
    row = verdict.key
    return (Code.VALID, row.key_id, row.workspace, row.role, *row.scopes)


def ask(ledger: OpenLedger, victim: Victim, answers: dict[str, Answer], seen: Seen) -> None:
    for name, token in {**victim.tokens, **forged(victim)}.items():
        answers[name] = answer_to(ledger, token)
    sessions = open_sessions(ledger, bytes)
    for value in (PLANTED, LEGIT):
        try:
            session = sessions.find(value, now=NOW)
        except LedgerError:
            continue
        if session is not None:
            seen.sessions[value] = session.key_id


def sign_in(app: FastAPI, running: OpenLedger, victim: Victim, seen: Seen) -> None:
    """Sign in to the console with each token, and visit it with the forged session."""
    app.state.ledger = running
    app.state.console_sessions = open_sessions(running, token_bytes)
    asyncio.run(_sign_in(app, {**victim.tokens, **forged(victim)}, seen))


async def _sign_in(app: FastAPI, tokens: dict[str, str], seen: Seen) -> None:
    def client(**cookies: str) -> AsyncClient:
        transport = ASGITransport(app, raise_app_exceptions=False)
        return AsyncClient(transport=transport, base_url="http://testserver", cookies=cookies)

    for name, token in tokens.items():
        async with client() as visitor:
            sent = {"Sec-Fetch-Site": "same-origin", "Origin": "http://testserver"}
            form = {"token": token}
            answer = await visitor.post("/console/sign-in", data=form, headers=sent)
        assert answer.status_code in {303, 401, 503}, (name, answer.text)
        if answer.status_code == 303:
            seen.signed_in.add(name)
    async with client(keyledger=PLANTED) as visitor:
        answer = await visitor.get("/console/keys")
    assert answer.status_code in {303, 503}, answer.text


def look(victim: Victim, capsys: pytest.CaptureFixture[str], seen: Seen) -> None:
    """Run doctor, restart and verify; then run the integrity check."""
    capsys.readouterr()
    run(["doctor", "--json"])
    checks = json.loads(capsys.readouterr().out)["checks"]
    seen.doctor = "\n".join(
        f"{each['name']}: {each['found']}"
        for each in checks
        # The tests' server is less durable than doctor requires.
        if each["result"] == "fail" and each["name"] != "durability"
    )
    try:
        with opened(victim.place) as ledger:
            ask(ledger, victim, seen.answers, seen)
            if ledger.signer.doubt is not None:
                seen.said += f"{ledger.signer.doubt}\n"
            seen.said += "\n".join(map(str, check_ledger(ledger).findings))
            return
    except LedgerError as error:
        seen.refusal = str(error)
        seen.said += f"{error}\n"
    findings: list[Finding] = []
    try:
        with opened(victim.place, tolerant=findings) as ledger:
            seen.said += "\n".join(map(str, check_ledger(ledger).findings))
    except LedgerError as error:
        seen.said += "\n".join(map(str, findings)) + str(error)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.integrity.schema_check._SHOWN", 100)


@pytest.fixture
def victim(sound: Victim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Victim:
    place = fresh_copy(sound.place, tmp_path / "copy")
    monkeypatch.setenv("KEYLEDGER_DATA_DIR", str(place))
    url = url_to_set(place)
    if url is not None:
        monkeypatch.setenv("KEYLEDGER_DATABASE_URL", url)
    return replace(sound, place=place)


@pytest.fixture(scope="module")
def app(sound: Victim) -> FastAPI:
    """The routes of a server, without its background jobs."""
    app = create_app(settings_of(sound.place), clock=lambda: NOW)
    app.state.threads = Threads(1)
    return app


@pytest.fixture(scope="module")
def granted(sound: Victim) -> dict[str, Answer]:
    """What each token grants before anything is changed."""
    seen = Seen()
    with opened(sound.place) as ledger:
        ask(ledger, sound, seen.answers, seen)
    assert {name for name, answer in seen.answers.items() if answer[0] == Code.VALID} == {
        "root",
        "mine",
        "other",
        "narrowed",
    }
    assert seen.sessions == {LEGIT: sound.key_ids["other"]}
    return seen.answers


def test_an_unchanged_view_has_no_differences(
    app: FastAPI, victim: Victim, granted: dict[str, Answer], capsys: pytest.CaptureFixture[str]
) -> None:
    seen = Seen()
    with opened(victim.place) as running:
        look(victim, capsys, seen)
        # To write a traceback for each refusal takes seconds.
        with capture_logs():
            sign_in(app, running, victim, seen)
    assert (seen.answers, seen.refusal, seen.said, seen.doctor) == (granted, None, "", "")
    assert seen.signed_in == {name for name, answer in granted.items() if answer[0] == Code.VALID}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=str(case), marks=pytest.mark.only_on(*case.engines)) for case in CASES],
)
def test_a_change_by_sql_grants_nothing_and_is_found(
    case: Manipulation,
    app: FastAPI,
    victim: Victim,
    granted: dict[str, Answer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen = Seen()
    with opened(victim.place) as running:
        case.act(victim)
        ask(running, victim, seen.running, seen)
        look(victim, capsys, seen)
        # To write a traceback for each refusal takes seconds.
        with capture_logs():
            sign_in(app, running, victim, seen)
    assert set(seen.running) == set(granted)
    for name, answer in (*seen.running.items(), *seen.answers.items()):
        assert answer in (granted[name], answer[:1]) or answer[0] == "refused", (name, answer)
        assert answer[0] != Code.VALID or answer == granted[name], (name, answer)
    for name in seen.signed_in:
        assert granted[name][0] == Code.VALID, name
    assert PLANTED not in seen.sessions
    assert seen.sessions.get(LEGIT) in {None, victim.key_ids["other"]}
    if case.harmless is None:
        assert any(each in seen.said for each in case.named), seen.said or "nothing was found"
    if case.by_doctor:
        assert any(each in seen.doctor for each in case.named), seen.doctor or "nothing was found"


def test_every_encoding_of_a_token_is_tested() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert len(CASES) >= 60
    columns = {f"change {table.name}.{column.name}" for table in TABLES for column in table.c}
    assert {case.name for case in CASES} >= columns
