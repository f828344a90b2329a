"""Predictions for files, folders or a table, written to CSV, JSON or Parquet as they come: memory does not grow with the number
of images, and the output appears whole or not at all."""

from __future__ import annotations

import csv
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.data.images.decoders import image_suffixes
from biomedcoop.data.readers.listed_files import Disk
from biomedcoop.data.readers.walk import Walk, check_text
from biomedcoop.data.tables.columns import PATH_WORDS
from biomedcoop.data.tables.reading import TABLE_SUFFIXES, check_one_line, is_missing, open_table, same_column
from biomedcoop.errors import ImageError, UserError
from biomedcoop.output import new_file

Row = dict[str, Any]

PARQUET_ROWS = 1000


class Listed(NamedTuple):
    """An image that a table lists: the file, its path as the table gives it, and the cells to write beside its prediction."""

    file: Path
    path: str
    kept: Row


def find_images(
    inputs: Sequence[str | os.PathLike[str]],
    tell: Callable[[str], None] | None = None,
    keep: Sequence[str] = (),
) -> Iterator[Path | Listed]:
    """Images named by files, folders (searched as training searches them) and tables (with a column ``path``).

    Args:
        tell: told what is left out of a folder, a sentence each.
        keep: columns of the tables to write beside the predictions, as :func:`kept_columns` gives them.

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
            yield from _listed(path, keep)
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
        kinds = "; ".join([", ".join(image_suffixes()), *notes[:1]])
        raise UserError(f"{folder} holds no image ({kinds}); give a folder that does")
    if tell is not None:
        for note in notes:
            tell(note)


def kept_columns(inputs: Sequence[str | os.PathLike[str]], wanted: Sequence[str], written: Sequence[str]) -> list[str]:
    """Columns of the tables among ``inputs`` to write beside the predictions.

    Args:
        wanted: names of columns that every table has, or ``["all"]``: all columns of any table.
        written: columns of the output that none of these may be called.

    Raises:
        UserError: no table, a table without such a column, or a name that the output has already.
    """
    tables = [open_table(path, ("path",)) for path in map(Path, inputs) if _is_table(path)]
    if wanted and not tables:
        raise UserError("columns can be kept only of tables, and there is none among the inputs")
    kept: list[str] = []
    for table in tables:
        if list(wanted) == ["all"]:
            path = table.find("path")
            positions = [position for position, name in enumerate(table.columns) if name and position != path]
        else:
            positions = [table.require(name, "the columns to keep") for name in wanted]
        for name in (table.columns[position] for position in positions):
            table.find(name)  # refuses a name that is there twice
            if name in written:
                raise UserError(
                    f"{table.file}: the column {name!r} cannot be kept, as the predictions have a column of this name; "
                    "rename it, or name the columns to keep"
                )
            if not any(same_column(name, other) for other in kept):
                kept.append(name)
    return kept


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLE_SUFFIXES and path.is_file()


def _listed(file: Path, keep: Sequence[str]) -> Iterator[Listed]:
    """The images of a table, read a row at a time; paths are relative to the table's folder."""
    table = open_table(file, ("path",))
    kept = {name: position for name in keep if (position := table.find(name)) is not None}
    disk = Disk()
    empty = True
    for place, (path, *cells) in table.rows([table.require("path", "a column path", PATH_WORDS), *kept.values()]):
        if is_missing(path):
            raise UserError(f"{file}: {place} has an empty path; fill it in or remove the row")
        check_one_line(file, place, "path", path)
        empty = False
        found = disk.find(file.parent / path.replace("\\", "/"))
        yield Listed(found, path, dict(zip(kept, cells, strict=True)))
    if empty:
        raise UserError(f"{file} lists no image; give a table with a row per image")


def predict_rows(
    classifier: Classifier,
    images: Iterable[Path | Listed],
    *,
    keep: Sequence[str] = (),
    skip_bad: bool = False,
    report: Callable[[str], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Row]:
    """One row per image: ``path``, the columns of ``keep``, ``prediction`` and ``p_<class name>`` for every class.

    Args:
        keep: columns of the tables that list the images; an image that has no such cell gets an empty one.
        skip_bad: leave out images that cannot be read and tell ``report``, in place of an error.
        progress: told the number of images done.

    Raises:
        UserError: an image cannot be read.
    """
    waiting: deque[Listed] = deque()  # of the images that are read ahead

    def files() -> Iterator[Path]:
        for image in images:
            listed = image if isinstance(image, Listed) else Listed(image, str(image), {})
            waiting.append(listed)
            yield listed.file

    for done, (_, probabilities) in enumerate(classifier.predict_stream(files()), start=1):
        listed = waiting.popleft()
        if progress is not None:
            progress(done)
        if isinstance(probabilities, ImageError):
            if not skip_bad:
                raise UserError(f"{probabilities}; or pass --skip-bad to leave such images out") from probabilities
            if report is not None:
                report(f"skipped {probabilities}")
            continue
        row: Row = {"path": listed.path, **{name: listed.kept.get(name, "") for name in keep}}
        row["prediction"] = classifier.class_names[int(probabilities.argmax())]
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
        _pyarrow()
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
    parquet = _pyarrow()
    import pyarrow as pa

    texts = columns[: columns.index("prediction") + 1]
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


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError("to write Parquet, pyarrow is needed: pip install 'biomedcoop[parquet]'; or use CSV") from error
    return parquet


def columns_of(classifier: Classifier, keep: Sequence[str] = ()) -> list[str]:
    """Column names of the rows of :func:`predict_rows`."""
    return ["path", *keep, "prediction", *(f"p_{name}" for name in classifier.class_names)]
