"""Concurrent commands on one key: one wins, and the others are refused with the reason."""

import pytest

from domain.errors import (
    AlreadyRotated,
    ConcurrentChange,
    KeyRevoked,
    VersionMismatch,
)
from domain.key_ledger import Changes, Issued
from tests.domain.builders import HOUR, NOON
from tests.domain.ledger_in_memory import Desk, an_issue, at_once


@pytest.fixture
def desk() -> Desk:
    return Desk()


class TestRevoke:
    def test_it_is_repeated_after_a_concurrent_change(self, desk: Desk) -> None:
        key_id = desk.create().key_id
        desk.recorder.before_append.append(lambda: desk.update(key_id))

        desk.revoke(key_id, reason="leaked")

        assert desk.history(key_id) == ["Created", "Renamed", "Revoked"]

    def test_of_two_at_once_one_is_recorded_and_both_are_content(self, desk: Desk) -> None:
        key_id = desk.create().key_id

        outcomes = at_once(
            desk,
            lambda: desk.revoke(key_id, reason="one"),
            lambda: desk.revoke(key_id, reason="other"),
        )

        assert outcomes == [None, None]
        assert desk.history(key_id) == ["Created", "Revoked"]

    @pytest.mark.parametrize("_", range(5))
    def test_it_never_loses_to_a_change_at_the_same_time(self, desk: Desk, _: int) -> None:
        key_id = desk.create().key_id

        revoked, renamed = at_once(desk, lambda: desk.revoke(key_id), lambda: desk.update(key_id))

        assert revoked is None
        assert desk.history(key_id)[-1] == "Revoked"
        assert renamed is None or isinstance(renamed, ConcurrentChange)
        assert ("Renamed" in desk.history(key_id)) == (renamed is None)

    def test_it_follows_a_rotation_that_came_first(self, desk: Desk) -> None:
        key_id = desk.create().key_id
        desk.recorder.before_append.append(lambda: desk.rotate(key_id))

        desk.revoke(key_id)

        assert desk.history(key_id) == ["Created", "Rotated", "Revoked"]

    def test_an_outdated_expected_version_is_reported(self, desk: Desk) -> None:
        key_id = desk.create().key_id
        desk.recorder.before_append.append(lambda: desk.update(key_id))

        with pytest.raises(VersionMismatch):
            desk.revoke(key_id, expected_version=1)

        assert desk.history(key_id) == ["Created", "Renamed"]

    def test_if_it_cannot_win_it_says_that_the_key_is_not_revoked(self, desk: Desk) -> None:
        key_id = desk.create().key_id
        names = iter(range(1000))

        def rename_ahead_of_every_other_append() -> None:
            desk.recorder.before_append.extendleft(
                [rename_ahead_of_every_other_append, lambda: None]
            )
            desk.update(key_id, Changes(name=f"name {next(names)}"))

        desk.recorder.before_append.append(rename_ahead_of_every_other_append)

        with pytest.raises(ConcurrentChange, match="NOT revoked"):
            desk.revoke(key_id)

        assert set(desk.history(key_id)) == {"Created", "Renamed"}
        assert next(names) > 3


class TestRotate:
    def test_of_two_at_once_one_makes_the_successor(self, desk: Desk) -> None:
        key_id = desk.create().key_id

        outcomes = at_once(desk, lambda: desk.rotate(key_id), lambda: desk.rotate(key_id))

        (issued,) = [outcome for outcome in outcomes if isinstance(outcome, Issued)]
        (refusal,) = [outcome for outcome in outcomes if not isinstance(outcome, Issued)]
        assert isinstance(refusal, AlreadyRotated)
        assert issued.key_id in str(refusal)
        assert desk.everything() == ["Created", "Created", "Rotated"]

    def test_one_that_lost_to_a_revocation_says_so(self, desk: Desk) -> None:
        key_id = desk.create().key_id
        desk.recorder.before_append.append(lambda: desk.revoke(key_id))

        with pytest.raises(KeyRevoked):
            desk.rotate(key_id)

        assert desk.everything() == ["Created", "Revoked"]

    def test_one_that_lost_to_another_change_leaves_nothing_behind(self, desk: Desk) -> None:
        key_id = desk.create().key_id
        desk.recorder.before_append.append(lambda: desk.update(key_id))

        with pytest.raises(ConcurrentChange):
            desk.rotate(key_id)

        assert desk.everything() == ["Created", "Renamed"]

    def test_an_outdated_expected_version_is_reported(self, desk: Desk) -> None:
        key_id = desk.create().key_id
        desk.recorder.before_append.append(lambda: desk.update(key_id))

        with pytest.raises(VersionMismatch):
            desk.rotate(key_id, expected_version=1)


class TestUpdate:
    def test_of_two_at_once_one_loses_and_none_of_it_is_kept(self, desk: Desk) -> None:
        key_id = desk.create().key_id
        changes = [
            Changes(name="one", scopes=["one:only"]),
            Changes(name="other", scopes=["other:only"]),
        ]

        outcomes = at_once(
            desk,
            lambda: desk.update(key_id, changes[0]),
            lambda: desk.update(key_id, changes[1]),
        )

        assert sorted(type(outcome).__name__ for outcome in outcomes) == [
            "ConcurrentChange",
            "NoneType",
        ]
        winner = changes[outcomes.index(None)]
        key = desk.key(key_id)
        assert (key.name, key.scopes) == (winner.name, winner.scopes)
        assert desk.history(key_id) == ["Created", "Renamed", "ScopesChanged"]

    def test_an_outdated_expected_version_is_reported(self, desk: Desk) -> None:
        key_id = desk.create().key_id
        desk.recorder.before_append.append(lambda: desk.revoke(key_id))

        with pytest.raises(VersionMismatch):
            desk.update(key_id, expected_version=1)


class TestExpire:
    def test_a_concurrent_change_delays_no_other_expiry(self, desk: Desk) -> None:
        due = [desk.create(expires_at=NOON + HOUR).key_id for _ in range(3)]
        desk.recorder.before_append.append(lambda: desk.revoke(due[1]))

        assert desk.expire(*due, at=NOON + HOUR) == 2

        assert [desk.history(key_id)[-1] for key_id in due] == ["Expired", "Revoked", "Expired"]

    def test_a_key_that_changes_again_expires_at_the_next_run(self, desk: Desk) -> None:
        due = [desk.create(expires_at=NOON + HOUR).key_id for _ in range(2)]
        desk.recorder.before_append.extend(
            [
                lambda: desk.update(due[0], Changes(name="first")),
                lambda: None,  # immediately before that change
                lambda: desk.update(due[0], Changes(name="second")),
            ]
        )

        assert desk.expire(*due, at=NOON + HOUR) == 1
        assert [desk.history(key_id)[-1] for key_id in due] == ["Renamed", "Expired"]

        assert desk.expire(*due, at=NOON + HOUR) == 1
        assert [desk.history(key_id)[-1] for key_id in due] == ["Expired", "Expired"]


def test_two_keys_never_share_a_lookup_id() -> None:
    issue = an_issue()
    credential = issue("key")
    desk = Desk(lambda _prefix: credential)
    desk.create()

    with pytest.raises(ConcurrentChange):
        desk.create()

    assert desk.everything() == ["Created"]
