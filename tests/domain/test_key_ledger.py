"""Commands: each is all or nothing, in one append."""

from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest

from domain.credential import digest_of
from domain.errors import (
    AlreadyRotated,
    Invalid,
    KeyExpired,
    KeyRevoked,
    LedgerError,
    Overloaded,
    ScopeNotHeld,
)
from domain.key_ids import derived_uuid, to_key_id, to_uuid
from domain.key_ledger import Changes
from domain.tokens import parse
from tests.domain.builders import ADA, BOB, DAY, HOUR, NOON, PEPPER, a_caller
from tests.domain.ledger_in_memory import GATE, Desk

NOBODY = to_key_id(derived_uuid("nobody"))


@pytest.fixture
def desk() -> Desk:
    return Desk()


class TestCreate:
    def test_a_key_is_made_and_its_token_shown_once(self, desk: Desk) -> None:
        issued = desk.create(
            workspace="acme",
            name="payments-api",
            scopes=("mcp:read", "mcp:write"),
            expires_at=NOON + DAY,
            token_prefix="acme",
        )

        key = desk.key(issued.key_id)
        assert (key.workspace, key.name, key.scopes) == (
            "acme",
            "payments-api",
            ["mcp:read", "mcp:write"],
        )
        assert (key.expires_at, key.created_on, key.version) == (NOON + DAY, NOON, 1)
        assert issued.token is not None
        assert parse(issued.token.reveal()) == issued.token
        assert (key.token_prefix, key.lookup_id) == ("acme", issued.token.lookup_id)
        assert GATE.proves(key.verifier, issued.token.secret)

    def test_its_digest_goes_along_with_its_event(self, desk: Desk) -> None:
        token = desk.create().token

        assert token is not None
        assert desk.recorder.digests == [digest_of(token, PEPPER)]

    def test_the_secret_is_in_nothing_that_is_stored(self, desk: Desk) -> None:
        token = desk.create().token

        assert token is not None
        for stored in desk.recorder.select_notifications(1, 10):
            assert token.secret.encode() not in stored.state
            assert token.reveal().encode() not in stored.state

    def test_its_id_follows_from_its_lookup_id(self, desk: Desk) -> None:
        issued = desk.create()

        assert issued.token is not None
        assert issued.key_id == to_key_id(derived_uuid("lookup id", issued.token.lookup_id))

    @pytest.mark.parametrize(
        "given",
        [{"name": ""}, {"workspace": "A"}, {"scopes": ()}, {"token_prefix": "A"}],
    )
    def test_a_refused_key_is_not_made(self, desk: Desk, given: dict[str, str]) -> None:
        with pytest.raises(Invalid):
            desk.create(**given)  # type: ignore[arg-type]

        assert desk.everything() == []

    def test_nobody_grants_more_than_they_hold(self, desk: Desk) -> None:
        with pytest.raises(ScopeNotHeld):
            desk.create(scopes=("*",), by=a_caller("api-keys:write"))

        assert desk.everything() == []

    def test_an_overload_makes_no_key(self) -> None:
        def overloaded(_prefix: str) -> object:
            raise Overloaded("too many secrets are being hashed")

        desk = Desk(overloaded)  # type: ignore[arg-type]

        with pytest.raises(Overloaded):
            desk.create()

        assert desk.everything() == []


class TestRevoke:
    def test_a_key_is_revoked_once_and_the_first_record_stays(self, desk: Desk) -> None:
        key_id = desk.create().key_id

        desk.revoke(key_id, reason="leaked")
        desk.revoke(key_id, reason="another", by=BOB, at=NOON + HOUR)

        assert desk.history(key_id) == ["Created", "Revoked"]
        (_, revoked) = desk.ledger.events.get(to_uuid(key_id))
        assert vars(revoked)["reason"] == "leaked"
        assert vars(revoked)["actor"] == ADA.actor.as_json()
        assert vars(revoked)["timestamp"] == NOON

    def test_an_unchanged_value_appends_no_event(self, desk: Desk) -> None:
        key_id = desk.create().key_id
        desk.revoke(key_id)

        desk.revoke(key_id)

        assert len(desk.recorder.appends) == 2


class TestRotate:
    def test_the_successor_and_the_shortened_life_are_one_append(self, desk: Desk) -> None:
        key_id = desk.create(workspace="acme", token_prefix="acme").key_id

        issued = desk.rotate(key_id, workspace="acme", grace=HOUR)

        assert desk.recorder.appends[1:] == [["ApiKey.Created", "ApiKey.Rotated"]]
        key, successor = desk.key(key_id), desk.key(issued.key_id)
        assert (key.rotated_to, successor.rotated_from) == (successor.key_id, key.key_id)
        assert key.expires_at == NOON + HOUR
        assert issued.token is not None
        assert issued.token.prefix == successor.token_prefix == "acme"
        assert issued.token.lookup_id == successor.lookup_id != key.lookup_id
        assert GATE.proves(successor.verifier, issued.token.secret)
        assert desk.recorder.digests[1:] == [digest_of(issued.token, PEPPER)]

    def test_a_key_has_one_successor_but_that_may_have_another(self, desk: Desk) -> None:
        first = desk.create().key_id
        second = desk.rotate(first).key_id

        with pytest.raises(AlreadyRotated, match=second):
            desk.rotate(first)
        third = desk.rotate(second).key_id

        assert desk.everything() == ["Created", "Created", "Rotated", "Created", "Rotated"]
        assert len({first, second, third}) == 3

    def test_the_write_scope_alone_cannot_rotate_a_full_access_key(self, desk: Desk) -> None:
        key_id = desk.create(scopes=("*",)).key_id

        with pytest.raises(ScopeNotHeld):
            desk.rotate(key_id, by=a_caller("api-keys:write"))

        assert desk.everything() == ["Created"]

    @pytest.mark.parametrize(
        ("spoil", "refusal"),
        [
            (lambda desk, key_id: desk.revoke(key_id), KeyRevoked),
            (
                lambda desk, key_id: desk.update(key_id, Changes(expires_at=NOON + HOUR)),
                KeyExpired,
            ),
        ],
    )
    def test_a_revoked_or_expired_key_cannot_be_rotated(
        self, desk: Desk, spoil: Callable[[Desk, str], None], refusal: type[LedgerError]
    ) -> None:
        key_id = desk.create().key_id
        spoil(desk, key_id)

        with pytest.raises(refusal):
            desk.rotate(key_id, at=NOON + HOUR)

        assert desk.everything().count("Created") == 1

    def test_a_negative_grace_is_refused(self, desk: Desk) -> None:
        key_id = desk.create().key_id

        with pytest.raises(Invalid):
            desk.rotate(key_id, grace=-timedelta(seconds=1))

        assert desk.everything() == ["Created"]


class TestUpdate:
    def test_all_changes_are_one_append(self, desk: Desk) -> None:
        key_id = desk.create().key_id

        desk.update(key_id, Changes("ledger-api", ["mcp:*", "audit:read"], NOON + DAY))

        assert desk.recorder.appends[1:] == [
            ["ApiKey.Renamed", "ApiKey.ScopesChanged", "ApiKey.ExpirationChanged"]
        ]
        key = desk.key(key_id)
        assert (key.name, key.scopes, key.expires_at) == (
            "ledger-api",
            ["mcp:*", "audit:read"],
            NOON + DAY,
        )

    @pytest.mark.parametrize(
        ("changes", "refusal"),
        [
            (Changes(name="ledger-api", scopes=[]), Invalid),
            (Changes(name="ledger-api", expires_at=NOON), Invalid),
            (Changes(name="ledger-api", scopes=["*"]), ScopeNotHeld),
            (Changes(scopes=["mcp:read"], expires_at=NOON + 2 * DAY), ScopeNotHeld),
            (Changes(name="ledger-api", never_expires=True), ScopeNotHeld),
        ],
    )
    def test_one_refused_change_refuses_all(
        self, desk: Desk, changes: Changes, refusal: type[LedgerError]
    ) -> None:
        key_id = desk.create(scopes=("mcp:read", "mcp:write"), expires_at=NOON + DAY).key_id
        before = desk.key(key_id)

        with pytest.raises(refusal):
            desk.update(key_id, changes, by=a_caller("api-keys:write"))

        assert desk.history(key_id) == ["Created"]
        assert desk.key(key_id) == before

    def test_an_end_can_be_taken_away(self, desk: Desk) -> None:
        key_id = desk.create(expires_at=NOON + DAY).key_id

        desk.update(key_id, Changes(never_expires=True))

        assert desk.key(key_id).expires_at is None

    def test_extending_and_changing_scopes_uses_the_new_scopes(self, desk: Desk) -> None:
        key_id = desk.create(scopes=("mcp:read", "mcp:write"), expires_at=NOON + DAY).key_id

        desk.update(
            key_id,
            Changes(scopes=["mcp:read"], expires_at=NOON + 2 * DAY),
            by=a_caller("api-keys:write", "mcp:read"),
        )

        assert desk.history(key_id) == ["Created", "ScopesChanged", "ExpirationChanged"]

    @pytest.mark.parametrize(
        "same", [Changes(), Changes("payments-api", ["mcp:read"]), Changes(never_expires=True)]
    )
    def test_an_unchanged_value_is_not_an_event(self, desk: Desk, same: Changes) -> None:
        key_id = desk.create().key_id

        desk.update(key_id, same)

        assert desk.recorder.appends == [["ApiKey.Created"]]


class TestExpire:
    def test_all_due_keys_expire_in_one_append(self, desk: Desk) -> None:
        due = [desk.create(expires_at=NOON + HOUR).key_id for _ in range(3)]
        later = desk.create(expires_at=NOON + DAY).key_id
        never = desk.create().key_id
        revoked = desk.create(expires_at=NOON + HOUR).key_id
        desk.revoke(revoked)
        desk.recorder.appends.clear()

        assert desk.expire(*due, later, never, revoked, at=NOON + HOUR) == 3

        assert desk.recorder.appends == [["ApiKey.Expired"] * 3]
        assert [desk.key(key_id).expired for key_id in [*due, later, never, revoked]] == [
            *(True, True, True),
            *(False, False, False),
        ]

    def test_it_is_recorded_once(self, desk: Desk) -> None:
        key_id = desk.create(expires_at=NOON + HOUR).key_id

        assert desk.expire(key_id, at=NOON + HOUR) == 1
        assert desk.expire(key_id, at=NOON + HOUR) == 0
        assert desk.history(key_id) == ["Created", "Expired"]

    def test_a_key_that_is_named_twice_expires_once(self, desk: Desk) -> None:
        key_id = desk.create(expires_at=NOON + HOUR).key_id

        assert desk.expire(key_id, key_id, at=NOON + HOUR) == 1
        assert desk.history(key_id) == ["Created", "Expired"]

    @pytest.mark.parametrize("absent", [[], [NOBODY], ["no key id at all"]])
    def test_a_missing_key_delays_no_other_expiry(self, desk: Desk, absent: Sequence[str]) -> None:
        key_id = desk.create(expires_at=NOON + HOUR).key_id

        assert desk.expire(*absent, at=NOON + HOUR) == 0
        assert desk.expire(*absent, key_id, at=NOON + HOUR) == 1

    def test_keys_of_all_workspaces_expire_alike(self, desk: Desk) -> None:
        one = desk.create(workspace="acme", expires_at=NOON + HOUR).key_id
        other = desk.create(workspace="globex", expires_at=NOON + HOUR).key_id

        assert desk.expire(one, other, at=NOON + HOUR) == 2
