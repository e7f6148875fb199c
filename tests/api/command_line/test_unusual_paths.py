"""A data folder of any name is used under that name, or refused before anything is created."""

import json
import os
from pathlib import Path
from types import UnionType
from typing import get_args

import pytest

from api.settings import Settings, SettingsError, checked_database_url, read_settings
from projections.tlog.offline_verifier import verify_pack
from tests.api.command_line.commands import Run
from tests.system.processes import Server

pytestmark = pytest.mark.only_on("sqlite")

CREATE = ("keys", "create", "--name", "a", "--scopes", "a:b", "--json")
NAMES = [
    "a?b",
    "?mode=memory&uri=true",
    "a#b",
    "a%b%41",
    "a@b@c",
    "a:b;c,d",
    "a+b&c=d",
    " a b ",
    "it's",
    'a"b"',
    "a\\b",
    "$HOME",
    "*[a]{b}",
    "ключ-鍵-🔑",
    "e\u0301",
]
ALL = "".join(NAMES)
REFUSED = ["a\nb", "a\r", "\tb", "a\x1b[31m", "a\x7f", "a\x85b", "a\u2028b", "a\u2029b"]


@pytest.mark.parametrize("name", [*NAMES, ALL])
def test_every_command_uses_the_folder_of_this_name(
    keyledger: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / "ledgers" / name
    monkeypatch.setenv("KEYLEDGER_DATA_DIR", str(folder))

    created = keyledger(*CREATE)

    assert created.code == 0, created.err
    assert [each.name for each in folder.parent.iterdir()] == [name]
    assert {"keyledger.sqlite3", "pepper"} <= {each.name for each in folder.iterdir()}
    exported = keyledger("audit", "export", str(folder / "pack.zip"), "--json")
    assert exported.code == 0, exported.err
    assert not verify_pack(
        folder / "pack.zip", public_key=exported.json["public_key"], previous=None
    ).findings
    assert keyledger("audit", "verify").code == 0
    assert keyledger("doctor", "--json").code == 0
    # As an option, too.
    monkeypatch.delenv("KEYLEDGER_DATA_DIR")
    listed = keyledger("keys", "list", "--json", "--data-dir", str(folder))
    assert [key["key_id"] for key in listed.json["data"]] == [created.json["key_id"]]
    copied = keyledger("copy", "--to", f"sqlite:///{tmp_path}/copy", "--data-dir", str(folder))
    assert copied.code == 0, copied.err
    assert [each.name for each in folder.parent.iterdir()] == [name]


def test_a_server_uses_the_folder_of_this_name(
    keyledger: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ledgers" / ALL
    server = Server(folder, tmp_path / "log")
    try:
        server.wait_until_ready()
        assert len(server.client().list_keys(workspace="root")) == 1
        server.stop()
    finally:
        server.kill()
    assert [each.name for each in folder.parent.iterdir()] == [ALL]
    monkeypatch.setenv("KEYLEDGER_DATA_DIR", str(folder))
    assert keyledger("audit", "verify").code == 0


def test_the_remedies_of_doctor_can_be_copied_into_a_shell(
    keyledger: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ALL
    monkeypatch.setenv("KEYLEDGER_DATA_DIR", str(folder))
    assert keyledger(*CREATE).code == 0
    for path in (folder, *folder.iterdir()):
        path.chmod(0o777)

    ended = keyledger("doctor", "--json")

    remedies = [check["remedy"] for check in ended.json["checks"] if check["result"] == "fail"]
    assert len(remedies) >= 5
    for remedy in remedies:
        assert os.system(remedy) == 0  # noqa: S605 - that is what the remedy is for
    assert keyledger("doctor").code == 0


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("command", [CREATE, ("doctor", "--json"), ("serve",), ("keys", "list")])
def test_a_name_that_is_not_one_line_is_refused_and_nothing_is_made(
    keyledger: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    name: str,
) -> None:
    folder = tmp_path / "ledgers" / name
    for given in ("KEYLEDGER_DATA_DIR", "--data-dir"):
        options: tuple[str, ...] = ()
        if given == "KEYLEDGER_DATA_DIR":
            monkeypatch.setenv("KEYLEDGER_DATA_DIR", str(folder))
        else:
            monkeypatch.delenv("KEYLEDGER_DATA_DIR")
            options = ("--data-dir", str(folder))
        ended = keyledger(*command, *options)
        assert ended.code == 2
        said = json.loads(ended.err)["detail"] if "--json" in command else ended.err
        assert f"{given}: the path has a line break, another control character" in said
        assert "use another path" in said
        assert not folder.parent.exists()


def _is_a_path(annotation: object) -> bool:
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return Path in kinds


@pytest.mark.parametrize(
    "field", [name for name, each in Settings.model_fields.items() if _is_a_path(each.annotation)]
)
def test_every_setting_that_is_a_path_has_to_be_one_line(field: str, tmp_path: Path) -> None:
    path = tmp_path / "a\nb"
    path.write_text("")
    for name in (path, os.fsdecode(b"/srv/\xff")):
        with pytest.raises(SettingsError, match="the path has a line break"):
            read_settings(**{field: name})


@pytest.mark.parametrize("name", [name for name in NAMES if "?" not in name])
def test_a_database_url_names_the_file_of_this_name(name: str) -> None:
    settings = read_settings(database_url=f"sqlite:////srv/{name}")
    assert settings.database_path == Path("/srv") / name


@pytest.mark.parametrize("name", ["a?b", "a?", "a?b=c"])
def test_a_question_mark_in_a_database_url_does_not_open_another_file(
    name: str,
) -> None:
    with pytest.raises(ValueError, match="cannot contain `\\?`"):
        checked_database_url(f"sqlite:////srv/{name}")


@pytest.mark.parametrize("name", REFUSED)
def test_a_database_url_has_to_be_one_line(name: str) -> None:
    for url in (f"sqlite:////srv/{name}", f"postgresql+psycopg://me@db/{name}"):
        with pytest.raises(ValueError, match="the path has a line break"):
            checked_database_url(url)
