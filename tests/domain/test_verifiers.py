"""Verifiers, and the limit on concurrent Argon2id calls."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Literal

import pytest
from argon2 import PasswordHasher

from domain.errors import Overloaded, ProjectionInconsistent
from domain.verifiers import CHEAPEST, OWASP_MINIMUM, Argon2Gate

PATIENCE = 20.0
DAMAGES: dict[str, Callable[[str], str]] = {
    "empty": lambda _: "",
    "no verifier": lambda _: "secret",
    "cut off": lambda verifier: verifier[:30],
    "another function": lambda verifier: verifier.replace("$argon2id$", "$argon3id$"),
    "no memory": lambda verifier: verifier.replace("m=8", "m=x"),
    "no lanes": lambda verifier: verifier.replace("p=1", "p=0"),
    "no base64": lambda verifier: verifier + "!",
    "no ASCII": lambda verifier: verifier[:-1] + "é",
    "no text": lambda verifier: verifier[:-1] + "\ud800",
}


@pytest.fixture
def gate() -> Argon2Gate:
    return Argon2Gate(at_once=1, waiting=0, profile=CHEAPEST)


class TestVerifier:
    def test_the_cost_is_the_one_that_owasp_asks_for_unless_told_otherwise(self) -> None:
        verifier = Argon2Gate(at_once=1, waiting=0).make("secret")

        assert verifier.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
        assert (OWASP_MINIMUM.memory_kib, OWASP_MINIMUM.passes, OWASP_MINIMUM.lanes) == (
            19456,
            2,
            1,
        )

    def test_it_proves_its_own_secret_and_no_other(self, gate: Argon2Gate) -> None:
        verifier = gate.make("secret")

        assert gate.proves(verifier, "secret")
        for other in ("Secret", "secret ", "secre", "", "secret\0"):
            assert not gate.proves(verifier, other)

    def test_it_has_a_salt_of_its_own_and_256_bits(self, gate: Argon2Gate) -> None:
        one, other = gate.make("secret"), gate.make("secret")

        assert one != other
        assert gate.proves(other, "secret")
        *_, salt, digest = one.split("$")
        # 16 and 32 bytes in base64 without padding.
        assert (len(salt), len(digest)) == (22, 43)

    def test_one_made_at_another_cost_still_proves_its_secret(self, gate: Argon2Gate) -> None:
        verifier = Argon2Gate(at_once=1, waiting=0).make("secret")

        assert gate.proves(verifier, "secret")
        assert not gate.proves(verifier, "other")

    def test_a_replaced_verifier_proves_nothing(self, gate: Argon2Gate) -> None:
        assert not gate.proves(gate.make("another secret"), "secret")

    @pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
    def test_a_damaged_verifier_is_not_reported_as_a_wrong_secret(
        self, gate: Argon2Gate, damage: Callable[[str], str]
    ) -> None:
        damaged = damage(gate.make("secret"))

        with pytest.raises(ProjectionInconsistent) as refusal:
            gate.proves(damaged, "secret")

        assert damaged not in str(refusal.value) or not damaged


class HeldHasher(PasswordHasher):
    """The real hasher, which can be paused and counts its concurrent calls."""

    free = threading.Event()
    lock = threading.Lock()
    running = 0
    most = 0

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        with self.at_work():
            return super().hash(password, salt=salt)

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002
        with self.at_work():
            return super().verify(hash, password)

    @classmethod
    @contextmanager
    def at_work(cls) -> Iterator[None]:
        with cls.lock:
            cls.running += 1
            cls.most = max(cls.most, cls.running)
        try:
            assert cls.free.wait(PATIENCE)
            yield
        finally:
            with cls.lock:
                cls.running -= 1


@pytest.fixture
def hasher(monkeypatch: pytest.MonkeyPatch) -> type[HeldHasher]:
    class Held(HeldHasher):
        free = threading.Event()

    monkeypatch.setattr("domain.verifiers.PasswordHasher", Held)
    return Held


class Attendance:
    """Counts the calls inside a gate, from its notifications."""

    def __init__(self) -> None:
        self.inside = 0
        self._lock = threading.Lock()

    def __call__(self, change: int) -> None:
        with self._lock:
            self.inside += change


@pytest.fixture
def attendance() -> Attendance:
    return Attendance()


class TestGate:
    def test_never_more_run_at_once_than_it_was_told(
        self, hasher: type[HeldHasher], attendance: Attendance
    ) -> None:
        gate = Argon2Gate(at_once=2, waiting=6, profile=CHEAPEST, on_change=attendance)
        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(gate.make, "secret") for _ in range(8)]
            until(lambda: attendance.inside == 8 and hasher.running == 2)
            hasher.free.set()
            finish(calls)

        assert hasher.most == 2
        assert (attendance.inside, hasher.running) == (0, 0)

    def test_hashing_and_verifying_share_the_same_places(
        self, hasher: type[HeldHasher], attendance: Attendance
    ) -> None:
        gate = Argon2Gate(at_once=1, waiting=1, profile=CHEAPEST, on_change=attendance)
        hasher.free.set()
        verifier = gate.make("secret")
        hasher.free.clear()
        with ThreadPoolExecutor(2) as pool:
            calls: list[Future[Any]] = [
                pool.submit(gate.make, "secret"),
                pool.submit(gate.proves, verifier, "secret"),
            ]
            until(lambda: attendance.inside == 2 and hasher.running == 1)
            for one_too_many in (
                lambda: gate.make("secret"),
                lambda: gate.proves(verifier, "secret"),
            ):
                with pytest.raises(Overloaded) as refusal:
                    one_too_many()
                assert refusal.value.retry_after > 0
            hasher.free.set()
            finish(calls)

        assert hasher.most == 1

    def test_a_finished_call_frees_its_place(self, hasher: type[HeldHasher]) -> None:
        gate = Argon2Gate(at_once=1, waiting=0, profile=CHEAPEST)
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(gate.make, "secret")
            until(lambda: hasher.running == 1)
            with pytest.raises(Overloaded):
                gate.make("secret")
            hasher.free.set()
            finish([call])

        assert gate.proves(gate.make("secret"), "secret")

    def test_an_error_frees_the_place(self, attendance: Attendance) -> None:
        gate = Argon2Gate(at_once=1, waiting=0, profile=CHEAPEST, on_change=attendance)
        verifier = gate.make("secret")
        for _ in range(3):
            with pytest.raises(ProjectionInconsistent):
                gate.proves("damaged", "secret")
            assert not gate.proves(verifier, "wrong")
            with pytest.raises(UnicodeEncodeError):
                gate.make("\ud800")

        assert attendance.inside == 0
        assert gate.proves(verifier, "secret")

    def test_a_refused_connection_takes_no_place(
        self, hasher: type[HeldHasher], attendance: Attendance
    ) -> None:
        gate = Argon2Gate(at_once=1, waiting=1, profile=CHEAPEST, on_change=attendance)
        with ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(gate.make, "secret") for _ in range(2)]
            until(lambda: attendance.inside == 2)
            for _ in range(5):
                with pytest.raises(Overloaded):
                    gate.make("secret")
            assert attendance.inside == 2
            hasher.free.set()
            finish(calls)

        assert attendance.inside == 0


def until(so: Callable[[], bool]) -> None:
    """Wait for other threads, also on a busy machine."""
    deadline = time.monotonic() + PATIENCE
    while not so():
        assert time.monotonic() < deadline, "the other threads never got there"
        threading.Event().wait(0.001)


def finish(calls: Sequence[Future[Any]]) -> None:
    done, _ = wait(calls, PATIENCE)
    assert len(done) == len(calls)
    for call in calls:
        call.result()
