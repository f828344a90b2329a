"""Output of all commands: messages on stderr, results on stdout, a progress bar, and JSON for machines."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from biomedcoop.cli.layout import lay_out
from biomedcoop.errors import Note

if TYPE_CHECKING:
    from rich.style import StyleType
    from rich.table import Table

    from biomedcoop.evaluation.alarms import Finding


def say(text: str) -> None:
    """Print a message for the user on stderr; stdout is for results."""
    print(text, file=sys.stderr)


def print_json(value: Any) -> None:
    """Print a result as JSON on stdout."""
    print(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


_said: dict[str, None] = {}
"""The notes that this command has printed."""


def say_notes(notes: Iterable[str]) -> None:
    """Print notes on stderr; a note that this command has printed before is left out."""
    for note in notes:
        if note not in _said:
            _said[note] = None
            say(f"note: {note}")


def notes_said() -> list[str]:
    """The notes that this command has printed so far, for JSON output."""
    return list(_said)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(f"{record.levelname.lower()}: {record.getMessage()}")


def show_log() -> None:
    """Print log messages and notes of the package on stderr, one line each."""
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
    """Show a progress bar on stderr, one line per stage; yield the callback for the API's ``progress``.

    Nothing is shown if ``quiet``, or if stderr is not a terminal.
    """
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
    # stdout is not redirected: it may go to a file while stderr is a terminal
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
    """Print the first :data:`MOST_LINES` lines; a longer list would hide the rest of a report."""
    for number, line in enumerate(lines):
        if number == MOST_LINES:
            print("… and more; --json lists all")
            break
        print(line)


MOST_COLUMNS = 100
"""Width of sentences on a wider terminal."""


def print_verdict(findings: Sequence[Finding]) -> None:
    """Print a verdict on stdout: headline and score, alarms behind "!", other facts behind "-", then what to do next."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for finding in findings:
        style = "bold red" if finding.alarm else "bold" if finding.kind in ("headline", "next") else ""
        mark = "!" if finding.alarm else "" if finding.kind in ("headline", "score", "next") else "-"
        text = f"Next: {finding.text}" if finding.kind == "next" else finding.text
        cells = [mark, text] if mark else [text]
        (lines,) = lay_out([cells], [False] * len(cells), min(console.width, MOST_COLUMNS))
        for line in lines:
            console.print(Text(line, style), soft_wrap=True)
    console.print()


def print_table(table: Table) -> None:
    """Print a rich table on stdout with the layout of :func:`lay_out`; rich itself may cut a cell in the middle of a number."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    right = [column.justify == "right" for column in table.columns]
    header, *rows = lay_out(list(zip(*columns, strict=True)), right, console.width)

    def show(lines: Iterable[str], style: StyleType | None = None) -> None:
        for line in lines:  # the terminal wraps lines that are too long
            console.print(Text(line, style or ""), soft_wrap=True)

    show([str(text) for text in [table.title] if text], "italic")
    show(header, "bold")
    longest = max(cell_len(line) for lines in (header, *rows) for line in lines)
    show([("-" if console.options.ascii_only else "─") * longest])
    for row, lines in zip(table.rows, rows, strict=True):
        show(lines, row.style)
    show([str(text) for text in [table.caption] if text], "dim")
    show([""])
