"""HTTP answers if a row or an event has no valid seal."""

from collections.abc import Callable

import pytest
from httpx2 import Response

from tests.api.served import Api, Key, refused
from tests.raw_sql import sql, with_field

ROW = "ROW_NOT_SEALED"
EVENT = "EVENT_NOT_SEALED"

QUESTIONS: dict[str, Callable[[Api, Key], Response]] = {
    "verify": lambda api, key: api.post("/v1/verify", json={"token": key.token}),
    "introspect": lambda api, key: api.post("/v1/introspect", data={"token": key.token}),
    "forward-auth": lambda api, key: api.get("/v1/forward-auth", by=key),
    "a request of its own": lambda api, key: api.get("/v1/keys", by=key),
}
DAMAGES = {
    "scopes": "UPDATE auth_lookup SET scopes = '[\"*\"]' WHERE lookup_id = ?",
    "no seal": "UPDATE auth_lookup SET seal = NULL WHERE lookup_id = ?",
    "digest": "UPDATE key_digests SET digest = x'00' WHERE lookup_id = ?",
}


def count(api: Api, code: str) -> float:
    return api.metrics()[f'keyledger_not_sealed_total{{code="{code}"}}']


def forget_rows(api: Api) -> None:
    """Make the server read each row again, as after a rebuild."""
    sql(api.address, "UPDATE projection_states SET generation = generation + 1")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_row_without_a_valid_seal_has_its_own_code_and_is_counted(
    api: Api, question: str, damage: str
) -> None:
    key, other = api.make("api-keys:read"), api.make("api-keys:read")
    sql(api.address, DAMAGES[damage], key.token[4:20])
    forget_rows(api)
    assert count(api, ROW) == 0
    refused(QUESTIONS[question](api, key), 503, ROW)
    assert count(api, ROW) == 1
    assert QUESTIONS[question](api, other).is_success
    assert count(api, ROW) == 1
    assert count(api, EVENT) == 0


def test_a_wrong_secret_for_a_row_without_a_right_seal_is_not_told_that_it_is_wrong(
    api: Api,
) -> None:
    key = api.make("api-keys:read")
    sql(api.address, DAMAGES["scopes"], key.token[4:20])
    forget_rows(api)
    other = api.make("api-keys:read")
    forged = Key(key.key_id, key.token[:20] + other.token[20:], {})
    for question in QUESTIONS.values():
        assert question(api, forged).status_code in {200, 401}
        assert "VALID" not in question(api, forged).text.replace("INVALID", "")


@pytest.mark.parametrize("change", ["revoke", "rotate", "rename"])
def test_a_forged_event_blocks_changes_of_its_key_with_its_own_code(api: Api, change: str) -> None:
    key = api.make("api-keys:read")
    # A server that misses the newest event that it has seen answers nothing at all.
    api.make("api-keys:read")
    ((state,),) = sql(api.address, "SELECT state FROM events WHERE id = 2")
    planted = with_field("scopes", ["*"])(state)
    sql(api.address, "UPDATE events SET state = ? WHERE id = 2", planted)
    where = {"workspace": "acme"}
    if change == "rename":
        answer = api.patch(key.path, params=where, json={"name": "renamed"})
    else:
        answer = api.post(f"{key.path}/{change}", params=where)
    refused(answer, 503, EVENT)
    assert count(api, EVENT) == 1
