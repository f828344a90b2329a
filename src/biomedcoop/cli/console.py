"""Output of all commands: messages and progress on stderr, results on stdout, and JSON for machines."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from shutil import get_terminal_size
from textwrap import fill
from typing import TYPE_CHECKING, Any, NoReturn

from biomedcoop.cli.layout import lay_out
from biomedcoop.display import shown
from biomedcoop.errors import Note, printable
from biomedcoop.progress import Progress, show_bars

if TYPE_CHECKING:
    from rich.style import StyleType
    from rich.table import Table

    from biomedcoop.evaluation.alarms import Finding
    from biomedcoop.explain.tables import Table as Explained


INTERRUPTED = 130
"""Exit status after Ctrl-C."""

MOST_COLUMNS = 100
"""Width of sentences on a wider terminal."""

_quiet = False
"""Whether this command prints results and errors only."""


def set_quiet(quiet: bool) -> bool:
    """Print results and errors only, or everything; returns its argument, as a callback of typer must."""
    global _quiet
    _quiet = quiet
    show_bars(not quiet)
    return quiet


def say(text: str) -> None:
    """Print a message on stderr; stdout is for results. A terminal gets it wrapped between words, a pipe or a file in one line."""
    text = printable(text)
    if sys.stderr is not None and sys.stderr.isatty():
        width = min(get_terminal_size().columns, MOST_COLUMNS)
        text = fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    print(text, file=sys.stderr)


def end_interrupted(what: str) -> NoReturn:
    """Say what became of the work and end the process with status 130, without the interpreter's clean-up.

    The clean-up can abort while threads are still inside torch. Temporary files are gone by then: context managers have closed.
    """
    say(f"interrupted; {what}")
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # a reader that went away, a closed stream, none
            stream.flush()
    os._exit(INTERRUPTED)


def inform(text: str) -> None:
    """Print a message on stderr unless ``--quiet`` is given."""
    if not _quiet:
        say(text)


def print_json(value: Any) -> None:
    """Print a result as JSON on stdout."""
    print(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


_said: dict[str, None] = {}
"""The notes of this command, printed unless ``--quiet`` is given."""


def say_notes(notes: Iterable[str]) -> None:
    """Print notes on stderr; a note that this command has said before is left out."""
    for note in notes:
        if note not in _said:
            _said[note] = None
            inform(f"note: {note}")


def notes_said() -> list[str]:
    """The notes of this command so far, for JSON output."""
    return list(_said)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        inform(f"{record.levelname.lower()}: {record.getMessage()}")


def show_log() -> None:
    """Print log messages and notes of the package on stderr, one line each."""
    set_quiet(False)
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


def progress_bar() -> AbstractContextManager[Progress]:
    """The callback for the API's ``progress``, with the display of long work on stderr unless ``--quiet`` is given."""
    return shown(False if _quiet else None)


MOST_LINES = 20


def print_first(lines: Iterable[str]) -> None:
    """Print the first :data:`MOST_LINES` lines; a longer list would hide the rest of a report."""
    for number, line in enumerate(lines):
        if number == MOST_LINES:
            print("… and more; --json lists all")
            break
        print(line)


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


def print_text(text: str, indent: str = "  ") -> None:
    """Print a paragraph on stdout, wrapped between words; ``indent`` begins each line but the first."""
    from rich.console import Console

    print(fill(text, Console().width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False))


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
        for line in lines:
            console.print(Text(line, style or ""), soft_wrap=True)

    def show_text(text: object, style: StyleType) -> None:
        if text:
            (lines,) = lay_out([[str(text)]], [False], console.width)
            show(lines, style)

    show_text(table.title, "italic")
    show(header, "bold")
    longest = max(cell_len(line) for lines in (header, *rows) for line in lines)
    show([("-" if console.options.ascii_only else "─") * longest])
    for row, lines in zip(table.rows, rows, strict=True):
        show(lines, row.style)
    show_text(table.caption, "dim")
    show([""])


def print_tables(tables: Iterable[Explained], notes: Iterable[str]) -> None:
    """Print the tables of an explanation on stdout, each with its own notes, then the notes on all."""
    from rich.table import Table

    for one in tables:
        table = Table(title=one.title)
        for place, column in enumerate(one.columns):
            table.add_column(column, justify="right" if place >= len(one.columns) - one.right else "left")
        for row in one.rows:
            table.add_row(*row)
        print_table(table)
        for note in one.notes:
            print_text(note)
        print()
    for note in notes:
        print_text(note)
