"""Which unlabelled images to label next, from a fitted classifier.

The rule takes undecided images that are unlike each other. It is the best of those that ``benchmarks.studies.suggest`` compares,
but on test images it is not better than a random choice beyond chance: ``docs/results/suggest.md``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from biomedcoop.classifier.domain import unit
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.sources import ImageInFile, ImageSource
from biomedcoop.data.images.stacks import Facts, Reading, facts_of, may_be_stack, patient_groups
from biomedcoop.data.readers.files.table_columns import GROUP_NAMES
from biomedcoop.data.readers.unlabelled import ListedImage, find_images
from biomedcoop.data.sampling.leakage import digest
from biomedcoop.data.tables.missing import is_missing
from biomedcoop.data.tables.reading import TABLE_SUFFIXES, open_table
from biomedcoop.display import shown
from biomedcoop.errors import UserError, notify, whole_number
from biomedcoop.progress import ProgressOption, counting

if TYPE_CHECKING:
    from biomedcoop.classifier.classifier import Classifier

Floats = npt.NDArray[np.floating[Any]]
Positions = npt.NDArray[np.int64]
Groups = npt.NDArray[np.str_]

Sources = Dataset | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Suggestion:
    """An image to label.

    Attributes:
        rank: 1 for the image to label first.
        path: the image, as the input names it.
        prediction, second: the two most probable classes.
        p_prediction, p_second: their probabilities.
        group: group of the image, such as its patient (hashed, where a DICOM file names it); empty where none is known.
        reason: why it is suggested, in words.
    """

    rank: int
    path: str
    prediction: str
    second: str
    p_prediction: float
    p_second: float
    group: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


COLUMNS = tuple(Suggestion.__dataclass_fields__)


def suggest(
    classifier: Classifier, images: Sources, number: int = 10, *, progress: ProgressOption = None
) -> list[Suggestion]:
    """Choose the unlabelled images to label next.

    Of the most undecided images, five for each one asked for, those are taken that are least like the training images and each
    other. So an image of which the classifier is rather sure may stand first; ``reason`` says its place by doubt. Labelling
    them is not better than labelling random images beyond chance, as ``docs/results/suggest.md`` measures. Images that trained
    the classifier, images of their groups, and files that cannot be read are left out with a note. No two suggested images are
    of one group, where a table or dataset names groups (patients, lesions), or DICOM files name patients.

    Args:
        classifier: a fitted classifier.
        images: image files, folders, tables with a column ``path``, or a dataset, whose labels are not read.
        number: number of images to suggest; fewer come back if there are fewer.
        progress: see :func:`biomedcoop.fit`.

    Raises:
        UserError: ``number`` is below 1, there is no image, or every image was learned from or cannot be read.

    Example:
        >>> import biomedcoop as bc
        >>> data = bc.load_dataset("simulated:breast-ultrasound?train=3&val=0&test=2")
        >>> classifier = bc.fit(data, method="tip-adapter", shots=2)
        >>> [found.rank for found in bc.suggest(classifier, data.part("test"), 2)]
        [1, 2]
    """
    from biomedcoop.features.images import encode_readable

    number = whole_number("number", number, 10, 1)
    notes: list[str] = []
    files, names, groups = _listed(images, notes, classifier.reading)
    known = set(classifier.facts.get("training_images", ()))
    with shown(progress) as tell:
        features, bad = encode_readable(
            classifier.backbone,
            list(zip(files, names, strict=True)),
            skip_bad=True,
            progress=counting(tell, "encoding images"),
        )
    learned = np.array([i not in bad and digest(file) in known for i, file in enumerate(files)], dtype=bool)
    related = np.isin(groups, groups[learned]) & ~learned
    free = ~learned & ~related
    free[list(bad)] = False
    for which, why in ((learned, "trained this classifier"), (related, "are of groups that trained it")):
        if which.any():
            notes.append(f"{which.sum()} of {len(files)} images {why} and are left out")
    if bad:
        notes.append(
            f"{len(bad)} of {len(files)} images cannot be read and are left out; the first: {next(iter(bad.values()))}"
        )
    if not free.any():
        raise UserError(f"no image is left to suggest: {'; '.join(notes)}; give unlabelled images")
    pool = np.flatnonzero(free)
    p = classifier.probabilities(features[pool])
    labelled = np.zeros((0, features.shape[1])) if classifier.domain is None else classifier.domain.means
    x = features[pool]
    order = choose(p, x, labelled, number, groups[pool])
    if len(order) < number:
        notes.append(f"{len(order)} images are suggested instead of {number}: there are no more, or no more groups")
    notify(notes)
    places = np.argsort(np.argsort(margins(p), kind="stable"), kind="stable") + 1
    doubtful = min(CANDIDATES * number, len(np.unique(groups[pool])))
    alike = [_most_alike(classifier, x[order[:rank]], labelled, doubtful) for rank in range(1, len(order) + 1)]
    return [
        _suggestion(classifier, rank, names[pool[k]], groups[pool[k]], p[k], f"{places[k]} of {len(pool)}", near)
        for rank, (k, near) in enumerate(zip(order, alike, strict=True), start=1)
    ]


def _most_alike(classifier: Classifier, chosen: Floats, labelled: Floats, doubtful: int) -> str:
    """Why the last of the chosen images [N, E] was taken of the ``doubtful`` ones, and what it is most like.

    It is least like the means of the classes [C, E] and the images before it.
    """
    near = np.concatenate([unit(labelled), unit(chosen[:-1])]) @ unit(chosen[-1:])[0]
    if not len(near):
        return ""
    most, c = int(near.argmax()), len(labelled)
    what = f"suggestion {most - c + 1}" if most >= c else f"the training images of “{classifier.class_names[most]}”"
    before = "training images and suggestions before" if c else "suggestions before"
    return f"; of the {doubtful} most doubtful, least like {before}: most like {what} (cosine {near[most]:.2f})"


def _suggestion(
    classifier: Classifier, rank: int, name: str, group: str, p: Floats, place: str, near: str
) -> Suggestion:
    first, second = np.argsort(-p, kind="stable")[:2]
    a, b = classifier.class_names[first], classifier.class_names[second]
    known = "" if group.startswith(ALONE) else str(group)
    reason = f"{a} {100 * p[first]:.0f} %, {b} {100 * p[second]:.0f} % (place {place} by doubt){near}"
    return Suggestion(rank, name, a, b, round(float(p[first]), 4), round(float(p[second]), 4), known, reason)


ALONE = "\0"
"""Begin of the group of an image that has none: it is a group of its own."""


def _listed(images: Sources, notes: list[str], reading: Reading) -> tuple[list[ImageSource], list[str], Groups]:
    """The images, their names and their groups."""
    if isinstance(images, Dataset):
        keys = list(images.keys)
        own = [""] * len(keys) if images.groups is None else list(images.groups)
        return list(images.images), keys, _groups(own, keys)
    sources: list[Any] = list(images) if isinstance(images, Iterable) and not isinstance(images, str) else [images]
    if not all(isinstance(one, (str, os.PathLike)) for one in sources):
        raise UserError(f"images={images!r} must be image files, folders, tables or a dataset, e.g. images='scans'")
    tables = [
        Path(source) for source in sources if Path(source).suffix.lower() in TABLE_SUFFIXES and Path(source).is_file()
    ]
    keep = sorted({name for table in tables if (name := _group_column(table)) is not None})
    files: list[ImageSource] = []
    names, own = [], []
    said: dict[str, None] = {}
    for found in find_images(sources, tell=lambda note: said.update({note: None}), keep=keep, reading=reading):
        listed = found if isinstance(found, ListedImage) else ListedImage(found, str(found), {})
        files.append(listed.file)
        names.append(listed.path)
        own.append(next((cell for cell in listed.kept.values() if not is_missing(cell)), ""))
    notes += said
    if not any(own):
        paths = [file.file if isinstance(file, ImageInFile) else file for file in files]
        facts = [facts_of(path) if isinstance(path, Path) and may_be_stack(path) else Facts() for path in paths]
        own = patient_groups(facts)[0] or own
    return files, names, _groups(own, names)


def _groups(groups: Sequence[str], names: Sequence[str]) -> Groups:
    return np.array([group or f"{ALONE}{name}" for group, name in zip(groups, names, strict=True)], dtype=np.str_)


def _group_column(file: Path) -> str | None:
    """Name of the column of a table that holds groups; None without one."""
    table = open_table(file, ("path",))
    positions = (table.find(name) for name in GROUP_NAMES)
    return next((table.columns[position] for position in positions if position is not None), None)


TEXTS = ("path", "prediction", "second", "group", "reason")
"""Columns of text."""

CANDIDATES = 5
"""Undecided images for each one that is suggested."""


def choose(p: Floats, features: Floats, known: Floats, number: int, groups: Groups) -> Positions:
    """Positions of at most ``number`` images, the first to be labelled first, no two of a group.

    Of the images with the least margins (the difference of the two largest probabilities), five for each one asked for, the one
    farthest from all known and chosen ones is taken each time (k-centre, Sener and Savarese 2018, arXiv 1708.00489).

    Args:
        p: probabilities [N, C].
        features: raw features [N, E].
        known: features [M, E] that stand for the labelled images, such as the means of their classes; M may be 0.
        groups: group of each image [N].
    """
    candidates = one_of_each_group(np.argsort(margins(p), kind="stable"), groups)[: CANDIDATES * number]
    return np.asarray(candidates[spread(features[candidates], known, number, groups[candidates])])


def spread(features: Floats, known: Floats, number: int, groups: Groups) -> Positions:
    """Positions of images [N, E] by k-centre, no two of a group: each time the one farthest from known and chosen ones."""
    x = unit(features)
    nearness = (x @ unit(known).T).max(axis=1, initial=-1.0)
    free = np.ones(len(x), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < number and free.any():
        farthest = int(np.argmin(np.where(free, nearness, np.inf)))
        chosen.append(farthest)
        free &= groups != groups[farthest]
        nearness = np.maximum(nearness, x @ x[farthest])
    return np.array(chosen, dtype=np.int64)


def one_of_each_group(order: Positions, groups: Groups) -> Positions:
    """Positions in their order, without those whose group stands earlier in it."""
    _, first = np.unique(groups[order], return_index=True)
    return np.asarray(order[np.sort(first)])


def margins(p: Floats) -> Floats:
    """Difference between the two largest probabilities of each image [N]."""
    top = np.sort(p, axis=1)
    return np.asarray(top[:, -1] - top[:, -2])
