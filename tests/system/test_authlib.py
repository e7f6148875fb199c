"""Authlib's client introspects tokens at a real server, like a protected resource."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest
from authlib.integrations.httpx_client import OAuth2Client

from domain.tokens import mint
from tests.domain.builders import a_random_source
from tests.system.clients import Client, Json, answered
from tests.system.processes import Server, servers_in
from tests.system.secret_search import Search

# Nothing of this depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

METHODS = ["client_secret_basic", "client_secret_post"]
UNKNOWN = mint("key", a_random_source(7662)).reveal()

each_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with servers_in(tmp_path_factory.mktemp("authlib")) as servers:
        yield servers.start()


@pytest.fixture(scope="module")
def root(server: Server) -> Client:
    return server.client()


@pytest.fixture(scope="module")
def resource(root: Client) -> Json:
    """The key that a protected resource has as its client."""
    return answered(root.create("resource server", ["api-keys:verify"], workspace="acme"), 201)


def introspected(
    server: Server, method: str, client: tuple[str, str], token: str
) -> httpx2.Response:
    """Let a client, its id and its secret, ask about a token."""
    with closing(
        OAuth2Client(*client, token_endpoint_auth_method=method, trust_env=False)
    ) as library:
        answer = library.introspect_token(f"{server.url}/v1/introspect", token=token)
    assert isinstance(answer, httpx2.Response)
    return answer


@each_method
def test_authlib_learns_of_a_token_what_holds_now(
    server: Server, root: Client, resource: Json, method: str
) -> None:
    key = answered(root.create("caller", ["mcp:read", "mcp:write"], workspace="acme"), 201)
    client = resource["key_id"], resource["token"]

    assert introspected(server, method, client, key["token"]).json() == {
        "active": True,
        "scope": "mcp:read mcp:write",
        "client_id": key["key_id"],
        "sub": key["key_id"],
        "token_type": "Bearer",
    }
    answered(root.http.post(f"/v1/keys/{key['key_id']}/revoke", params={"workspace": "acme"}))
    assert introspected(server, method, client, key["token"]).json() == {"active": False}
    assert introspected(server, method, client, UNKNOWN).json() == {"active": False}


@each_method
def test_authlib_gets_the_reason_of_a_refusal(
    server: Server, root: Client, resource: Json, method: str
) -> None:
    narrow = answered(root.create("narrow", ["mcp:read"], workspace="acme"), 201)
    for client, status, error in (
        ((resource["key_id"], UNKNOWN), 401, "invalid_client"),
        ((narrow["key_id"], resource["token"]), 401, "invalid_client"),
        ((narrow["key_id"], narrow["token"]), 403, "unauthorized_client"),
    ):
        answer = introspected(server, method, client, narrow["token"])
        assert (answer.status_code, answer.json()["error"]) == (status, error)
        challenge = answer.headers.get("WWW-Authenticate")
        assert challenge == ('Basic realm="keyledger"' if status == 401 else None)


def test_a_client_without_a_secret_is_refused(server: Server, resource: Json) -> None:
    answer = introspected(server, "none", (resource["key_id"], ""), resource["token"])
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_no_secret_of_a_client_is_kept_anywhere(tmp_path: Path) -> None:
    with servers_in(tmp_path) as servers:
        server = servers.start()
        root = server.client()
        resource = answered(root.create("resource server", ["api-keys:verify"]), 201)
        secrets = {"right": resource["token"], "unknown": UNKNOWN, "cut off": UNKNOWN[:-1]}
        search = Search({name: each[20:].encode() for name, each in secrets.items()})

        sent = 0
        for method in METHODS:
            for secret in secrets.values():
                for client_id in (resource["key_id"], secret):
                    answer = introspected(server, method, (client_id, secret), secret)
                    assert answer.status_code in (200, 401)
                    assert not search.found_in(answer.content + str(answer.headers).encode())
                    sent += 1

        assert search.found_in_tables(servers.data_dir) == {}
        server.stop()
        # A line of the log may be written after the answer, but never after the end of the server.
        assert server.log.count("/v1/introspect") == sent
        assert not search.found_in(server.log_path.read_bytes() + server.output_path.read_bytes())
        assert search.found_in_files(servers.data_dir) == {}
