"""A PostgreSQL primary and its synchronous standby: two real servers that tests kill."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL

from tests.postgresql import Server, administration, initdb
from tests.system.processes import eventually


class Member(Server):
    """A server that can be killed, follow another one, and be promoted."""

    def kill(self) -> None:
        """End it and all its processes as a power cut would, without a word to anybody."""
        postmaster = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for pid in (postmaster, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.crash()

    def follow(self, primary: "Member") -> None:
        """Become a copy of another server that takes over whatever is committed there."""
        self._password = primary._password  # noqa: SLF001 - of the same class
        url = primary.url("postgres").set(drivername="postgresql")
        source = url.render_as_string(hide_password=False)
        copy = ["--pgdata", "data", "--write-recovery-conf", "--checkpoint", "fast", "--no-sync"]
        self._run("pg_basebackup", "--dbname", source, *copy)

    def promote(self) -> None:
        """Let it take changes from now on."""
        self._run("pg_ctl", "promote", "--pgdata", "data")

    def demand_a_standby(self) -> None:
        """Acknowledge from now on only what a standby has too."""
        with administration(self.url("postgres")) as connection:
            connection.execute(b"ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute(b"SELECT pg_reload_conf()")

    def has_a_standby(self) -> bool:
        with administration(self.url("postgres")) as connection:
            rows = connection.execute(b"SELECT sync_state FROM pg_stat_replication").fetchall()
        return rows == [("sync",)]

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self._folder,
            user=self._user,
            group=self._group,
            extra_groups=self._no_groups,
        )


class Pair:
    """A primary and its standby."""

    def __init__(self, primary: Member, standby: Member) -> None:
        self.primary = primary
        self.standby = standby

    def url(self, database: str) -> str:
        """Return the URL by which whichever takes changes is found."""
        members = [self.primary.url(database), self.standby.url(database)]
        url: URL = (
            members[0]
            .set(host="", port=None)
            .update_query_dict(
                {
                    "host": [f"{each.host}:{each.port}" for each in members],
                    "target_session_attrs": "read-write",
                }
            )
        )
        return url.render_as_string(hide_password=False)


@contextmanager
def running_pair() -> Iterator[Pair]:
    """Run a primary that acknowledges only what its standby has too."""
    programs = Path(initdb() or "").parent
    with ExitStack() as ending:
        members = []
        for _ in range(2):
            folder = Path(tempfile.mkdtemp(prefix="keyledger-postgresql-"))
            members.append(Member(folder, programs))
            ending.callback(members[-1].end)
        primary, standby = members
        primary.initialise()
        primary.start()
        standby.follow(primary)
        standby.start()
        primary.demand_a_standby()
        eventually(primary.has_a_standby, "the standby follows the primary")
        yield Pair(primary, standby)
