"""Check of folder levels: the upper folders may be patients, folds or sites, and the folders in each of them the classes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import cache

from biomedcoop.data.catalogue import entries
from biomedcoop.data.names import fold
from biomedcoop.data.readers.folder_names import split_word
from biomedcoop.errors import UserError

_DIAGNOSES = frozenset(
    {"abnormal", "benign", "cancer", "control", "controls", "disease", "diseased", "healthy", "malignant", "negative"}
    | {"normal", "pathological", "pneumonia", "positive", "sick", "tumor", "tumour", "covid"}
)
# sides, planes, views, sequences and phases divide the images of a class; they are not classes
_ASPECTS = re.compile(
    r"left|right|l|r|od|os|axial|coronal|sagittal|transverse|longitudinal|ax|cor|sag|ap|pa|lat|lateral|cc|mlo|lcc|rcc|lmlo|rmlo"
    r"|t1|t1c|t1ce|t2|flair|dwi|adc|arterial|venous|portal|delayed|pre|post|\d+\s?[x×]|[x×]\d+"
)

Parts = tuple[str, ...]
"""Names of the folders between a class folder and an image."""


def check_levels(below: Mapping[str, Collection[Parts]], where: object) -> None:
    """Refuse folders if both the upper and the lower ones may be the classes.

    Folders within a class are fine: patients differ between classes, and sides and views have known names. But if all upper folders
    hold the same few names, the lower folders may be the classes.

    Args:
        below: for each class folder, the folders between it and its images.

    Raises:
        UserError: both levels may be the classes, or the lower folders are splits.
    """
    uppers = sorted(below)
    chains = {(upper, parts) for upper, held in below.items() for parts in held}
    for level in range(min((len(parts) for _, parts in chains), default=0)):
        parents = {(upper, parts[:level]) for upper, parts in chains}
        pairs = {(upper, parts[: level + 1]) for upper, parts in chains}
        names = sorted({parts[level] for _, parts in chains})
        if {split_word(name) for name in names} >= {"train", "test"}:
            raise UserError(
                f"{where}: {_shortened(uppers)} hold the split folders {_shortened(names)}; put the splits above the classes "
                "(train/<class>/…), or give a table with the columns path,label,split"
            )
        if len(uppers) < 2 or len(names) < 2:
            continue
        in_each = len(pairs) == len(parents) * len(names)
        in_many = len(pairs) >= 2 * len(names) and len(parents) > len(names)
        if (in_each or in_many) and _may_be_classes(uppers, names, level):
            raise UserError(
                f"{where}: are the classes the upper folders ({_shortened(uppers)}) or the lower ones "
                f"({_shortened(names)}), which are the same in each? Give a table with the columns path,label,group, "
                "or a folder with one folder per class and no folders below them"
            )


def _may_be_classes(uppers: list[str], names: list[str], level: int) -> bool:
    """Whether the folders ``names`` below the folders ``uppers`` may be the classes; True in doubt."""
    if are_aspects(names):
        return False
    if any(map(_is_diagnosis, names)):
        return True
    if any(map(_is_diagnosis, uppers)):
        return False
    labels = names == [str(number) for number in range(len(names))]
    numbered = _in_series(names) and not labels  # e.g. patients 1, 2, 3 in each class
    return not (level and numbered) if _in_series(uppers) else not (level or numbered)


def are_aspects(names: Collection[str]) -> bool:
    """Whether folders divide images by side, plane, view or the like."""
    return all(_ASPECTS.fullmatch(fold(name)) for name in names)


def _is_diagnosis(name: str) -> bool:
    return fold(name) in _known_classes() or not _DIAGNOSES.isdisjoint(re.findall(r"[a-z]+", fold(name)))


@cache
def _known_classes() -> frozenset[str]:
    return frozenset(fold(name) for entry in entries() for name in entry.class_names)


def _in_series(names: Collection[str]) -> bool:
    """Whether names form a numbered series, as those of patients and folds do: "8863", "fold_0", "hospitalA"."""
    folded = [fold(name) for name in names]
    return all(re.search(r"\d", name) for name in folded) or len({name[:-1] for name in folded}) == 1


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
