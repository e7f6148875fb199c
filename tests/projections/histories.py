"""Random lives of keys, through every command there is."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from secrets import token_bytes

from hypothesis import strategies as st

from api.composition import OpenLedger
from domain.credential import Credential, issue
from domain.errors import AlreadyRotated, ConcurrentChange, Invalid, KeyExpired, KeyRevoked
from domain.key_ledger import Changes, KeyLedger
from domain.pepper import Pepper
from domain.tokens import Token
from domain.verifiers import CHEAPEST, Argon2Gate
from projections.recorder import LedgerRecorder
from projections.views.registry import VIEWS
from tests.conftest import SettableClock
from tests.projections.ledgers import ADA, Keys, Made

VERBS = (
    "create",
    "revoke",
    "rotate",
    "rename",
    "narrow",
    "end",
    "update",
    "expire",
    "wait",
    "race",
    "turn back",
)

SCOPES = (["*"], ["mcp:read"], ["mcp:read", "logs:*"], ["a:b", "a:c", "a:d"])
NAMES = ("payments", "Ünïcödé", 'it\'s "quoted" 100%')


@dataclass(frozen=True)
class Step:
    """One command; the numbers choose among what there is when it is given."""

    verb: str
    which: int = 0
    value: int = 0


steps = st.lists(
    st.builds(Step, st.sampled_from(VERBS), st.integers(0, 20), st.integers(0, 20)),
    min_size=1,
    max_size=40,
)


@dataclass
class History:
    """What was done to a ledger so far."""

    keys: Keys
    clock: SettableClock
    made: list[tuple[Made, str]]
    """The keys, the oldest first, and their workspaces."""

    def play(self, commands: list[Step]) -> None:
        for step in commands:
            # A command that is refused is a part of life, and must leave nothing behind.
            with suppress(KeyRevoked, KeyExpired, AlreadyRotated, ConcurrentChange, Invalid):
                self.take(step)

    def take(self, step: Step) -> None:
        hours = step.value
        if step.verb == "wait":
            self.clock.advance(hours=hours)
        elif step.verb == "turn back":
            self.clock.advance(hours=-hours)
        elif step.verb == "expire":
            self.keys.expire_due()
        elif step.verb == "create" or not self.made:
            workspace = ("default", "other")[step.which % 2]
            made = self.keys.create(
                NAMES[step.value % 3],
                scopes=tuple(SCOPES[step.value % 4]),
                workspace=workspace,
                lives=timedelta(hours=hours) if hours else None,
            )
            self.made.append((made, workspace))
        else:
            made, workspace = self.made[step.which % len(self.made)]
            self.change(step, made.key_id, workspace)

    def change(self, step: Step, key_id: str, workspace: str) -> None:
        grace = timedelta(hours=step.value % 3)
        if step.verb == "revoke":
            reason = (None, "leaked", "")[step.value % 3]
            self.keys.revoke(key_id, workspace=workspace, reason=reason)
        elif step.verb == "rotate":
            successor = self.keys.rotate(key_id, workspace=workspace, grace=grace)
            self.made.append((successor, workspace))
        elif step.verb == "race":
            self.race(step, key_id, workspace)
        else:
            self.keys.update(key_id, self.changes(step), workspace=workspace)

    def changes(self, step: Step) -> Changes:
        name = NAMES[step.value % 3] if step.verb in ("rename", "update") else None
        scopes = SCOPES[step.value % 4] if step.verb in ("narrow", "update") else None
        if step.verb in {"rename", "narrow"}:
            return Changes(name=name, scopes=scopes)
        return Changes(
            name=name,
            scopes=scopes,
            expires_at=self.clock.now + timedelta(hours=step.value) if step.value else None,
            never_expires=not step.value,
        )

    def race(self, step: Step, key_id: str, workspace: str) -> None:
        """Rotate a key that somebody else changes between the reading and the append."""
        verb = VERBS[1 + step.value % 6]
        quicker = Step(verb, self.index_of(key_id), step.value)
        slower = ledger_that_is_slow(self.keys.opened, lambda: self.play([quicker]))
        issued = slower.rotate_key(
            key_id, workspace=workspace, grace=timedelta(0), by=ADA, at=self.clock.now
        )
        assert issued.token is not None
        self.made.append((Made(issued.key_id, issued.token.reveal()), workspace))

    def index_of(self, key_id: str) -> int:
        return [made.key_id for made, _ in self.made].index(key_id)


def ledger_that_is_slow(opened: OpenLedger, meanwhile: Callable[[], None]) -> KeyLedger:
    """Return a ledger on the same database, during whose hashing something else happens."""
    pepper = Pepper(opened.settings.pepper_path.read_bytes())
    gate = Argon2Gate(at_once=1, waiting=0, profile=CHEAPEST)

    def issue_slowly(prefix: str) -> tuple[Token, Credential]:
        meanwhile()
        return issue(prefix, random=token_bytes, gate=gate, pepper=pepper)

    return KeyLedger(LedgerRecorder(opened.database, VIEWS), issue_slowly)
