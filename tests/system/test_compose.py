"""What ``compose.yaml`` allows its containers, tested without containers."""

import os
import re
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from secrets import token_hex
from textwrap import dedent

from sqlalchemy import URL

from tests.postgresql import USER, Server, create_database, initdb, running_server
from tests.programs import needs
from tests.system.clients import answered
from tests.system.processes import servers_in

pytestmark = needs(initdb(), "postgresql")

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "compose.yaml").read_text()
DATABASE = "keyledger"
TOKEN = re.compile(r"^key_\w{65}$", re.MULTILINE)


def script_of(service: str) -> str:
    """Return the script of a service's command, as its shell gets it."""
    _, _, lines = COMPOSE.partition(f"\n{service}:")[2].partition("    - |\n")
    # A service's next word stands further left than its script.
    script = takewhile(lambda line: line.startswith("      "), lines.splitlines(keepends=True))
    return dedent("".join(script)).replace("$$", "$")


def url_of(service: str, on: URL) -> URL:
    """Return the URL that a service is given, on another server."""
    found = re.search(rf"^  {service}:\n.*?://(\w+)@\w+/(\w+)$", COMPOSE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return URL.create(
        on.drivername, username=found[1], host=on.host, port=on.port, database=found[2]
    )


class Containers:
    """Runs the scripts of services, with the secrets that each of them has."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.url = server.url(DATABASE)
        self.secrets = folder / "secrets"
        self.secrets.mkdir()
        for name in ("owner", "server"):
            (self.secrets / f"{name}-password").write_text(f"{token_hex(24)}\n")
        (self.secrets / "postgres-password").write_text(f"{self.url.password}\n")
        self._data_dir = folder / "keyledger-data"

    def run(self, service: str, **environment: str) -> str:
        script = script_of(service)
        for inside, outside in (
            ("/run/secrets", str(self.secrets)),
            ("/postgresql-roles.sql", str(ROOT / "docs" / "postgresql-roles.sql")),
        ):
            script = script.replace(inside, outside)
        programs = [str(Path(program).parent) for program in (initdb() or "", sys.executable)]
        ran = subprocess.run(
            ["sh", "-euc", script],  # noqa: S607
            env=os.environ
            | {"PATH": os.pathsep.join([*programs, os.environ["PATH"]])}
            | {"KEYLEDGER_DATA_DIR": str(self._data_dir)}
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            text=True,
        )
        assert ran.returncode == 0, ran.stdout
        return ran.stdout

    def run_roles(self) -> str:
        return self.run(
            "x-roles",
            PGHOST=str(self.url.host),
            PGPORT=str(self.url.port),
            PGUSER=USER,
            PGDATABASE=DATABASE,
        )

    def upgrade(self) -> str:
        url = url_of("upgrade", self.url)
        return self.run("  upgrade", KEYLEDGER_DATABASE_URL=url.render_as_string())


def test_the_owner_makes_the_ledger_and_the_server_may_do_its_work(tmp_path: Path) -> None:
    with (
        running_server(password_encryption="scram-sha-256") as postgresql,
        servers_in(tmp_path) as servers,
    ):
        containers = Containers(postgresql, tmp_path)
        create_database(containers.url)
        containers.run_roles()
        (token,) = TOKEN.findall(containers.upgrade())
        containers.run_roles()
        assert TOKEN.findall(containers.upgrade()) == [], "an upgrade makes no key"

        assert script_of("  server").endswith("exec keyledger serve\n")
        password = (containers.secrets / "server-password").read_text().strip()
        url = url_of("server", containers.url).set(password=password)
        client = servers.start(database_url=url.render_as_string(hide_password=False)).client(token)
        made = answered(client.create("made by the server"), 201)
        answered(client.revoke(made["key_id"]))
        assert client.verify(made["token"]) == "REVOKED"
