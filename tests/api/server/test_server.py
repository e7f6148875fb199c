"""Properties of a process: its first start, its log, its port, and the bytes on the wire."""

import logging
import re
import socket
from collections.abc import Iterator
from contextlib import closing, suppress

import httpx
import pytest

from api.logs import configure_logs
from tests.conftest import log_as_tests_do
from tests.system.clients import Client, answered
from tests.system.processes import Server, Servers, eventually, run, servers_in

POST = b"POST /v1/keys HTTP/1.1\r\nHost: x\r\n"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server shared by the tests of this file; it trusts proxies on this machine."""
    with servers_in(tmp_path_factory.mktemp("server")) as servers:
        yield servers.start(trusted_proxies="127.0.0.1")


@pytest.fixture
def root(server: Server) -> Client:
    return server.client()


def last_request(server: Server, request_id: str) -> dict[str, object]:
    """Return the log line of a request, waiting for it."""

    def lines() -> list[dict[str, object]]:
        return [line for line in server.log_lines if line.get("request_id") == request_id]

    eventually(lambda: bool(lines()), "the request is in the log")
    return lines()[-1]


class TestFirstStart:
    def test_the_root_token_is_shown_on_standard_error_and_never_again(
        self, servers: Servers
    ) -> None:
        first = servers.start()
        token = first.root_token
        assert token is not None
        assert first.log.count(token) == 1
        assert "Its root key may do everything; it is shown only now" in first.log
        assert first.output_path.read_text() == ""
        [key] = first.client().list_keys(workspace="root")
        assert (key["name"], key["workspace"], key["scopes"]) == ("root", "root", ["*"])
        assert key["created_by"] == {"type": "system", "id": "first-start"}
        first.stop()
        second = servers.start()
        assert second.root_token is None
        assert "root key" not in second.log
        assert second.client(token).list_keys(workspace="root")[0]["key_id"] == key["key_id"]

    def test_a_ledger_that_has_a_key_gets_no_root_key(self, servers: Servers) -> None:
        made = run(servers.data_dir, "keys", "create", "--name", "a", "--scopes", "mcp:read")
        assert made.code == 0, made.errors
        assert servers.start().root_token is None

    def test_the_folder_and_its_files_are_the_owners_alone(self, servers: Servers) -> None:
        servers.start()
        assert servers.data_dir.stat().st_mode & 0o777 == 0o700
        for path in servers.data_dir.iterdir():
            assert path.stat().st_mode & 0o077 == 0, path.name


class TestRefusedStart:
    @pytest.mark.only_on("sqlite")
    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_a_port_in_use_is_reported_before_a_root_key_is_created(
        self, server: Server, servers: Servers, workers: str
    ) -> None:
        port = httpx.URL(server.url).port
        second = servers.begin("--port", str(port), "--workers", workers)
        assert second.wait() == 1
        [line] = second.log_lines
        assert f"cannot listen on 127.0.0.1:{port}: address already in use" in line["event"]
        assert second.log.count("\n") == 1
        assert not servers.data_dir.exists()

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("port", "http", "KEYLEDGER_PORT: "),
            ("prot", "80", "KEYLEDGER_PROT: no such setting; did you mean KEYLEDGER_PORT?"),
        ],
    )
    def test_invalid_settings_are_reported_in_one_line(
        self, servers: Servers, name: str, value: str, said: str
    ) -> None:
        server = servers.begin(**{name: value})  # type: ignore[arg-type]
        assert server.wait() == 2
        assert said in server.log
        assert "Traceback" not in server.log
        assert not servers.data_dir.exists()

    @pytest.mark.only_on("sqlite")
    def test_a_file_that_is_not_a_database_is_left_unchanged(self, servers: Servers) -> None:
        servers.data_dir.mkdir()
        path = servers.data_dir / "keyledger.sqlite3"
        path.write_bytes(b"this is no database, and somebody may want it back " * 100)
        before = path.read_bytes()
        server = servers.begin()
        assert server.wait() == 1
        assert "Traceback" not in server.log
        assert path.read_bytes() == before


class TestLog:
    def test_each_request_has_a_line_of_json(self, server: Server, root: Client) -> None:
        request_id = "a-request-of-the-tests"
        root.http.get("/v1/keys", headers={"X-Request-Id": request_id})
        line = last_request(server, request_id)
        assert TIME.fullmatch(str(line.pop("timestamp")))
        assert float(str(line.pop("milliseconds"))) > 0
        assert line == {
            "event": "request",
            "level": "info",
            "method": "GET",
            "route": "/v1/keys",
            "status": 200,
            "outcome": "OK",
            "actor": root.list_keys(workspace="root")[-1]["key_id"],
            "request_id": request_id,
        }

    @pytest.mark.parametrize(
        ("method", "path", "told"),
        [
            ("GET", "/v1/keys/x", ("/v1/keys/{key_id}", 404, "KEY_NOT_FOUND")),
            ("GET", "/v1/keys?x=1", ("/v1/keys", 422, "INVALID")),
            ("DELETE", "/v1/keys", ("/v1/keys", 405, "METHOD_NOT_ALLOWED")),
            ("GET", "/nowhere", ("unmatched", 404, "NOT_FOUND")),
        ],
    )
    def test_a_refused_request_is_logged_with_its_outcome(
        self, server: Server, root: Client, method: str, path: str, told: tuple[object, ...]
    ) -> None:
        answer = root.http.request(method, path)
        line = last_request(server, answer.headers["X-Request-Id"])
        assert (line["route"], line["status"], line["outcome"]) == told

    def test_one_without_a_good_credential_has_no_actor(self, server: Server) -> None:
        answer = httpx.get(f"{server.url}/v1/keys", trust_env=False)
        line = last_request(server, answer.headers["X-Request-Id"])
        assert (line["actor"], line["outcome"]) == (None, "UNAUTHENTICATED")

    def test_a_revoked_credential_is_logged_as_the_actor(
        self, server: Server, root: Client
    ) -> None:
        made = answered(root.create("to be revoked"), 201)
        root.revoke(made["key_id"])
        answer = server.client(made["token"]).http.get("/v1/keys")
        line = last_request(server, answer.headers["X-Request-Id"])
        assert (line["actor"], line["outcome"]) == (made["key_id"], "REVOKED")

    def test_the_events_of_a_request_bear_its_id(self, server: Server, root: Client) -> None:
        answer = root.create("named")
        line = last_request(server, answer.headers["X-Request-Id"])
        [event] = root.history(answer.json()["key_id"])
        assert event["request_id"] == line["request_id"]

    def test_neither_path_nor_query_nor_header_is_in_it(self, server: Server, root: Client) -> None:
        odd = "somebody-put-it-here"
        root.http.get(f"/{odd}?{odd}=1")
        root.http.get(f"/v1/keys/{odd}?workspace={odd}")
        root.http.get(f"/v1/forward-auth/{odd}?scope={odd}")
        answer = root.http.get(
            "/v1/keys", headers={"User-Agent": odd, "Referer": odd, "X-Odd": odd}
        )
        last_request(server, answer.headers["X-Request-Id"])
        assert odd not in server.log

    def test_every_line_is_json_but_those_of_the_root_key(self, server: Server) -> None:
        lines = [line for line in server.log.splitlines() if not line.startswith("{")]
        assert len([line for line in lines if line]) == 2
        assert all({"event", "level", "timestamp"} <= set(line) for line in server.log_lines)

    def test_probes_leave_no_line(self, server: Server, root: Client) -> None:
        probes = ("/healthz", "/readyz", "/metrics")
        ids = [root.http.get(path).headers["X-Request-Id"] for path in probes]
        # Log lines are in order: once this one is there, the others would be too.
        last_request(server, root.http.get("/v1/keys").headers["X-Request-Id"])
        assert not any(request_id in server.log for request_id in ids)

    def test_the_level_can_be_set(self, servers: Servers) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        # The address is not logged either.
        quiet = servers.begin("--port", str(port), log_level="error")
        eventually(lambda: self.answers(f"http://127.0.0.1:{port}/v1/keys"), "it answers")
        quiet.stop()
        assert quiet.root_token is not None
        assert quiet.log_lines == []

    def answers(self, url: str) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(url, trust_env=False).status_code == 401
        return False


class TestSource:
    """Only trusted proxies may state the source of a request."""

    def source(self, client: Client, **headers: str) -> object:
        made = client.http.post(
            "/v1/keys", json={"name": "a", "scopes": ["a:b"]}, headers=headers
        ).json()
        [event] = client.history(made["key_id"])
        return event["source_ip"]

    def test_a_trusted_proxy_is_believed(self, root: Client) -> None:
        assert self.source(root) == "127.0.0.1"
        forwarded = {"X-Forwarded-For": "203.0.113.9"}
        assert self.source(root, **forwarded) == "203.0.113.9"
        # What the client claims comes before what the proxy has seen.
        forwarded = {"X-Forwarded-For": "10.9.9.9, 203.0.113.9"}
        assert self.source(root, **forwarded) == "203.0.113.9"

    def test_no_other_source_is_limited(self, servers: Servers) -> None:
        client = servers.start().client()
        assert self.source(client, **{"X-Forwarded-For": "203.0.113.9"}) == "127.0.0.1"


class TestWire:
    """Bytes that no HTTP library would send."""

    def send(self, server: Server, *parts: bytes) -> bytes:
        """Send bytes unchanged, and return everything until the server closes the connection."""
        address = httpx.URL(server.url)
        assert address.port is not None
        with socket.create_connection((address.host, address.port), timeout=20) as wire:
            for part in parts:
                wire.sendall(part)
            wire.shutdown(socket.SHUT_WR)
            answer = b""
            while received := wire.recv(65_536):
                answer += received
        return answer

    @pytest.mark.parametrize(
        "request_",
        [
            b"nonsense\r\n\r\n",
            b"GET\r\n\r\n",
            b"\x00\x00\x00\x00\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET /v1/keys HTTP/1.1\r\nHost: x\r\nX-API-Key: a\x00b\r\n\r\n",
            b"GET /v1/keys HTTP/1.1\r\nHost: x\r\nX-API\x00-Key: a\r\n\r\n",
            b"GET /v1/keys HTTP/1.1\r\nHost: x\r\nAuthorization : Bearer x\r\n\r\n",
            b"GET /v1/k\x00eys HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /v1/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
            b"BREW /v1/keys HTTP/1.1\r\nHost: x\r\n\r\n",
            POST + b"Content-Length: -1\r\n\r\n",
            POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
            POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        ],
        ids=lambda sent: ascii(sent)[-50:],
    )
    def test_a_malformed_request_is_refused_and_the_next_one_served(
        self, server: Server, root: Client, request_: bytes
    ) -> None:
        before = root.http.get("/readyz").json()["position"]
        answer = self.send(server, request_)
        assert answer == b"" or re.match(rb"HTTP/1\.1 4\d\d ", answer), answer
        assert root.http.get("/readyz").json()["position"] == before
        assert "Traceback" not in server.log

    @pytest.mark.parametrize("chunked", [True, False])
    def test_a_megabyte_is_refused_before_it_is_read(self, root: Client, *, chunked: bool) -> None:
        body = b" " * 1_000_000
        content = iter([body[:500_000], body[500_000:]]) if chunked else body
        headers = {"Content-Type": "application/json"}
        answer = root.http.post("/v1/keys", headers=headers, content=content)
        assert answered(answer, 413)["code"] == "BODY_TOO_LARGE"
        assert answer.headers["Content-Type"] == "application/problem+json"
        # The rest of the body must not break the next request on the connection.
        assert root.http.get("/v1/keys").status_code == 200

    def test_it_does_not_say_what_it_is_made_of(self, root: Client) -> None:
        assert "Server" not in root.http.get("/v1/keys").headers


class TestWorkers:
    def test_the_metrics_of_all_workers_are_summed(self, servers: Servers) -> None:
        server = servers.start("--workers", "2")
        token = server.root_token
        for _ in range(40):
            # A connection each, so that both workers get some.
            with closing(httpx.Client(base_url=server.url, trust_env=False)) as http:
                answer = http.get("/v1/forward-auth", headers={"X-API-Key": token or ""})
                assert answer.status_code == 204
        client = server.client()
        series = 'keyledger_verdicts_total{code="VALID"} 40.0'
        for _ in range(10):
            assert series in httpx.get(f"{server.url}/metrics", trust_env=False).text
        assert client.list_keys(workspace="root")


def test_a_terminal_gets_text(capsys: pytest.CaptureFixture[str]) -> None:
    """The format is a setting; ``auto`` at a terminal is tested with the command line."""
    handlers, level = logging.getLogger().handlers, logging.getLogger().level
    try:
        configure_logs("info", "text")
        logging.getLogger("somebody").info("something happened")
    finally:
        log_as_tests_do()
        logging.getLogger().handlers = handlers
        logging.getLogger().setLevel(level)
    line = capsys.readouterr().err
    assert "something happened" in line
    assert not line.startswith("{")
