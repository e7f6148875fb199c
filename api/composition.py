"""The composition root: builds everything from the settings, and nothing before that."""

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from api.settings import Settings
from domain.credential import Credential, issue
from domain.errors import HistoryInDoubt
from domain.key_ledger import KeyLedger
from domain.tokens import RandomSource, Token
from domain.verifiers import (
    OWASP_MINIMUM,
    Argon2Gate,
    Argon2Profile,
    OnChange,
    ignore_change,
)
from projections.authentication import Authentication
from projections.database import Database, open_database
from projections.last_used import LastUses
from projections.pepper_file import read_or_make_pepper
from projections.rebuild import Clock, Progress, build_outdated_views, ignore_progress
from projections.recorder import LedgerRecorder, OnAppend, ignore_append
from projections.schema import upgrade_schema
from projections.signer import Signer
from projections.signing_key_file import read_or_make_signing_key
from projections.views import VIEWS


@dataclass(frozen=True, slots=True)
class OpenLedger:
    """A ledger with all its parts, ready to be used."""

    settings: Settings
    database: Database
    ledger: KeyLedger
    authentication: Authentication
    last_uses: LastUses
    signer: Signer
    clock: Clock


def utc_now() -> datetime:
    """Return the machine's time."""
    return datetime.now(UTC)


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
) -> Iterator[OpenLedger]:
    """Open the ledger that the settings name, making or upgrading its database where needed.

    Args:
        downgrade: whether to replace the tables of views that a newer version has made.

    Raises:
        LedgerError: it cannot be opened; the message says why and what to do.
    """
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    pepper = read_or_make_pepper(settings.pepper_path, random)
    database = open_database(settings.url, settings.connection_limits)
    with ExitStack() as closing:
        closing.callback(database.close)
        upgrade_schema(database)
        build_outdated_views(database, VIEWS, clock=clock, progress=progress, downgrade=downgrade)
        signing_key = read_or_make_signing_key(settings.signing_key_path, random)
        signer = Signer(database, signing_key, settings.checkpoint_path, clock)
        with suppress(HistoryInDoubt):
            # Whoever changes something is told; reading and verifying go on.
            signer.look()
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
