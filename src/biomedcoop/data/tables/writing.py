"""The one writer of tables: it writes rows to CSV, JSON or Parquet one by one, so that memory does not grow with their number."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from biomedcoop.errors import UserError
from biomedcoop.output import check_new_file, new_file

Row = dict[str, Any]
"""Column name -> cell: text or a number."""

SUFFIXES = (".csv", ".json", ".parquet")

PARQUET_ROWS = 1000
"""Number of rows in a block of a Parquet file; one block is held in memory."""


def check_table_file(out: Path, overwrite: bool, what: str = "tables") -> None:
    """Check before long work that `write_table` can write a file.

    Args:
        what: name of the rows in messages, e.g. "predictions".

    Raises:
        UserError: the file name ending is unknown, its library is missing, the file exists (unless ``overwrite``), or its folder
            cannot be written to.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"{out}: {what} are written to {', '.join(SUFFIXES)}; choose one of these endings")
    if out.suffix.lower() == ".parquet":
        open_pyarrow()
    check_new_file(out, overwrite)


def write_table(rows: Iterable[Row], columns: Sequence[str], out: Path, texts: Collection[str] = ()) -> int:
    """Write rows to a file in the format of its ending; the file appears when it is complete.

    Args:
        columns: column names in the order of the file.
        texts: names of the columns with text; the others hold numbers. Only Parquet needs this.

    Returns:
        The number of rows.

    Raises:
        UserError: the file system refuses.
    """
    suffix = out.suffix.lower()
    with new_file(out) as path:
        if suffix == ".parquet":
            return _write_parquet(rows, columns, path, texts)
        with path.open("x", newline="", encoding="utf-8") as file:
            return write_csv(rows, columns, file) if suffix == ".csv" else write_json(rows, file)


def write_csv(rows: Iterable[Row], columns: Sequence[str], file: IO[str]) -> int:
    """Write rows as CSV to an open file; returns their number."""
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    count = 0
    for row in rows:
        writer.writerow(row)
        count += 1
    return count


def write_json(rows: Iterable[Row], file: IO[str]) -> int:
    """Write rows as one JSON array, a row per line, to an open file; returns their number."""
    count = 0
    file.write("[")
    for count, row in enumerate(rows, start=1):
        file.write(("," if count > 1 else "") + "\n " + json.dumps(row, ensure_ascii=False))
    file.write("\n]\n")
    return count


def _write_parquet(rows: Iterable[Row], columns: Sequence[str], path: Path, texts: Collection[str]) -> int:
    parquet = open_pyarrow()
    import pyarrow as pa

    schema = pa.schema([(name, pa.string() if name in texts else pa.float64()) for name in columns])
    count = 0
    block: list[Row] = []
    with parquet.ParquetWriter(path, schema) as writer:
        for row in rows:
            block.append(row)
            count += 1
            if len(block) == PARQUET_ROWS:
                writer.write_table(pa.Table.from_pylist(block, schema))
                block = []
        writer.write_table(pa.Table.from_pylist(block, schema))
    return count


def open_pyarrow(instead: str = "CSV") -> Any:
    """The library that writes Parquet, ``pyarrow.parquet``.

    Args:
        instead: the format that the error line offers.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError(
            f"to write Parquet, pyarrow is needed: pip install 'biomedcoop[parquet]'; or use {instead}"
        ) from error
    return parquet
