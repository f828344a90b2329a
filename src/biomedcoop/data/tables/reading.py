"""The one reader of tables (CSV with any usual separator, TSV, Parquet): a row at a time, every cell as text."""

from __future__ import annotations

import codecs
import csv
import difflib
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

from biomedcoop.data.names import clean_class_name, fold
from biomedcoop.errors import UserError

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")

Row = tuple[str, tuple[str, ...]]
"""Where a row is in its file ("line 4", in Parquet "row 3") and the cells of the columns that were asked for."""

_DELIMITERS = ",;\t|"
_MARKS = (  # UTF-32 first: its mark begins as that of UTF-16 does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_SEPARATOR_LINE = re.compile(r'\ufeff?"?sep=(\\t|.)"?\s*', re.IGNORECASE)
_EDGES = (
    "".join(filter(str.isspace, map(chr, range(0x3001))))
    + "\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\ufeff"
)
_SPREADSHEET_ERRORS = {"#N/A", "#NA", "#VALUE!", "#REF!", "#DIV/0!", "#NUM!", "#NAME?", "#NULL!"}
_WRITTEN_BY_TOOLS = {"", "NaN", "nan", "NAN", "-nan", "NA", "<NA>", "NaT", "NULL", "null", "\\N"} | _SPREADSHEET_ERRORS
_WRITTEN_BY_TOOLS |= {"N/A", "n/a", "#N/A N/A", "1.#QNAN", "-1.#QNAN", "1.#IND", "-1.#IND", "-NaN"}
_WRITTEN_BY_HAND = {"none", "n/a", "na", "n.a.", "nil", "null", "nan", "missing", "-", "--", "–", "—", ".", "?"}
_WRITTEN_BY_HAND |= {"unknown", "anonymous", "not available", "not applicable", "unspecified"}


def is_missing(cell: str) -> bool:
    """Whether a cell is empty, by any spelling of a missing value: "", "NaN", "n/a", "None", "#N/A", "-" and others."""
    return cell in _WRITTEN_BY_TOOLS or cell.casefold() in _WRITTEN_BY_HAND


def is_missing_name(cell: str) -> bool:
    """Whether a cell with a name of a class is empty: of what people write, "none" or "-" may be a class, so only the
    spellings count that data-frame tools, databases and spreadsheets write by themselves."""
    return cell in _WRITTEN_BY_TOOLS or not clean_class_name(cell)


def may_be_missing(name: str) -> bool:
    """Whether a class name is a word that people often write where a label is missing."""
    return name.casefold() in _WRITTEN_BY_HAND


@dataclass(frozen=True)
class Table:
    """A table that is open for reading: its columns are known, its rows come one by one, as often as they are asked for.

    Attributes:
        file: where it is.
        columns: names in the order of the header; a column without a name has "".
    """

    file: Path
    columns: tuple[str, ...]
    _rows: Callable[[Sequence[int]], Iterator[Row]]

    def find(self, name: str) -> int | None:
        """Position of the column that goes by ``name`` (case, blanks, ``_`` and hyphens make no difference), if there is one.

        Raises:
            UserError: there are two.
        """
        found = [position for position, column in enumerate(self.columns) if _key(column) == _key(name)]
        if len(found) > 1:
            names = " and ".join(repr(self.columns[position]) for position in found[:2])
            raise UserError(f"{self.file}: a column name appears twice ({names}); rename one")
        return found[0] if found else None

    def require(self, name: str, expected: str, other_names: Sequence[str] = ()) -> int:
        """Position of the column ``name``.

        Args:
            expected: the columns that such a table has, for the message.
            other_names: what people often call this column; one that is there is suggested, never taken.

        Raises:
            UserError: there is no such column, or two.
        """
        position = self.find(name)
        if position is not None:
            return position
        there = {_key(column): column for column in self.columns if column}
        near = [_key(other) for other in other_names if _key(other) in there]
        near += difflib.get_close_matches(_key(name), list(there), n=1, cutoff=0.65)
        meant = f"; if {there[near[0]]!r} is meant, rename it to {name}" if near else ""
        named = ", ".join(there.values()) or "nothing"
        named = named if len(named) <= 160 else named[:160].rsplit(" ", 1)[0] + " …"
        raise UserError(f"{self.file}: no column {name!r} (it has {named}){meant}; expected {expected}")

    def rows(self, positions: Sequence[int]) -> Iterator[Row]:
        """The rows, with the cells of the columns at ``positions``; memory does not grow with the table.

        Raises:
            UserError: a row that cannot be read; the line names it.
        """
        return self._rows(positions)


def open_table(file: Path, wanted: Sequence[str]) -> Table:
    """Open a table: Parquet by its ending, else text.

    Text is UTF-8, or UTF-16 with a byte order mark (Excel's "Unicode text"). The separator is the one that a first line
    ``sep=;`` names, else that of comma, semicolon, tab and ``|`` by which the header has most of the columns ``wanted``.

    Raises:
        UserError: it cannot be read.
    """
    return (
        _open_parquet(file) if file.suffix.lower() == ".parquet" else _open_text(file, {_key(name) for name in wanted})
    )


def check_one_line(file: Path, place: str, column: str, cell: str) -> None:
    """Raise if a cell goes over several lines, which a forgotten quote makes of several rows."""
    if "\n" in cell or "\r" in cell:
        raise UserError(f"{file}: {place} has a line break in its {column}; close the quote, or remove the line break")


def same_column(one: str, other: str) -> bool:
    """Whether two names are those of one column; case, blanks, ``_`` and hyphens make no difference."""
    return _key(one) == _key(other)


def _key(column: str) -> str:
    return fold(column).replace(" ", "")


# -- text


def _open_text(file: Path, wanted: set[str]) -> Table:
    try:
        with file.open("rb") as stream:
            start = stream.read(4)
    except OSError as error:
        raise _unreadable(file, error) from error
    if start == b"PK\x03\x04":
        raise UserError(f"{file}: not a text table but a workbook or archive; save the sheet as CSV UTF-8")
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
    """The separator, the number of lines before the header (one where the first line states the separator), and the header."""
    with closing(_lines(file, encoding)) as lines:
        stated = _SEPARATOR_LINE.fullmatch(next(lines, ""))
    skipped = 1 if stated else 0
    headers: dict[str, list[str]] = {}
    refusals = []
    for delimiter in stated[1].replace("\\t", "\t") if stated else _DELIMITERS:
        try:
            with closing(_records(file, encoding, delimiter, skipped)) as records:
                headers[delimiter] = next(records, (0, []))[1]
        except UserError as error:
            refusals.append(error)

    def fit(delimiter: str) -> tuple[int, int]:
        names = headers[delimiter]
        return len(wanted & {_key(name) for name in names}), len(names)

    if not headers:
        raise refusals[0]
    best = max(headers, key=fit)
    # with another separator, a quote that is never closed is no quote but a part of a name
    if refusals and not fit(best)[0] and any('"' in name for name in headers[best]):
        raise refusals[0]
    if not fit(best)[0]:
        _check_preamble(file, encoding, list(headers), wanted)
    return best, skipped, headers[best]


def _check_preamble(file: Path, encoding: str, delimiters: Sequence[str], wanted: set[str]) -> None:
    """Raise if one of the next lines is the header: a title or a remark stands above it."""
    for delimiter in delimiters:
        lines = []
        with closing(_records(file, encoding, delimiter, 0)) as records, suppress(UserError):
            lines = [line for line, cells in islice(records, 20) if wanted <= {_key(cell) for cell in cells}]
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
                f"{file}: line {first} is not readable CSV ({error}); close every quote, and double those inside a cell"
            ) from error
        if record is None:
            return
        cells = [cell.strip(_EDGES) for cell in record]
        if any(cells):
            yield first, cells


def _lines(file: Path, encoding: str) -> Generator[str, None, None]:
    """Lines with their ends: LF, CR LF, or CR alone."""
    try:
        with file.open(newline="", encoding=encoding) as stream:
            for number, line in enumerate(stream, start=1):
                if "\0" in line:
                    raise UserError(
                        f"{file}: line {number} holds a zero byte, which no text has; save the table as CSV UTF-8"
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


# -- Parquet


def _open_parquet(file: Path) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError(
            f"{file}: Parquet tables need pyarrow; pip install 'biomedcoop[parquet]', or save it as CSV"
        ) from error

    def refused(error: Exception) -> UserError:
        reason = str(error).partition("\n")[0]
        return UserError(f"{file}: not a readable Parquet file ({reason})")

    try:
        with parquet.ParquetFile(file) as opened:
            names = [str(name) for name in opened.schema_arrow.names]
    except (OSError, pa.ArrowException) as error:
        raise refused(error) from error
    # the row numbers of a data frame are no column of the user's
    columns = tuple("" if name.startswith("__index_level_") else name.strip(_EDGES) for name in names)

    def rows(positions: Sequence[int]) -> Iterator[Row]:
        chosen = [names[position] for position in positions]
        number = 0
        try:
            with parquet.ParquetFile(file) as opened:
                for batch in opened.iter_batches(columns=list(dict.fromkeys(chosen))):
                    texts = {name: _texts(batch.column(batch.schema.names.index(name)), pa) for name in set(chosen)}
                    for index in range(batch.num_rows):
                        number += 1
                        yield f"row {number}", tuple([texts[name][index] for name in chosen])
        except (OSError, pa.ArrowException) as error:
            raise refused(error) from error

    return Table(file, columns, rows)


def _texts(column: Any, pa: Any) -> list[str]:
    if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type) or pa.types.is_time(column.type):
        column = column.cast(pa.string())
    return [_text(cell) for cell in column.to_pylist()]


def _text(cell: Any) -> str:
    """A cell as CSV would have it: missing is empty, 2.0 is "2"."""
    if cell is None or cell != cell:  # NaN is the one value that differs from itself
        return ""
    if isinstance(cell, (float, Decimal)) and cell == cell // 1 and -(2**63) < cell < 2**63:
        return str(int(cell))
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace").strip(_EDGES)
    return str(cell).strip(_EDGES)
