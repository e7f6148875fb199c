"""A file with secrets that others can open is repaired, or refused and named."""

import os
import stat
from pathlib import Path
from secrets import token_bytes

import pytest

from projections.audit_log.signing_key_file import read_or_make_signing_key
from projections.auth.pepper_file import read_or_make_pepper
from projections.store.file_modes import OpenToOthers, keep_private, log_repair
from tests.accounts import NOBODY, needs_root

LOOSE = [0o604, 0o640, 0o602, 0o620, 0o666, 0o777]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", LOOSE)
@pytest.mark.parametrize("use", [read_or_make_pepper, read_or_make_signing_key])
def test_a_secret_that_others_can_open_is_closed_to_them_and_named(
    tmp_path: Path, mode: int, use: type
) -> None:
    path = tmp_path / "secret"
    made = use(path, token_bytes)
    path.chmod(mode)
    said: list[str] = []

    assert use(path, token_bytes, on_repair=said.append) == made

    assert mode_of(path) == mode & 0o700
    (line,) = said
    assert f"other accounts could open {path} (mode {mode:04o}); its mode is now" in line
    use(path, token_bytes, on_repair=said.append)
    assert len(said) == 1


@needs_root
@pytest.mark.parametrize("mode", LOOSE)
def test_root_changes_no_file_of_an_account_that_does_not_own_the_folder(
    tmp_path: Path, mode: int
) -> None:
    """A service could have root change the mode of any file, by a symbolic link."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(mode)
    (folder / "secret").symlink_to(tmp_path / "file")
    os.chown(folder, NOBODY.pw_uid, NOBODY.pw_gid)

    with pytest.raises(OpenToOthers, match=f"run chmod 600 {folder}/secret"):
        keep_private(folder / "secret", log_repair)

    assert mode_of(tmp_path / "file") == mode


@needs_root
def test_root_repairs_a_file_of_the_folders_owner(tmp_path: Path) -> None:
    (tmp_path / "secret").touch(0o644)
    for path in (tmp_path, tmp_path / "secret"):
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
    keep_private(tmp_path / "secret")
    assert mode_of(tmp_path / "secret") == 0o600


@needs_root
def test_a_secret_of_root_may_be_readable_by_the_group_of_a_service(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.touch()
    os.chown(path, 0, NOBODY.pw_gid)
    path.chmod(0o440)
    keep_private(path)
    assert mode_of(path) == 0o440
