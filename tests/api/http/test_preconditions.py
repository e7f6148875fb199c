"""``If-Match``: a change is made only to the version that the client has seen."""

from typing import Any

import pytest
from httpx2 import Response

from tests.api.served import UNKNOWN_KEY_ID, Api, Key, refused

pytestmark = pytest.mark.only_on("sqlite")

CHANGES = ["revoke", "rotate", "update"]
ACME = {"workspace": "acme"}


@pytest.fixture
def api(shared_api: Api) -> Api:
    return shared_api


def change(api: Api, how: str, key: Key, *if_match: bytes, **more: Any) -> Response:  # noqa: ANN401
    headers = [(b"If-Match", value) for value in if_match]
    if how == "update":
        return api.patch(key.path, params=ACME, headers=headers, json={"name": "new"}, **more)
    return api.post(f"{key.path}/{how}", params=ACME, headers=headers, **more)


def key_at_version_2(api: Api) -> Key:
    key = api.make()
    assert api.patch(key.path, params=ACME, json={"name": "second"}).status_code == 200
    return key


@pytest.mark.parametrize("how", CHANGES)
class TestHonoured:
    @pytest.mark.parametrize(
        "if_match", [(), (b'"2"',), (b"*",), (b' "2" ',), (b'"2"', b'"2"'), (b'W/"2"',)]
    )
    def test_a_condition_that_holds(self, api: Api, how: str, if_match: tuple[bytes, ...]) -> None:
        key = key_at_version_2(api)
        assert change(api, how, key, *if_match).is_success
        assert len(api.history(key)) == 3

    def test_an_if_match_of_the_previous_answer(self, api: Api, how: str) -> None:
        key = api.make()
        etag = api.get(key.path, params=ACME).headers["ETag"].encode()
        assert change(api, how, key, etag).is_success
        refused(change(api, how, key, etag), 412, "VERSION_MISMATCH")

    @pytest.mark.parametrize(
        "if_match",
        [
            # Other versions, earlier and later.
            [b'"1"'],
            [b'"3"'],
            [b'"999999999999999999"'],
            [b'"9999999999999999999999999"'],
            # A weak tag names a version too: proxies that compress make tags weak.
            [b'W/"3"'],
            # With several tags it is unclear which version was seen.
            [b'"1", "2"'],
            [b'"1"', b'"2"'],
            # The ledger gives out none of these tags.
            [b"2"],
            [b"'2'"],
            [b'"2'],
            [b'"02"'],
            [b'"0"'],
            [b'"-2"'],
            [b'"2.0"'],
            [b'"\xb2"'],
            [b'"two"'],
            [b'""'],
            [b""],
            [b","],
            [b"**"],
            [b"\x00"],
            [b'"' + b"2" * 5000 + b'"'],
        ],
        ids=lambda if_match: ascii(if_match)[:30],
    )
    def test_a_condition_that_does_not_hold(
        self, api: Api, how: str, if_match: list[bytes]
    ) -> None:
        key = key_at_version_2(api)
        before = api.position()
        refused(change(api, how, key, *if_match), 412, "VERSION_MISMATCH")
        assert api.position() == before

    @pytest.mark.parametrize("if_match", [b'"1"', b"*"])
    def test_a_missing_key_is_not_found(self, api: Api, how: str, if_match: bytes) -> None:
        refused(change(api, how, Key(UNKNOWN_KEY_ID, "", {}), if_match), 404, "KEY_NOT_FOUND")


class TestRevokedAlready:
    def test_an_if_match_of_an_older_version_fails(self, api: Api) -> None:
        key = api.revoked()
        refused(change(api, "revoke", key, b'"1"'), 412, "VERSION_MISMATCH")
        assert change(api, "revoke", key, b'"2"').is_success
