"""The composition root: builds everything from the settings, and nothing at import."""

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from api.settings import Settings
from domain.credential import Credential, issue
from domain.errors import HistoryInDoubt, LedgerUnavailable
from domain.key_ledger import KeyLedger
from domain.tokens import RandomSource, Token
from domain.verifiers import (
    OWASP_MINIMUM,
    Argon2Gate,
    Argon2Profile,
    OnChange,
    ignore_change,
)
from projections.audit_log.checkpoint_file import notes_in
from projections.audit_log.signer import Signer
from projections.audit_log.signing_key_file import read_or_make_signing_key
from projections.auth.authentication import Authentication
from projections.auth.pepper_file import read_or_make_pepper
from projections.integrity.findings import Finding
from projections.integrity.schema_check import (
    is_repaired_by_rebuild,
    refuse_schema,
    schema_findings,
)
from projections.rebuild.rebuild import Clock, Progress, build_outdated_views, ignore_progress
from projections.recorder import LedgerRecorder, OnAppend, ignore_append
from projections.sealing.ledger_secret import COMMAND, accept_secret, check_pepper_exists
from projections.store.database import Database, check_owner, open_database
from projections.store.file_modes import OnRepair, keep_database_private, log_repair
from projections.store.last_uses import LastUses
from projections.store.private_files import FileOwner, make_private_folder, owner_of
from projections.store.schema import has_ledger, upgrade_schema
from projections.store.seals import NoSeals, Seals
from projections.views.registry import VIEWS


@dataclass(frozen=True, slots=True)
class OpenLedger:
    """An open ledger with all its parts."""

    settings: Settings
    database: Database
    ledger: KeyLedger
    authentication: Authentication
    last_uses: LastUses
    signer: Signer
    clock: Clock


@dataclass(frozen=True, slots=True)
class LedgerToSeal:
    """A ledger that cannot be opened until it is sealed with the secret of this machine.

    Args:
        database: requires no seals and writes none.
        seals: the seals that the ledger will get.
        signer: finds the last signed checkpoint outside the database.
        clock: returns the current time.
    """

    database: Database
    seals: Seals
    signer: Signer
    clock: Clock

    def notes(self) -> Iterator[str]:
        """Yield the signed checkpoints outside the database.

        Raises:
            LedgerUnavailable: they cannot be read.
        """
        try:
            yield from notes_in(self.signer.path)
        except (OSError, ValueError) as error:
            message = f"cannot read the checkpoints in {self.signer.path}: {error}"
            raise LedgerUnavailable(message) from error

    def covered(self, events: int) -> int:
        """Return how many of the events the last signed checkpoint covers; 0 if there is none."""
        with suppress(HistoryInDoubt):
            return min(events, self.signer.check_log().last.size)
        return 0

    def finish(self, progress: Progress) -> None:
        """Rebuild the rows that were written without seals, once the ledger is sealed."""
        database = self.database.sealed_by(self.seals)
        build_outdated_views(database, VIEWS, clock=self.clock, progress=progress)


def utc_now() -> datetime:
    """Return the current time of this machine."""
    return datetime.now(UTC)


def owner_of_files(settings: Settings) -> FileOwner | None:
    """Return the owner of a ledger's files: that of its database file, or else of its data folder.

    The owner of the database file is the account of the server. If the database is on a server or
    does not exist yet, the owner of the data folder is used.
    """
    path = settings.database_path
    return (None if path is None else owner_of(path)) or owner_of(settings.data_dir)


OnSchema = Callable[[Sequence[Finding]], None]


@contextmanager
def opened_ledger(
    settings: Settings,
    *,
    clock: Clock = utc_now,
    random: RandomSource = secrets.token_bytes,
    argon2_profile: Argon2Profile = OWASP_MINIMUM,
    on_append: OnAppend = ignore_append,
    on_argon2: OnChange = ignore_change,
    progress: Progress = ignore_progress,
    downgrade: bool = False,
    on_schema: OnSchema = refuse_schema,
    on_repair: OnRepair = log_repair,
) -> Iterator[OpenLedger]:
    """Open the ledger of the settings; create or migrate its database if necessary.

    Args:
        downgrade: whether to replace views' tables that a newer version of the program created.
        on_schema: called with the findings about the database's schema; raises, or accepts them.
        on_repair: called if other accounts could open a file and its mode was repaired.

    Raises:
        LedgerError: the ledger cannot be opened; the message says why and what to do.
    """
    make_private_folder(settings.data_dir)
    owner = owner_of_files(settings)
    keep_database_private(settings.database_path, on_repair)
    opened = open_database(settings.url, settings.connection_limits, owner)
    with ExitStack() as closing:
        closing.callback(opened.close)
        check_pepper_exists(opened, settings.pepper_path)
        pepper = read_or_make_pepper(settings.pepper_path, random, owner=owner, on_repair=on_repair)
        database = opened.sealed_by(Seals(pepper))
        upgrade_schema(database)
        findings = schema_findings(database)
        # The table of another version of a view differs until the view is rebuilt below.
        on_schema([finding for finding in findings if not is_repaired_by_rebuild(finding)])
        signing_key = read_or_make_signing_key(
            settings.signing_key_path, random, owner=opened.owner, on_repair=on_repair
        )
        signer = Signer(database, signing_key, settings.checkpoint_path, clock)
        accept_secret(database, VIEWS, signer, progress=progress)
        built = build_outdated_views(
            database, VIEWS, clock=clock, progress=progress, downgrade=downgrade
        )
        if built or findings:
            on_schema(schema_findings(database))
        with suppress(HistoryInDoubt):
            # Changes are refused with this error later; reading and verification still work.
            signer.check_log()
        cores = os.cpu_count() or 1
        gate = Argon2Gate(
            at_once=max(1, cores // settings.workers),
            waiting=settings.argon2_waiting,
            profile=argon2_profile,
            on_change=on_argon2,
        )

        def issue_credential(prefix: str) -> tuple[Token, Credential]:
            return issue(prefix, random=random, gate=gate, pepper=pepper)

        last_uses = LastUses()
        authentication = Authentication(
            database,
            gate,
            pepper,
            on_use=last_uses.touch,
            staleness_seconds=settings.verify_staleness_seconds,
        )
        closing.callback(authentication.close)
        yield OpenLedger(
            settings=settings,
            database=database,
            ledger=KeyLedger(
                LedgerRecorder(
                    database, VIEWS, check_append=signer.check_append, on_append=on_append
                ),
                issue_credential,
            ),
            authentication=authentication,
            last_uses=last_uses,
            signer=signer,
            clock=clock,
        )


@contextmanager
def opened_to_seal(
    settings: Settings,
    *,
    clock: Clock = utc_now,
    random: RandomSource = secrets.token_bytes,
    progress: Progress = ignore_progress,
    on_repair: OnRepair = log_repair,
) -> Iterator[LedgerToSeal]:
    """Open a ledger that may be sealed with any secret, to check it and to seal it.

    Args:
        on_repair: called if other accounts could open a file and its mode was repaired.

    Raises:
        LedgerError: the ledger does not exist or cannot be opened.
    """
    owner = owner_of_files(settings)
    pepper = read_or_make_pepper(settings.pepper_path, random, owner=owner, on_repair=on_repair)
    keep_database_private(settings.database_path, on_repair)
    opened = open_database(settings.url, settings.connection_limits, owner)
    with ExitStack() as closing:
        closing.callback(opened.close)
        if not has_ledger(opened):
            message = f"there is no ledger in {opened.name}"
            raise LedgerUnavailable(message)
        with opened.read() as connection:
            check_owner(connection, COMMAND)
        upgrade_schema(opened)
        database = opened.sealed_by(NoSeals(pepper))
        build_outdated_views(database, VIEWS, clock=clock, progress=progress)
        signing_key = read_or_make_signing_key(
            settings.signing_key_path, random, owner=opened.owner, on_repair=on_repair
        )
        signer = Signer(database, signing_key, settings.checkpoint_path, clock)
        yield LedgerToSeal(database, Seals(pepper), signer, clock)
