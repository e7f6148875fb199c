"""The entry of an event in the audit log."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC
from typing import Any, cast
from uuid import UUID

import orjson
import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from domain import names, scopes
from domain.api_key import ApiKey
from domain.audit_log import Forked, LedgerEvent, Resealed, fork_uuid, reseal_uuid
from domain.caller import Caller
from domain.public_event import MAX_ENTRY_LENGTH, entry_of, public_event
from domain.serialization import EVENT_CLASSES, EventMapper
from tests.domain.builders import DAY, HOUR, NOON, PATIENT, a_caller, a_credential, a_new_key
from tests.domain.stored_corpus import stored_events

MAPPER = EventMapper()
# Of the 13 events of the corpus's v1 and the 2 of its v2. Entries are hashed and never change.
FROZEN = (
    "1f382e702259aed8a7e41b41206f66d9975cce030a2023df9f4cf91a1e4c91c1",
    "66c28fa94232b98f101214c9af6ed25d3dcc9bcf3f570c549c026de2173b93eb",
)

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
"""More than names may contain: every stored text must be serializable."""
perhaps = st.one_of(st.none(), words)
moments = st.datetimes(timezones=st.just(UTC))
envelopes = st.fixed_dictionaries(
    {
        "originator_id": st.uuids(),
        "originator_version": st.integers(1, 2**53 - 1),
        "timestamp": moments,
        "actor": st.fixed_dictionaries({"type": words, "id": words}),
        "request_id": perhaps,
        "source_ip": perhaps,
    }
)
OWN: dict[type[LedgerEvent], dict[str, st.SearchStrategy[object]]] = {
    ApiKey.Created: {
        "originator_topic": st.just(ApiKey.TOPIC),
        **dict.fromkeys(
            ("workspace", "name", "token_prefix", "lookup_id", "verifier", "role"), words
        ),
        "scopes": st.lists(words, max_size=4),
        "expires_at": st.one_of(st.none(), moments),
        "rotated_from": perhaps,
        "request_sha256": perhaps,
    },
    ApiKey.Revoked: {"reason": perhaps, "comment": perhaps},
    ApiKey.Expired: {},
    ApiKey.Rotated: {"successor_id": words, "expires_at": moments},
    ApiKey.ExpirationChanged: {"expires_at": st.one_of(st.none(), moments)},
    ApiKey.Renamed: {"name": words},
    ApiKey.ScopesChanged: {"scopes": st.lists(words, max_size=4)},
    Forked: {
        **dict.fromkeys(("reason", "origin", "previous_origin", "previous_root"), words),
        "previous_size": st.integers(0, 2**53 - 1),
    },
    Resealed: {
        **dict.fromkeys(("reason", "secret_id"), words),
        "previous_secret_id": perhaps,
        "events": st.integers(0, 2**53 - 1),
    },
}


def events_of(event_class: type[LedgerEvent]) -> st.SearchStrategy[LedgerEvent]:
    return st.builds(
        lambda envelope, own: made(event_class, envelope | own),
        envelopes,
        st.fixed_dictionaries(OWN[event_class]),
    )


def made(event_class: type[LedgerEvent], fields: dict[str, Any]) -> LedgerEvent:
    if event_class is Forked:
        fields |= {"originator_id": fork_uuid(fields["origin"])}
    if event_class is Resealed:
        fields |= {"originator_id": reseal_uuid(fields["secret_id"], fields["events"])}
    return event_class(**fields)


any_event = st.sampled_from(list(OWN)).flatmap(events_of)


def a_renaming(name: str) -> ApiKey.Event:
    fields: dict[str, Any] = {
        "originator_id": UUID(int=1),
        "originator_version": 2,
        "timestamp": NOON,
        "actor": {"type": "cli", "id": "ada"},
        "request_id": None,
        "source_ip": None,
        "name": name,
    }
    return ApiKey.Renamed(**fields)


def test_every_kind_of_event_is_tried_here() -> None:
    assert set(OWN) == set(EVENT_CLASSES.values())


def test_it_is_one_line_in_sorted_order() -> None:
    assert (
        entry_of(a_renaming("Zoë\n"))
        == (
            '{"actor":{"id":"ada","type":"cli"},"data":{"name":"Zoë\\n"},'
            '"key_id":"apikey_00000000-0000-0000-0000-000000000001",'
            '"occurred_at":"2026-03-03T12:00:00.000000Z","request_id":null,"source_ip":null,'
            '"type":"ApiKey.Renamed","version":2}'
        ).encode()
    )


@PATIENT
@given(any_event)
@example(a_renaming('\u2028\u2029 \U0001f469\u200d\U0001f4bb \x00\x08\x0b\x1f\x7f\x80 "\\/ </é'))
def test_an_entry_is_the_rfc_8785_form_of_the_public_event(event: LedgerEvent) -> None:
    assert entry_of(event) == rfc8785.dumps(public_event(event))
    assert b"\n" not in entry_of(event)


@PATIENT
@given(any_event, any_event)
def test_two_different_events_have_two_different_entries(
    one: LedgerEvent, other: LedgerEvent
) -> None:
    assert (entry_of(one) == entry_of(other)) == (one == other)


@PATIENT
@given(st.data(), any_event)
def test_no_field_of_an_event_can_be_changed_unnoticed(
    data: st.DataObject, event: LedgerEvent
) -> None:
    values = dict(vars(event))
    changeable = sorted(values.keys() - {"originator_topic"})
    name = data.draw(st.sampled_from(changeable))
    event_class = type(event)
    values[name] = vars(data.draw(events_of(event_class)))[name]
    changed = made(event_class, values)

    assert (entry_of(changed) == entry_of(event)) == (changed == event)


def test_entries_of_stored_events_never_change() -> None:
    entries = [
        entry_of(cast("LedgerEvent", MAPPER.to_domain_event(stored))) for stored in stored_events()
    ]

    assert len(set(entries)) == len(entries)
    files = entries[:13], entries[13:15]
    assert tuple(hashlib.sha256(b"\n".join(file)).hexdigest() for file in files) == FROZEN


def test_a_text_that_has_no_bytes_has_no_entry() -> None:
    with pytest.raises(orjson.JSONEncodeError, match="surrogates"):
        entry_of(a_renaming("\ud800"))


WIDEST = "\U0001f469"  # four bytes, the most of any character
LONGEST_ID = "r" * 128
BIG_CALLER = replace(
    a_caller("*", named="n" * 255), request_id=LONGEST_ID, source_ip="fe80::1%" + "e" * 247
)


def longest_creation(by: Caller) -> ApiKey:
    return a_new_key(
        credential=replace(a_credential("p" * 16), verifier="v" * 1000),
        workspace="w" * 63,
        name=WIDEST * names.MAX_NAME_LENGTH,
        scopes=tuple(
            f"{number:02}".ljust(scopes.MAX_SCOPE_LENGTH - 2, "s") + ":a"
            for number in range(scopes.MAX_SCOPES)
        ),
        expires_at=NOON + DAY,
        request_sha256="a" * 64,
        by=by,
    )


def longest_revocation(by: Caller) -> ApiKey:
    key = a_new_key(expires_at=NOON + DAY)
    key.collect_events()
    key.revoke(
        reason=WIDEST * names.MAX_REASON_LENGTH,
        comment=WIDEST * names.MAX_COMMENT_LENGTH,
        by=by,
        at=NOON + HOUR,
    )
    return key


@pytest.mark.parametrize("longest", [longest_creation, longest_revocation])
def test_the_longest_that_the_rules_allow_is_a_quarter_of_what_a_bundle_can_hold(
    longest: Callable[[Caller], ApiKey],
) -> None:
    (event,) = longest(BIG_CALLER).collect_events()

    assert isinstance(event, ApiKey.Event)
    assert len(entry_of(event)) < MAX_ENTRY_LENGTH / 4


def test_an_entry_that_a_bundle_cannot_hold_is_refused() -> None:
    frame = len(entry_of(a_renaming("")))
    room = MAX_ENTRY_LENGTH - frame

    assert len(entry_of(a_renaming("n" * room))) == MAX_ENTRY_LENGTH
    with pytest.raises(ValueError, match="at most 65535 bytes; this one has 65536"):
        entry_of(a_renaming("n" * (room + 1)))
