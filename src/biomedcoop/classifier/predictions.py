"""Predictions for files, folders or a table, row by row; memory does not grow with the number of images."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.data.images.sources import ImageSource
from biomedcoop.data.readers.unlabelled import ListedImage
from biomedcoop.data.tables.writing import Row, check_table_file, write_table
from biomedcoop.errors import ImageError, UserError

UNLIKE = "unlike_training"
SET, SET_SIZE, ABSTAIN = "set", "set_size", "abstain"
SEPARATOR = " | "
"""Between the class names of a set."""


def predict_rows(
    classifier: Classifier,
    images: Iterable[Path | ListedImage],
    *,
    keep: Sequence[str] = (),
    skip_bad: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Row]:
    """Predict one row per image, in order: the columns of :func:`columns_of`.

    Args:
        keep: columns to copy from the tables that list the images; the cell is empty for an image without such a column.
        skip_bad: go on after an image that cannot be read. The column ``error`` of its row holds the reason, and its other
            results are None; the ``error`` of any other image is None.
        progress: called with the number of images done.

    Raises:
        UserError: an image cannot be read, unless ``skip_bad``.
    """
    waiting: deque[ListedImage] = deque()  # images that are read but not yet predicted

    def files() -> Iterator[ImageSource]:
        for image in images:
            listed = image if isinstance(image, ListedImage) else ListedImage(image, str(image), {})
            waiting.append(listed)
            yield listed.file

    for done, (_, probabilities, unlike, members) in enumerate(classifier.predict_stream(files()), start=1):
        listed = waiting.popleft()
        if progress is not None:
            progress(done)
        row: Row = dict.fromkeys(columns_of(classifier, keep, skip_bad))
        row |= {"path": listed.path, **{name: listed.kept.get(name, "") for name in keep}}
        if not isinstance(probabilities, ImageError):
            row["prediction"] = classifier.class_names[int(probabilities.argmax())]
            row |= {f"p_{n}": round(float(p), 6) for n, p in zip(classifier.class_names, probabilities, strict=True)}
            row |= {} if unlike is None else {UNLIKE: int(unlike)}
            row |= {} if members is None else set_cells(classifier.class_names, members)
        elif skip_bad:
            row["error"] = probabilities.reason
        else:
            raise UserError(f"{probabilities}; or pass --skip-bad to go on after such images") from probabilities
        yield row


def check_predictions_file(out: Path, overwrite: bool) -> None:
    """Check before long work that `write_predictions` can write a file.

    Raises:
        UserError: the file name ending is unknown, the file exists (unless ``overwrite``), or its folder cannot be written to.
    """
    check_table_file(out, overwrite, "predictions")


def write_predictions(rows: Iterable[Row], columns: Sequence[str], out: Path, *, overwrite: bool = False) -> int:
    """Write rows to a ``.csv``, ``.json`` or ``.parquet`` file; the file appears when it is complete.

    Returns:
        The number of rows.

    Raises:
        UserError: see `check_predictions_file`; or the file cannot be written.
    """
    check_predictions_file(out, overwrite)
    numbers = columns.index("prediction") + 1 if "prediction" in columns else len(columns)
    texts = [*columns[:numbers], *(name for name in columns[numbers:] if name in ("error", SET))]
    return write_table(rows, columns, out, texts)


def columns_of(classifier: Classifier, keep: Sequence[str] = (), skip_bad: bool = False) -> list[str]:
    """Column names of the rows of :func:`predict_rows`.

    They are ``path``, those of ``keep``, ``prediction``, ``error`` (with ``skip_bad``), ``p_<class name>`` for every class, and
    ``unlike_training`` (1 for an image unlike the training images, else 0) if the classifier can tell. A classifier with prediction
    sets adds ``set`` (class names with " | " between them), ``set_size`` and ``abstain`` (1 unless the set has one class).
    """
    error, unlike = ["error"] if skip_bad else [], [] if classifier.domain is None else [UNLIKE]
    sets = [] if classifier.sets is None else [SET, SET_SIZE, ABSTAIN]
    return ["path", *keep, "prediction", *error, *(f"p_{name}" for name in classifier.class_names), *unlike, *sets]


def set_cells(class_names: Sequence[str], members: npt.NDArray[np.bool_]) -> Row:
    """The columns of a prediction set, from which classes are in it, bool [C]."""
    size = int(members.sum())
    inside = (name for name, member in zip(class_names, members, strict=True) if member)
    return {SET: SEPARATOR.join(inside), SET_SIZE: size, ABSTAIN: int(size != 1)}
