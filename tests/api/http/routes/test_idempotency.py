"""``Idempotency-Key``: a request that is sent several times has the effect of one."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from httpx2 import Response

from tests.api.served import Api, Key, invalid, refused

NAME = {"Idempotency-Key": "7d0e8b4e-9d2b-4c7a"}
ASKED = {"name": "payments-api", "scopes": ["mcp:read"]}
ACME = {"workspace": "acme"}


def create(
    api: Api, by: Key | str = "root", workspace: str | None = None, **change: object
) -> Response:
    params = {} if workspace is None else {"workspace": workspace}
    return api.post("/v1/keys", by=by, params=params, headers=NAME, json=ASKED | change)


def rotate(api: Api, key: Key, **body: int | str | None) -> Response:
    return api.post(f"{key.path}/rotate", params=ACME, headers=NAME, json=body)


def is_repetition_of(first: Response, again: Response) -> bool:
    """Return whether an answer repeats an earlier one, apart from the token."""
    assert first.json()["token"] is not None
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    return (again.status_code, again.json()) == (201, first.json() | {"token": None})


class TestCreate:
    def test_the_same_request_again_answers_the_same_key_without_its_token(self, api: Api) -> None:
        first = create(api)
        before = api.position()
        api.clock.advance(days=30)
        assert is_repetition_of(first, create(api))
        assert api.position() == before

    def test_the_key_is_shown_as_it_is_by_then(self, api: Api) -> None:
        made = create(api).json()
        api.post(f"/v1/keys/{made['key_id']}/revoke")
        assert create(api).json()["status"] == "revoked"

    @pytest.mark.parametrize(
        "change",
        [
            {"name": "another"},
            {"scopes": ["mcp:write"]},
            {"expires_at": "2027-01-01T00:00:00Z"},
            {"prefix": "blnk"},
        ],
        ids=repr,
    )
    def test_another_request_of_the_same_name_is_refused(
        self, api: Api, change: dict[str, Any]
    ) -> None:
        create(api)
        before = api.position()
        refused(create(api, **change), 422, "IDEMPOTENCY_KEY_REUSED")
        assert api.position() == before

    def test_another_notation_of_the_same_body_is_the_same_request(self, api: Api) -> None:
        first = create(api, expires_at="2027-01-01T00:00:00Z")
        again = create(api, expires_at="2027-01-01T00:00:00.000Z", prefix=None)
        assert is_repetition_of(first, again)

    def test_the_same_name_of_another_actor_is_another_request(self, api: Api) -> None:
        admins = [api.admin(), api.admin()]
        made = [create(api, by=admin).json() for admin in admins]
        assert made[0]["key_id"] != made[1]["key_id"]
        assert all(each["token"] for each in made)

    def test_the_same_name_for_another_workspace_is_another_request(self, api: Api) -> None:
        made = [create(api, workspace=workspace).json() for workspace in ("acme", "other")]
        assert all(each["token"] for each in made)
        assert [each["workspace"] for each in made] == ["acme", "other"]

    def test_a_refused_request_does_not_consume_its_idempotency_key(self, api: Api) -> None:
        invalid(create(api, scopes=["nonsense"]), "scopes")
        assert create(api).json()["token"]

    def test_two_requests_without_an_idempotency_key_create_two_keys(self, api: Api) -> None:
        made = [api.post("/v1/keys", json=ASKED).json()["key_id"] for _ in range(2)]
        assert made[0] != made[1]

    def test_sent_eight_times_at_once_it_makes_one_key(self, api: Api) -> None:
        before = api.position()
        barrier = Barrier(8)

        def send() -> Response:
            barrier.wait()
            return create(api)

        with ThreadPoolExecutor(8) as threads:
            answers = [each.result() for each in [threads.submit(send) for _ in range(8)]]
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.json()["key_id"] for answer in answers}) == 1
        assert len([answer for answer in answers if answer.json()["token"]]) == 1
        assert api.position() == before + 1


class TestRotate:
    def test_the_same_request_again_answers_the_same_successor(self, api: Api) -> None:
        key = api.make()
        first = rotate(api, key, grace_seconds=60)
        before = api.position()
        assert is_repetition_of(first, rotate(api, key, grace_seconds=60))
        assert api.position() == before
        assert api.event_types(key) == ["Created", "Rotated"]

    def test_another_grace_is_another_request(self, api: Api) -> None:
        key = api.make()
        rotate(api, key, grace_seconds=60)
        refused(rotate(api, key, grace_seconds=61), 422, "IDEMPOTENCY_KEY_REUSED")
        # Without an end the successor gets the default one; with null it gets none.
        never = rotate(api, key, grace_seconds=60, expires_at=None)
        refused(never, 422, "IDEMPOTENCY_KEY_REUSED")

    def test_another_key_is_another_request(self, api: Api) -> None:
        rotate(api, api.make())
        refused(rotate(api, api.make()), 422, "IDEMPOTENCY_KEY_REUSED")

    def test_a_creation_of_the_same_name_is_another_request(self, api: Api) -> None:
        key = api.make()
        create(api, workspace="acme")
        refused(rotate(api, key), 422, "IDEMPOTENCY_KEY_REUSED")

    def test_sent_eight_times_at_once_it_makes_one_successor(self, api: Api) -> None:
        key = api.make()
        barrier = Barrier(8)

        def send() -> Response:
            barrier.wait()
            return rotate(api, key)

        with ThreadPoolExecutor(8) as threads:
            answers = [each.result() for each in [threads.submit(send) for _ in range(8)]]
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.json()["key_id"] for answer in answers}) == 1
        assert len([answer for answer in answers if answer.json()["token"]]) == 1
        assert api.event_types(key) == ["Created", "Rotated"]


class TestName:
    @pytest.fixture
    def api(self, shared_api: Api) -> Api:
        return shared_api

    @pytest.mark.parametrize("action", ["create", "rotate"])
    @pytest.mark.parametrize(
        "names",
        [
            [b""],
            [b" "],
            [b"two words"],
            [b"n" * 256],
            [b"caf\xc3\xa9"],
            [b"a\x00b"],
            [b"tab\there"],
            [b"a", b"b"],
            [b"a", b"a"],
        ],
        ids=lambda names: ascii(names)[:30],
    )
    def test_an_invalid_idempotency_key_is_refused_and_nothing_is_created(
        self, api: Api, action: str, names: list[bytes]
    ) -> None:
        key = api.make()
        before = api.position()
        path = "/v1/keys" if action == "create" else f"{key.path}/rotate?workspace=acme"
        headers = [(b"Idempotency-Key", name) for name in names]
        answer = api.post(path, headers=headers, json=ASKED if action == "create" else None)
        invalid(answer, "Idempotency-Key")
        assert api.position() == before

    @pytest.mark.parametrize("name", ["!", "~" * 255, "a,b;c", '"quoted"'])
    def test_any_visible_ascii_is_a_name(self, api: Api, name: str) -> None:
        headers = {"Idempotency-Key": name}
        answers = [api.post("/v1/keys", headers=headers, json=ASKED) for _ in range(2)]
        assert is_repetition_of(*answers)
