"""Predictions for files, folders or a table, row by row; memory does not grow with the number of images."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.data.images.facts import Tally
from biomedcoop.data.images.sources import ImageSource
from biomedcoop.data.readers.unlabelled import ListedImage
from biomedcoop.data.tables.writing import Row, check_table_file, write_table
from biomedcoop.errors import ImageError, UserError

UNLIKE = "unlike_training"
SET, SET_SIZE, ABSTAIN = "set", "set_size", "abstain"
TOP = "top_"
"""Begins the name of a column with one of the most probable classes."""
SEPARATOR = " | "
"""Between the class names of a set."""


class Contents(NamedTuple):
    """What a row says of an image beside the prediction.

    Attributes:
        top_k: number of classes with a name and a probability each, the most probable first; None for a column of each class.
        threshold: least probability of the predicted class; the column ``abstain`` marks images below it. None for no threshold.
        sets: whether to write prediction sets; None for those of a classifier that has them.
    """

    top_k: int | None = None
    threshold: float | None = None
    sets: bool | None = None

    def checked(self, classifier: Classifier) -> Contents:
        """The same contents with ``sets`` decided.

        Raises:
            UserError: the classifier has fewer classes or no sets, or a threshold that every or no image reaches.
        """
        count = len(classifier.class_names)
        if self.top_k is not None and not 1 <= self.top_k <= count:
            raise UserError(f"--top-k {self.top_k}, but the classifier has {count} classes; give 1 to {count}")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise UserError(
                f"--threshold {self.threshold:g} is no probability; give a number above 0 and at most 1, e.g. --threshold 0.8"
            )
        if self.sets and classifier.sets is None:
            raise UserError("this classifier has no prediction sets; train it with --alpha, e.g. --alpha 0.1")
        return self._replace(sets=classifier.sets is not None and self.sets is not False)


PLAIN = Contents()


def predict_rows(
    classifier: Classifier,
    images: Iterable[Path | ListedImage],
    *,
    keep: Sequence[str] = (),
    skip_bad: bool = False,
    contents: Contents = PLAIN,
    batch: int | None = None,
    tally: Tally | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Row]:
    """Predict one row per image, in order: the columns of :func:`columns_of`.

    Args:
        contents: what the row says of an image.
        batch, tally: see :meth:`Classifier.predict_stream`.
        keep: columns to copy from the tables that list the images; the cell is empty for an image without such a column.
        skip_bad: go on after an image that cannot be read. The column ``error`` of its row holds the reason, and its other
            results are None; the ``error`` of any other image is None.
        progress: called with the number of images done.

    Raises:
        UserError: an image cannot be read, unless ``skip_bad``.
    """
    contents = contents.checked(classifier)
    waiting: deque[ListedImage] = deque()  # images that are read but not yet predicted

    def files() -> Iterator[ImageSource]:
        for image in images:
            listed = image if isinstance(image, ListedImage) else ListedImage(image, str(image), {})
            waiting.append(listed)
            yield listed.file

    for done, (_, probabilities, unlike, members) in enumerate(
        classifier.predict_stream(files(), batch, tally), start=1
    ):
        listed = waiting.popleft()
        if progress is not None:
            progress(done)
        row: Row = dict.fromkeys(columns_of(classifier, keep, skip_bad, contents))
        row |= {"path": listed.path, **{name: listed.kept.get(name, "") for name in keep}}
        if not isinstance(probabilities, ImageError):
            row["prediction"] = classifier.class_names[int(probabilities.argmax())]
            row |= _probability_cells(classifier.class_names, probabilities, contents.top_k)
            row |= {} if unlike is None else {UNLIKE: int(unlike)}
            row |= set_cells(classifier.class_names, members) if contents.sets and members is not None else {}
            if contents.threshold is not None:
                row[ABSTAIN] = int(row.get(ABSTAIN) == 1 or probabilities.max() < contents.threshold)
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
    tops = [name for name in columns[numbers:] if name.startswith(TOP) and name.removeprefix(TOP).isdecimal()]
    texts = [*columns[:numbers], *(name for name in columns[numbers:] if name in ("error", SET, *tops))]
    return write_table(rows, columns, out, texts)


def columns_of(
    classifier: Classifier, keep: Sequence[str] = (), skip_bad: bool = False, contents: Contents = PLAIN
) -> list[str]:
    """Column names of the rows of :func:`predict_rows`.

    They are ``path``, those of ``keep``, ``prediction``, ``error`` (with ``skip_bad``), ``p_<class name>`` for every class (or
    ``top_1``, ``p_top_1`` and so on for the most probable ones), and ``unlike_training`` (1 for an image unlike the training
    images, else 0) if the classifier can tell. Prediction sets add ``set`` (class names with " | " between them) and ``set_size``.
    ``abstain`` is 1 where the set has not exactly one class, or the probability is below the threshold; else 0.

    Raises:
        UserError: see :meth:`Contents.checked`.
    """
    contents = contents.checked(classifier)
    error, unlike = ["error"] if skip_bad else [], [] if classifier.domain is None else [UNLIKE]
    if contents.top_k is None:
        shares = [f"p_{name}" for name in classifier.class_names]
    else:
        shares = [name for rank in range(1, contents.top_k + 1) for name in (f"{TOP}{rank}", f"p_{TOP}{rank}")]
    sets = [SET, SET_SIZE] if contents.sets else []
    abstain = [ABSTAIN] if contents.sets or contents.threshold is not None else []
    return ["path", *keep, "prediction", *error, *shares, *unlike, *sets, *abstain]


def _probability_cells(class_names: Sequence[str], probabilities: npt.NDArray[np.float32], top_k: int | None) -> Row:
    shares = [round(float(p), 6) for p in probabilities]
    if top_k is None:
        return {f"p_{name}": p for name, p in zip(class_names, shares, strict=True)}
    best = np.argsort(-probabilities, kind="stable")[:top_k]
    named = ((f"{TOP}{rank}", class_names[c], shares[c]) for rank, c in enumerate(best, start=1))
    return {key: cell for name, word, share in named for key, cell in ((name, word), (f"p_{name}", share))}


def set_cells(class_names: Sequence[str], members: npt.NDArray[np.bool_]) -> Row:
    """The columns of a prediction set, from which classes are in it, bool [C]."""
    size = int(members.sum())
    inside = (name for name, member in zip(class_names, members, strict=True) if member)
    return {SET: SEPARATOR.join(inside), SET_SIZE: size, ABSTAIN: int(size != 1)}
