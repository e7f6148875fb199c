"""Someone who can write to the database without the pepper gains no access."""

import sys
from collections.abc import Callable
from pathlib import Path
from secrets import token_bytes
from types import FrameType
from typing import Any

import pytest

from api.composition import OpenLedger
from domain.errors import EventNotSealed, HistoryInDoubt, RowNotSealed
from domain.key_ids import to_uuid
from domain.key_ledger import Changes
from domain.pepper import Pepper
from domain.serialization import EVENT_CLASSES
from domain.tokens import Token, parse
from domain.verdict import Code
from projections.integrity.verify import check_integrity
from projections.rebuild.rebuild import rebuild
from projections.store import seals
from projections.store.schema import console_sessions, events, key_digests, metadata
from projections.store.seals import NoSeals, Seals
from projections.views import auth_lookup
from projections.views.registry import VIEWS
from tests.conftest import NOON
from tests.engines import address_of
from tests.projections.ledgers import Keys, Made, keys_in
from tests.raw_sql import as_dicts, edit_rows, sql, with_field


@pytest.fixture
def keys(opened: OpenLedger) -> Keys:
    return Keys(opened)


def verified_anew(keys: Keys, token: str) -> Code:
    """Verify a token as a process that has nothing in memory does."""
    with keys_in(keys.data_dir) as again:
        return again.verify(token)


def token_with(lookup_of: Made, secret_of: Made) -> str:
    """Return the token of one key with the secret of another, and the right checksum."""
    public, secret = parse(lookup_of.token), parse(secret_of.token)
    assert public is not None
    assert secret is not None
    return Token(public.prefix, public.lookup_id, secret.secret).reveal()


def findings(keys: Keys) -> list[str]:
    attestation = check_integrity(keys.database, notes=[], keys=None)
    return [f"{each.about} {each.wrong}" for each in attestation.findings]


def test_a_digest_that_was_copied_to_another_key_opens_nothing(keys: Keys) -> None:
    root, own = keys.create("root", workspace="root", scopes=("*",)), keys.create("own")
    (theirs, ours) = (root.token[4:20], own.token[4:20])
    sql(
        keys.address,
        "UPDATE key_digests SET digest = (SELECT digest FROM key_digests WHERE lookup_id = ?)"
        " WHERE lookup_id = ?",
        ours,
        theirs,
    )
    for token in (token_with(root, own), root.token):
        with pytest.raises(RowNotSealed):
            verified_anew(keys, token)
    assert verified_anew(keys, own.token) is Code.VALID
    assert [each for each in findings(keys) if each.startswith("seal ")] != []


def test_a_digest_copied_with_its_seal_opens_nothing(keys: Keys) -> None:
    root, own = keys.create("root", workspace="root", scopes=("*",)), keys.create("own")
    sql(
        keys.address,
        "UPDATE key_digests SET digest = own.digest, seal = own.seal FROM key_digests own"
        " WHERE own.lookup_id = ? AND key_digests.lookup_id = ?",
        own.token[4:20],
        root.token[4:20],
    )
    with pytest.raises(RowNotSealed):
        verified_anew(keys, token_with(root, own))


def test_a_replaced_verifier_grants_nothing(keys: Keys) -> None:
    root, own = keys.create("root", workspace="root", scopes=("*",)), keys.create("own")
    sql(keys.address, "DELETE FROM key_digests")
    sql(
        keys.address,
        "UPDATE auth_lookup SET verifier ="
        " (SELECT verifier FROM auth_lookup WHERE position = 2) WHERE position = 1",
    )
    with pytest.raises(RowNotSealed):
        verified_anew(keys, token_with(root, own))


def test_another_key_s_sealed_row_under_a_lookup_id_opens_nothing(keys: Keys) -> None:
    root, own = keys.create("root", workspace="root", scopes=("*",)), keys.create("own")
    sql(keys.address, "DELETE FROM key_digests")
    sql(keys.address, "DELETE FROM auth_lookup WHERE position = 2")
    edit_rows(keys.address, "auth_lookup", 1, lookup_id=own.token[4:20])
    with pytest.raises(RowNotSealed):
        verified_anew(keys, token_with(own, root))


@pytest.mark.parametrize("change", ["revoke", "narrow", "rename"])
def test_an_old_row_put_back_with_its_old_seal_opens_nothing(keys: Keys, change: str) -> None:
    made = keys.create(scopes=("a:b", "c:d"))
    (old,) = as_dicts(keys.address, "auth_lookup")
    if change == "revoke":
        keys.revoke(made.key_id)
    elif change == "narrow":
        keys.update(made.key_id, Changes(scopes=["a:b"]))
    else:
        keys.rename(made.key_id, "renamed")
    edit_rows(keys.address, "auth_lookup", 1, **old)
    with pytest.raises(RowNotSealed):
        verified_anew(keys, made.token)
    assert findings(keys) != []


@pytest.mark.parametrize("column", [column.name for column in auth_lookup.table.c])
def test_a_changed_column_of_a_sealed_row_grants_nothing(keys: Keys, column: str) -> None:
    made, other = keys.create("one"), keys.create("other")
    keys.rename(made.key_id, "renamed")
    (row, theirs) = as_dicts(keys.address, "auth_lookup")
    if column == "lookup_id":
        sql(keys.address, "DELETE FROM auth_lookup WHERE position = 2")
    value = theirs[column] if theirs[column] != row[column] else None
    if value is None and column in {"revoked", "expired"}:
        value = 1
    elif value is None:
        value = {"workspace": "root", "role": "Root", "token_prefix": "other"}.get(column, '["*"]')
    sql(
        keys.address,
        f"UPDATE auth_lookup SET {column} = ? WHERE position = 1",  # noqa: S608 - a column's name
        value if column != "position" else 77,
    )
    token = token_with(other, made) if column == "lookup_id" else made.token
    sql(keys.address, "DELETE FROM key_digests")
    with pytest.raises(RowNotSealed):
        verified_anew(keys, token)


def test_an_old_row_put_back_is_never_sealed_by_the_next_change(keys: Keys) -> None:
    made = keys.create(scopes=("a:b", "c:d"))
    (old,) = as_dicts(keys.address, "auth_lookup")
    keys.update(made.key_id, Changes(scopes=["a:b"]))
    edit_rows(keys.address, "auth_lookup", 1, **old)
    keys.rename(made.key_id, "renamed")
    assert as_dicts(keys.address, "auth_lookup")[0]["seal"] is None
    with pytest.raises(RowNotSealed):
        verified_anew(keys, made.token)
    rebuild(keys.database, auth_lookup.VIEW, clock=lambda: NOON)
    assert as_dicts(keys.address, "auth_lookup")[0]["scopes"] == '["a:b"]'
    assert verified_anew(keys, made.token) is Code.VALID


def test_a_row_is_never_sealed_with_the_change_of_another_key(keys: Keys) -> None:
    own, other = keys.create("own", scopes=("a:b",)), keys.create("other", scopes=("c:d",))
    (old, _) = as_dicts(keys.address, "auth_lookup")
    keys.rename(own.key_id, "renamed")
    edit_rows(keys.address, "auth_lookup", 1, **old)
    # What would refuse the change for another reason.
    sql(keys.address, "DELETE FROM key_versions WHERE position = 1 AND version = 2")
    _exchange_positions(keys)
    keys.update(other.key_id, Changes(scopes=["*"]))
    _exchange_positions(keys)
    with pytest.raises(RowNotSealed):
        verified_anew(keys, own.token)


def _exchange_positions(keys: Keys) -> None:
    """Let the first events of two keys change places."""
    for old, new in ((1, -1), (2, 1), (-1, 2)):
        sql(keys.address, "UPDATE events SET id = ? WHERE id = ?", new, old)


def test_a_revocation_never_seals_a_tampered_row(keys: Keys) -> None:
    made = keys.create()
    edit_rows(keys.address, "auth_lookup", 1, scopes='["*"]')
    keys.revoke(made.key_id)
    (row,) = as_dicts(keys.address, "auth_lookup")
    assert (row["seal"], bool(row["revoked"])) == (None, True)
    rebuild(keys.database, auth_lookup.VIEW, clock=lambda: NOON)
    assert verified_anew(keys, made.token) is Code.REVOKED


def put_back_what_was_before(keys: Keys, made: Made, *, entry: bool) -> None:
    """Revoke a key, then delete its newest event and put its older row back."""
    (old,) = as_dicts(keys.address, "auth_lookup")
    keys.revoke(made.key_id)
    assert keys.verify(made.token) is Code.REVOKED
    later = keys.create("later")
    assert keys.verify(later.token) is Code.VALID
    keys.opened.signer.sign()
    sql(keys.address, "DELETE FROM events WHERE id = 2")
    if entry:
        sql(keys.address, "DELETE FROM entries WHERE position = 2")
    edit_rows(keys.address, "auth_lookup", 1, **old)


@pytest.mark.parametrize("entry", [False, True])
def test_a_process_that_knows_of_a_deleted_revocation_goes_on_refusing(
    keys: Keys, *, entry: bool
) -> None:
    made = keys.create()
    put_back_what_was_before(keys, made, entry=entry)
    assert keys.verify(made.token) is Code.REVOKED


def test_a_deleted_event_with_the_older_row_is_found_by_its_entry(keys: Keys) -> None:
    made = keys.create()
    put_back_what_was_before(keys, made, entry=False)
    # What decision 0009 names among what remains.
    assert verified_anew(keys, made.token) is Code.VALID
    assert any(each.startswith("entry ") for each in findings(keys))


def test_a_deleted_event_with_its_entry_and_the_older_row_is_found_by_the_signer(
    keys: Keys,
) -> None:
    made = keys.create()
    put_back_what_was_before(keys, made, entry=True)
    with pytest.raises(HistoryInDoubt):
        keys.opened.signer.sign()
    with pytest.raises(HistoryInDoubt):
        keys.create("after it")


def plant_scopes(keys: Keys, made: Made, scopes: list[str]) -> None:
    """Append an event, as whoever can write to the database can."""
    keys.update(made.key_id, Changes(scopes=["x:y"]))
    (position,) = sql(keys.address, "SELECT max(id) FROM events")[0]
    (state,) = sql(keys.address, "SELECT state FROM events WHERE id = ?", position)[0]
    planted = with_field("scopes", scopes)(state)
    sql(keys.address, "UPDATE events SET state = ? WHERE id = ?", planted, position)


def test_a_forged_event_is_not_rotated_into_a_new_key(keys: Keys) -> None:
    made = keys.create()
    plant_scopes(keys, made, ["*"])
    for command in (keys.rotate, keys.revoke):
        with pytest.raises(EventNotSealed) as caught:
            command(made.key_id)
        assert caught.value.code == "EVENT_NOT_SEALED"


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_forged_event_stops_a_rebuild_and_is_named(keys: Keys, view: object) -> None:
    made = keys.create()
    plant_scopes(keys, made, ["*"])
    with pytest.raises(EventNotSealed) as caught:
        rebuild(keys.database, view, clock=lambda: NOON)  # type: ignore[arg-type]
    assert caught.value.position == 2
    assert "event it has no valid seal: the ledger did not write it like this" in findings(keys)


def test_no_entry_of_a_forged_event_is_signed(keys: Keys) -> None:
    made = keys.create()
    keys.opened.signer.sign()
    plant_scopes(keys, made, ["*"])
    with pytest.raises(HistoryInDoubt, match="has an event without a valid seal"):
        keys.opened.signer.sign()
    with pytest.raises(HistoryInDoubt):
        keys.create("after it")


def test_no_entry_that_its_event_does_not_say_is_signed(keys: Keys) -> None:
    keys.create()
    keys.opened.signer.sign()
    keys.create("second")
    edit_rows(keys.address, "entries", 2, entry=b"{}")
    with pytest.raises(HistoryInDoubt, match="does not match its event"):
        keys.opened.signer.sign()


@pytest.mark.parametrize("table", [events, key_digests, console_sessions], ids=lambda t: t.name)
def test_every_sealed_table_has_a_seal_column(table: object) -> None:
    assert "seal" in metadata.tables[table.name].c  # type: ignore[attr-defined]


def test_every_kind_of_event_of_a_key_moves_the_version() -> None:
    for kind, handler in auth_lookup.HANDLERS.items():
        if kind.TOPIC.startswith("ApiKey."):
            assert handler.__qualname__.startswith("_versioned"), kind.TOPIC
    assert set(auth_lookup.HANDLERS) == set(EVENT_CLASSES.values())


def test_seals_of_different_kinds_and_secrets_differ() -> None:
    values = ["a", "b"]
    seals = Seals(Pepper(bytes(32)))
    made = [seals.auth_row(values), seals.digest(values), seals.session(values)]
    made += [seals.last_check(values), Seals(Pepper(token_bytes(32))).digest(values)]
    assert len(set(made)) == len(made)
    assert seals.digest(["ab", ""]) != seals.digest(["a", "b"])
    assert seals.digest([b"\x0a"]) != seals.digest(["0a"])
    assert bytes(32).hex() not in repr(vars(seals))


def test_rows_written_without_the_secret_have_no_seal() -> None:
    none = NoSeals(Pepper(bytes(32)))
    made: list[Callable[..., object]] = [none.event, none.auth_row]
    assert [made[0](b"", 1, "", b""), made[1]([1])] == [None, None]
    assert none.is_event(b"", 1, "", b"", None)


def test_an_event_s_seal_covers_each_of_its_columns() -> None:
    seals = Seals(Pepper(bytes(32)))
    key = to_uuid("apikey_00000000-0000-8000-8000-000000000000").bytes
    right: list[Any] = [key, 1, "ApiKey.Created", b"{}"]
    seal = seals.event(key, 1, "ApiKey.Created", b"{}")
    assert seals.is_event(*[*right, seal])
    for place, other in enumerate((key[::-1] + b"", 2, "ApiKey.Revoked", b"{} ")):
        changed = [*right]
        changed[place] = other if place else bytes([1]) + key[1:]
        assert not seals.is_event(*[*changed, seal])
    for wrong in (None, b"", seal[:-1] if seal else b"", "text", bytes(32)):
        assert not seals.is_event(*[*right, wrong])
    for planted in (
        ["text", 1, "t", b""],
        [key, "1", "t", b""],
        [key, -1, "t", b""],
        [key, 1, 7, 8],
    ):
        assert not seals.is_event(*[*planted, bytes(32)])


def test_a_sound_ledger_has_no_findings(data_dir: Path) -> None:
    with keys_in(data_dir) as keys:
        made = keys.create()
        keys.revoke(made.key_id)
        assert findings(keys) == []
    assert sql(address_of(data_dir), "SELECT count(*) FROM events WHERE seal IS NULL") == [(0,)]


def test_a_verification_from_memory_checks_no_seal(keys: Keys) -> None:
    made = keys.create()
    assert keys.verify(made.token) is Code.VALID
    calls: list[str] = []

    def note(frame: FrameType, kind: str, _: object) -> None:
        if kind == "call" and frame.f_code.co_filename == seals.__file__:
            calls.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        code = keys.verify(made.token)
        from_memory = list(calls)
        calls.clear()
        sql(keys.address, "UPDATE projection_states SET generation = generation + 1")
        keys.verify(made.token)
    finally:
        sys.setprofile(None)
    assert (code, from_memory) == (Code.VALID, [])
    assert {"is_auth_row", "is_digest"} <= set(calls)
