"""Reader for a CSV or Parquet table with the columns ``path,label[,class_name][,split][,group]``, one image per row."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from biomedcoop.data.catalogue import find
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.listed_files import ListedFiles
from biomedcoop.data.names import clean_class_name
from biomedcoop.data.rows import (
    Row,
    build_dataset,
    names_by_label,
    names_of_numbers,
    split_word,
    unknown_split,
)
from biomedcoop.errors import UserError

_COLUMNS = "path,label[,class_name][,split][,group]"


def read_table(file: Path, for_training: bool = True) -> Dataset:
    """Read a table of image paths (absolute, or relative to the table's folder) and labels.

    Labels are class names, in the order of their first row, or numbers 0..C-1; numbers are named by the optional
    column ``class_name``. Without a column ``split`` all rows are train. A column ``group`` (patient, lesion, …) may
    have empty cells.

    Raises:
        UserError: malformed, contradictory, or listing files that are missing.
    """
    table = _read_parquet(file) if file.suffix.lower() == ".parquet" else _read_csv(file)
    for column in ("path", "label"):
        if column not in table:
            raise UserError(f"{file}: no column {column!r} (it has {', '.join(table)}); expected {_COLUMNS}")
    paths, labels, splits = table["path"], table["label"], table.get("split")
    if not paths:
        raise UserError(f"{file}: the table has no rows; expected {_COLUMNS}")
    for name, column in (("path", paths), ("label", labels), *((("split", splits),) if splits else ())):
        if "" in column:
            raise UserError(f"{file}: row {column.index('') + 1} has an empty {name}; fill it in or remove the row")
    numbers, class_names, notes = _classes(file, labels, table.get("class_name"), for_training)

    folder = file.absolute().parent
    files = ListedFiles(folder, file, confined=False)
    located = []
    for number, listed in enumerate(paths):
        split = "train" if splits is None else split_word(splits[number])
        if split is None:
            raise unknown_split(splits[number] if splits else "", f"{file}: row {number + 1}")
        located.append((files.add(listed, split), split))
    files.check_existence()

    root = _common_root(folder, [path for path, _ in located])
    groups = table.get("group") or [""] * len(paths)
    rows = [
        Row(Path(os.path.relpath(path, root)).as_posix(), path, label, split, group)
        for (path, split), label, group in zip(located, numbers, groups, strict=True)
    ]
    name = file.stem if find(file.stem) else folder.name
    return build_dataset(name, class_names, rows, root, file, notes, for_training)


def _classes(
    file: Path, labels: Sequence[str], names: Sequence[str] | None, for_training: bool
) -> tuple[list[int], tuple[str, ...], Sequence[str]]:
    """Label numbers, class names in label order, and notes."""
    if not all(_is_integer(label) for label in labels):
        class_names = tuple(dict.fromkeys(clean_class_name(label) for label in labels))
        number = {name: index for index, name in enumerate(class_names)}
        return [number[clean_class_name(label)] for label in labels], class_names, ()
    numbers = [int(label) for label in labels]
    if names is not None:
        return numbers, names_by_label(zip(numbers, names, strict=True), file, for_training), ()
    note = f"the labels in {file.name} are numbers without names; a column class_name would give prompts their words"
    return numbers, names_of_numbers(numbers, file, for_training), (note,)


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _common_root(folder: Path, paths: Sequence[Path]) -> Path:
    """The table's folder, or where some images are outside it, the deepest folder that holds them all."""
    if all(path.is_relative_to(folder) and ".." not in path.parts for path in paths):
        return folder
    return Path(os.path.commonpath([os.path.abspath(path.parent) for path in paths]))  # noqa: PTH100 - keeps links


def _read_csv(file: Path) -> dict[str, list[str]]:
    """Columns of text; the separator (comma, semicolon, tab) is taken from the header line."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text ({error}); save it as CSV UTF-8") from error
    header_line = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if len(set(header)) != len(header):
            raise UserError(f"{file}: a column name appears twice in {header_line.strip()!r}; rename one")
        table: dict[str, list[str]] = {name: [] for name in header}
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise UserError(
                    f"{file}: line {reader.line_num} has {len(cells)} cells but the header has {len(header)}; "
                    "put cells that contain the separator in double quotes"
                )
            for name, cell in zip(header, cells, strict=True):
                table[name].append(cell.strip())
    except csv.Error as error:
        raise UserError(f"{file}: line {reader.line_num} is not readable CSV ({error})") from error
    return table


def _read_parquet(file: Path) -> dict[str, list[str]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table as read_parquet
    except ImportError as error:
        raise UserError(
            f"{file}: Parquet tables need pyarrow; pip install 'biomedcoop[parquet]', or save it as CSV"
        ) from error
    try:
        columns = read_parquet(file).to_pydict()
    except (OSError, ArrowException) as error:
        raise UserError(f"{file}: not a readable Parquet file ({error})") from error
    return {name.strip().lower(): [_text(cell) for cell in column] for name, column in columns.items()}


def _text(cell: Any) -> str:
    """A cell as CSV would have it: missing is empty, 2.0 is "2"."""
    if cell is None or cell != cell:  # NaN is the one value that differs from itself
        return ""
    return str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell).strip()
