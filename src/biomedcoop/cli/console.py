"""What the commands share: messages on stderr, results on stdout, one progress bar, machine-readable output."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from biomedcoop.errors import Note


def say(text: str) -> None:
    """A line for the person at the terminal; stdout stays free for results."""
    print(text, file=sys.stderr)


def print_json(value: Any) -> None:
    """A result for a machine."""
    print(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


_said: dict[str, None] = {}
"""The notes that this command has said."""


def say_notes(notes: Iterable[str]) -> None:
    """Notes, each once, those that were said while the work went on left out."""
    for note in notes:
        if note not in _said:
            _said[note] = None
            say(f"note: {note}")


def notes_said() -> list[str]:
    """The notes of this command so far, for machine-readable output."""
    return list(_said)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(f"{record.levelname.lower()}: {record.getMessage()}")


def show_log() -> None:
    """Messages and notes of the package as one line each on stderr."""
    _said.clear()
    warnings.simplefilter("always", Note)
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, Note):
            say_notes([str(message)])
        else:
            shown(message, category, *where, **more)

    warnings.showwarning = show
    log = logging.getLogger("biomedcoop")
    log.setLevel(logging.INFO)
    if not log.handlers:
        log.addHandler(_Lines())
        log.propagate = False


@contextlib.contextmanager
def progress_bar(quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr with a line per stage, fed by the API's ``progress``; silent where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # stdout is left alone: it may go to a file while stderr is a terminal
    off = quiet or not console.is_terminal
    with Progress(*columns, console=console, disable=off, redirect_stdout=False) as bar:
        rows: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            stage = what.split(" (")[0]
            if total == 0:
                return
            if stage not in rows or bar.tasks[rows[stage]].total != total:
                rows[stage] = bar.add_task(what, total=total)
            bar.update(rows[stage], completed=done, description=what)

        yield report


MOST_LINES = 20


def print_first(lines: Iterable[str]) -> None:
    """Print the first lines of a kind; a list of thousands hides the rest of a report."""
    for number, line in enumerate(lines):
        if number == MOST_LINES:
            print("… and more; --json lists all")
            break
        print(line)


def print_table(table: Any) -> None:
    """A rich table on stdout, never narrower than its numbers need: a cut number is a wrong one."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console(markup=False)
    # rich leaves the padding between columns out of its minimum
    needed = Measurement.get(console, console.options.update(max_width=1000), table).minimum + len(table.columns) + 2
    console.width = max(console.width, needed)
    console.print(table)
