"""Every command creates private files that belong to the owner of the ledger."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from api.command_line.root import root_command
from tests.accounts import NOBODY, as_nobody, folder_for_all, needs_root, owned_by_nobody
from tests.api.command_line.commands import Run
from tests.engines import Engine
from tests.system.processes import Server

# There is nothing to downgrade; the database servers of the tests are not durable.
_MAY_FIND_SOMETHING = [("projections", "downgrade"), ("doctor",)]

CREATE = ("keys", "create", "--name", "a", "--scopes", "a:b", "--json")


@pytest.fixture
def data_dir(engine: Engine) -> Iterator[Path]:
    """An empty folder; it belongs to another account if root runs the tests."""
    with folder_for_all() as folder:
        yield engine.new_place(owned_by_nobody(folder / "keyledger-data"))


@pytest.fixture
def _umask_off() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def commands() -> Iterator[tuple[str, ...]]:
    """Yield every command of the program."""

    def below(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:  # noqa: ANN401 - private to Typer
        if not hasattr(command, "commands"):
            yield path
            return
        for name, each in command.commands.items():
            yield from below(each, (*path, name))

    yield from below(root_command(), ())


def closed_files_of(folder: Path) -> set[str]:
    """Return the names of all files; each must belong to the folder's owner and be private."""
    owner = folder.stat()
    names = set()
    for path in folder.iterdir():
        found = path.stat()
        assert (found.st_uid, found.st_gid) == (owner.st_uid, owner.st_gid), path
        assert stat.S_IMODE(found.st_mode) == 0o600, path
        names.add(path.name)
    return names


def without_locks(folder: Path) -> None:
    """Remove the lock files, so that the next command makes its own."""
    for lock in folder.glob("*.lock"):
        lock.unlink()


def served(data_dir: Path, log: Path, then: Callable[[], object]) -> None:
    """Run a server; call something while it runs."""
    server = Server(data_dir, log)
    try:
        server.wait_until_ready()
        then()
        server.stop()
    finally:
        server.kill()


@pytest.mark.usefixtures("_umask_off")
def test_every_command_creates_private_files_of_the_owner_whatever_the_umask(
    keyledger: Run, data_dir: Path, tmp_path: Path
) -> None:
    first = keyledger(*CREATE)
    assert first.code == 0, first.err
    key_id = first.json["key_id"]
    assert {"pepper", "signing-key", "checkpoints.txt"} <= closed_files_of(data_dir)
    pack = str(data_dir / "pack.zip")
    arguments: dict[tuple[str, ...], Sequence[str]] = {
        ("serve",): (),
        ("keys", "create"): CREATE[2:],
        ("keys", "list"): (),
        ("keys", "show"): (key_id,),
        ("keys", "history"): (key_id,),
        ("keys", "update"): (key_id, "--name", "b"),
        ("keys", "rotate"): (key_id, "--grace", "1h"),
        ("keys", "revoke"): (key_id, "--yes"),
        ("projections", "status"): (),
        ("projections", "rebuild"): ("--all",),
        ("projections", "downgrade"): (),
        ("projections", "check"): (),
        ("audit", "verify"): (),
        ("audit", "replay"): (key_id,),
        ("audit", "export"): (pack, "--json"),
        ("audit", "verify-pack"): (pack, "--public-key"),
        ("audit", "report"): (),
        ("audit", "fork"): ("--reason", "a test", "--yes"),
        ("audit", "seal"): ("--reason", "a test", "--yes"),
        ("copy",): ("--to", f"sqlite:///{data_dir}/copy.sqlite3"),
        ("doctor",): (),
        ("workspaces", "list"): (),
    }
    assert set(arguments) == set(commands()), "add the new command here"
    public_key = ""
    for command, given in arguments.items():
        without_locks(data_dir)
        if command == ("serve",):
            served(data_dir, tmp_path / "log", lambda: closed_files_of(data_dir))
            continue
        more = [public_key] if command == ("audit", "verify-pack") else []
        ended = keyledger(*command, *given, *more)
        assert ended.code == 0 or command in _MAY_FIND_SOMETHING, ended.out + ended.err
        if command == ("audit", "export"):
            public_key = ended.json["public_key"]
        closed_files_of(data_dir)
    assert {"pack.zip", "copy.sqlite3"} <= closed_files_of(data_dir)


@needs_root
@pytest.mark.only_on("sqlite")
def test_a_service_makes_keys_in_a_ledger_that_root_made_and_has_open(
    keyledger: Run, data_dir: Path, tmp_path: Path
) -> None:
    def make_a_key() -> None:
        ended = as_nobody(tmp_path / "unused", *CREATE)
        assert ended.returncode == 0, ended.stderr

    # Root makes the ledger, and has its files open.
    served(data_dir, tmp_path / "log", make_a_key)
    assert keyledger("audit", "verify").code == 0
    make_a_key()
    closed_files_of(data_dir)


@needs_root
@pytest.mark.only_on("sqlite")
def test_new_files_get_the_owner_of_the_database_and_not_of_their_folder(
    keyledger: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keyledger(*CREATE).code == 0
    elsewhere = data_dir.with_name("checkpoints")
    elsewhere.mkdir()
    (data_dir / "checkpoints.txt").rename(elsewhere / "checkpoints.txt")
    monkeypatch.setenv("KEYLEDGER_CHECKPOINT_FILE", str(elsewhere / "checkpoints.txt"))
    os.chown(data_dir, 0, NOBODY.pw_gid)
    data_dir.chmod(0o770)
    without_locks(data_dir)

    assert keyledger("audit", "fork", "--reason", "a test", "--yes").code == 0

    made = [*data_dir.iterdir(), *elsewhere.iterdir()]
    assert {path.stat().st_uid for path in made} == {NOBODY.pw_uid}
    assert "checkpoints.txt" in {path.name for path in made}
    assert len([path for path in made if path.name.startswith("signing-key")]) == 2
    doctor = keyledger("doctor", "--json")
    assert doctor.code == 0, doctor.out


@needs_root
@pytest.mark.only_on("sqlite")
def test_doctor_names_each_file_of_another_owner_and_what_to_do(
    keyledger: Run, data_dir: Path
) -> None:
    assert keyledger(*CREATE).code == 0
    # As an earlier version left them when root ran a command.
    lost = sorted(path for path in data_dir.iterdir() if path.name != "keyledger.sqlite3")
    assert len(lost) >= 4
    for path in lost:
        os.chown(path, 0, 0)

    ended = keyledger("doctor", "--json")

    assert ended.code == 1
    remedies = [check["remedy"] for check in ended.json["checks"] if check["result"] == "fail"]
    for path in lost:
        (remedy,) = [each for each in remedies if each.endswith(f" {path}")]
        assert remedy.startswith("chown nobody:")
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
    assert keyledger("doctor").code == 0


@needs_root
@pytest.mark.only_on("sqlite")
def test_doctor_names_a_database_that_root_restored(keyledger: Run, data_dir: Path) -> None:
    assert keyledger(*CREATE).code == 0
    os.chown(data_dir / "keyledger.sqlite3", 0, 0)

    ended = keyledger("doctor", "--json")

    remedies = [check["remedy"] for check in ended.json["checks"] if check["name"] == "files"]
    assert [remedy.partition(" ")[0] for remedy in remedies] == ["chown"]
    assert remedies[0].endswith(f" {data_dir}/keyledger.sqlite3")


@needs_root
@pytest.mark.only_on("sqlite")
def test_doctor_says_so_if_the_owner_cannot_make_files_in_the_folder(
    keyledger: Run, data_dir: Path
) -> None:
    assert keyledger(*CREATE).code == 0
    os.chown(data_dir, 0, 0)

    ended = keyledger("doctor", "--json")

    assert ended.code == 1
    (failed,) = [check for check in ended.json["checks"] if check["result"] == "fail"]
    assert "cannot create files in it" in failed["found"]
    assert failed["remedy"].startswith("chown nobody:")
    assert failed["remedy"].endswith(f" {data_dir}")


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("name", ["pepper", "signing-key", "keyledger.sqlite3"])
def test_a_command_closes_a_file_that_others_could_open_and_says_so(
    keyledger: Run, data_dir: Path, name: str
) -> None:
    assert keyledger(*CREATE).code == 0
    path = data_dir / name
    path.chmod(0o644)
    assert keyledger("doctor").code == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o644

    listed = keyledger("keys", "list", "--json")

    assert listed.code == 0
    assert listed.json["data"]
    assert listed.err.startswith(f"warning: other accounts could open {path} (mode 0644); its mode")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keyledger("keys", "list", "--json").err == ""
