"""The columns of a table of images: path, label, class name, split, group and subgroups."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from biomedcoop.data.readers.files.table_subgroups import AGE_WORDS, SUBGROUP_WORDS, read_subgroups
from biomedcoop.data.readers.folder_names import split_word
from biomedcoop.data.tables.missing import is_missing
from biomedcoop.data.tables.table import Table, check_one_line

EXPECTED = "path,label[,class_name][,split][,group]"

PATH_WORDS = (
    *("image_path", "img_path", "filepath", "file_path", "paths", "filename", "file_name", "image_file", "file"),
    *("image", "img", "images", "image_name", "fname", "image_index", "image_id", "img_id", "isic_id", "name", "id"),
)
"""Common other names of the column ``path``, the most specific first."""

_LABEL_WORDS = (
    *("labels", "class", "target", "diagnosis", "dx", "category", "finding_labels", "finding", "findings", "y"),
    *("class_label", "class_id", "label_id", "disease", "pathology", "benign_malignant", "class_name"),
)
_SPLIT_WORDS = ("splits", "subset", "set", "partition", "phase", "usage", "fold", "data_split", "dataset_split")
_GROUP_WORDS = (  # from the most certain to the least
    ("groups", "group_id"),
    (
        *("patient", "patients", "patient_id", "patient_number", "patient_no", "patient_nr", "subject", "subjects"),
        *(
            "subject_id",
            "person",
            "person_id",
            "participant",
            "participant_id",
            "case_id",
            "mrn",
            "pid",
            "pat_id",
            "ptid",
        ),
        *("pat_no", "patno", "patient_name", "patient_code", "patienten_id", "subj", "subj_id", "donor", "donor_id"),
        *("mouse_id", "animal_id"),
    ),
    (
        *("lesion", "lesion_id", "study_id", "study_instance_uid", "series_id", "series_instance_uid", "exam_id"),
        *("slide", "slide_id", "specimen_id", "biopsy_id", "video_id", "sequence_id", "eye_id", "nodule_id"),
    ),
)
GROUP_NAMES = ("group", *(word for words in _GROUP_WORDS for word in words))
"""Names of a column that holds the group of each image, such as its patient, from the most certain to the least."""

_POSSIBLE_GROUP_WORDS = (
    *("case", "study", "series", "exam", "animal", "mouse", "specimen", "video", "sequence", "family_id", "eid", "rid"),
    *("accession", "accession_number", "scan_id", "hadm_id", "encounter_id", "visit_id", "admission_id"),
)

_NUMBER = re.compile(r"(\d+)\.0+")


@dataclass(frozen=True)
class ImageColumns:
    """The columns that are used, a cell per image; ``class_names``, ``splits`` and ``groups`` are None without such a column."""

    places: list[str]
    paths: list[str]
    labels: list[str]
    class_names: list[str] | None
    splits: list[str] | None
    groups: list[str] | None
    subgroups: dict[str, list[str]]
    notes: tuple[str, ...]


def read_columns(table: Table) -> ImageColumns:
    """Read the columns of a table of labelled images.

    Without a column ``group``, a column with a name such as "patient_id" or "lesion" is read as the group. Without a column
    ``split``, a column with a similar name that holds only words for splits is read as the split. Columns such as "site" or "sex"
    divide the images into subgroups. Notes say so.

    Raises:
        UserError: there is no path or label column, or a row cannot be read.
    """
    stated = {
        "path": table.require("path", EXPECTED, PATH_WORDS),
        "label": table.require("label", EXPECTED, _LABEL_WORDS),
        **{name: found for name in ("class_name", "split", "group") if (found := table.find(name)) is not None},
    }

    def find_all(words: Sequence[str]) -> list[int]:
        found = (table.find(word) for word in words)
        return [position for position in found if position is not None and position not in stated.values()]

    split_like, group_like, possible, dividing = (
        find_all(_SPLIT_WORDS),
        [find_all(words) for words in _GROUP_WORDS],
        find_all(_POSSIBLE_GROUP_WORDS),
        sorted(find_all((*SUBGROUP_WORDS, *AGE_WORDS))),
    )
    positions = [*stated.values(), *split_like, *(p for found in group_like for p in found), *possible, *dividing]
    rows = list(table.rows(positions))
    places = [place for place, _ in rows]
    columns = [[row[index] for _, row in rows] for index in range(len(positions))]
    for name, column in zip(stated, columns, strict=False):
        for place, cell in zip(places, column, strict=True):
            check_one_line(table.file, place, name, cell)
    cells = dict(zip(positions, columns, strict=True))
    stated_cells = {name: cells[position] for name, position in stated.items()}

    def named(found: Sequence[int]) -> dict[str, list[str]]:
        return {table.columns[position]: cells[position] for position in found}

    def cleaned(found: Sequence[int]) -> dict[str, list[str]]:
        return {name: _cleaned_cells(column) for name, column in named(found).items()}

    splits, split_notes = (stated_cells["split"], []) if "split" in stated_cells else _split_column(named(split_like))
    groups: list[str] | None
    if any(stated_groups := _cleaned_cells(stated_cells.get("group", []))):
        groups = stated_groups
        group_notes = _divided_group_notes(stated_groups, cleaned([p for found in group_like for p in found]))
    else:
        groups, group_notes = _group_column([cleaned(found) for found in group_like])
        group_notes = group_notes or _possible_group_notes(cleaned(possible))
    subgroups, subgroup_notes = read_subgroups(cleaned(dividing))
    return ImageColumns(
        places,
        stated_cells["path"],
        stated_cells["label"],
        stated_cells.get("class_name"),
        splits,
        groups,
        subgroups,
        (*split_notes, *group_notes, *subgroup_notes),
    )


def _split_column(like: Mapping[str, Sequence[str]]) -> tuple[list[str] | None, list[str]]:
    candidates = {name: cells for name, cells in like.items() if cells and all(split_word(cell) for cell in cells)}
    if len(candidates) == 1:
        ((name, cells),) = candidates.items()
        return list(cells), [f"the column {name} is read as the split; rename it to turn this off"]
    doubtful = candidates or {name: cells for name, cells in like.items() if any(split_word(cell) for cell in cells)}
    return None, [f"the column {name} looks like a split and is not used; name it split to use it" for name in doubtful]


def _cleaned_cells(cells: Sequence[str]) -> list[str]:
    return ["" if is_missing(cell) else _one_spelling(cell) for cell in cells]


def _one_spelling(cell: str) -> str:
    """A value in one spelling: "12.0" becomes "12", because a data frame writes 12 as 12.0 in a column with gaps."""
    number = _NUMBER.fullmatch(cell)
    return number[1] if number else unicodedata.normalize("NFC", cell)


def _group_column(by_rank: Sequence[Mapping[str, list[str]]]) -> tuple[list[str] | None, list[str]]:
    for like in by_rank:
        candidates = {name: cells for name, cells in like.items() if _repeats(cells)}
        if len(candidates) > 1:
            names = " and ".join(candidates)
            return None, [f"the columns {names} look like groups and are not used; name one of them group"]
        for name, cells in candidates.items():
            if len(set(cells)) == 1:
                return None, [f"all images have the same {name}, so it is not used as the group"]
            return cells, [f"the column {name} is read as the group; rename it to turn this off"]
    return None, []


def _divided_group_notes(groups: Sequence[str], like: Mapping[str, Sequence[str]]) -> list[str]:
    """A note for each group-like column with equal cells for images of different ``groups``."""
    notes = []
    for name, cells in like.items():
        pairs = {
            (cell, group or str(place)) for place, (cell, group) in enumerate(zip(cells, groups, strict=True)) if cell
        }
        if len(pairs) > len({cell for cell, _ in pairs}):
            notes.append(f"some images with the same {name} are in different groups; the column group is used")
    return notes


def _possible_group_notes(like: Mapping[str, Sequence[str]]) -> list[str]:
    return [
        f"the column {name} is not used; if images with the same {name} belong together, name it group"
        for name, cells in like.items()
        if _repeats(cells)
    ]


def _repeats(cells: Sequence[str]) -> bool:
    """Whether two images have the same group."""
    filled = [cell for cell in cells if cell]
    return len(set(filled)) < len(filled)
