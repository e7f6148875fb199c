"""``POST /v1/verify/batch``."""

import pytest

from tests.api.served import Api, Key, invalid, refused

PATH = "/v1/verify/batch"


def verdicts(api: Api, tokens: list[str], *, by: Key, **query: str) -> list[str]:
    asked = {"tokens": [{"token": each} for each in tokens]}
    answer = api.post(PATH, by=by, params=query, json=asked)
    assert answer.status_code == 200, answer.text
    assert answer.json()["next_cursor"] is None
    return [verdict["code"] for verdict in answer.json()["data"]]


@pytest.fixture
def verifier(api: Api) -> Key:
    return api.make("api-keys:verify")


def test_the_verdicts_come_in_the_order_of_the_tokens(api: Api, verifier: Key) -> None:
    made = [api.make(name=f"key {number}") for number in range(5)]
    for key in made[1::2]:
        api.revoke(key)
    tokens = [made[number % 5].token for number in range(100)]
    answer = api.post(PATH, by=verifier, json={"tokens": [{"token": each} for each in tokens]})
    data = answer.json()["data"]
    assert [verdict["key_id"] for verdict in data] == [made[n % 5].key_id for n in range(100)]
    assert [verdict["valid"] for verdict in data] == [n % 5 % 2 == 0 for n in range(100)]


def test_each_verdict_is_the_same_as_alone(api: Api, verifier: Key) -> None:
    asked: list[dict[str, object]] = [
        {"token": api.make().token},
        {"token": api.make().token, "scopes": ["mcp:read"]},
        {"token": api.make().token, "scopes": ["mcp:write"]},
        {"token": api.revoked().token},
        {"token": api.make(workspace="elsewhere").token},
        {"token": "nonsense"},
        {"token": ""},
    ]
    together = api.post(PATH, by=verifier, json={"tokens": asked}).json()["data"]
    alone = [api.post("/v1/verify", by=verifier, json=each).json() for each in asked]
    assert together == alone
    assert [verdict["code"] for verdict in together] == [
        "VALID", "VALID", "INSUFFICIENT_SCOPE", "REVOKED", "NOT_FOUND", "MALFORMED", "MALFORMED",
    ]  # fmt: skip


def test_a_hundred_and_no_more(api: Api, verifier: Key) -> None:
    token = api.make().token
    assert verdicts(api, [token] * 100, by=verifier) == ["VALID"] * 100
    body = {"tokens": [{"token": token}] * 101}
    invalid(api.post(PATH, by=verifier, json=body), "tokens")
    invalid(api.post(PATH, by=verifier, json={"tokens": []}), "tokens")


def test_an_unreadable_scope_refuses_everything(api: Api, verifier: Key) -> None:
    token = api.make().token
    for wrong, field in (
        ({"token": 7}, "tokens.1.token"),
        ({}, "tokens.1.token"),
        ({"token": token, "workspace": "acme"}, "tokens.1.workspace"),
        ({"token": token, "scopes": "mcp:read"}, "tokens.1.scopes"),
        ("no object", "tokens.1"),
    ):
        answer = api.post(PATH, by=verifier, json={"tokens": [{"token": token}, wrong]})
        invalid(answer, field)
        assert token not in answer.text


def test_an_invalid_scope_refuses_everything(api: Api, verifier: Key) -> None:
    asked = [{"token": api.make().token}, {"token": "x", "scopes": ["read"]}]
    refused(api.post(PATH, by=verifier, json={"tokens": asked}), 422, "INVALID")


def test_the_workspace_is_the_callers_own(api: Api, verifier: Key) -> None:
    mine, other = api.make().token, api.make(workspace="elsewhere").token
    assert verdicts(api, [mine, other], by=verifier) == ["VALID", "NOT_FOUND"]
    assert verdicts(api, [mine, other], by=verifier, workspace="acme") == ["VALID", "NOT_FOUND"]
    body = {"tokens": [{"token": other}]}
    answer = api.post(f"{PATH}?workspace=elsewhere", by=verifier, json=body)
    refused(answer, 403, "WORKSPACE_FORBIDDEN")


def test_root_may_name_another_workspace(api: Api) -> None:
    mine, other = api.make().token, api.make(workspace="elsewhere").token
    tokens = [mine, other, api.root.token]
    in_root = verdicts(api, tokens, by=api.root, workspace="root")
    assert in_root == ["NOT_FOUND", "NOT_FOUND", "VALID"]
    in_acme = verdicts(api, tokens, by=api.root, workspace="acme")
    assert in_acme == ["VALID", "NOT_FOUND", "NOT_FOUND"]


def test_requests_without_credential_and_scope_are_refused(api: Api) -> None:
    body = {"tokens": [{"token": "x"}]}
    refused(api.post(PATH, by=None, json=body), 401, "UNAUTHENTICATED")
    refused(api.post(PATH, by=api.make(), json=body), 403, "INSUFFICIENT_SCOPE")


def test_a_revoke_is_seen_by_the_next_batch(api: Api, verifier: Key) -> None:
    keys = [api.make() for _ in range(3)]
    tokens = [key.token for key in keys]
    assert verdicts(api, tokens, by=verifier) == ["VALID"] * 3
    api.revoke(keys[1])
    assert verdicts(api, tokens, by=verifier) == ["VALID", "REVOKED", "VALID"]
