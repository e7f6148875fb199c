"""The commands of docs/operations.md as written, and machines to run them on.

The page uses machines db-1, db-2 and db-3 that listen on PostgreSQL's port. Here they are loopback
addresses with one free port, and their data folders are temporary. Nothing else in a command is
changed.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from sqlalchemy import URL

from tests.postgresql import connected, free_port, initdb, plain_user
from tests.system.postgresql_pair import Member

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operations.md"
PASSWORD = "of-servers-that-end-with-their-test"

_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_MARK = {"sh": "# ", "conf": "# ", "sql": "-- ", "ini": "; "}
_DATABASE_URL = re.compile(r"KEYLEDGER_DATABASE_URL='([^']+)'")


class Page:
    """The blocks of the page by their first line, which says where they are run and what for."""

    def __init__(self, replaced: dict[str, str]) -> None:
        """Read the page.

        Args:
            replaced: what to put in the place of the page's names of machines, ports and files, as
                regular expressions.
        """
        self._replaced = replaced
        self._blocks: dict[str, str] = {}
        for _, language, text in _BLOCK.findall(PAGE.read_text()):
            first, rest = text.strip().split("\n", 1)
            title = first.removeprefix(_MARK[language])
            assert title != first, f"the block does not say first where it is run: {first}"
            assert title not in self._blocks, f"two blocks begin with: {title}"
            self._blocks[title] = f"{rest}\n"
        self.unused = set(self._blocks)

    def text(self, title: str) -> str:
        """Return a block as it is to be run here."""
        self.unused.discard(title)
        text = self._blocks[title]
        for pattern, by in self._replaced.items():
            text = re.sub(pattern, by, text)
        return text

    def database_url(self, title: str) -> str:
        """Return the URL that a block sets."""
        found = _DATABASE_URL.search(self.text(title))
        assert found, title
        return found[1]


class Machine(Member):
    """A machine of the page, with PostgreSQL on an address of its own."""

    def __init__(self, folder: Path, programs: Path, number: int, port: int) -> None:
        """Give it the number of its name, and the port that all machines listen on."""
        self.address = f"127.0.0.{number}"
        options = {
            # What the page asks for would be in the way of the other machines here.
            "listen_addresses": self.address,
            "fsync": "on",
            "full_page_writes": "on",
            "ssl": "on",
        }
        super().__init__(folder, programs, **options)
        self.name = f"db_{number}"
        self.number = number
        self._port = port
        self._password = PASSWORD
        self.data = folder / "data"

    def url(self, database: str) -> URL:
        return super().url(database).set(host=self.address, username="postgres")

    def initialise(self) -> None:
        """Make its files as Debian does: with TLS, and nobody let in but its superuser."""
        password = self._folder / "password"
        password.write_text(PASSWORD)
        self._run(
            *("initdb", "--pgdata", "data", "--username", "postgres", "--pwfile", str(password)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
            # Little has to be written until the first one is removed.
            *("--wal-segsize", "1"),
        )
        hba = "hostssl all postgres 127.0.0.0/8 scram-sha-256\n"
        (self.data / "pg_hba.conf").write_text(hba)

    def run(self, language: str, text: str) -> str:
        """Run a block as its superuser, and return what it prints."""
        file = self._folder / f"block.{language}"
        file.write_text(text)
        psql = ["psql", "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "-At", "-f"]
        command = ["bash", "-e"] if language == "sh" else psql
        environment = os.environ | {
            "PATH": f"{self._programs}:{os.environ['PATH']}",
            "PGHOST": self.address,
            "PGUSER": "postgres",
            "PGDATABASE": "postgres",
            "PGPASSFILE": str(self._folder / "passwords"),
            "HOME": str(self._folder),
        }
        write_passwords(self._folder / "passwords")
        docs = self._folder / "docs"
        docs.mkdir(exist_ok=True)
        shutil.copy(ROOT / "docs" / "postgresql-roles.sql", docs)
        for path in (self._folder / "passwords", docs):
            give(path)
        return ran_to_its_end(
            [*command, str(file)],
            cwd=self._folder,
            env=environment,
            user=self._user,
        )

    def empty(self) -> None:
        """Remove all that PostgreSQL has."""
        shutil.rmtree(self.data, ignore_errors=True)

    def standbys(self) -> dict[str, tuple[str, str]]:
        """Return for each standby that follows it how it does."""
        with connected(self.url("postgres")) as connection:
            rows = connection.execute(
                b"SELECT application_name, state, sync_state FROM pg_stat_replication"
            ).fetchall()
        return {str(name): (str(state), str(sync)) for name, state, sync in rows}

    def write_much(self) -> None:
        """Write so much WAL that what was written before is removed, if nothing keeps it."""
        with connected(self.url("postgres")) as connection:
            for _ in range(8):
                for _ in range(8):
                    connection.execute(b"SELECT pg_logical_emit_message(false, '', 'x')")
                    connection.execute(b"SELECT pg_switch_wal()")
                connection.execute(b"CHECKPOINT")


@contextmanager
def machines() -> Iterator[list[Machine]]:
    """Give three machines without any files; the environment has what their clients need."""
    programs, port = Path(initdb() or "").parent, free_port()
    with ExitStack() as ending:
        made = []
        for number in (1, 2, 3):
            folder = Path(tempfile.mkdtemp(prefix="keyledger-postgresql-"))
            machine = Machine(folder, programs, number, port)
            ending.callback(machine.end)
            made.append(machine)
        yield made


def write_passwords(file: Path) -> None:
    """Write a file of passwords for libpq."""
    file.touch(0o600)
    file.write_text(f"*:*:*:*:{PASSWORD}\n")


def write_certificate(folder: Path) -> None:
    """Write a certificate for the addresses of all machines, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "databases")])
    addresses = [x509.IPAddress(ip_address(f"127.0.0.{number}")) for number in (1, 2, 3)]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "server.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "server.crt").chmod(0o644)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.key").touch(0o600)
    (folder / "server.key").write_bytes(private)
    give(folder / "server.key")


def give(path: Path) -> None:
    """Let the user that PostgreSQL runs as have a file."""
    user = plain_user()
    if user is not None:
        shutil.chown(path, user)


def ran_to_its_end(
    command: list[str], *, cwd: Path, env: dict[str, str], user: str | None = None
) -> str:
    """Run a command without a terminal, with passwords to be asked for; return what it prints."""
    ended = subprocess.run(
        command,
        input=f"{PASSWORD}\n" * 4,
        text=True,
        capture_output=True,
        cwd=cwd,
        env=env,
        user=user,
        start_new_session=True,
        check=False,
    )
    assert ended.returncode == 0, (command, ended.returncode, ended.stdout, ended.stderr)
    return ended.stdout


def run_by_the_service(text: str, data_dir: Path, **environment: str) -> str:
    """Run a block on a machine of servers, and return what it prints."""
    inherited = {name: value for name, value in os.environ.items() if "KEYLEDGER" not in name}
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return ran_to_its_end(
        ["bash", "-e", "-c", text],
        cwd=data_dir.parent,
        env=inherited | {"PATH": programs, "KEYLEDGER_DATA_DIR": str(data_dir)} | environment,
    )
