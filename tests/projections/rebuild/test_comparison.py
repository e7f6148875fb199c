"""A comparison names each row of a live table that differs; a rebuild repairs it."""

from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest
from sqlalchemy import Boolean, Column, Integer, String

from projections.rebuild.comparison import Difference
from projections.rebuild.rebuild import ReplayReport, check, rebuild
from projections.views import auth_lookup, key_list
from projections.views.registry import VIEWS
from projections.views.view import View
from tests.conftest import NOON, SettableClock
from tests.projections.ledgers import HOUR, KEY_VIEWS, Keys, Made, differing_rows
from tests.raw_sql import (
    delete_rows,
    dump,
    edit_row,
    edit_rows,
    last_row_at,
    plant_row,
    sql,
    value_in,
    view_rows,
)

each_view = pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
each_view_of_keys = pytest.mark.parametrize("view", KEY_VIEWS, ids=lambda view: view.name)


@pytest.fixture
def made(keys: Keys) -> list[Made]:
    """Keys of which the second has met with everything, in every column."""
    first = keys.create("first")
    second = keys.create("second", lives=9 * HOUR)
    third = keys.rotate(second.key_id, grace=HOUR)
    keys.revoke(second.key_id, reason="leaked")
    return [first, second, third]


def differences(keys: Keys, view: View) -> list[Difference]:
    """Check a view; see that this changes nothing, and that a rebuild tells and heals the same."""
    before = dump(keys.address)
    report = check(keys.database, view)
    assert dump(keys.address) == before
    assert report.differing == len(report.differences)
    healing = rebuild(keys.database, view, clock=lambda: NOON)
    assert healing.differences == report.differences
    assert check(keys.database, view).differing == 0
    return list(report.differences)


@each_view
@pytest.mark.usefixtures("made")
def test_sound_tables_have_no_differences(keys: Keys, view: View) -> None:
    assert differences(keys, view) == []


@each_view_of_keys
def test_an_edited_column_is_named_with_both_values(
    keys: Keys, made: list[Made], view: View
) -> None:
    right = view_rows(keys.address)
    row = last_row_at(keys.address, view.name, 2)
    for column in view.table.columns:
        if column.primary_key or column.name == "key_id":
            continue
        was = value_in(keys.address, view.name, row, column.name)
        planted = other_values(column, was, of_any_type=keys.database.is_a_file)
        for value in [*planted, None] if column.nullable and was is not None else planted:
            row = edit_row(keys.address, view.name, row, **{column.name: value})
            # An integer becomes a text in a column of texts, as SQLite has it.
            live = value_in(keys.address, view.name, row, column.name)
            shown = ("(not shown)",) * 2 if column.name in {"verifier", "seal"} else (live, was)
            assert check(keys.database, view).differences == (
                Difference(made[1].key_id, "different", {column.name: shown}),
            )
        row = edit_row(keys.address, view.name, row, **{column.name: was})
    assert differences(keys, view) == []
    row = last_row_at(keys.address, view.name, 2)
    edit_row(keys.address, view.name, row, workspace="planted")
    assert len(differences(keys, view)) == 1
    assert view_rows(keys.address) == right


def other_values(column: Column[Any], was: Any, *, of_any_type: bool) -> list[object]:  # noqa: ANN401
    """Return what may be planted in a column; SQLite takes values that are not of its type."""
    if isinstance(column.type, Boolean):
        return [not was]
    if of_any_type:
        return ["planted", "", 7, b"planted", f"{was}x"]
    return [was + 7] if isinstance(column.type, Integer) else ["planted", "", "7"]


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize(
    ("view", "column"),
    [
        pytest.param(view, column, id=f"{view.name}-{column.name}")
        for view in VIEWS
        for column in view.table.columns
        if isinstance(column.type, String)
    ],
)
def test_a_value_that_is_not_utf_8_is_named_like_any_other(
    keys: Keys, made: list[Made], view: View, column: Column[Any]
) -> None:
    right = view_rows(keys.address)
    row = last_row_at(keys.address, view.name, 2)
    was = value_in(keys.address, view.name, row, column.name)
    edit = f"UPDATE {view.name} SET {column.name} = CAST(x'61ff' AS TEXT) WHERE rowid = {row}"  # noqa: S608
    sql(keys.address, edit)
    (difference,) = check(keys.database, view).differences
    shown = ("(not shown)",) * 2 if column.name == "verifier" else (b"a\xff", was)
    assert difference.columns == {column.name: shown}
    assert difference.key_id == ("a\\xff" if column.name == "key_id" else made[1].key_id)
    assert rebuild(keys.database, view, clock=lambda: NOON).differences == (difference,)
    assert view_rows(keys.address) == right


@each_view
def test_a_deleted_row_is_missing(keys: Keys, made: list[Made], view: View) -> None:
    right = view_rows(keys.address)
    delete_rows(keys.address, view.name, 1)
    assert differences(keys, view) == [Difference(made[0].key_id, "missing", {})]
    assert view_rows(keys.address) == right


@each_view_of_keys
@pytest.mark.parametrize("position", [-5, 0, 3, 99])
@pytest.mark.usefixtures("made")
def test_a_forged_row_is_unexpected(keys: Keys, view: View, position: int) -> None:
    # 3 is the position of an event that makes no key.
    right = view_rows(keys.address)
    if position == 3:
        position = int(
            sql(keys.address, "SELECT id FROM events WHERE topic <> 'ApiKey.Created'")[0][0]
        )
    values = {"lookup_id": "planted"} if view is auth_lookup.VIEW else {}
    plant_row(keys.address, view.name, position=position, key_id="apikey_planted", **values)
    assert differences(keys, view) == [Difference("apikey_planted", "unexpected", {})]
    assert view_rows(keys.address) == right


@each_view_of_keys
def test_a_moved_row_is_missing_in_one_place_and_unexpected_in_another(
    keys: Keys, made: list[Made], view: View
) -> None:
    edit_rows(keys.address, view.name, 1, position=77)
    assert differences(keys, view) == [
        Difference(made[0].key_id, "missing", {}),
        Difference(made[0].key_id, "unexpected", {}),
    ]


@each_view
def test_a_row_under_another_key_s_name_is_different(
    keys: Keys, made: list[Made], view: View
) -> None:
    edit_rows(keys.address, view.name, 1, key_id="apikey_planted")
    assert differences(keys, view) == [
        Difference("apikey_planted", "different", {"key_id": ("apikey_planted", made[0].key_id)})
    ]


def test_a_revocation_undone_in_the_table_is_found(keys: Keys, made: list[Made]) -> None:
    edit_rows(keys.address, "auth_lookup", 2, revoked=0)
    assert differences(keys, auth_lookup.VIEW) == [
        Difference(made[1].key_id, "different", {"revoked": (False, True)})
    ]


def test_a_swapped_verifier_is_found_and_never_shown(keys: Keys, made: list[Made]) -> None:
    verifiers = [verifier for (verifier,) in sql(keys.address, "SELECT verifier FROM auth_lookup")]
    edit_rows(keys.address, "auth_lookup", 2, verifier=verifiers[0])
    for report in (
        check(keys.database, auth_lookup.VIEW),
        rebuild(keys.database, auth_lookup.VIEW, clock=lambda: NOON),
    ):
        assert report.differences == (
            Difference(made[1].key_id, "different", {"verifier": ("(not shown)", "(not shown)")}),
        )
        assert not [verifier for verifier in verifiers if verifier in repr(report)]
        assert "$argon2" not in repr(report)


def test_all_errors_are_reported_in_one_answer(keys: Keys, made: list[Made]) -> None:
    edit_rows(keys.address, "key_list", 1, name="x", role="Owner")
    delete_rows(keys.address, "key_list", 2)
    plant_row(keys.address, "key_list", position=50, key_id="apikey_planted")
    assert differences(keys, key_list.VIEW) == [
        Difference(
            made[0].key_id,
            "different",
            {"name": ("x", "first"), "role": ("Owner", "Member")},
        ),
        Difference(made[1].key_id, "missing", {}),
        Difference("apikey_planted", "unexpected", {}),
    ]


def test_an_emptied_table_and_a_filled_one_are_found_whole(keys: Keys) -> None:
    number = 520
    for each in range(number):
        keys.create(f"{each}")
    right = view_rows(keys.address)
    for view in VIEWS:
        edit_rows(keys.address, view.name, key_id="the same")
        assert check(keys.database, view).differing == number
        delete_rows(keys.address, view.name)
        report = check(keys.database, view)
        assert {difference.problem for difference in report.differences} == {"missing"}
        assert len({difference.key_id for difference in report.differences}) == number
        assert rebuild(keys.database, view, clock=lambda: NOON).differing == number
    assert view_rows(keys.address) == right


def test_a_long_list_of_differences_is_cut_and_counted(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.rebuild.rebuild.DIFFERENCES_SHOWN", 2)
    for _ in range(5):
        keys.create()
    edit_rows(keys.address, "key_list", name="x")
    report = check(keys.database, key_list.VIEW)
    assert (report.differing, len(report.differences)) == (5, 2)


def during(
    keys: Keys, purpose: Callable[..., ReplayReport], view: View, action: Callable[[int], None]
) -> ReplayReport:
    """Replay, and do something after each batch."""
    calls = iter(range(1000))
    return purpose(keys.database, view, progress=lambda *_: action(next(calls)))


@pytest.mark.usefixtures("small_batches")
@each_view
def test_changes_during_a_comparison_are_not_differences(
    keys: Keys, clock: SettableClock, view: View
) -> None:
    made = [keys.create(f"{number}", lives=HOUR) for number in range(10)]

    def change(call: int) -> None:
        if call > 6:
            return
        keys.rename(made[call].key_id, f"renamed {call}")
        if call < 3:
            keys.revoke(made[9 - call].key_id)
        keys.create(f"new {call}")

    report = during(keys, check, view, change)
    assert report.differing == 0
    assert report.position == int(sql(keys.address, "SELECT max(id) FROM events")[0][0])
    assert check(keys.database, view).differing == 0
    assert clock.now == NOON


def by_key(report: ReplayReport) -> list[tuple[str, dict[str, tuple[object, object]]]]:
    """Return what differs in each key; the same in several rows of a key is told once."""
    told = [(difference.key_id, difference.columns) for difference in report.differences]
    return [each for each, _ in groupby(told)]


@pytest.mark.usefixtures("small_batches")
@each_view_of_keys
def test_a_row_that_is_wrong_and_changes_during_a_check_is_found(keys: Keys, view: View) -> None:
    made = [keys.create(f"{number}") for number in range(10)]
    edit_rows(keys.address, view.name, 2, 5, role="Owner")

    def change(call: int) -> None:
        if call == 1:
            keys.rename(made[1].key_id, "renamed")

    report = during(keys, check, view, change)
    wrong: dict[str, tuple[object, object]] = {"role": ("Owner", "Member")}
    # A row that was wrong when it was changed lost its seal.
    lost = {"seal": ("(not shown)", "(not shown)")} if view is auth_lookup.VIEW else {}
    assert by_key(report) == [(made[1].key_id, wrong | lost), (made[4].key_id, wrong)]


@pytest.mark.usefixtures("small_batches")
@each_view_of_keys
def test_a_row_that_goes_wrong_after_the_tables_were_compared_is_found_if_it_changed(
    keys: Keys, view: View
) -> None:
    made = [keys.create(f"{number}") for number in range(10)]

    def change(call: int) -> None:
        if call == 6:
            # The last batch before the comparison: a whole one is left for after it.
            for each in made[:4]:
                keys.rename(each.key_id, "renamed")
        if call == 7:
            # Nothing changes this row, so that only the comparison before could find it.
            edit_rows(keys.address, view.name, 10, role="Owner")
        if call in (7, 8):
            # Found in a batch after the comparison, and in the rest under the lock.
            keys.rename(made[call - 1].key_id, "renamed too")
            edit_rows(keys.address, view.name, call, role="Owner")

    report = during(keys, check, view, change)
    assert by_key(report) == [
        (made[6].key_id, {"role": ("Owner", "Member")}),
        (made[7].key_id, {"role": ("Owner", "Member")}),
    ]


def test_differences_of_one_view_are_not_another_s(keys: Keys) -> None:
    keys.create()
    edit_rows(keys.address, "key_list", name="x")
    assert differing_rows(keys) == {"key_list": 1}
