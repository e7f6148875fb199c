"""``keyledger projections``: status, rebuild and comparison of the projections."""

from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from rich.console import Console

from api.command_line.failures import FAILED, USAGE_ERROR, CommandFailed
from api.command_line.local_ledger import local_ledger
from api.command_line.options import AsJson, DataDir
from api.command_line.progress import ReplayProgress
from api.command_line.projection_display import write_check, write_rebuild, write_statuses
from api.command_line.terminal import stdout_console, write_json
from api.formats.as_json import page_as_json, report_as_json, status_as_json
from domain.errors import Invalid
from projections.integrity.schema_check import refuse_unless_rebuild_repairs
from projections.rebuild import rebuild as replay
from projections.rebuild.rebuild import ReplayReport
from projections.rebuild.status import projection_status
from projections.views.registry import VIEWS, view_named
from projections.views.view import View

app = typer.Typer(no_args_is_help=True, add_completion=False)

Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Name of the projection.")]


@app.callback()
def projections() -> None:
    """Show, rebuild and check projections."""


@app.command()
def status(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show the version, position and lag of each projection."""
    with local_ledger(data_dir, as_json=as_json) as ledger:
        statuses = projection_status(ledger.database)
    if as_json:
        write_json(page_as_json([status_as_json(each) for each in statuses], None))
    else:
        write_statuses(stdout_console(), statuses)


@app.command()
def rebuild(
    name: Name = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Rebuild all projections.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Rebuild a projection from the events. An interrupted rebuild resumes where it stopped."""
    if every == (name is not None):
        raise CommandFailed(
            USAGE_ERROR, Invalid.code, "name one projection, or use --all for all of them"
        )
    views = VIEWS if name is None else (view_named(name),)
    with local_ledger(data_dir, as_json=as_json, on_schema=refuse_unless_rebuild_repairs) as ledger:

        def run(view: View, progress: ReplayProgress) -> ReplayReport:
            return replay.rebuild(ledger.database, view, clock=ledger.clock, progress=progress)

        _replay(views, run, write_rebuild, as_list=name is None, as_json=as_json)


@app.command()
def downgrade(data_dir: DataDir = None, *, as_json: AsJson = False) -> None:
    """Replace the projections of a newer program version with the versions of this program.

    Stop the servers of the newer version first: they cannot make changes afterwards.
    """
    with local_ledger(data_dir, as_json=as_json, downgrade=True) as ledger:
        statuses = projection_status(ledger.database)
    if as_json:
        write_json(page_as_json([status_as_json(each) for each in statuses], None))
    else:
        write_statuses(stdout_console(), statuses)


@app.command()
def check(name: Name = None, *, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Compare projections with the events. The exit status is 1 if a row differs."""
    views = VIEWS if name is None else (view_named(name),)
    with local_ledger(data_dir, as_json=as_json) as ledger:

        def run(view: View, progress: ReplayProgress) -> ReplayReport:
            return replay.check(ledger.database, view, progress=progress)

        reports = _replay(views, run, write_check, as_list=name is None, as_json=as_json)
    if any(report.differing for report in reports):
        raise typer.Exit(FAILED)


def _replay(
    views: Sequence[View],
    run: Callable[[View, ReplayProgress], ReplayReport],
    write: Callable[[Console, ReplayReport], None],
    *,
    as_list: bool,
    as_json: bool,
) -> list[ReplayReport]:
    """Replay each view, and write each report as soon as it is complete."""
    console = stdout_console()
    reports = []
    for view in views:
        with ReplayProgress() as progress:
            report = run(view, progress)
        reports.append(report)
        if not as_json:
            write(console, report)
    if as_json:
        documents = [report_as_json(report) for report in reports]
        write_json(page_as_json(documents, None) if as_list else documents[0])
    return reports
