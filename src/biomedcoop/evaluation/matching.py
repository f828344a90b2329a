"""Match the classes of test data to the classes of a classifier by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from biomedcoop.data.dataset import Dataset
from biomedcoop.data.names import fold
from biomedcoop.errors import UserError, nearest


def labels_of(
    data: Dataset, known: Sequence[str], rename: Mapping[str, str] | None = None
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """The labels of ``data`` as positions in ``known``, and notes on assumptions.

    Only classes with images must be known. Case, Unicode forms, ``_`` and hyphens between words make no difference. Labels that
    are numbers without names ("class 0", "class 1", …) mean the classifier's classes in order, or the classes whose names are
    these numbers.

    Args:
        data: test images.
        known: class names of the classifier.
        rename: class of ``data`` -> class of the classifier; several classes may become one.

    Raises:
        UserError: an image has a class that is not known, or ``rename`` has a name that the data or the classifier lacks.
    """
    renamed = _renamed(data, known, rename or {})
    others = [label for label in np.unique(data.labels).tolist() if label not in renamed]
    match = _by_number if _only_numbered(data.class_names) and not _only_numbered(known) else _by_name
    number, notes = match(data, known, others) if others else ({}, [])
    number |= renamed
    return np.array([number[label] for label in data.labels.tolist()], dtype=np.int64), notes


def _renamed(data: Dataset, known: Sequence[str], rename: Mapping[str, str]) -> dict[int, int]:
    """The classifier's class of each label of ``data`` that the user renames."""
    if not isinstance(rename, Mapping) or not all(isinstance(name, str) for pair in rename.items() for name in pair):
        raise UserError("rename must map class names of the data to class names of the classifier")
    number: dict[int, int] = {}
    for old, new in rename.items():
        if (label := _position(old, data.class_names)) is None:
            raise UserError(f"rename {old}={new}: {data.name} has no class '{old}'; {nearest(old, data.class_names)}")
        if (matched := _position(new, known)) is None:
            raise UserError(f"rename {old}={new}: the classifier has no class '{new}'; {nearest(new, known)}")
        if number.setdefault(label, matched) != matched:
            raise UserError(f"rename gives the class '{data.class_names[label]}' two names; give it one")
    return number


def _by_name(data: Dataset, known: Sequence[str], present: Sequence[int]) -> tuple[dict[int, int], list[str]]:
    number = {}
    for label in present:
        name = data.class_names[label]
        if (matched := _position(name, known)) is None:
            raise UserError(f"{data.name} has the class '{name}', {_way_out(name, known)}")
        number[label] = matched
    return number, []


def _position(name: str, names: Sequence[str]) -> int | None:
    """Place of a name among others: that of the same name, else of the same name in another spelling."""
    return next((k for key in (str, fold) for k, other in enumerate(names) if key(other) == key(name)), None)


def _by_number(data: Dataset, known: Sequence[str], present: Sequence[int]) -> tuple[dict[int, int], list[str]]:
    # classes such as grades may be called "1", "2", "3": a number then means the name, not the position
    places = list(known) if any(name.isdecimal() for name in known) else [str(k) for k in range(len(known))]
    for label in present:
        if str(label) not in places:
            raise UserError(
                f"{data.name} has the label {label} and no class names, the classifier knows {', '.join(places)} "
                f"({', '.join(known)}); correct the label, or give the data class names"
            )
    number = {label: places.index(str(label)) for label in present}
    pairs = ", ".join(f"{label} as '{known[k]}'" for label, k in number.items())
    return number, [
        f"The labels of {data.name} are numbers without names; they were read as classes of the classifier: {pairs}."
    ]


def _only_numbered(class_names: Sequence[str]) -> bool:
    """Whether all names are of the form that readers give to number labels without names."""
    return all(name == f"class {k}" for k, name in enumerate(class_names))


def _way_out(name: str, known: Sequence[str]) -> str:
    if _only_numbered(known):
        return (
            f"the classifier was trained on numbers without names, 0 to {len(known) - 1}; give these numbers as labels, or "
            "train again with class names"
        )
    return (
        f"the classifier knows: {', '.join(known)}; give its name there (--rename '{name}=NAME'), train on this dataset, "
        "or use 'for_classes' (--classes) with a method that can take new classes"
    )
