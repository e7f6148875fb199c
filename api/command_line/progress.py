"""Progress bars of replays, on a terminal."""

from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from api.command_line.terminal import stderr_console


class _SpeedColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} events/s", style="cyan")


class ReplayProgress:
    """Show a bar for each projection that is replayed, with its speed and the time left.

    The bars are drawn on standard error, only on a terminal, and are removed at the end.
    """

    def __init__(self) -> None:
        console = stderr_console()
        self._shown = console.is_terminal
        self._tasks: dict[str, TaskID] = {}
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("events"),
            _SpeedColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            transient=True,
        )

    def __call__(self, view: str, done: int, last: int) -> None:
        """Show that the replay of a view has reached a position."""
        if not self._shown or last == 0:
            return
        if view not in self._tasks:
            self._bar.start()
            self._tasks[view] = self._bar.add_task(view, total=last, completed=done)
        self._bar.update(self._tasks[view], total=last, completed=done)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._tasks:
            self._bar.stop()
