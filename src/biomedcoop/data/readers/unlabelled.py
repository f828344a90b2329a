"""Images without labels for prediction: files, folders, and tables that list images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from biomedcoop.data import archives
from biomedcoop.data.images.decoders import image_suffixes
from biomedcoop.data.images.sources import ImageSource
from biomedcoop.data.images.stacks import Reading, Taken, split_frame, taken_from
from biomedcoop.data.readers.files.table_columns import PATH_WORDS
from biomedcoop.data.readers.listed_files import PathFinder
from biomedcoop.data.readers.walk import Walk, check_text
from biomedcoop.data.tables.missing import is_missing
from biomedcoop.data.tables.reading import TABLE_SUFFIXES, open_table
from biomedcoop.data.tables.table import check_one_line, same_column
from biomedcoop.errors import UserError


class ListedImage(NamedTuple):
    """An image: its source, its path as the input gives it, and the cells of a table to write beside its prediction."""

    file: ImageSource
    path: str
    kept: dict[str, str]


def find_images(
    inputs: Sequence[str | os.PathLike[str]],
    tell: Callable[[str], None] | None = None,
    keep: Sequence[str] = (),
    reading: Reading | None = None,
    named: bool = True,
) -> Iterator[Path | ListedImage]:
    """Images named by files, folders (searched as training searches them) and tables (with a column ``path``).

    Args:
        tell: called with each note on files that are left out of a folder, and on how files are read; the same note can come twice.
        keep: columns of the tables to write beside the predictions, as :func:`kept_columns` gives them.
        reading: how files with windows and frames are read; a file with several frames gives an image for each.
        named: whether notes name files and folders; False for files that are shared, because names may be those of patients.

    Raises:
        UserError: an input does not exist, a folder holds no image, a table has no ``path`` column or no row, or a name
            is not UTF-8.
    """
    tell, reading = tell or (lambda _: None), reading or Reading()
    for name in inputs:
        path = Path(name)
        if path.is_dir() or archives.is_archive(path):
            found = list(_images_in(path, tell, named))
            taken, notes = taken_from(found, reading)
            if not taken:
                raise UserError(f"{path} holds no image that can be used ({'; '.join(notes)})")
            for note in notes:
                tell(note)
            yield from (_listed(one, str(found[one.position])) for one in taken)
        elif not path.exists() and not archives.is_file(split_frame(path)[0]):
            raise UserError(f"{path} does not exist; give image files, folders, or a table with a column 'path'")
        elif path.suffix.lower() in TABLE_SUFFIXES:
            yield from _images_of_table(path, keep, reading, tell)
        else:
            check_text(path, str(path))
            taken, notes = taken_from([path], reading, listed=True)
            for note in notes:
                tell(note)
            yield from (_listed(one, str(path)) for one in taken)


def _listed(one: Taken, path: str) -> Path | ListedImage:
    return Path(path) if isinstance(one.source, Path) else ListedImage(one.source, path + one.frame, {})


def _images_in(folder: Path, tell: Callable[[str], None], named: bool) -> Iterator[Path]:
    check_text(folder, str(folder))
    walk, empty = Walk(), True
    for image in walk.images(folder):
        empty = False
        yield image
    name = (folder.name or str(folder)) if named else "a folder"
    notes = walk.notes(name, named)
    if empty and (lacking := walk.lacking(name)):
        raise UserError(f"{folder} holds no image that can be read here: {lacking}")
    if empty:
        kinds = "; ".join([", ".join(image_suffixes()), *notes[:1]])
        raise UserError(f"{folder} holds no image ({kinds}); give a folder with images")
    for note in notes:
        tell(note)


def kept_columns(inputs: Sequence[str | os.PathLike[str]], wanted: Sequence[str], written: Sequence[str]) -> list[str]:
    """Columns of the tables among ``inputs`` to write beside the predictions.

    Args:
        wanted: names of columns that every table has, or ``["all"]``: all columns of any table.
        written: columns of the output; a kept column must have another name.

    Raises:
        UserError: there is no table, a table lacks a wanted column, or the output already has a column of that name.
    """
    tables = [open_table(path, ("path",)) for path in map(Path, inputs) if _is_table(path)]
    if wanted and not tables:
        raise UserError("only columns of tables can be kept, but no input is a table; give a CSV, TSV or Parquet file")
    kept: list[str] = []
    for table in tables:
        if list(wanted) == ["all"]:
            path = table.find("path")
            positions = [position for position, name in enumerate(table.columns) if name and position != path]
        else:
            positions = [table.require(name, "names of its columns, separated by commas, or 'all'") for name in wanted]
        for name in (table.columns[position] for position in positions):
            table.find(name)  # raises if two columns have this name
            if name in written:
                raise UserError(
                    f"{table.file}: the column {name!r} cannot be kept, because the predictions have a column of this name; "
                    "rename it, or name the columns to keep"
                )
            if not any(same_column(name, other) for other in kept):
                kept.append(name)
    return kept


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLE_SUFFIXES and path.is_file()


def _images_of_table(
    file: Path, keep: Sequence[str], reading: Reading, tell: Callable[[str], None]
) -> Iterator[ListedImage]:
    """The images of a table, read a row at a time; paths are relative to the table's folder."""
    table = open_table(file, ("path",))
    kept = {name: position for name in keep if (position := table.find(name)) is not None}
    finder = PathFinder()
    empty = True
    for place, (path, *cells) in table.rows([table.require("path", "a column path", PATH_WORDS), *kept.values()]):
        if is_missing(path):
            raise UserError(f"{file}: {place} has an empty path; fill it in or remove the row")
        check_one_line(file, place, "path", path)
        empty = False
        found = finder.find(file.parent / path.replace("\\", "/"))
        taken, notes = taken_from([found], reading, listed=True)
        for note in notes:
            tell(note)
        for one in taken:
            yield ListedImage(one.source, path + one.frame, dict(zip(kept, cells, strict=True)))
    if empty:
        raise UserError(f"{file} lists no image; give a table with a row per image")
