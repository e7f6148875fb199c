"""Clients that offer HTTP/2 over cleartext: curl on request, Java by default."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.programs import needs
from tests.system.clients import Client, Json
from tests.system.ledgers import admin_token, make_keys
from tests.system.processes import PATIENCE, servers_in
from tests.system.proxies import CADDY, program

CURL = shutil.which("curl")
JAVA = shutil.which("java")
JAVAC = shutil.which("javac")
JAVA_CLIENT = Path(__file__).with_name("JavaClient.java")
PADDING = " " * 50_000
"""Makes a body longer than the buffers of clients, and not longer than a request may be."""

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")


class Asked(NamedTuple):
    """A request: what a client is told to send."""

    method: str
    path: str
    body: Json | None = None
    padding: str = ""

    @property
    def text(self) -> str:
        return "" if self.body is None else json.dumps(self.body) + self.padding


class Answered(NamedTuple):
    """An answer: what a client says that it received."""

    status: int
    text: str

    @property
    def document(self) -> Json:
        document: Json = json.loads(self.text)
        return document


SendAll = Callable[[str, str, Sequence[Asked]], list[Answered]]
"""Sends requests with one client, one after the other: URL of the server, token, requests."""


@dataclass(frozen=True)
class Place:
    """A server, and the URL by which a client reaches it."""

    url: str
    token: str
    data_dir: Path
    direct: Client


def _curl(*with_body: str) -> SendAll:
    def send_all(url: str, token: str, requests: Sequence[Asked]) -> list[Answered]:
        # One call with several requests keeps its connection.
        arguments: list[str] = []
        for each in requests:
            arguments += ["--next"] if arguments else []
            arguments += ["--http2", "--silent", "--show-error", "--max-time", "20"]
            arguments += ["--header", f"Authorization: Bearer {token}"]
            arguments += ["--header", "Content-Type: application/json"]
            arguments += ["--write-out", "\n%{http_code}\n"]
            arguments += ["--head"] if each.method == "HEAD" else ["--request", each.method]
            if each.body is not None:
                arguments += [*with_body, "--data-binary", each.text]
            arguments += [url + each.path]
        lines = _run([CURL or "curl", *arguments]).split("\n")
        statuses = [index for index, line in enumerate(lines) if line.isdigit()]
        starts = [0, *(index + 1 for index in statuses)]
        return [
            Answered(int(lines[end]), "\n".join(lines[start:end]))
            for start, end in zip(starts, statuses, strict=False)
        ]

    return send_all


def _java(folder: Path) -> SendAll:
    def send_all(url: str, token: str, requests: Sequence[Asked]) -> list[Answered]:
        lines = "".join(f"{each.method}\t{each.path}\t{each.text}\n" for each in requests)
        output = _run([JAVA or "java", "-cp", str(folder), "JavaClient", url, token], lines)
        answers = [line.partition("\t") for line in output.splitlines()]
        return [Answered(int(status), text) for status, _, text in answers]

    return send_all


def _run(command: list[str], text: str = "") -> str:
    ended = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(
    scope="module",
    params=[
        pytest.param([], id="curl", marks=needs(CURL, "curl")),
        pytest.param(
            ["--header", "Transfer-Encoding: chunked"],
            id="curl-chunked",
            marks=needs(CURL, "curl"),
        ),
        pytest.param(
            None,
            id="java",
            marks=pytest.mark.skipif(
                JAVAC is None or JAVA is None,
                reason="there is no JDK on this machine (Debian: default-jdk-headless)",
            ),
        ),
    ],
)
def send_all(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SendAll:
    if request.param is not None:
        return _curl(*request.param)
    folder = tmp_path_factory.mktemp("java")
    _run([JAVAC or "javac", "-d", str(folder), str(JAVA_CLIENT)])
    return _java(folder)


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with servers_in(tmp_path_factory.mktemp("clients")) as servers:
        server = servers.start()
        token = admin_token(servers.data_dir)
        yield Place(server.url, token, servers.data_dir, server.client(token))


@pytest.fixture(
    scope="module",
    params=[
        "direct",
        pytest.param("caddy", marks=needs(program("caddy"), "caddy")),
    ],
)
def place(
    request: pytest.FixtureRequest, direct: Place, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    if request.param == "direct":
        yield direct
        return
    folder = tmp_path_factory.mktemp("caddy") / "caddy"
    with CADDY.running(folder, direct.url) as url:
        yield Place(url, direct.token, direct.data_dir, direct.direct)


def test_every_body_arrives_with_its_request(place: Place, send_all: SendAll) -> None:
    names = ["rotated", "revoked", "renamed", "replaced"]
    rotated, revoked, renamed, replaced = make_keys(place.data_dir, names)
    answers = send_all(
        place.url,
        place.token,
        [
            Asked("POST", f"/v1/keys/{rotated.key_id}/rotate", {"grace_seconds": 3600}),
            Asked("POST", f"/v1/keys/{revoked.key_id}/revoke", {"reason": "leaked"}),
            Asked("PATCH", f"/v1/keys/{renamed.key_id}", {"name": "another name"}, PADDING),
            Asked("POST", f"/v1/keys/{replaced.key_id}/rotate", {"grace_seconds": 0}, PADDING),
            Asked("POST", "/v1/keys", {"name": "new", "scopes": ["mcp:read"]}),
            Asked("POST", "/v1/verify", {"token": rotated.token}),
            Asked("POST", "/v1/verify", {"token": rotated.token}, PADDING),
            Asked("GET", f"/v1/keys/{renamed.key_id}"),
            # These routes do not read the body.
            Asked("POST", "/v1/nowhere", {"reason": "none"}, PADDING),
            Asked("DELETE", "/healthz", {"reason": "none"}),
            Asked("GET", "/v1/forward-auth?scope=mcp:read"),
            Asked("GET", "/healthz"),
        ],
    )
    statuses = [answer.status for answer in answers]
    assert statuses == [201, 200, 200, 201, 201, 200, 200, 200, 404, 405, 204, 200]
    created, first_verdict, second_verdict, shown = [each.document for each in answers[4:8]]
    assert created["name"] == "new"
    for verdict in (first_verdict, second_verdict):
        assert (verdict["code"], verdict["key_id"]) == ("VALID", rotated.key_id)
    assert (shown["key_id"], shown["name"]) == (renamed.key_id, "another name")

    # The old key works until its grace ends, and the revocation has its reason.
    ends_at = datetime.fromisoformat(place.direct.show(rotated.key_id)["expires_at"])
    assert 3000 < (ends_at - datetime.now(UTC)).total_seconds() <= 3600
    assert place.direct.verify(replaced.token) == "EXPIRED"
    assert place.direct.history(revoked.key_id)[-1]["data"]["reason"] == "leaked"


@needs(CURL, "curl")
def test_http2_without_an_offer_is_refused_at_once(direct: Place) -> None:
    command = [CURL or "curl", "--http2-prior-knowledge", "--max-time", "20", "--silent"]
    ended = subprocess.run(
        [*command, f"{direct.url}/healthz"],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    no_answer_in_time = 28
    assert ended.returncode not in {0, no_answer_in_time}
    assert ended.stdout == b""
