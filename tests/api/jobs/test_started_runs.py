"""A background run reports its state, one of a name at a time, and ends with the server."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from api.jobs.started_runs import Run, RunState, StartedRuns, Stopping
from domain.errors import LedgerUnavailable

PATIENCE = 30.0


@dataclass
class Waiting:
    """Work that begins, waits to be released, reports and ends."""

    begun: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def __call__(self, run: Run) -> RunState:
        self.begun.set()
        assert self.released.wait(PATIENCE)
        run.report(RunState("running", position=7))
        return RunState("done", position=9, detail="result")


@pytest.fixture
def runs() -> Iterator[StartedRuns]:
    runs = StartedRuns("job")
    yield runs
    runs.stop()


def ended(runs: StartedRuns, name: str) -> RunState:
    for thread in threading.enumerate():
        if thread.name == f"job {name}":
            thread.join(PATIENCE)
    state = runs.state(name)
    assert state is not None
    return state


def test_a_run_is_running_until_its_work_returns_the_last_state(runs: StartedRuns) -> None:
    assert runs.state("one") is None
    work = Waiting()
    assert runs.start("one", work)
    assert runs.state("one") == RunState("running")
    work.released.set()
    assert ended(runs, "one") == RunState("done", position=9, detail="result")


def test_one_run_of_a_name_at_a_time(runs: StartedRuns) -> None:
    work, other = Waiting(), Waiting()
    assert runs.start("one", work)
    assert not runs.start("one", other)
    assert runs.start("two", other)
    assert other.begun.wait(PATIENCE)
    work.released.set()
    ended(runs, "one")
    assert runs.start("one", work)
    other.released.set()
    assert ended(runs, "one").state == ended(runs, "two").state == "done"


def test_what_is_reported_can_be_read(runs: StartedRuns) -> None:
    reported, released = threading.Event(), threading.Event()

    def work(run: Run) -> RunState:
        run.report(RunState("running", stage="log", share=0.25))
        reported.set()
        assert released.wait(PATIENCE)
        return RunState("done")

    runs.start("one", work)
    assert reported.wait(PATIENCE)
    assert runs.state("one") == RunState("running", stage="log", share=0.25)
    released.set()


def unavailable(_run: Run) -> RunState:
    raise LedgerUnavailable("the disk is full")


def test_an_error_of_the_ledger_is_the_detail_and_a_line_in_the_log(runs: StartedRuns) -> None:
    with capture_logs() as logs:
        runs.start("one", unavailable, view="key_list")
        state = ended(runs, "one")
    assert state == RunState("failed", detail="the disk is full")
    assert [(line["event"], line["view"], line["code"]) for line in logs] == [
        ("job_failed", "key_list", LedgerUnavailable.code)
    ]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_is_in_the_log_and_not_in_the_detail(runs: StartedRuns) -> None:
    def bug(_run: Run) -> RunState:
        raise ZeroDivisionError("a secret")

    with capture_logs() as logs:
        runs.start("one", bug)
        state = ended(runs, "one")
    assert state.state == "failed"
    assert "secret" not in str(state.detail)
    assert [line["event"] for line in logs if "exc_info" in line] == ["job_failed"]


def test_stop_ends_a_run_at_its_next_report_and_waits_for_it() -> None:
    runs = StartedRuns("job")
    raised: list[Any] = []

    def endless(run: Run) -> RunState:
        try:
            while True:
                run.report(RunState("running"))
        except Stopping as error:
            raised.append(error)
            raise

    runs.start("one", endless)
    runs.stop()
    assert len(raised) == 1
    assert runs.state("one") == RunState("failed", detail="the server stopped: start it again")
