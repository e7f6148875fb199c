"""``POST /v1/verify``, and what it shares with the other verification endpoints."""

from dataclasses import dataclass

import pytest
from httpx2 import Response

from domain.tokens import Token, parse
from tests.api.served import Api, Json, Key, invalid, refused

NOTHING_KNOWN = {
    "key_id": None,
    "name": None,
    "workspace": None,
    "role": None,
    "scopes": None,
    "expires_at": None,
}
BODIES = [
    ("/v1/verify", {"json": {"token": "x"}}),
    ("/v1/verify/batch", {"json": {"tokens": [{"token": "x"}]}}),
    ("/v1/introspect", {"data": {"token": "x"}}),
]


@dataclass
class World:
    """A workspace with a key that may verify, and a token of every kind."""

    api: Api
    gateway: Key
    valid: Key
    limited: Key
    revoked: Key
    expired: Key

    def parts(self) -> Token:
        parts = parse(self.valid.token)
        assert parts is not None
        return parts

    def tokens(self) -> dict[str, str]:
        """Return a token of each kind."""
        parts, other = self.parts(), parse(self.limited.token)
        assert other is not None
        return {
            "valid": self.valid.token,
            "limited": self.limited.token,
            "revoked": self.revoked.token,
            "expired": self.expired.token,
            "wrong secret": Token(parts.prefix, parts.lookup_id, other.secret).reveal(),
            "unknown": Token(parts.prefix, "0" * 16, other.secret).reveal(),
            "other prefix": Token("other", parts.lookup_id, parts.secret).reveal(),
            "mistyped": self.valid.token[:-1] + ("a" if self.valid.token[-1] != "a" else "b"),
            "cut off": self.valid.token[:-1],
            "upper case": self.valid.token.upper(),
            "empty": "",
            "not ASCII": "κλειδί",
            "endless": "k" * 5000,
        }

    def verify(self, token: str, *scopes: str) -> Response:
        asked: Json = {"token": token}
        if scopes:
            asked["scopes"] = scopes
        return self.api.post("/v1/verify", by=self.gateway, json=asked)

    def verify_by_framework(self, token: str, *scopes: str) -> Response:
        """Send an unusual request with the same meaning."""
        asked = {"token": token, "scopes": scopes}
        return self.api.post("/v1/verify?workspace=acme", by=self.gateway, json=asked)


@pytest.fixture
def world(api: Api) -> World:
    world = World(
        api,
        gateway=api.make("api-keys:verify", name="gateway"),
        valid=api.make("mcp:*", "x:y", name="valid", expires_at="2027-01-01T00:00:00Z"),
        limited=api.make("mcp:read", name="limited"),
        revoked=api.revoked("mcp:read"),
        expired=api.make("mcp:read", name="expired", expires_at="2026-03-03T13:00:00Z"),
    )
    api.clock.advance(hours=1)
    return world


@pytest.mark.parametrize(("path", "body"), BODIES)
@pytest.mark.only_on("sqlite")
class TestUnauthorized:
    def test_nobody_verifies_without_a_credential(
        self, shared_api: Api, path: str, body: Json
    ) -> None:
        refused(shared_api.post(path, by=None, **body), 401, "UNAUTHENTICATED")

    def test_a_key_that_may_only_read_verifies_nothing(
        self, shared_api: Api, path: str, body: Json
    ) -> None:
        reader = shared_api.make("api-keys:read", "api-keys:write")
        refused(shared_api.post(path, by=reader, **body), 403, "INSUFFICIENT_SCOPE")

    def test_a_query_is_refused(self, shared_api: Api, path: str, body: Json) -> None:
        invalid(shared_api.post(f"{path}?scope=x", **body), "scope")


@pytest.mark.only_on("sqlite")
class TestRefused:
    @pytest.mark.parametrize(
        ("asked", "field"),
        [
            ({}, "token"),
            ({"token": None}, "token"),
            ({"token": 7}, "token"),
            ({"token": ["x"]}, "token"),
            ({"token": "x", "scopes": None}, "scopes"),
            ({"token": "x", "scopes": "mcp:read"}, "scopes"),
            ({"token": "x", "scopes": [7]}, "scopes.0"),
            ({"token": "x", "scopes": ["nonsense"]}, "scopes"),
            ({"token": "x", "scopes": [f"a:b{n}" for n in range(65)]}, "scopes"),
            ({"token": "x", "scope": "mcp:read"}, "scope"),
            ({"token": "x", "workspace": "acme"}, "workspace"),
            (["token"], "body"),
        ],
        ids=lambda value: repr(value)[:40],
    )
    def test_a_wrong_value_is_refused_by_its_name(
        self, shared_api: Api, asked: object, field: str
    ) -> None:
        invalid(shared_api.post("/v1/verify", json=asked), field)

    @pytest.mark.parametrize(
        ("asked", "field"),
        [
            ({}, "tokens"),
            ({"tokens": []}, "tokens"),
            ({"tokens": [{"token": "x"}] * 101}, "tokens"),
            ({"tokens": ["x"]}, "tokens.0"),
            ({"tokens": [{"token": "x"}, {}]}, "tokens.1.token"),
            ({"tokens": [{"token": "x", "scopes": ["nonsense"]}]}, "scopes"),
            ({"tokens": [{"token": "x", "workspace": "acme"}]}, "tokens.0.workspace"),
        ],
        ids=lambda value: repr(value)[:40],
    )
    def test_a_batch_is_refused_too(self, shared_api: Api, asked: object, field: str) -> None:
        invalid(shared_api.post("/v1/verify/batch", json=asked), field)


class TestVerdicts:
    @pytest.mark.parametrize(
        ("kind", "code"),
        [
            ("valid", "VALID"),
            ("limited", "INSUFFICIENT_SCOPE"),
            ("revoked", "REVOKED"),
            ("expired", "EXPIRED"),
        ],
    )
    def test_the_status_is_shown_to_the_holder_of_the_secret(
        self, world: World, kind: str, code: str
    ) -> None:
        token = world.tokens()[kind]
        key = world.api.show(getattr(world, kind))
        answer = world.verify(token, "mcp:write")
        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "no-store"
        assert list(answer.json()) == ["valid", "code", *NOTHING_KNOWN, "position"]
        assert answer.json() == {
            "valid": code == "VALID",
            "code": code,
            "position": world.api.position(),
        } | {name: key[name] for name in NOTHING_KNOWN}
        assert world.verify_by_framework(token, "mcp:write").json() == answer.json()

    @pytest.mark.parametrize(
        ("kind", "code"),
        [
            ("wrong secret", "NOT_FOUND"),
            ("unknown", "NOT_FOUND"),
            ("other prefix", "NOT_FOUND"),
            ("mistyped", "MALFORMED"),
            ("cut off", "MALFORMED"),
            ("upper case", "MALFORMED"),
            ("empty", "MALFORMED"),
            ("not ASCII", "MALFORMED"),
            ("endless", "MALFORMED"),
        ],
    )
    def test_without_the_secret_nothing_is_revealed(
        self, world: World, kind: str, code: str
    ) -> None:
        token = world.tokens()[kind]
        answer = world.verify(token, "mcp:write")
        assert answer.status_code == 200
        position = world.api.position()
        assert answer.json() == {"valid": False, "code": code, "position": position} | NOTHING_KNOWN
        assert world.verify_by_framework(token, "mcp:write").json() == answer.json()

    @pytest.mark.parametrize(
        ("wanted", "code"),
        [
            ([], "VALID"),
            (["mcp:read"], "VALID"),
            (["mcp:read", "mcp:*", "x:y"], "VALID"),
            (["mcp:read", "x:z"], "INSUFFICIENT_SCOPE"),
            (["*"], "INSUFFICIENT_SCOPE"),
            (["*:read"], "INSUFFICIENT_SCOPE"),
        ],
        ids=repr,
    )
    def test_all_the_scopes_asked_for_must_be_held(
        self, world: World, wanted: list[str], code: str
    ) -> None:
        assert world.verify(world.valid.token, *wanted).json()["code"] == code

    def test_a_revocation_outranks_all_else(self, world: World) -> None:
        world.api.revoke(world.expired)
        assert world.verify(world.expired.token, "x:y").json()["code"] == "REVOKED"

    def test_each_change_is_seen_by_the_next_verification(self, world: World) -> None:
        key, api = world.valid, world.api
        code = [world.verify(key.token, "mcp:read").json()["code"]]
        for change in ({"scopes": ["x:y"]}, {"scopes": ["mcp:read"]}, {"name": "new"}):
            api.patch(key.path, params={"workspace": "acme"}, json=change)
            code.append(world.verify(key.token, "mcp:read").json()["code"])
        assert world.verify(key.token).json()["name"] == "new"
        api.revoke(key)
        code.append(world.verify(key.token, "mcp:read").json()["code"])
        assert code == ["VALID", "INSUFFICIENT_SCOPE", "VALID", "VALID", "REVOKED"]

    def test_the_clock_decides_to_the_microsecond(self, world: World) -> None:
        key = world.api.make(expires_at="2026-03-03T14:00:00Z")
        world.api.clock.advance(minutes=60, microseconds=-1)
        assert world.verify(key.token).json()["code"] == "VALID"
        world.api.clock.advance(microseconds=1)
        assert world.verify(key.token).json()["code"] == "EXPIRED"
