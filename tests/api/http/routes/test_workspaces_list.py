"""``GET /v1/workspaces``."""

from typing import Any

import pytest

from tests.api.served import Api, Json, invalid, refused


def listed(api: Api, **request: Any) -> list[Json]:  # noqa: ANN401 - as in `Api.get`
    answer = api.get("/v1/workspaces", **request)
    assert answer.status_code == 200, answer.text
    data: list[Json] = answer.json()["data"]
    return data


def test_root_sees_every_workspace_with_the_numbers_of_its_keys(api: Api) -> None:
    assert listed(api) == [{"name": "root", "keys": 1, "active_keys": 1}]
    for workspace in ("default", "acme", "acme"):
        api.make(workspace=workspace)
    api.revoke(api.make(workspace="acme"))
    api.make(workspace="acme", expires_at="2026-03-03T13:00:00Z")
    acme = {"name": "acme", "keys": 4, "active_keys": 3}
    others = [
        {"name": "default", "keys": 1, "active_keys": 1},
        {"name": "root", "keys": 1, "active_keys": 1},
    ]
    assert listed(api) == [acme, *others]
    # The clock decides expiry, before an `Expired` event exists.
    api.clock.advance(hours=1)
    assert listed(api) == [acme | {"active_keys": 2}, *others]


def test_any_other_credential_sees_its_own(api: Api) -> None:
    api.make(workspace="other")
    admin = api.admin("acme")
    assert listed(api, by=admin) == [{"name": "acme", "keys": 1, "active_keys": 1}]


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_the_pages_have_each_workspace_once(api: Api, limit: int) -> None:
    for workspace in ("a", "b", "c"):
        api.make(workspace=workspace)
    found: list[str] = []
    query: Json = {"limit": limit}
    while True:
        page = api.get("/v1/workspaces", params=query).json()
        assert len(page["data"]) <= limit
        found += [each["name"] for each in page["data"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert found == ["a", "b", "c", "root"]


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "workspace=acme"])
def test_a_wrong_parameter_is_refused(shared_api: Api, query: str) -> None:
    invalid(shared_api.get(f"/v1/workspaces?{query}"), query.partition("=")[0])


def test_it_needs_the_scope_to_read_keys(shared_api: Api) -> None:
    verifier = shared_api.make("api-keys:verify")
    refused(shared_api.get("/v1/workspaces", by=verifier), 403, "INSUFFICIENT_SCOPE")
