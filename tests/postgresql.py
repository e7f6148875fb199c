"""A PostgreSQL server of the tests' own, which ends with them, however they end.

It listens on loopback with a password, as servers do that people run: what is tested is then the
way in that is used, and nobody else on this machine is let into a superuser's database by it.
"""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psycopg
from sqlalchemy import URL

USER = "keyledger"
PATIENCE = 60.0
"""Seconds after which a server that is not there yet will not come any more."""

_PLAIN_USERS = ("postgres", "nobody")
"""Who runs the server where the tests are run by root, whom PostgreSQL refuses."""

_UNTIL_LEFT_ALONE = """
"$@" >> log 2>&1 &
read -r _
last_word=$?
kill -QUIT $!
wait $!
[ $last_word -eq 0 ] || rm -rf "$PWD"
"""
"""Runs the server until a line is read, or until whoever could write one is gone; its files then go
with it. SIGQUIT ends a server as a crash would, and at once."""

_OPTIONS = {
    # What a power failure loses is no matter to the tests, and a kill loses nothing without it.
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_wal_size": "512MB",
    # Many processes of a test, each with all the connections that it may have.
    "max_connections": "200",
    "listen_addresses": "127.0.0.1",
}


@cache
def initdb() -> str | None:
    """Return the program beside which all of a server's are: 15 or newer, for ICU's collations.

    Debian keeps it off the ``PATH``.
    """
    debians = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3])
    )
    config = shutil.which("pg_config")
    folders = [str(path.parent) for path in reversed(debians)]
    if config is not None:
        folders.append(subprocess.check_output([config, "--bindir"], text=True).strip())
    found = shutil.which("initdb") or shutil.which("initdb", path=os.pathsep.join(folders))
    return found and os.path.realpath(found)


class Server:
    """A server with its files in a folder, which can crash and be started again."""

    def __init__(self, folder: Path, programs: Path, **options: str) -> None:
        self._folder = folder
        self._options = {**_OPTIONS, **options}
        self._programs = programs
        self._password = secrets.token_hex(16)
        self._port = free_port()
        self._user = plain_user()
        self._group = None if self._user is None else pwd.getpwnam(self._user).pw_gid
        self._no_groups: list[str | int] | None = None if self._user is None else []
        self._give(folder)
        self._running: subprocess.Popen[bytes] | None = None

    def url(self, database: str) -> URL:
        return URL.create(
            "postgresql+psycopg",
            username=USER,
            password=self._password,
            host="127.0.0.1",
            port=self._port,
            database=database,
        )

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def initialise(self) -> None:
        """Make its files. Texts sort as people in America expect, which no answer may depend on.

        Passwords are kept as MD5 where no option says otherwise: SCRAM, which people use, hashes
        thousands of times at each of a test's connections, a quarter of all that tests here do.
        """
        password = self._folder / "password"
        password.touch(0o600)
        password.write_text(self._password)
        self._give(password)
        subprocess.run(
            [
                self._programs / "initdb",
                *("--pgdata", "data", "--username", USER, "--pwfile", "password"),
                *("--auth", "md5", "--encoding", "UTF8", "--locale", "C"),
                *("--locale-provider", "icu", "--icu-locale", "en-US"),
                "--no-sync",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self._folder,
            user=self._user,
            group=self._group,
            extra_groups=self._no_groups,
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        given = self._options | {"port": str(self._port), "unix_socket_directories": ""}
        options = [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
        self._running = subprocess.Popen(
            [
                *("/bin/sh", "-c", _UNTIL_LEFT_ALONE, "sh"),
                *(str(self._programs / "postgres"), "-D", "data", *options),
            ],
            stdin=subprocess.PIPE,
            # Ctrl-C at the terminal is for the tests, which then stop it.
            start_new_session=True,
            cwd=self._folder,
            user=self._user,
            group=self._group,
            extra_groups=self._no_groups,
        )
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert time.monotonic() < deadline, f"PostgreSQL does not answer:\n{self.log}"
            time.sleep(0.02)

    def crash(self) -> None:
        """End it without a word to whoever is connected; what was committed is still there."""
        assert self._running is not None
        self._running.communicate(b"\n", timeout=PATIENCE)

    def end(self) -> None:
        """End it, and remove its files."""
        if self._running is not None and self._running.poll() is None:
            self._running.communicate(timeout=PATIENCE)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _give(self, path: Path) -> None:
        if self._user is not None:
            shutil.chown(path, self._user, self._group)

    def _answers(self) -> bool:
        try:
            with administration(self.url("postgres")):
                return True
        except psycopg.OperationalError:
            return False


@contextmanager
def running_server(**options: str) -> Iterator[Server]:
    """Run a new server, with options in the place of the tests' own.

    Each of several processes that run tests has its own: to make one takes less than a second, and
    nothing has to be agreed upon.
    """
    found = initdb()
    assert found is not None, "the programs of PostgreSQL are not on this machine"
    # Not under pytest's folders, which only their owner can enter.
    folder = Path(tempfile.mkdtemp(prefix="keyledger-postgresql-"))
    server = Server(folder, Path(found).parent, **options)
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        server.end()


@contextmanager
def connected(url: URL) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Connect to a database past all that the program does; each statement is a transaction."""
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        yield connection


@contextmanager
def administration(url: URL) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Connect to the server of a database, in order to make and to drop databases."""
    with connected(url.set(database="postgres")) as connection:
        yield connection


def create_database(url: URL) -> None:
    """Create an empty database, in place of one of this name."""
    copy_database(url, "template1")


def copy_database(url: URL, original: str) -> None:
    """Create a database from another that nobody has open, in place of one of this name."""
    with administration(url) as server:
        _drop(server, url)
        # Files copied take half the time of pages written to the log.
        server.execute(
            f'CREATE DATABASE "{url.database}" TEMPLATE "{original}" STRATEGY FILE_COPY'.encode()
        )


def drop_database(url: URL) -> None:
    """Drop a database if it is there, whoever is connected."""
    with administration(url) as server:
        _drop(server, url)


def database_names(url: URL) -> set[str]:
    """Return the names of all databases of a server that are the tests'."""
    with administration(url) as server:
        rows = server.execute("SELECT datname FROM pg_database WHERE datname LIKE 'ledger%'")
        return {str(name) for (name,) in rows}


def _drop(server: psycopg.Connection[tuple[object, ...]], url: URL) -> None:
    server.execute(f'DROP DATABASE IF EXISTS "{url.database}" WITH (FORCE)'.encode())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def plain_user() -> str | None:
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(user for user in _PLAIN_USERS if user in known)
