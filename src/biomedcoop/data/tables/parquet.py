"""Parquet tables; every cell becomes the text of the same table in CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from biomedcoop.data.tables.table import EDGES, Row, Table
from biomedcoop.errors import UserError


def open_parquet(file: Path) -> Table:
    """Open a Parquet table; needs the extra ``parquet``.

    Raises:
        UserError: it cannot be read.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError(
            f"{file}: Parquet tables need pyarrow; pip install 'biomedcoop[parquet]', or save it as CSV"
        ) from error

    def unreadable(error: Exception) -> UserError:
        reason = str(error).partition("\n")[0]
        return UserError(f"{file}: not a readable Parquet file ({reason})")

    try:
        with parquet.ParquetFile(file) as opened:
            names = [str(name) for name in opened.schema_arrow.names]
    except (OSError, pa.ArrowException) as error:
        raise unreadable(error) from error
    # pandas stores the row numbers of a data frame in a column that the user does not know
    columns = tuple("" if name.startswith("__index_level_") else name.strip(EDGES) for name in names)

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
            raise unreadable(error) from error

    return Table(file, columns, rows)


def _texts(column: Any, pa: Any) -> list[str]:
    if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type) or pa.types.is_time(column.type):
        column = column.cast(pa.string())
    return [_text(cell) for cell in column.to_pylist()]


def _text(cell: Any) -> str:
    """The text of a cell as in CSV: a missing value is empty, 2.0 is "2"."""
    if cell is None or cell != cell:  # NaN is the one value that differs from itself
        return ""
    if isinstance(cell, (float, Decimal)) and cell == cell // 1 and -(2**63) < cell < 2**63:
        return str(int(cell))
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace").strip(EDGES)
    return str(cell).strip(EDGES)
