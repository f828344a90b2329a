"""Text tables (CSV with any usual separator, TSV): the one decoder of CSV text."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path

from biomedcoop.data.tables.table import EDGES, Row, Table, column_key
from biomedcoop.errors import UserError

_DELIMITERS = ",;\t|"
_MARKS = (  # UTF-32 first, because its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_SEPARATOR_LINE = re.compile(r'\ufeff?"?sep=(\\t|.)"?\s*', re.IGNORECASE)


def split_line(text: str) -> list[str]:
    """The cells of one line with commas: 'cyst, "stone, large"' -> ["cyst", "stone, large"]."""
    return next(csv.reader([text], skipinitialspace=True), [])


def open_text(file: Path, wanted: set[str]) -> Table:
    """Open a text table.

    Args:
        wanted: expected column names in the form of `column_key`; they identify the separator.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(4)
    except OSError as error:
        raise _unreadable(file, error) from error
    if start == b"PK\x03\x04":
        raise UserError(f"{file}: not a text table but a workbook or an archive; save the sheet as CSV UTF-8")
    encoding = next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8")
    delimiter, skipped, header = _layout(file, encoding, wanted)
    width = _filled(header)

    def rows(positions: Sequence[int]) -> Iterator[Row]:
        records = _records(file, encoding, delimiter, skipped)
        next(records, None)
        for line, cells in records:
            if len(cells) != width and (count := max(len(cells[:width]), _filled(cells))) != width:
                raise UserError(
                    f"{file}: line {line} has {count} cell{'s' * (count != 1)} but the header has {width}; "
                    "put cells that contain the separator in double quotes"
                )
            yield f"line {line}", tuple([cells[position] for position in positions])

    return Table(file, tuple(header[:width]), rows)


def _filled(cells: Sequence[str]) -> int:
    """The number of cells without the empty ones at the end."""
    return max((position + 1 for position, cell in enumerate(cells) if cell), default=0)


def _layout(file: Path, encoding: str, wanted: set[str]) -> tuple[str, int, list[str]]:
    """The separator, the number of lines before the header (one if the first line states the separator), and the header."""
    with closing(_lines(file, encoding)) as lines:
        stated = _SEPARATOR_LINE.fullmatch(next(lines, ""))
    skipped = 1 if stated else 0
    headers: dict[str, list[str]] = {}
    errors = []
    for delimiter in stated[1].replace("\\t", "\t") if stated else _DELIMITERS:
        try:
            with closing(_records(file, encoding, delimiter, skipped)) as records:
                headers[delimiter] = next(records, (0, []))[1]
        except UserError as error:
            errors.append(error)

    def fit(delimiter: str) -> tuple[int, int]:
        names = headers[delimiter]
        return len(wanted & {column_key(name) for name in names}), len(names)

    if not headers:
        raise errors[0]
    best = max(headers, key=fit)
    # an unclosed quote is an error with one separator but part of a column name with another; report the error
    if errors and not fit(best)[0] and any('"' in name for name in headers[best]):
        raise errors[0]
    if not fit(best)[0]:
        _check_preamble(file, encoding, list(headers), wanted)
    return best, skipped, headers[best]


def _check_preamble(file: Path, encoding: str, delimiters: Sequence[str], wanted: set[str]) -> None:
    """Raise if a later line is the header, because a title or a remark stands above it."""
    for delimiter in delimiters:
        lines = []
        with closing(_records(file, encoding, delimiter, 0)) as records, suppress(UserError):
            lines = [line for line, cells in islice(records, 20) if wanted <= {column_key(cell) for cell in cells}]
        if lines and wanted:
            raise UserError(f"{file}: line {lines[0]} seems to be the header; remove the lines above it")


def _records(file: Path, encoding: str, delimiter: str, skipped: int) -> Generator[tuple[int, list[str]], None, None]:
    """First line and cells of each record that is not empty, after ``skipped`` lines."""
    lines = _lines(file, encoding)
    for _ in range(skipped):
        next(lines, None)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    while True:
        first = skipped + reader.line_num + 1
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise UserError(
                f"{file}: line {first} is not readable CSV ({error}); close every quote, and write a quote inside a cell twice"
            ) from error
        if record is None:
            return
        cells = [cell.strip(EDGES) for cell in record]
        if any(cells):
            yield first, cells


def _lines(file: Path, encoding: str) -> Generator[str, None, None]:
    """Lines with their ends: LF, CR LF, or CR alone."""
    try:
        with file.open(newline="", encoding=encoding) as stream:
            for number, line in enumerate(stream, start=1):
                if "\0" in line:
                    raise UserError(
                        f"{file}: line {number} holds a zero byte, so the file is not text; save the table as CSV UTF-8"
                    )
                yield line
    except OSError as error:
        raise _unreadable(file, error) from error
    except UnicodeError as error:
        number = _undecodable_line(file, encoding)
        raise UserError(
            f"{file}: line {number} is not {encoding.removesuffix('-sig').upper()} text; save the table as CSV UTF-8 (an "
            "older file of Excel for Windows: iconv -f WINDOWS-1252 -t UTF-8)"
        ) from error


def _undecodable_line(file: Path, encoding: str) -> int:
    with file.open(newline="", encoding=encoding, errors="replace") as stream:
        return next((number for number, line in enumerate(stream, start=1) if "\ufffd" in line), 1)


def _unreadable(file: Path, error: OSError) -> UserError:
    return UserError(f"{file}: cannot be read ({error.strerror or error})")
