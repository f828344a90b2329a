"""Labels as an estimator of scikit-learn gets them, and the class names that stand for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from biomedcoop.errors import UserError


def labels_of(y: Any) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """The sorted distinct labels [C], of the type of ``y``, and the position of each label among them, int64 [N].

    Raises:
        ValueError: ``y`` is missing, has more than one column, or holds no classes.
    """
    if y is None:
        raise UserError(
            "FewShotClassifier requires y to be passed, but the target y is None; give one label for each image"
        )
    given = column_or_1d(y, warn=True)
    if given.dtype.kind == "O" and any(isinstance(label, str) for label in given):
        for label in given:
            if not isinstance(label, str):
                raise UserError(f"y mixes texts with other labels ({label!r}); give a label of one type for each image")
    check_classification_targets(given)
    if given.dtype.kind not in "biufUO":
        given = given.astype(object)  # texts of another type of array
    classes, positions = np.unique(given, return_inverse=True)
    return classes, positions.astype(np.int64)


def names_of(classes: npt.NDArray[Any], class_names: Any, reader: str) -> list[str]:
    """The name of each class.

    Args:
        classes: the labels.
        class_names: parameter of the estimator: a mapping of labels to names, a list whose place is the label, or None.
        reader: name of the method, if it reads the names; else empty.

    Raises:
        UserError: a label has no name, or a method that reads names would read numbers.
    """
    labels = classes.tolist()
    if class_names is None:
        if reader and classes.dtype.kind not in "UO":
            example = ", ".join(f"{label!r}: '…'" for label in labels[:2])
            raise UserError(
                f"y holds numbers, and {reader} reads the names of the classes; give class_names={{{example}}}, texts as labels, "
                "or a method without words, such as method='linear-probe'"
            )
        return list(map(str, labels))
    if isinstance(class_names, Mapping):
        names = dict(class_names)
    elif isinstance(class_names, Sequence | np.ndarray) and not isinstance(class_names, str):
        names = dict(enumerate(class_names))
    else:
        raise UserError(
            f"class_names={class_names!r} must be a dict of labels and names, or a list of the names of labels 0, 1, …"
        )
    for label in labels:
        if not isinstance(names.get(label), str):
            listed = (
                "" if isinstance(class_names, Mapping) else " (a list names the labels 0, 1, …; give a dict for others)"
            )
            raise UserError(f"class_names has no name for the label {label!r}{listed}; name every class")
    return [names[label] for label in labels]
