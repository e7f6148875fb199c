"""An export is complete, or visibly aborted, for example when its key is revoked."""

from collections.abc import Iterator

import httpx
import pytest

from tests.system.clients import Json, answered
from tests.system.ledgers import make_keys
from tests.system.processes import Server, Servers, servers_in

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

FORMS = ["application/x-ndjson", "text/csv"]
PAGES = ["/console/audit/events.ndjson", "/console/audit/events.csv"]
EVERYWHERE = {"workspace": "*"}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A ledger of which an export is larger than what lies between a server and a client."""
    with servers_in(tmp_path_factory.mktemp("exports")) as servers:
        servers.start()
        # Of characters of four bytes: 10,000 events of a kilobyte each.
        long = "\N{KEY}" * 100
        names = [f"{long} {number}" for number in range(500)]
        make_keys(servers.data_dir, names, renamings=19)
        yield servers


@pytest.fixture
def server(servers: Servers) -> Server:
    return servers.started[0]


@pytest.fixture
def auditor(server: Server) -> Json:
    return answered(
        server.client().create("auditor", ["audit:read", "api-keys:read"], workspace="root"), 201
    )


def read_while_the_key_is_revoked(
    server: Server, client: httpx.Client, key: Json, request: httpx.Request
) -> bytes:
    """Return what comes of an answer whose key is revoked after its first piece."""
    answer = client.send(request, stream=True)
    assert answer.status_code == httpx.codes.OK
    pieces = answer.iter_raw()
    came = next(pieces)
    answered(server.client().revoke(key["key_id"], workspace="root"))
    try:
        for piece in pieces:
            came += piece
    except httpx.RemoteProtocolError as error:
        assert "incomplete chunked read" in str(error)  # noqa: PT017 - and what came before it
        return came
    pytest.fail("it looks whole")


def is_told(server: Server, key: Json) -> bool:
    """Tell whether the log says of a request of this key that it was refused in the end."""
    return any(
        line.get("actor") == key["key_id"] and line.get("outcome") == "REVOKED"
        for line in server.log_lines
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_live_stream_ends_when_its_key_is_revoked(
    form: str, server: Server, auditor: Json
) -> None:
    headers = {"Accept": form, "Authorization": f"Bearer {auditor['token']}"}
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client:
        request = client.build_request("GET", "/v1/events", params=EVERYWHERE, headers=headers)
        came = read_while_the_key_is_revoked(server, client, auditor, request)
    headers["Authorization"] = f"Bearer {server.root_token}"
    whole = httpx.get(
        f"{server.url}/v1/events", params=EVERYWHERE, headers=headers, trust_env=False
    ).content
    assert whole.startswith(came)
    assert len(came) < len(whole)
    assert is_told(server, auditor)
    assert "Traceback" not in server.log


@pytest.mark.parametrize("page", PAGES)
def test_a_console_stream_ends_when_the_signed_in_key_is_revoked(
    page: str, server: Server, auditor: Json
) -> None:
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client:
        signed_in = client.post("/console/sign-in", data={"token": auditor["token"]})
        assert signed_in.status_code == httpx.codes.SEE_OTHER
        request = client.build_request("GET", page, params={"workspace": "default"})
        read_while_the_key_is_revoked(server, client, auditor, request)
    assert is_told(server, auditor)
