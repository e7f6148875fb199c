"""Every stored event of every version projects to the same rows as ever."""

from collections.abc import Iterator
from itertools import groupby

import pytest

from projections.rebuild.rebuild import rebuild
from projections.recorder import LedgerRecorder
from projections.views import key_versions
from projections.views.registry import VIEWS
from tests.conftest import NOON
from tests.domain.stored_corpus import stored_events
from tests.projections.ledgers import KEY_VIEWS, Keys, use_batches_of
from tests.raw_sql import Rows, rows_of, view_rows

ROOT = "apikey_00000000-0000-8000-8000-000000000001"
ROTATED = "apikey_00000000-0000-8000-8000-000000000002"
SUCCESSOR = "apikey_00000000-0000-8000-8000-000000000003"

KEY_LIST = [
    (
        1,
        ROOT,
        "root",
        "root",
        "key_vYIbxrSs...",
        '["*"]',
        "Member",
        "active",
        None,
        "2026-01-01T00:00:00.000000Z",
        "cli",
        "ada",
        None,
        None,
        None,
        None,
        None,
        None,
        1,
    ),
    (
        2,
        ROTATED,
        "acme.eu-1_test",
        "مفتاح",
        "blnk_sk461bUL...",
        '["mcp:read","audit:*"]',
        "Member",
        "revoked",
        "2026-03-10T12:00:00.000000Z",
        "2026-03-03T09:30:00.123456Z",
        "key",
        ROOT,
        "2026-03-11T00:00:00.000000Z",
        "key",
        ROOT,
        "leaked",
        None,
        SUCCESSOR,
        9,
    ),
    (
        8,
        SUCCESSOR,
        "acme.eu-1_test",
        "مفتاح",
        "blnk_ZCtK5Xck...",
        '["*"]',
        "Member",
        "revoked",
        "2026-05-07T02:29:59.876544Z",
        "2026-03-09T12:00:00.000000Z",
        "key",
        ROOT,
        "2026-03-13T00:00:00.000005Z",
        "cli",
        "ada",
        None,
        ROTATED,
        None,
        3,
    ),
]
AUTH_LOOKUP = [
    (
        1,
        ROOT,
        "vYIbxrSsh6uZwxfO",
        "root",
        "root",
        "Member",
        "key",
        '["*"]',
        None,
        0,
        0,
        (
            "$argon2id$v=19$m=19456,t=2,p=1$PANzcv7XWQX8Cy600cqJhw"
            "$ns0MQ/lhDiVX3XjWDrMtjyjMb+uJGSpQWiugG63bCIk"
        ),
    ),
    (
        2,
        ROTATED,
        "sk461bULkrMLnx1K",
        "acme.eu-1_test",
        "مفتاح",
        "Member",
        "blnk",
        '["mcp:read","audit:*"]',
        "2026-03-10T12:00:00.000000Z",
        1,
        1,
        (
            "$argon2id$v=19$m=19456,t=2,p=1$s6ZrvQCEMPgRREfqH0moaA"
            "$0suP/38LNkMfQW4sXHM7WiQdUgpGfeMFTmCboMjF+sI"
        ),
    ),
    (
        8,
        SUCCESSOR,
        "ZCtK5XckQtR177XN",
        "acme.eu-1_test",
        "مفتاح",
        "Member",
        "blnk",
        '["*"]',
        "2026-05-07T02:29:59.876544Z",
        1,
        0,
        (
            "$argon2id$v=19$m=19456,t=2,p=1$8CBy8NSoVe5xs5wZe3QBTA"
            "$5ISTriOMvfQQzVDZYY2qfwaecjZArE1AgM33aBpIl8I"
        ),
    ),
]


HELD_FROM = {
    1: ["2026-01-01T00:00:00.000000Z"],
    2: [
        "2026-03-03T09:30:00.123456Z",
        "2026-03-04T00:00:00.000000Z",
        "2026-03-05T00:00:00.000000Z",
        "2026-03-06T00:00:00.000000Z",
        "2026-03-07T00:00:00.000000Z",
        "2026-03-08T00:00:00.000000Z",
        "2026-03-09T12:00:00.000000Z",
        "2026-03-10T12:00:01.000000Z",
        "2026-03-11T00:00:00.000000Z",
    ],
    8: [
        "2026-03-09T12:00:00.000000Z",
        "2026-03-12T00:00:00.000000Z",
        "2026-03-13T00:00:00.000005Z",
    ],
}


def known_rows(keys: Keys) -> dict[str, Rows]:
    """Return the rows of the keys of v1; files that came later have keys of their own."""
    known = {ROOT, ROTATED, SUCCESSOR}
    return {
        view.name: [row for row in rows_of(keys.address, view.name) if known & {row[1], row[2]}]
        for view in (*KEY_VIEWS, key_versions.VIEW)
    }


def versions_of(rows: Rows) -> dict[int, list[str]]:
    """Return since when each key's versions held; see that they follow on each other."""
    found: dict[int, list[str]] = {}
    for position, of_key in groupby(rows, key=lambda row: row[0]):
        _, numbers, *_, begins, ends = zip(*of_key, strict=True)
        assert numbers == tuple(range(1, len(numbers) + 1))
        assert ends == (*begins[1:], None)
        found[position] = list(begins)
    return found


@pytest.fixture
def batches() -> Iterator[tuple[int, ...]]:
    yield (1, 2, 3, 5, 10_000)
    use_batches_of(10_000)


@pytest.mark.parametrize("at_once", [True, False], ids=["in one append", "one by one"])
def test_the_corpus_projects_onto_the_rows_that_it_always_meant(
    keys: Keys, batches: tuple[int, ...], *, at_once: bool
) -> None:
    recorder = LedgerRecorder(keys.database, VIEWS)
    corpus = stored_events()
    for stored in [corpus] if at_once else [[each] for each in corpus]:
        recorder.insert_events(stored)
    known = known_rows(keys)
    versions = known.pop("key_versions")
    # The version of the last event, and the seal, come last.
    sealed = known["auth_lookup"]
    known["auth_lookup"] = [row[:-2] for row in sealed]
    assert known == {"key_list": KEY_LIST, "auth_lookup": AUTH_LOOKUP}
    assert [row[-2] for row in sealed] == [len(held) for held in HELD_FROM.values()]
    assert versions_of(versions) == HELD_FROM
    newest = [row for row in versions if row[-1] is None]
    assert [(position, *row, version) for position, version, *row, _, _ in newest] == KEY_LIST
    live = view_rows(keys.address)
    for size in batches:
        use_batches_of(size)
        for view in VIEWS:
            report = rebuild(keys.database, view, clock=lambda: NOON)
            assert (report.events, report.differing) == (len(corpus), 0)
        assert view_rows(keys.address) == live
