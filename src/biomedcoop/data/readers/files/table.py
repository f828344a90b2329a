"""Reader for a CSV or Parquet table with the columns ``path,label[,class_name][,split][,group]``, one image per row.

Columns such as "site", "sex" and "age" divide the images into subgroups.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.stacks import Reading, split_frame_key
from biomedcoop.data.readers.files.table_columns import EXPECTED, read_columns
from biomedcoop.data.readers.files.table_labels import read_labels
from biomedcoop.data.readers.folder_names import split_word
from biomedcoop.data.readers.listed_files import ListedFiles
from biomedcoop.data.readers.rows import Row, build_dataset, unknown_split
from biomedcoop.data.tables.missing import is_missing
from biomedcoop.data.tables.reading import TABLE_SUFFIXES, open_table
from biomedcoop.errors import UserError


def read_table(file: Path, for_training: bool = True, reading: Reading | None = None) -> Dataset:
    """Read a table of image paths (absolute, or relative to the table's folder) and labels.

    Labels are class names, in the order of their first row, or numbers 0..C-1, or codes that the optional column
    ``class_name`` explains. Without a column ``split`` all rows are train. A column ``group`` (patient, lesion, …) may have
    empty cells. The paths as the table gives them are the keys of the images, and the dataset has the table's name without ending.

    Args:
        for_training: False for test data: one class is enough, and numbers may have gaps.

    Raises:
        UserError: the table is malformed or contradicts itself, or lists files that are missing.
    """
    columns = read_columns(open_table(file, ("path", "label")))
    if not columns.paths:
        raise UserError(f"{file}: the table has no rows; expected {EXPECTED}")
    labels = read_labels(file, columns.places, columns.labels, columns.class_names, for_training)

    folder = file.absolute().parent
    files = ListedFiles(folder, file, confined=False)
    located = []
    for number, (place, listed) in enumerate(zip(columns.places, columns.paths, strict=True)):
        word = "train" if columns.splits is None else columns.splits[number]
        for name, cell in (("path", listed), ("split", word)):
            if is_missing(cell):
                raise UserError(f"{file}: {place} has an empty {name}; fill it in or remove the row")
        split = split_word(word)
        if split is None:
            raise unknown_split(word, f"{file}: {place}")
        located.append((files.add(listed, split), split))
    files.check_existence()

    groups = columns.groups or [""] * len(located)
    rows = [
        Row(listed, path, label, split, group)
        for listed, (path, split), label, group in zip(columns.paths, located, labels.numbers, groups, strict=True)
    ]
    notes = (*labels.notes, *columns.notes)
    data = build_dataset(file.stem, labels.class_names, rows, folder, file, notes, for_training, reading)
    of_key = {row.key: number for number, row in enumerate(rows)}
    of_image = [of_key[key] if key in of_key else of_key[split_frame_key(key)] for key in data.keys]
    subgroups = {name: np.array(cells)[of_image] for name, cells in columns.subgroups.items()}
    return replace(data, subgroups={**data.subgroups, **subgroups})


READERS = dict.fromkeys(TABLE_SUFFIXES, read_table)
