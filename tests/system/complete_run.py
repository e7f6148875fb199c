"""A run of everything that the product does; all answers and files are kept.

Tokens are put everywhere where someone might put one by mistake, except where the text must be
stored: someone who names a key after a token has asked for it.
"""

import html
import json
import re
import secrets
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from api.formats.event_formats import CSV, EVENT_STREAM, JSON, NDJSON
from domain.times import to_text
from domain.tokens import Token, mint, parse
from projections.views.registry import VIEWS
from tests.engines import address_of
from tests.raw_sql import raw
from tests.system.clients import Client, Json, answered
from tests.system.live_streams import Tail
from tests.system.processes import Ran, Server, Servers, eventually, run, run_many

MISUSED = ("good", "revoked", "expired", "unknown", "wrong secret", "mistyped", "cut off")
"""Names of the tokens that go where no token belongs."""
_CHANGES = ("rename", "scopes", "expiration", "rotate", "revoke")


@dataclass
class Everything:
    """A run, and what is left of it: all that is here may be searched."""

    servers: Servers
    tokens: dict[str, str] = field(default_factory=dict, repr=False)
    sessions: dict[str, str] = field(default_factory=dict, repr=False)
    answers: list[bytes] = field(default_factory=list, repr=False)
    outputs: list[bytes] = field(default_factory=list, repr=False)
    probes: list[bytes] = field(default_factory=list, repr=False)
    logs: list[bytes] = field(default_factory=list, repr=False)
    statuses: set[int] = field(default_factory=set)

    @property
    def data_dir(self) -> Path:
        return self.servers.data_dir

    @property
    def data_dir_while_running(self) -> Path:
        """A copy from when the servers had the database open, with its write-ahead log."""
        return self.data_dir.with_name("while-running")

    def client(self, server: Server, token: str) -> Client:
        """Return a client whose answers are kept."""
        client = server.client(token)
        client.http.event_hooks["response"].append(self._keep)
        return client

    def browser(self, server: Server) -> httpx.Client:
        """Return a client with cookies instead of a token, whose answers are kept."""
        browser = httpx.Client(base_url=server.url, timeout=30, trust_env=False)
        browser.event_hooks["response"].append(self._keep)
        return browser

    def signed_in(self, browser: httpx.Client, name: str) -> None:
        """Sign in, and take the session out of the one answer that may have it."""
        answer = browser.post("/console/sign-in", data={"token": self.tokens[name]})
        assert answer.status_code == 303
        session = self.sessions[f"{name} {len(self.sessions)}"] = browser.cookies["keyledger"]
        self.answers[-1] = _without(self.answers[-1], session)

    def shown(self, name: str, response: httpx.Response) -> None:
        """Take the token out of the one page that may have it; it is there to be copied, too."""
        assert response.status_code == 201, response.text
        (token,) = set(re.findall(r"\b[a-z]+_[0-9A-Za-z]{65}\b", response.text))
        self.tokens[name] = token
        self.answers[-1] = self.answers[-1].replace(token.encode(), b"")

    def _keep(self, response: httpx.Response) -> None:
        response.read()
        headers = b"\n".join(b"%b: %b" % header for header in response.headers.raw)
        self.answers.append(b"%b\n\n%b" % (headers, response.content))
        self.statuses.add(response.status_code)

    def issued(self, name: str, response: httpx.Response) -> Json:
        """Take the token out of the one answer that may have it."""
        key = answered(response, 201)
        self.tokens[name] = key["token"]
        self.answers[-1] = _without(self.answers[-1], key["token"])
        return key

    def command(self, *arguments: str) -> Ran:
        """Run a command whose output is kept."""
        ran = run(self.data_dir, *arguments)
        self.outputs += [ran.output.encode(), ran.errors.encode()]
        return ran

    def commands(self, *commands: Sequence[str]) -> list[Ran]:
        """Run commands whose output is kept."""
        all_ran = run_many(self.data_dir, commands)
        for ran in all_ran:
            self.outputs += [ran.output.encode(), ran.errors.encode()]
        return all_ran

    def issued_by_command(self, name: str, *arguments: str) -> Json:
        """Take the token out of the one document that may have it."""
        ran = self.command(*arguments, "--json")
        assert ran.code == 0, ran
        key: Json = json.loads(ran.output)
        self.tokens[name] = key["token"]
        self.outputs[-2] = _without(self.outputs[-2], key["token"])
        return key

    def raw(self, server: Server, request: str) -> None:
        """Send what no client would send."""
        address = urlsplit(server.url)
        assert address.hostname is not None
        with socket.create_connection((address.hostname, address.port or 0), 10) as connection:
            connection.sendall(request.encode("latin-1"))
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                self.answers.append(part)

    def keep_probes(self, server: Server) -> None:
        """Keep what is told to those who have no credential."""
        for path in ("/metrics", "/openapi.json", "/docs", "/readyz", "/healthz"):
            response = httpx.get(f"{server.url}{path}", trust_env=False)
            assert response.status_code == 200
            self.probes.append(response.content)

    def keep_logs(self) -> None:
        """Keep what all servers have written, without the one line that shows the root key."""
        for server in self.servers.started:
            log = server.log_path.read_bytes()
            if server.root_token is not None:
                log = _without(log, server.root_token)
            self.logs += [log, server.output_path.read_bytes()]


def run_everything(servers: Servers) -> Everything:
    """Do it all, with two servers that log in different ways."""
    everything = Everything(servers)
    one = servers.start(log_level="debug", log_format="json", expirer_seconds=0.05)
    other = servers.start(log_format="text", expirer_seconds=0.05)
    assert one.root_token is not None
    everything.tokens["root"] = one.root_token
    root = everything.client(one, one.root_token)
    admin = everything.issued("admin", root.create("admin", ["*"], workspace="default"))
    clients = [everything.client(server, admin["token"]) for server in (one, other)]
    _live(everything, clients[0])
    _command(everything)
    _visit(everything, one)
    _visit(everything, other)
    _verify(everything, clients)
    target = everything.issued("target", clients[0].create("target"))["key_id"]
    for number, name in enumerate(MISUSED):
        server = (one, other)[number % 2]
        _misuse_by_http(everything, clients[number % 2], server, target, everything.tokens[name])
        _misuse_the_audit_trail(clients[number % 2], everything.tokens[name])
        _misuse_the_console(everything, server, target, everything.tokens[name])
    _misuse_by_command(everything)
    for server, client in zip((one, other), clients, strict=True):
        _fail_to_write(everything, server, client)
    _fail_to_read(everything, clients[0], root)
    _rebuild(everything, root)
    _read_the_audit_trail(everything, root, one)
    _command_the_audit_trail(everything, target)
    everything.keep_probes(one)
    everything.keep_probes(other)
    shutil.copytree(everything.data_dir, everything.data_dir_while_running)
    for server in (one, other):
        server.stop()
    everything.keep_logs()
    return everything


def _live(everything: Everything, client: Client) -> None:
    """Let keys live all kinds of lives."""
    good = everything.issued("good", client.create("good", prefix="blnk", idempotency_key="once"))
    again = client.create("good", prefix="blnk", idempotency_key="once")
    assert answered(again, 201)["token"] is None
    answered(client.update(good["key_id"], name="better", scopes=["mcp:read", "mcp:write"]))
    revoked = everything.issued("revoked", client.create("revoked"))
    answered(client.revoke(revoked["key_id"], "leaked"))
    end = to_text(datetime.now(UTC) + timedelta(seconds=0.5))
    expired = everything.issued("expired", client.create("expired", expires_at=end))
    old = everything.issued("rotated", client.create("rotated"))
    successor = client.rotate(old["key_id"], 3600, idempotency_key="rotated")
    everything.issued("successor", successor)
    answered(client.rotate(old["key_id"], 3600, idempotency_key="rotated"), 201)
    answered(client.rotate(old["key_id"]), 409)
    eventually(lambda: len(client.history(expired["key_id"])) > 1, "the key has expired")
    everything.tokens |= _bad_tokens(good["token"])
    for key in client.list_keys():
        client.show(key["key_id"])
        client.history(key["key_id"])
        client.http.get(f"/v1/keys/{key['key_id']}", params={"as_of": to_text(datetime.now(UTC))})


def _bad_tokens(token: str) -> dict[str, str]:
    good = parse(token)
    assert good is not None
    guess = mint("key", secrets.token_bytes).secret
    return {
        "unknown": mint("key", secrets.token_bytes).reveal(),
        "wrong secret": Token(good.prefix, good.lookup_id, guess).reveal(),
        "mistyped": mint("key", secrets.token_bytes).reveal()[:-1] + "-",
        "cut off": mint("key", secrets.token_bytes).reveal()[:-8],
    }


def _visit(everything: Everything, server: Server) -> None:
    """Do all that the console does."""
    with everything.browser(server) as browser:
        browser.get("/")
        everything.signed_in(browser, "admin")
        everything.signed_in(browser, "admin")
        form = _form(browser.get("/console/keys/new"))
        form |= {"name": "by hand", "scope": "mcp:read", "expiration": "30"}
        name = f"by hand {len(everything.tokens)}"
        everything.shown(name, browser.post("/console/keys/new", data=form))
        assert browser.post("/console/keys/new", data=form).status_code == 200
        listed = browser.get("/console/keys", params={"q": "by hand"}).text
        key = f"/console/keys/{re.findall('apikey_[0-9a-f-]{36}', listed)[0]}"
        for change, said in (
            ("rename", {"name": "renamed by hand"}),
            ("expiration", {"expiration": "7"}),
            ("scopes", {"scope": "mcp:write"}),
        ):
            form = _form(browser.get(f"{key}/{change}")) | said
            assert browser.post(f"{key}/{change}", data=form).status_code == 303
        form = _form(browser.get(f"{key}/rotate")) | {"grace": "3600", "expiration": "7"}
        successor = f"rotated by hand {len(everything.tokens)}"
        everything.shown(successor, browser.post(f"{key}/rotate", data=form))
        assert browser.post(f"{key}/rotate", data=form).status_code == 200
        form = _form(browser.get(f"{key}/revoke")) | {"reason": "leaked", "understood": "yes"}
        assert browser.post(f"{key}/revoke", data=form).status_code == 303
        for page in (key, "/console/keys", "/console/keys?status=revoked", "/console/projections"):
            browser.get(page)
        audited = browser.get("/console/audit").text
        for page in re.findall('/console/audit/[^"?]+', html.unescape(audited)):
            assert browser.get(page).status_code == 200
        browser.post("/console/sign-out", data=_form(browser.get("/console/keys")))
        everything.signed_in(browser, "root")
        projections = browser.get("/console/projections")
        browser.post("/console/projections/key_list/rebuild", data=_form(projections))


def _form(page: httpx.Response) -> dict[str, str]:
    """Return the hidden fields of a page's forms, each of which its forms have alike."""
    assert page.status_code == 200, page.text
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text))


def _misuse_the_console(everything: Everything, server: Server, key_id: str, token: str) -> None:
    """Put a token wherever none belongs in the console."""
    with everything.browser(server) as browser:
        browser.post("/console/sign-in", data={token: token})
        browser.post(f"/console/sign-in?next=/console/{token}", data={"token": f"{token} "})
        browser.cookies.clear()
        browser.get(f"/console/sign-in?next=/console/{token}&ended={token}&{token}={token}")
        browser.get("/console/keys", headers={"Cookie": f"keyledger={token}"})
        for path in ("", "/keys", "/projections", "/static", f"/keys/{key_id}"):
            browser.get(f"/console{path}/{token}")
        everything.signed_in(browser, "admin")
        csrf_token = _form(browser.get("/console/keys"))["csrf_token"]
        for path in ("/keys", f"/keys/{key_id}"):
            for name in ("q", "status", "scope", "cursor", "as_of", "workspace", "done", token):
                browser.get(f"/console{path}", params={name: token})
        browser.get(f"/console/keys/{token}")
        browser.post(f"/console/projections/{token}/rebuild", data={"csrf_token": csrf_token})
        for path in ("/keys/new", *(f"/keys/{key_id}/{form}" for form in _CHANGES)):
            own = {"csrf_token": csrf_token, "version": "1"}
            written = ("name", "scope", "more_scopes", "prefix", "reason", "comment")
            for form in (
                dict.fromkeys(written, f"{token}\0") | own,
                dict.fromkeys(("request", "expiration", "day", "grace", token), token) | own,
                {"csrf_token": token, "version": token},
            ):
                browser.post(f"/console{path}", data=form)
            browser.post(f"/console{path}", json={"token": token})


def _command(everything: Everything) -> None:
    """Use each command, for people and for programs."""
    create = ("keys", "create", "--name", "by command", "--scopes", "a:b,c:d")
    made = everything.issued_by_command("by command", *create, "--expires-in", "30d")
    rotated = everything.issued_by_command("rotated by command", "keys", "rotate", made["key_id"])
    shown = everything.command("keys", "create", "--name", "for people", "--scopes", "a:b")
    (token,) = [line for line in shown.output.splitlines() if parse(line.strip()) is not None]
    everything.tokens["for people"] = token.strip()
    everything.outputs[-2] = _without(everything.outputs[-2], token.strip())
    key_id = rotated["key_id"]
    commands: tuple[tuple[str, ...], ...] = (
        ("keys", "list"),
        ("keys", "show", key_id),
        ("keys", "history", key_id),
        ("keys", "update", key_id, "--name", "named anew"),
        ("keys", "revoke", key_id, "--yes", "--reason", "leaked"),
        ("projections", "status"),
        ("projections", "check"),
        ("projections", "rebuild", "--all"),
        ("doctor",),
    )
    everything.commands(*commands)
    everything.commands(*((*command, "--json") for command in commands[::-1]))


def _verify(everything: Everything, clients: list[Client]) -> None:
    """Verify each token at each door and with each server, and use it as a credential."""
    for client in clients:
        for token in everything.tokens.values():
            bearer = {"Authorization": f"Bearer {token}"}
            client.verdict(token)
            client.http.post("/v1/verify", json={"token": token, "scopes": ["no:scope"]})
            client.http.post("/v1/verify?workspace=default", json={"token": token})
            client.http.get("/v1/forward-auth", headers=bearer, params={"scope": "mcp:read"})
            client.http.get("/v1/forward-auth/scopes/mcp:read/more", headers=bearer)
            by_form = {"client_id": token, "client_secret": token, "token": token}
            client.http.post("/v1/introspect", data=by_form)
            client.http.post("/v1/introspect", auth=(token, token), data={"token": token})
            client.http.get("/v1/keys", headers=bearer, params={"limit": 1})
            client.http.post("/v1/verify", headers=bearer, json={"token": token})
        codes = {name: client.verify(everything.tokens[name]) for name in MISUSED}
        assert codes == {
            "good": "VALID",
            "revoked": "REVOKED",
            "expired": "EXPIRED",
            "unknown": "NOT_FOUND",
            "wrong secret": "NOT_FOUND",
            "mistyped": "MALFORMED",
            "cut off": "MALFORMED",
        }


def _misuse_by_http(
    everything: Everything, client: Client, server: Server, key_id: str, token: str
) -> None:
    """Put a token wherever none belongs in a request."""
    http = client.http
    for path in ("", "v1/", "v1/keys/", "v1/projections/", "v1/forward-auth/"):
        http.get(f"/{path}{token}")
        http.post(f"/{path}{token}", json={})
    http.get(f"/v1/forward-auth/scopes/{token}")
    http.get(f"/v1/keys/{token}/events")
    http.patch(f"/v1/keys/{token}", json={"name": "never"})
    http.patch(f"/v1/keys/apikey_{token}", json={"name": "never"})
    for action in ("revoke", "rotate"):
        http.post(f"/v1/keys/{token}/{action}", json={})
    http.post(f"/v1/projections/{token}/rebuild")
    parameters = "token q scope status cursor limit created_by expires_before workspace as_of"
    for name in [*parameters.split(), token]:
        http.get("/v1/keys", params={name: token})
        http.get("/v1/forward-auth", params={name: token})
        http.post("/v1/verify", params={name: token}, json={"token": token})
    for path in ("/v1/keys", "/v1/verify"):
        good = {"name": "never", "scopes": ["a:b"], "token": token}
        bodies = [{**good, name: token} for name in ("expires_at", "prefix", "workspace", token)]
        bodies += [{**good, "scopes": [token]}, {**good, "scopes": [f"{token}:read"]}]
        bodies += [{**good, "name": f"{token}\x00{token}"}, {**good, "name": [token]}]
        for body in [*bodies, token, [token], {"scopes": token}]:
            http.post(path, json=body)
        for content in (token, f'{{"{token}": 1, "{token}": 2}}', f'"{token}'):
            http.post(path, content=content, headers={"Content-Type": "application/json"})
        http.post(path, content=token, headers={"Content-Type": token})
        http.post(path, data={"token": token})
    http.post(f"/v1/keys/{key_id}/revoke", json={"reason": f"{token}\x00{token}"})
    http.post(f"/v1/keys/{key_id}/revoke", json={"comment": f"{token}\x07{token}"})
    http.post(f"/v1/keys/{key_id}/rotate", json={"grace_seconds": token})
    for name in ("X-Request-Id", "If-Match", "Cookie", "User-Agent", "Referer", "X-Forwarded-For"):
        http.get(f"/v1/keys/{key_id}", headers={name: token})
        http.patch(f"/v1/keys/{key_id}", headers={name: token}, json={"expires_at": "soon"})
        # This one succeeds, and is kept for ever.
        new = {"name": f"renamed by request {len(everything.answers)}"}
        http.patch(f"/v1/keys/{key_id}", headers={name: token}, json=new)
    http.post("/v1/keys", headers={"If-Match": token}, json={"name": "never"})
    key = client.create("made once", idempotency_key=token)
    if key.status_code == 201 and key.json()["token"] is not None:
        name = f"made once by {len(everything.tokens)}"
        everything.issued(name, key)
    client.create("never, for it was asked for before", idempotency_key=token)
    for credential in (f"Basic {token}", token, f"Bearer {token} {token}", f"Bearer{token}"):
        http.get("/v1/keys", headers={"Authorization": credential})
    http.get("/v1/keys", headers={"X-API-Key": token})
    everything.raw(server, f"{token} /v1/keys HTTP/1.1\r\nHost: here\r\n\r\n")
    everything.raw(server, f"GET /v1/keys HTTP/9.9\r\nAuthorization: {token}\r\n\r\n")
    everything.raw(server, f"GET /v1/keys?{token}\x00 HTTP/1.1\r\n{token}\r\n\r\n")
    everything.raw(
        server, f"OPTIONS /{token} HTTP/1.1\r\nHost: {token}\r\nUpgrade: {token}\r\n\r\n"
    )


def _misuse_the_audit_trail(client: Client, token: str) -> None:
    """Put a token wherever none belongs in a question about what happened."""
    http = client.http
    for name in ["key_id", "actor", "type", "from", "until", "after", "cursor", "workspace", token]:
        for form in (JSON, NDJSON, EVENT_STREAM):
            http.get("/v1/events", params={name: f"{token}\0"}, headers={"Accept": form})
    http.get("/v1/events", headers={"Accept": token})
    http.get("/v1/events", headers={"Accept": EVENT_STREAM, "Last-Event-ID": token})
    for name in ("leaf_index", "position", "key_id", "version", "size", "from", token):
        http.get("/v1/proofs/inclusion", params={name: token})
        http.get("/v1/proofs/consistency", params={name: token})
    http.get(f"/v1/log/tile/{token}")


def _misuse_by_command(everything: Everything) -> None:
    """Put a token wherever none belongs in a command."""
    create = ("keys", "create", "--name", "never", "--scopes")
    token = everything.tokens["good"]
    refused = everything.commands(
        ("keys", "show", token),
        ("keys", "revoke", token, "--json"),
        (*create, token),
        (*create, "a:b", "--prefix", token, "--json"),
        (*create, "a:b", "--workspace", token),
        (*create, "a:b", "--expires-in", token),
        ("keys", "list", "--status", token),
        ("keys", "list", "--cursor", token),
        ("keys", "list", "--limit", token),
        ("keys", "list", f"--{token}"),
        ("projections", "rebuild", token),
        (token,),
    )
    assert {ran.code for ran in refused} == {1, 2}


def _fail_to_write(everything: Everything, server: Server, client: Client) -> None:
    """Let changes fail, which leaves tracebacks behind, while tokens are at hand."""
    with raw(address_of(everything.data_dir)) as connection:
        digests = connection.execute("SELECT * FROM key_digests").fetchall()
        connection.execute("DELETE FROM key_digests")
        with server.full_disk():
            for token in everything.tokens.values():
                client.verdict(token)
                client.http.get("/v1/forward-auth", headers={"X-API-Key": token})
            assert client.create("never").status_code == 503
        for digest in digests:
            connection.execute(
                "INSERT INTO key_digests VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", digest
            )


def _fail_to_read(everything: Everything, client: Client, root: Client) -> None:
    """Let a stored event be damaged in several ways, and repair it again."""
    key_id = everything.issued("to be damaged", client.create("to be damaged"))["key_id"]
    # The newest event that a server has seen has to stay as it is.
    everything.issued("after it", client.create("after it"))
    cut = "UPDATE events SET state = substr(state, 1, length(state) - {}) WHERE id = ?"
    with raw(address_of(everything.data_dir)) as connection:
        position, state = connection.execute(
            "SELECT id, state FROM events ORDER BY id DESC LIMIT 1 OFFSET 1"
        ).fetchone()
        for missing in (1, 40, len(state)):
            connection.execute(cut.format(missing), (position,))
            assert client.http.get(f"/v1/keys/{key_id}/events").status_code == 503
            assert client.update(key_id, name="never").status_code == 503
            answered(root.rebuild("auth_lookup"), 202)
            eventually(partial(_is_rebuilt, root, "auth_lookup", "failed"), "it has failed")
            damaged = everything.commands(("keys", "history", key_id), ("projections", "check"))
            assert {ran.code for ran in damaged} == {1}
            connection.execute("UPDATE events SET state = ? WHERE id = ?", (state, position))


def _rebuild(everything: Everything, root: Client) -> None:
    for view in VIEWS:
        answered(root.rebuild(view.name), 202)
        eventually(partial(_is_rebuilt, root, view.name), f"{view.name} is made anew")
    assert everything.command("projections", "check").code == 0


def _read_the_audit_trail(everything: Everything, root: Client, server: Server) -> None:
    """Read every event in each form, and all that proves them."""
    http, everywhere = root.http, {"workspace": "*"}
    size = answered(http.get("/v1/proofs/consistency", params={"from": "1"}))["size"]
    for path in ("checkpoint", "log/checkpoint", "log/tile/entries/000.p/1"):
        assert http.get(f"/v1/{path}").status_code == 200
    for leaf_index in range(size):
        answered(http.get("/v1/proofs/inclusion", params={"leaf_index": leaf_index}))
    page = answered(http.get("/v1/events", params=everywhere))
    while page["next_cursor"] is not None:
        query = everywhere | {"cursor": page["next_cursor"]}
        page = answered(http.get("/v1/events", params=query))
    for form in (CSV, NDJSON):
        export = http.get("/v1/events", params=everywhere, headers={"Accept": form})
        assert export.content.count(b"\n") >= size
    # A tail has no end, so that whoever keeps whole answers cannot read it.
    with Tail(server.client(root.token), everywhere | {"after": "0"}).opened() as pieces:
        came = b""
        while came.count(b"\ndata: ") < size:
            came += next(pieces)
    everything.answers.append(came)


def _command_the_audit_trail(everything: Everything, key_id: str) -> None:
    pack = everything.data_dir.with_name("pack.zip")
    exported = everything.command("audit", "export", str(pack), "--json")
    everything.outputs.append(pack.read_bytes())
    public_key = json.loads(exported.output)["public_key"]
    ran = everything.commands(
        ("audit", "verify"),
        ("audit", "verify-pack", str(pack), "--public-key", public_key),
        ("audit", "replay", key_id),
        ("audit", "replay", key_id, "--pack", str(pack), "--json"),
        *(("audit", "report", "--format", form) for form in ("text", "csv", "json")),
    )
    assert {each.code for each in ran} == {0}


def _is_rebuilt(root: Client, view: str, end: str = "done") -> bool:
    state = root.projections()[view]["rebuild"]["state"]
    assert state in ("running", end)
    return bool(state == end)


def _without(text: bytes, token: str) -> bytes:
    """Take a token out of the place where it is shown, once."""
    assert text.count(token.encode()) == 1
    return text.replace(token.encode(), b"")
