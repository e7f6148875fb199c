"""The search for secrets finds planted ones, so that finding nothing means something."""

import base64
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from projections.store.sqlite_driver import driver as sqlite3
from tests.system.secret_search import Search

SECRET = "hT4kPz0QvW7yLr2NbXc9MfGs1DjAaEeIiOoUu3568KB"
SEARCH = Search({"ours": SECRET.encode(), "another": b"0123456789" * 4})

WRITTEN: dict[str, Callable[[str], bytes]] = {
    "as it is": str.encode,
    "in a line of a log": lambda secret: f'{{"path": "/v1/keys/key_{secret}", "n": 1}}'.encode(),
    "all but its end": lambda secret: secret[:25].encode(),
    "all but its beginning": lambda secret: secret[-25:].encode(),
    "from its middle": lambda secret: secret[13:30].encode(),
    "in hex": lambda secret: secret.encode().hex().encode(),
    "in capital hex": lambda secret: secret.encode().hex().upper().encode(),
    "in UTF-16": lambda secret: secret.encode("utf-16"),
    "backwards": lambda secret: secret[::-1].encode(),
    "in base64": lambda secret: base64.b64encode(secret.encode()),
    "in base64 after one character": lambda secret: base64.b64encode(b":" + secret.encode()),
    "in base64 after two characters": lambda secret: base64.b64encode(b"a:" + secret.encode()),
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_a_secret_is_found_however_it_is_written(written: Callable[[str], bytes]) -> None:
    assert SEARCH.found_in(b"before " + written(SECRET) + b" after") == {"ours"}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_other_secrets_do_not_match_the_cache(written: Callable[[str], bytes]) -> None:
    assert SEARCH.found_in(b"before " + written(SECRET.swapcase()) + b" after") == set()


def test_bytes_are_found_like_texts() -> None:
    pepper = bytes(range(150, 182))
    search = Search({"pepper": pepper})
    assert search.found_in(b"\x00" + pepper + b"\x00") == {"pepper"}
    assert search.found_in(pepper.hex().encode()) == {"pepper"}
    assert search.found_in(bytes(150)) == set()


def test_a_secret_is_found_in_any_file_and_in_the_name_of_one(tmp_path: Path) -> None:
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "harmless").write_bytes(b"nothing")
    (tmp_path / "deep" / "deeper" / "ledger-wal").write_bytes(b"\x00\xff" + SECRET.encode())
    (tmp_path / f".{SECRET}").touch()
    assert SEARCH.found_in_files(tmp_path) == {
        "deep/deeper/ledger-wal": {"ours"},
        f".{SECRET}": {"ours"},
    }


@pytest.mark.parametrize("value", [SECRET, SECRET.encode(), f'["{SECRET}"]'])
def test_a_secret_is_found_in_any_column_of_any_table(tmp_path: Path, value: object) -> None:
    with closing(sqlite3.connect(tmp_path / "keyledger.sqlite3")) as connection, connection:
        connection.execute("CREATE TABLE harmless (one, two)")
        connection.execute("CREATE TABLE leaky (one, two)")
        connection.execute("INSERT INTO harmless VALUES (1, 'nothing'), (NULL, x'00')")
        connection.execute("INSERT INTO leaky VALUES (1, 'nothing'), (NULL, ?)", (value,))
    assert SEARCH.found_in_tables(tmp_path) == {"leaky": {"ours"}}
    assert SEARCH.found_in_files(tmp_path) == {"keyledger.sqlite3": {"ours"}}
