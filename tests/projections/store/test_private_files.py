"""Files are created in one module: private, and for the owner of their ledger."""

import ast
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from projections.store.private_files import (
    FileOwner,
    make_private_file,
    make_private_folder,
    new_private_file,
    open_private_file,
)
from tests.accounts import NOBODY, needs_root

ROOT = Path(__file__).parents[3]
ALLOWED = {
    # The one place.
    ("projections/store/private_files.py", None),
    # A folder in TMPDIR, for metrics, and a file without a name there.
    ("api/server/server.py", "TemporaryDirectory"),
    ("api/command_line/audit_report.py", "SpooledTemporaryFile"),
    # The null device.
    ("api/command_line/output.py", "open"),
    # Repairs a mode; reads.
    ("projections/store/file_modes.py", "open"),
    # Gives a file that was made there a second name.
    ("projections/audit_log/fork.py", "hardlink_to"),
}
MAKES_FILES = {
    "mkdir", "makedirs", "mkstemp", "mkdtemp", "touch", "write_text", "write_bytes", "symlink",
    "symlink_to", "hardlink_to", "link", "mkfifo", "mknod", "copy", "copy2", "copyfile", "copytree",
    "NamedTemporaryFile", "TemporaryFile", "TemporaryDirectory", "SpooledTemporaryFile",
}  # fmt: skip
MODULES = {"os", "shutil", "tempfile", "Path", None}
NOBODYS = FileOwner(NOBODY.pw_uid, NOBODY.pw_gid)


def by_link(path: Path, owner: FileOwner | None) -> None:
    make_private_file(path, b"content", owner)


def by_renaming(path: Path, owner: FileOwner | None) -> None:
    with new_private_file(path, owner) as (file, _):
        file.write(b"content")


def by_opening(path: Path, owner: FileOwner | None) -> None:
    with os.fdopen(open_private_file(path, owner), "wb") as file:
        file.write(b"content")


each_way = pytest.mark.parametrize("make", [by_link, by_renaming, by_opening])
Make = Callable[[Path, FileOwner | None], None]


@pytest.fixture(params=[0, 0o777])
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@each_way
@pytest.mark.usefixtures("_umask")
def test_a_file_has_one_mode_whatever_the_umask(tmp_path: Path, make: Make) -> None:
    make(tmp_path / "file", None)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
    assert (tmp_path / "file").read_bytes() == b"content"
    assert len(list(tmp_path.iterdir())) == 1


def test_nobody_else_can_write_to_a_new_folder_or_to_those_above_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_private_folder(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / each).stat().st_mode) for each in ("a", "a/b", "a/b/c")]
    assert modes == [0o755, 0o755, 0o700]


def test_an_existing_folder_is_left_unchanged(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    make_private_folder(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_private_folder(tmp_path / "file")


@each_way
@needs_root
def test_a_file_belongs_to_the_owner_that_is_named_or_else_to_its_folders(
    tmp_path: Path, make: Make
) -> None:
    make(tmp_path / "named", NOBODYS)
    assert (tmp_path / "named").stat().st_uid == NOBODYS.uid
    make(tmp_path / "ours", None)
    assert (tmp_path / "ours").stat().st_uid == 0
    os.chown(tmp_path, *NOBODYS)
    make(tmp_path / "theirs", None)
    found = (tmp_path / "theirs").stat()
    assert (found.st_uid, found.st_gid) == NOBODYS


@needs_root
def test_a_new_folder_belongs_to_the_owner_of_the_folder_above_it(tmp_path: Path) -> None:
    os.chown(tmp_path, *NOBODYS)
    make_private_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_uid == NOBODYS.uid


@pytest.mark.parametrize("make", [by_link, by_opening])
def test_no_file_is_made_where_a_symbolic_link_points_to(tmp_path: Path, make: Make) -> None:
    """The owner of the folder could have root make files anywhere."""
    (tmp_path / "file").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="a symbolic link to a file that is not there"):
        make(tmp_path / "file", NOBODYS)
    assert not (tmp_path / "elsewhere").exists()


@each_way
@needs_root
def test_an_existing_file_keeps_its_owner(tmp_path: Path, make: Make) -> None:
    (tmp_path / "elsewhere").write_bytes(b"content")
    (tmp_path / "file").symlink_to(tmp_path / "elsewhere")
    make(tmp_path / "file", NOBODYS)
    assert (tmp_path / "elsewhere").stat().st_uid == 0


def _name(call: ast.Call) -> tuple[str | None, str]:
    """Return the module or object, and the function, that are called."""
    match call.func:
        case ast.Name(id=name):
            return None, name
        case ast.Attribute(value=ast.Name(id=module), attr=name):
            return module, name
        case ast.Attribute(attr=name):
            return "", name
    return "", ""


def _makes_a_file(call: ast.Call) -> bool:
    module, name = _name(call)
    if name in MAKES_FILES:
        return name not in {"copy", "link"} or module in MODULES - {None}
    if name != "open":
        return False
    # Only reading is known to make no file.
    texts = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
    texts += [each.value.value for each in call.keywords if isinstance(each.value, ast.Constant)]
    return module == "os" or any(
        isinstance(text, str) and set(text) & set("wax+") for text in texts
    )


def _calls(folder: str) -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _makes_a_file(node):
                yield str(path.relative_to(ROOT)), _name(node)[1]


def test_no_other_module_creates_files() -> None:
    calls = {call for folder in ("api", "projections", "domain") for call in _calls(folder)}
    elsewhere = {
        (path, name)
        for path, name in calls
        if (path, name) not in ALLOWED and (path, None) not in ALLOWED
    }
    assert elsewhere == set()
    assert ("projections/store/private_files.py", "open") in calls
