"""Predictions for files, folders or a table, written to CSV, JSON or Parquet as they come: memory does not grow with the number
of images, and the output appears whole or not at all."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.data.images import IMAGE_SUFFIXES
from biomedcoop.data.walk import Walk, check_text
from biomedcoop.errors import ImageError, UserError
from biomedcoop.output import new_file

Row = dict[str, Any]

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
PARQUET_ROWS = 1000


def find_images(inputs: Sequence[str | os.PathLike[str]], tell: Callable[[str], None] | None = None) -> Iterator[Path]:
    """Images named by files, folders (searched as training searches them) and tables (with a column ``path``).

    Args:
        tell: told what is left out of a folder, a sentence each.

    Raises:
        UserError: an input does not exist, a folder holds no image, a table has no ``path`` column or no row, or a name
            is not UTF-8.
    """
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            yield from _images_in(path, tell)
        elif not path.exists():
            raise UserError(f"{path} does not exist; give image files, folders, or a table with a column 'path'")
        elif path.suffix.lower() in TABLE_SUFFIXES:
            yield from _table_paths(path)
        else:
            check_text(path, str(path))
            yield path


def _images_in(folder: Path, tell: Callable[[str], None] | None) -> Iterator[Path]:
    check_text(folder, str(folder))
    walk, empty = Walk(), True
    for image in walk.images(folder):
        empty = False
        yield image
    notes = walk.notes(folder.name or str(folder))
    if empty:
        kinds = f"{', '.join(sorted(IMAGE_SUFFIXES))}; {notes[0]}" if notes else ", ".join(sorted(IMAGE_SUFFIXES))
        raise UserError(f"{folder} holds no image ({kinds}); give a folder that does")
    if tell is not None:
        for note in notes:
            tell(note)


def _table_paths(table: Path) -> Iterator[Path]:
    """The column ``path`` of a table, relative to the table's folder, read a piece at a time."""
    cells = _parquet_cells(table) if table.suffix.lower() == ".parquet" else _csv_cells(table)
    number = 0
    for number, cell in enumerate(cells, start=1):
        if not cell:
            raise UserError(f"{table}: row {number} has no path; fill it in or remove the row")
        yield table.parent / cell
    if not number:
        raise UserError(f"{table} lists no image; give a table with a row per image")


def _csv_cells(table: Path) -> Iterator[str]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            delimiter = max(",;\t", key=header.count)  # as in the tables that training reads
            names = [name.strip().strip('"').lower() for name in header.split(delimiter)]
            column = _path_column(names, table)
            for cells in csv.reader(file, delimiter=delimiter):
                if any(cell.strip() for cell in cells):
                    yield cells[column].strip() if column < len(cells) else ""
    except UnicodeDecodeError as error:
        raise UserError(f"{table} is not UTF-8 text ({error.reason}); save it as CSV UTF-8") from error
    except (OSError, csv.Error) as error:
        raise UserError(f"{table} cannot be read as CSV: {error}") from error


def _parquet_cells(table: Path) -> Iterator[str]:
    parquet = _pyarrow("read")
    from pyarrow import ArrowException

    try:
        file = parquet.ParquetFile(table)
        names = file.schema_arrow.names
        name = names[_path_column([name.strip().lower() for name in names], table)]
        for batch in file.iter_batches(columns=[name]):
            yield from ("" if value is None else str(value).strip() for value in batch.column(0).to_pylist())
    except (OSError, ArrowException) as error:
        raise UserError(f"{table} cannot be read as Parquet: {error}") from error


def _path_column(names: Sequence[str], table: Path) -> int:
    if "path" not in names:
        raise UserError(f"{table} has no column 'path'; it has: {', '.join(filter(None, names)) or 'nothing'}")
    return names.index("path")


def predict_rows(
    classifier: Classifier,
    images: Iterable[Path],
    *,
    skip_bad: bool = False,
    report: Callable[[str], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Row]:
    """One row per image: ``path``, ``prediction`` and ``p_<class name>`` for every class.

    Args:
        skip_bad: leave out images that cannot be read and tell ``report``, in place of an error.
        progress: told the number of images done.

    Raises:
        UserError: an image cannot be read.
    """
    for done, (source, probabilities) in enumerate(classifier.predict_stream(images), start=1):
        if progress is not None:
            progress(done)
        if isinstance(probabilities, ImageError):
            if not skip_bad:
                raise UserError(f"{probabilities}; or pass --skip-bad to leave such images out") from probabilities
            if report is not None:
                report(f"skipped {probabilities}")
            continue
        row: Row = {"path": str(source), "prediction": classifier.class_names[int(probabilities.argmax())]}
        row |= {f"p_{n}": round(float(p), 6) for n, p in zip(classifier.class_names, probabilities, strict=True)}
        yield row


def write_predictions(rows: Iterable[Row], columns: Sequence[str], out: Path, *, overwrite: bool = False) -> int:
    """Write rows to a file whose ending says the format: ``.csv``, ``.json`` or ``.parquet``.

    Returns:
        The number of rows.

    Raises:
        UserError: unknown ending, existing file (unless ``overwrite``), or the file cannot be written.
    """
    writer = check_output(out, overwrite)
    with new_file(out) as temporary:
        return writer(rows, columns, temporary)


class _Writer(Protocol):
    def __call__(self, rows: Iterable[Row], columns: Sequence[str], path: Path) -> int: ...


def check_output(out: Path, overwrite: bool) -> _Writer:
    """The writer for a file name; refuses early what could not be written after long work."""
    writers: dict[str, _Writer] = {".csv": _write_csv, ".json": _write_json, ".parquet": _write_parquet}
    if out.suffix.lower() not in writers:
        raise UserError(f"{out}: predictions are written to {', '.join(writers)}; choose one of these endings")
    if out.suffix.lower() == ".parquet":
        _pyarrow("write")
    if out.is_dir():
        raise UserError(f"{out} is a folder; name a file")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists already; choose another name or pass --overwrite")
    if not out.absolute().parent.is_dir():
        raise UserError(f"the folder {out.parent} does not exist; make it first")
    return writers[out.suffix.lower()]


def _write_csv(rows: Iterable[Row], columns: Sequence[str], path: Path) -> int:
    with path.open("x", newline="", encoding="utf-8") as file:
        return csv_lines(rows, columns, file)


def csv_lines(rows: Iterable[Row], columns: Sequence[str], file: IO[str]) -> int:
    """Write rows as CSV to an open file."""
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    count = 0
    for row in rows:
        writer.writerow(row)
        count += 1
    return count


def _write_json(rows: Iterable[Row], columns: Sequence[str], path: Path) -> int:
    with path.open("x", encoding="utf-8") as file:
        return json_lines(rows, file)


def json_lines(rows: Iterable[Row], file: IO[str]) -> int:
    """Write rows as one JSON array, a row per line, to an open file."""
    count = 0
    file.write("[")
    for count, row in enumerate(rows, start=1):
        file.write(("," if count > 1 else "") + "\n " + json.dumps(row, ensure_ascii=False))
    file.write("\n]\n")
    return count


def _write_parquet(rows: Iterable[Row], columns: Sequence[str], path: Path) -> int:
    parquet = _pyarrow("write")
    import pyarrow as pa

    schema = pa.schema([(name, pa.string() if name in ("path", "prediction") else pa.float64()) for name in columns])
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


def _pyarrow(verb: str) -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError(
            f"to {verb} Parquet, pyarrow is needed: pip install 'biomedcoop[parquet]'; or use CSV"
        ) from error
    return parquet


def columns_of(classifier: Classifier) -> list[str]:
    """Column names of the rows of :func:`predict_rows`."""
    return ["path", "prediction", *(f"p_{name}" for name in classifier.class_names)]
