"""The metrics of a real server count every verification, on whichever path it is answered."""

import httpx

from domain.tokens import Token, mint
from tests.system.clients import Client, answered
from tests.system.processes import Server, Servers

FORWARD_AUTH = "/v1/forward-auth"


def metrics(server: Server) -> dict[str, float]:
    text = httpx.get(f"{server.url}/metrics", trust_env=False).text
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {series: float(value) for series, _, value in lines}


def counted(server: Server, name: str) -> dict[str, float]:
    """Return the series of a counter that have counted anything, by their labels."""
    begin = f"keyledger_{name}_total{{"
    found = {
        series.removeprefix(begin).removesuffix("}"): value
        for series, value in metrics(server).items()
        if series.startswith(begin)
    }
    return {labels: value for labels, value in found.items() if value}


def ask(server: Server, token: str, times: int = 1, path: str = FORWARD_AUTH) -> set[int]:
    """Send the question of a gateway; return the statuses of the answers."""
    with httpx.Client(base_url=server.url, trust_env=False) as http:
        headers = {"Authorization": f"Bearer {token}"}
        return {http.get(path, headers=headers).status_code for _ in range(times)}


def made(root: Client, prefix: str = "key") -> tuple[str, str]:
    document = answered(root.create("metrics", prefix=prefix), 201)
    return document["key_id"], document["token"]


def test_every_verification_is_counted_by_its_verdict_and_its_request(servers: Servers) -> None:
    server = servers.start(metrics_prefixes="blnk")
    root = server.client()
    _, good = made(root, prefix="blnk")
    revoked_id, revoked = made(root)
    answered(root.revoke(revoked_id))
    unknown = mint("key", lambda size: bytes(range(size))).reveal()

    assert ask(server, good, 40, f"{FORWARD_AUTH}?scope=mcp:read") == {204}
    assert ask(server, good, 3, f"{FORWARD_AUTH}?scope=a:b") == {403}
    assert ask(server, revoked, 2) == {401}
    assert ask(server, unknown, 4) == {401}
    assert ask(server, "malformed") == {401}
    # This form is answered by the application.
    assert ask(server, good, 5, f"{FORWARD_AUTH}/scopes/mcp:read") == {200}
    assert ask(server, revoked, 1, f"{FORWARD_AUTH}/scopes/mcp:read") == {401}
    for token in (good, good, revoked):
        root.verify(token)
    both = {"tokens": [{"token": good}, {"token": unknown}]}
    answered(root.http.post("/v1/verify/batch", json=both))

    assert counted(server, "verdicts") == {
        'code="VALID"': 40 + 5 + 2 + 1,
        'code="INSUFFICIENT_SCOPE"': 3,
        'code="REVOKED"': 2 + 1 + 1,
        'code="NOT_FOUND"': 4 + 1,
        'code="MALFORMED"': 1,
    }
    assert counted(server, "refusals") == {
        'code="INSUFFICIENT_SCOPE",prefix="blnk"': 3,
        'code="REVOKED",prefix="key"': 2 + 1 + 1,
        'code="NOT_FOUND",prefix="key"': 4 + 1,
        'code="MALFORMED",prefix="(other)"': 1,
    }
    requests = counted(server, "requests")
    gateway = f'method="GET",route="{FORWARD_AUTH}",status='
    assert {status: requests[f'{gateway}"{status}"'] for status in (200, 204, 401, 403)} == {
        200: 5,
        204: 40,
        401: 2 + 4 + 1 + 1,
        403: 3,
    }
    assert requests['method="POST",route="/v1/verify",status="200"'] == 3
    assert requests['method="POST",route="/v1/verify/batch",status="200"'] == 1


def test_a_presented_text_is_never_a_label(servers: Servers) -> None:
    server = servers.start()
    _, good = made(server.client(), prefix="blnk")
    swapped = mint("stolen", lambda size: bytes(range(size)))
    presented = [
        swapped.reveal(),
        f"{swapped.secret}_{swapped.lookup_id}",
        f"opensesame_{good}",
        Token("unheard", good[5:21], swapped.secret).reveal(),
    ]
    for text in presented:
        assert ask(server, text) == {401}
    text = httpx.get(f"{server.url}/metrics", trust_env=False).text
    for secret in ("stolen", "opensesame", "unheard", swapped.secret, good[5:21], good[21:]):
        assert secret not in text
    refusals = counted(server, "refusals")
    assert {labels.partition(",")[2] for labels in refusals} == {'prefix="(other)"'}
    assert sum(refusals.values()) == len(presented)


def test_the_help_says_what_is_a_sample(servers: Servers) -> None:
    server = servers.start()
    text = httpx.get(f"{server.url}/metrics", trust_env=False).text
    (sampled,) = [line for line in text.splitlines() if "HELP keyledger_request_seconds" in line]
    assert "one in 16 is timed" in sampled
    assert "keyledger_requests_total counts all" in sampled
