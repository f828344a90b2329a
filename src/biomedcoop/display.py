"""The display of long work on stderr: a bar in a terminal, a line that is rewritten in a notebook, lines in a pipe or a log file.

Work that ends within :data:`LONG` seconds shows nothing.
"""

from __future__ import annotations

import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from biomedcoop.errors import UserError
from biomedcoop.progress import Progress, ProgressOption

if TYPE_CHECKING:
    from rich import progress as rich_progress

LONG = 2.0
"""Time after which work is shown, in seconds."""

LINE_EVERY = 15.0
"""Time between two lines in a pipe or a log file, in seconds."""

REWRITE_EVERY = 0.5
"""Time between two states of the line in a notebook, in seconds."""


@contextmanager
def shown(progress: ProgressOption) -> Iterator[Progress]:
    """The callback to report to, for the argument ``progress`` of a public function.

    Raises:
        UserError: the argument is neither a function nor None nor False.
    """
    if progress is None and sys.stderr is not None:
        display = _display_for(sys.stderr)
        try:
            yield display
        finally:
            display.close()
    elif progress is None or progress is False:
        yield lambda what, done, total: None
    elif callable(progress):
        yield progress
    else:
        raise UserError(f"progress={progress!r} must be a function, None to show long work, or False to show nothing")


def _display_for(stream: TextIO) -> _Display:
    if type(stream).__module__.partition(".")[0] == "ipykernel":
        return _Lines(stream, REWRITE_EVERY, rewrite=True)
    if getattr(stream, "isatty", bool)() and os.environ.get("TERM") not in ("dumb", "unknown"):
        return _Bar()
    return _Lines(stream, LINE_EVERY)


@dataclass
class _Stage:
    """A stage of the work; ``before`` units were done at its first report, when its time starts."""

    name: str
    started: float
    before: int
    done: int

    def times(self, total: int, now: float) -> str:
        """The time so far, and the time left where it is known."""
        spent = now - self.started
        if self.done >= total or self.done == self.before:
            return _clock(spent)
        return f"{_clock(spent)}, about {_clock(spent * (total - self.done) / (self.done - self.before))} left"


class _Display(ABC):
    """A callback that follows the stages of the work."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.stage: _Stage | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        if not done and not total:  # all of it was done before
            return
        now, name = time.monotonic(), what.split(" (")[0]
        if self.stage is None or self.stage.name != name or done < self.stage.done:
            self.stage = _Stage(name, now, done, done)
        self.stage.done = done
        self.show(self.stage, what, total, now)

    @abstractmethod
    def show(self, stage: _Stage, what: str, total: int, now: float) -> None:
        """Show the state of a stage."""

    @abstractmethod
    def close(self) -> None:
        """End the display."""


class _Lines(_Display):
    """A line at the end of each long stage, and one now and then; with ``rewrite``, one line that takes the place of the last."""

    def __init__(self, stream: TextIO, every: float, rewrite: bool = False) -> None:
        super().__init__()
        self.stream, self.every, self.rewrite = stream, every, rewrite
        self.next = self.started + max(every, LONG)
        self.width = 0  # of a line that may still be rewritten

    def show(self, stage: _Stage, what: str, total: int, now: float) -> None:
        ended = bool(total) and stage.done >= total
        if not (now - stage.started >= LONG or self.width if ended else now >= self.next):
            return
        of = f" of {total}" if total else ""
        line = f"{what}: {stage.done}{of}, {stage.times(total, now)}"
        self.next = now + self.every
        if not self.rewrite:
            print(line, file=self.stream, flush=True)
            return
        self.stream.write("\r" + line.ljust(self.width) + ("\n" if ended else ""))
        self.stream.flush()
        self.width = 0 if ended else len(line)

    def close(self) -> None:
        if self.width:
            self.stream.write("\n")


class _Bar(_Display):
    """A progress bar in the terminal, one line per stage."""

    def __init__(self) -> None:
        super().__init__()
        self.bar: rich_progress.Progress | None = None
        self.rows: dict[str, rich_progress.TaskID] = {}
        self.shown: _Stage | None = None

    def show(self, stage: _Stage, what: str, total: int, now: float) -> None:
        if self.bar is None:
            if now - self.started < LONG:
                return
            self.bar = _rich_bar()
            self.bar.start()
        if stage.name not in self.rows:
            self.rows[stage.name] = self.bar.add_task(what, total=None)
        row = self.rows[stage.name]
        if stage is not self.shown:
            self.bar.reset(row)
            self.bar.tasks[row].start_time, self.shown = stage.started, stage
        self.bar.update(row, completed=stage.done, total=total or None, description=what)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()


def _rich_bar() -> rich_progress.Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        redirect_stdout=False,  # stdout may go to a file while stderr is a terminal
    )


def _clock(seconds: float) -> str:
    """A duration as m:ss or h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
