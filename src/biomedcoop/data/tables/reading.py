"""The one reader of tables: CSV with any usual separator, TSV, Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from biomedcoop.data.tables.csv_text import open_text
from biomedcoop.data.tables.parquet import open_parquet
from biomedcoop.data.tables.table import Table, column_key

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")


def open_table(file: Path, wanted: Sequence[str]) -> Table:
    """Open a table: Parquet by its ending, else text.

    Text is UTF-8, or UTF-16 with a byte order mark (Excel's "Unicode text"). A first line ``sep=;`` names the separator. Without
    such a line, it is the one of comma, semicolon, tab and ``|`` that gives the header most of the columns ``wanted``.

    Raises:
        UserError: the file cannot be read.
    """
    if file.suffix.lower() == ".parquet":
        return open_parquet(file)
    return open_text(file, {column_key(name) for name in wanted})
