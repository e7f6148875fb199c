"""Idempotent requests: a repeated request has the effect of one."""

from collections.abc import Callable

import pytest
from eventsourcing.persistence import OperationalError

from domain.caller import Actor, Caller
from domain.errors import (
    AlreadyRotated,
    IdempotencyKeyReused,
    Invalid,
    KeyNotFound,
    LedgerUnavailable,
    ScopeNotHeld,
)
from domain.key_ledger import Idempotency, Issued
from tests.domain.builders import ADA, BOB, DAY, NOON
from tests.domain.ledger_in_memory import Desk, at_once

ONCE = Idempotency("order-1", "aa" * 32)
SAME_KEY_ANOTHER_REQUEST = Idempotency("order-1", "bb" * 32)
ANOTHER_KEY = Idempotency("order-2", "aa" * 32)


@pytest.fixture
def desk() -> Desk:
    return Desk()


class TestCreate:
    def test_the_same_request_gives_the_same_key_and_shows_no_token(self, desk: Desk) -> None:
        first = desk.create(idempotency=ONCE)

        again = desk.create(idempotency=ONCE, at=NOON + DAY)

        assert first.token is not None
        assert again == Issued(first.key_id, None)
        assert desk.everything() == ["Created"]
        assert desk.key(first.key_id).request_sha256 == ONCE.request_sha256

    def test_a_different_request_under_the_same_key_is_refused(self, desk: Desk) -> None:
        desk.create(idempotency=ONCE)

        with pytest.raises(IdempotencyKeyReused):
            desk.create(idempotency=SAME_KEY_ANOTHER_REQUEST)

        assert desk.everything() == ["Created"]

    def test_the_same_request_under_another_key_makes_another_key(self, desk: Desk) -> None:
        one, other = desk.create(idempotency=ONCE), desk.create(idempotency=ANOTHER_KEY)

        assert one.key_id != other.key_id
        assert other.token is not None

    def test_without_an_idempotency_key_every_request_makes_a_key(self, desk: Desk) -> None:
        assert desk.create().key_id != desk.create().key_id
        assert desk.everything() == ["Created", "Created"]

    @pytest.mark.parametrize(
        ("by", "workspace"),
        [
            (BOB, "default"),
            (ADA, "acme"),
            (Caller(Actor("key", "ada"), holds=("*",)), "default"),
        ],
    )
    def test_an_idempotency_key_belongs_to_its_caller(
        self, desk: Desk, by: Caller, workspace: str
    ) -> None:
        first = desk.create(idempotency=ONCE)

        other = desk.create(idempotency=SAME_KEY_ANOTHER_REQUEST, by=by, workspace=workspace)

        assert other.token is not None
        assert other.key_id != first.key_id

    def test_scopes_and_request_do_not_change_the_actor(self, desk: Desk) -> None:
        first = desk.create(idempotency=ONCE)

        again = desk.create(
            idempotency=ONCE, by=Caller(ADA.actor, holds=(), request_id="r", source_ip="::1")
        )

        assert again == Issued(first.key_id, None)

    def test_of_many_at_once_one_makes_the_key(self, desk: Desk) -> None:
        outcomes = at_once(desk, *[lambda: desk.create(idempotency=ONCE)] * 4)

        issued = [outcome for outcome in outcomes if isinstance(outcome, Issued)]
        assert len(issued) == 4
        assert len({each.key_id for each in issued}) == 1
        assert sum(each.token is not None for each in issued) == 1
        assert desk.everything() == ["Created"]

    def test_of_two_different_ones_at_once_one_is_refused(self, desk: Desk) -> None:
        outcomes = at_once(
            desk,
            lambda: desk.create(idempotency=ONCE),
            lambda: desk.create(idempotency=SAME_KEY_ANOTHER_REQUEST),
        )

        assert sorted(type(outcome).__name__ for outcome in outcomes) == [
            "IdempotencyKeyReused",
            "Issued",
        ]
        assert desk.everything() == ["Created"]

    def test_a_refused_request_may_be_repeated(self, desk: Desk) -> None:
        with pytest.raises(ScopeNotHeld):
            desk.create(idempotency=ONCE, by=Caller(ADA.actor, holds=()))

        assert desk.create(idempotency=ONCE).token is not None

    def test_a_request_that_could_not_be_stored_may_be_repeated(self, desk: Desk) -> None:
        desk.recorder.failing = OperationalError("gone")
        with pytest.raises(LedgerUnavailable):
            desk.create(idempotency=ONCE)
        desk.recorder.failing = None

        assert desk.create(idempotency=ONCE).token is not None

    def test_an_idempotent_request_does_not_recreate_a_revoked_key(self, desk: Desk) -> None:
        first = desk.create(idempotency=ONCE)
        desk.revoke(first.key_id)

        assert desk.create(idempotency=ONCE) == Issued(first.key_id, None)
        assert desk.everything() == ["Created", "Revoked"]

    @pytest.mark.parametrize("workspace", ["", "Acme", "\0", "\ud800"])
    def test_an_invalid_workspace_is_refused_by_the_application(
        self, desk: Desk, workspace: str
    ) -> None:
        with pytest.raises(Invalid) as refusal:
            desk.create(idempotency=ONCE, workspace=workspace)

        assert refusal.value.field == "workspace"


class TestRotate:
    def test_the_same_request_gives_the_same_successor_and_shows_no_token(self, desk: Desk) -> None:
        key_id = desk.create().key_id
        first = desk.rotate(key_id, idempotency=ONCE)

        again = desk.rotate(key_id, idempotency=ONCE, at=NOON + DAY)

        assert first.token is not None
        assert again == Issued(first.key_id, None)
        assert desk.everything() == ["Created", "Created", "Rotated"]

    def test_the_same_request_is_known_again_at_the_version_it_insisted_on(
        self, desk: Desk
    ) -> None:
        key_id = desk.create().key_id
        first = desk.rotate(key_id, idempotency=ONCE, expected_version=1)

        again = desk.rotate(key_id, idempotency=ONCE, expected_version=1)

        assert again == Issued(first.key_id, None)

    def test_a_different_request_under_the_same_key_is_refused(self, desk: Desk) -> None:
        key_id = desk.create().key_id
        desk.rotate(key_id, idempotency=ONCE)

        with pytest.raises(IdempotencyKeyReused):
            desk.rotate(key_id, idempotency=SAME_KEY_ANOTHER_REQUEST)

    def test_the_name_of_a_creation_is_not_free_for_a_rotation(self, desk: Desk) -> None:
        key_id = desk.create(idempotency=ONCE).key_id

        with pytest.raises(IdempotencyKeyReused):
            desk.rotate(key_id, idempotency=SAME_KEY_ANOTHER_REQUEST)

        assert desk.everything() == ["Created"]

    def test_a_rotation_by_somebody_else_is_another_rotation(self, desk: Desk) -> None:
        key_id = desk.create().key_id
        desk.rotate(key_id, idempotency=ONCE)

        with pytest.raises(AlreadyRotated):
            desk.rotate(key_id, idempotency=ONCE, by=BOB)

    def test_another_workspace_learns_nothing(self, desk: Desk) -> None:
        key_id = desk.create().key_id
        desk.rotate(key_id, idempotency=ONCE)

        with pytest.raises(KeyNotFound):
            desk.rotate(key_id, idempotency=ONCE, workspace="acme")

    def test_a_refused_rotation_may_be_repeated(self, desk: Desk) -> None:
        key_id = desk.create().key_id
        with pytest.raises(ScopeNotHeld):
            desk.rotate(key_id, idempotency=ONCE, by=Caller(ADA.actor, holds=()))

        assert desk.rotate(key_id, idempotency=ONCE).token is not None

    def test_of_many_at_once_one_makes_the_successor(self, desk: Desk) -> None:
        key_id = desk.create().key_id

        outcomes = at_once(desk, *[lambda: desk.rotate(key_id, idempotency=ONCE)] * 4)

        issued = [outcome for outcome in outcomes if isinstance(outcome, Issued)]
        assert len(issued) == 4
        assert len({each.key_id for each in issued}) == 1
        assert sum(each.token is not None for each in issued) == 1
        assert desk.everything() == ["Created", "Created", "Rotated"]

    @pytest.mark.parametrize("expected_version", [None, 1])
    @pytest.mark.parametrize("moment", ["before it reads the key", "before it appends"])
    def test_a_repeated_rotation_returns_the_first_ones_successor(
        self, desk: Desk, moment: str, expected_version: int | None
    ) -> None:
        key_id = desk.create().key_id
        twins: list[Issued] = []

        def rotate() -> Issued:
            return desk.rotate(key_id, idempotency=ONCE, expected_version=expected_version)

        def twin() -> None:
            twins.append(rotate())

        nothing: Callable[[], object] = lambda: None  # noqa: E731
        if moment == "before it appends":
            desk.recorder.before_append.append(twin)
        else:
            # The first read looks for the successor, which does not exist yet.
            desk.recorder.before_read.extend([nothing, twin])

        late = rotate()

        assert twins[0].token is not None
        assert late == Issued(twins[0].key_id, None)
        assert desk.everything() == ["Created", "Created", "Rotated"]


def test_a_key_created_without_an_idempotency_key_has_no_fingerprint(desk: Desk) -> None:
    made = desk.create()

    assert desk.key(made.key_id).request_sha256 is None
    assert desk.key(desk.rotate(made.key_id).key_id).request_sha256 is None
