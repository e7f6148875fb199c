"""Checks of the owner and the mode of every file of a ledger."""

import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from api.command_line.checks import Check, Result
from api.command_line.file_checks import check_private_file
from api.composition import owner_of_files
from api.settings import Settings
from projections.store.file_modes import is_for_a_service, open_to_others
from projections.store.private_files import FileOwner, owner_of

_NAME = "files"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_USE = 0o3


def check_files(settings: Settings) -> Iterator[Check]:
    """Check that the ledger's owner can use all files, and that nobody else can.

    The owner is that of the database; the server has to run as this account. Files of another owner
    can come from an earlier version, or from a backup that root restored.
    """
    owner = owner_of_files(settings)
    if owner is None:
        # The check of the data folder says why.
        return
    found = list(_check_folder(settings.data_dir, owner))
    files = _files(settings)
    accepted = {owner.uid}
    folder = owner_of(settings.data_dir)
    if folder is not None and owner.uid == 0 != folder.uid:
        # Nobody but the operator knows as which of the two the server runs.
        accepted.add(folder.uid)
        found += _check_database_of_root(settings.database_path, folder)
    for path, state in files.items():
        if state.st_uid not in accepted:
            found += _check_owner(path, state, owner, settings)
        found += _check_mode(path, state, settings)
    if settings.tls_key is not None:
        with suppress(OSError):
            found.append(check_private_file("TLS key", settings.tls_key, "for TLS"))
    yield from found
    if all(check.result == "ok" for check in found):
        yield Check(_NAME, "ok", f"{len(files)} files of {_named(owner)}, closed to other accounts")


def _files(settings: Settings) -> dict[Path, os.stat_result]:
    """Return the files of the data folder, and the ledger's files outside it."""
    paths: list[Path] = []
    with suppress(OSError):
        paths += sorted(settings.data_dir.iterdir())
    paths += [settings.signing_key_path, settings.checkpoint_path]
    database = settings.database_path
    if database is not None:
        with suppress(OSError):
            paths += sorted(
                path for path in database.parent.iterdir() if path.name.startswith(database.name)
            )
    found = {}
    for path in paths:
        with suppress(OSError):
            found[path.absolute()] = path.stat()
    return {path: state for path, state in found.items() if stat.S_ISREG(state.st_mode)}


def _check_folder(folder: Path, owner: FileOwner) -> Iterator[Check]:
    try:
        found = folder.stat()
    except OSError:
        return
    usable = found.st_mode & _USE == _USE
    if found.st_gid == owner.gid:
        usable = usable or (found.st_mode >> 3) & _USE == _USE
    if found.st_uid != owner.uid and not usable:
        said = f"{folder} belongs to {_named(FileOwner(found.st_uid, found.st_gid))};"
        yield Check(
            "data folder",
            "fail",
            f"{said} {_named(owner)}, the owner of the database, cannot create files in it",
            _chown(folder, owner),
        )


def _check_database_of_root(path: Path | None, folder: FileOwner) -> Iterator[Check]:
    """Check a database that root may have restored in the folder of a service."""
    if path is not None:
        yield Check(
            _NAME,
            "warn",
            f"{path} belongs to root, but its folder to {_named(folder)}: a server that runs as"
            f" {_named(folder)} cannot open it",
            _chown(path, folder),
        )


def _check_owner(
    path: Path, found: os.stat_result, owner: FileOwner, settings: Settings
) -> Iterator[Check]:
    secrets = [settings.pepper_path.absolute(), settings.signing_key_path.absolute()]
    if path in secrets and is_for_a_service(found):
        return
    yield Check(
        _NAME,
        _severity(path, settings),
        f"{path} belongs to {_named(FileOwner(found.st_uid, found.st_gid))}, but the ledger to"
        f" {_named(owner)}: a server that runs as {_named(owner)} may not be able to open it",
        _chown(path, owner),
    )


def _check_mode(path: Path, found: os.stat_result, settings: Settings) -> Iterator[Check]:
    """Check the mode of a file that has no check of its own."""
    checkpoints = settings.checkpoint_path.absolute()
    elsewhere = [
        settings.pepper_path,
        settings.signing_key_path,
        settings.database_path,
        settings.tls_key,
        # These two are no secrets.
        settings.tls_certificate,
        settings.scope_catalogue,
        checkpoints,
    ]
    if path in [each.absolute() for each in elsewhere if each is not None]:
        return
    if path.parent == checkpoints.parent and path.name.startswith(f"{checkpoints.name}."):
        # Earlier checkpoints; everybody may read them.
        if found.st_mode & _OTHERS_WRITE:
            said = f"{path}, mode {stat.S_IMODE(found.st_mode):04o}: other accounts can write it"
            yield Check(_NAME, "fail", said, f"chmod go-w {shlex.quote(str(path))}")
    elif open_to_others(found):
        said = f"{path}, mode {stat.S_IMODE(found.st_mode):04o}: other accounts can open it"
        remedy = f"chmod 600 {shlex.quote(str(path))}"
        yield Check(_NAME, _severity(path, settings), said, remedy)


def _severity(path: Path, settings: Settings) -> Result:
    """Return how bad it is if the file is not as it should be; the ledger needs its own files."""
    own = [settings.pepper_path, settings.signing_key_path, settings.checkpoint_path]
    if settings.database_path is not None:
        own.append(settings.database_path)
    is_own = any(
        path.parent == each.absolute().parent and path.name.startswith(each.name) for each in own
    )
    return "fail" if is_own else "warn"


def _named(owner: FileOwner) -> str:
    """Return the name of an account, or its number if it has none."""
    try:
        return pwd.getpwuid(owner.uid).pw_name
    except KeyError:
        return f"uid {owner.uid}"


def _chown(path: Path, owner: FileOwner) -> str:
    user = group = ""
    with suppress(KeyError):
        user = pwd.getpwuid(owner.uid).pw_name
    with suppress(KeyError):
        group = grp.getgrgid(owner.gid).gr_name
    return f"chown {user or owner.uid}:{group or owner.gid} {shlex.quote(str(path))}"
