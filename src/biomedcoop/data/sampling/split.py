"""Drawing a test split where a dataset has none, and writing splits as JSON in the CoOp form.

A draw is stratified by class and keeps the images of one group (patient, lesion, slide) together.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from biomedcoop.data.dataset import SPLITS, Dataset
from biomedcoop.data.sampling.folds import NO_TEST, related_images
from biomedcoop.errors import UserError
from biomedcoop.output import write_atomically

TEST_FRACTION = 0.3

ENOUGH = 34
"""Number of groups of a class, or of images without groups, that gives a drawn test split at least ten of them."""

CROSS_VALIDATES = "'biomedcoop train' and bc.train test by cross-validation"
"""Words of the note on data without a test split, which does not belong where nothing is trained."""


def with_test_split(data: Dataset, seed: int) -> Dataset:
    """``data`` with 30 % of its training images moved to test, or with a note if a class has too few images for that.

    The images of a group stay together, and so do copies of one image. Groups that are also in val stay in train. The class with
    the fewest groups decides, since the images of a group (such as a patient) are no independent test; without groups each image
    counts.
    """
    groups = data.groups
    train = data.indices("train")
    if groups is not None:
        in_val = set(groups[data.splits == "val"].tolist()) - {""}
        train = train[[group not in in_val for group in groups[train].tolist()]]
    few = _few_note(data, train)
    if few:
        return replace(data, notes=(*data.notes, few))
    related = related_images(data.select(train.tolist()))
    drawn = draw_split(data.labels[train], related.astype(np.str_), TEST_FRACTION, seed)
    splits = data.splits.astype("<U5")
    splits[train] = drawn
    together = "" if groups is None else ", groups kept together"
    note = (
        f"no test split was given: {int((drawn == 'test').sum())} of {len(data.indices('train'))} training images were "
        f"drawn as test ({100 * TEST_FRACTION:g} % of each class{together}, seed {seed})"
    )
    return replace(data, splits=splits, test_drawn=True, notes=(*data.notes, note))


def _few_note(data: Dataset, train: npt.NDArray[np.int64]) -> str:
    """The note if a class has too few independent images in ``train`` to draw a test split; else an empty text."""
    groups = [""] * len(train) if data.groups is None else data.groups[train].tolist()
    units = {(int(label), group or i) for i, (label, group) in enumerate(zip(data.labels[train], groups, strict=True))}
    counts = Counter(label for label, _ in units)
    present = np.flatnonzero(data.counts("train")).tolist()
    smallest = min(present, key=lambda label: counts[label], default=None)
    if smallest is None or (count := counts[smallest]) >= ENOUGH:
        return ""
    grouped = count < int(data.counts("train")[smallest])
    one, several = ("group (such as a patient)", "groups (such as patients)") if grouped else ("image", "images")
    return (
        f"There is no test split, and class {data.class_names[smallest]!r} has only {count} {one if count == 1 else several}, "
        f"too few to set some aside: {CROSS_VALIDATES if count > 1 else f'with two, {CROSS_VALIDATES}; {NO_TEST}'}"
    )


def draw_split(
    labels: npt.NDArray[np.int64], groups: npt.NDArray[np.str_] | None, test_fraction: float, seed: int
) -> npt.NDArray[np.str_]:
    """Put about ``test_fraction`` of each class into "test" and leave the rest in "train".

    Groups are visited in random order; a group moves to test if this brings the class shares in test nearer to the
    fraction. Every class keeps a training image, and gets a test image if its groups allow. Without groups the
    shares are exact to the nearest image.

    Args:
        labels: int64 [N].
        groups: str [N]; the images of a group stay together. An empty string means no group; None means no groups at all.
        test_fraction: between 0 and 1, both excluded.
        seed: random seed of a local generator; the global generator does not change.

    Returns:
        "train" or "test" for each image: str [N].

    Raises:
        UserError: the fraction is out of range, or no image can go to test (one image per class, or a single group).
    """
    if not 0 < test_fraction < 1:
        raise UserError(f"test fraction {test_fraction} is not between 0 and 1")
    members: dict[object, list[int]] = {}
    for position in range(len(labels)):
        group = "" if groups is None else str(groups[position])
        members.setdefault(group or position, []).append(position)
    units = list(members.values())
    random.Random(int(seed)).shuffle(units)
    contents = [Counter(labels[unit].tolist()) for unit in units]

    total = Counter(labels.tolist())
    wanted = {label: test_fraction * count for label, count in total.items()}
    taken: Counter[int] = Counter()
    in_test: set[int] = set()

    def leaves_training_images(content: Counter[int]) -> bool:
        return all(taken[label] + count < total[label] for label, count in content.items())

    def improvement(content: Counter[int]) -> float:
        """Decrease of the squared errors of the class shares if the unit moves to test."""
        error = {label: (taken[label] - wanted[label]) / total[label] for label in content}
        return -sum(
            (count / total[label]) * (2 * error[label] + count / total[label]) for label, count in content.items()
        )

    def move(unit: int) -> None:
        in_test.add(unit)
        taken.update(contents[unit])

    for unit, content in enumerate(contents):
        if improvement(content) > 0 and leaves_training_images(content):
            move(unit)
    for label in sorted(total):  # a class without a test image gets its smallest unit
        if not taken[label]:
            candidates = [
                unit
                for unit, content in enumerate(contents)
                if unit not in in_test and content[label] and leaves_training_images(content)
            ]
            if candidates:
                move(min(candidates, key=lambda unit: contents[unit].total()))

    if not in_test:
        kind, of_groups = ("images", "") if groups is None else ("groups", f" in {len(units)} groups")
        raise UserError(
            f"no test split can be drawn from {len(labels)} images{of_groups}: every class must keep a "
            f"training image; add {kind} or give a test split"
        )
    splits = np.full(len(labels), "train", dtype="<U5")
    for unit in in_test:
        splits[units[unit]] = "test"
    return splits


def write_split(data: Dataset, path: str | Path) -> None:
    """Write the splits as CoOp JSON: ``{"train": [[key, label, class name], …], "val": …, "test": …}``.

    The file appears whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(path)
    lists = []
    for split in SPLITS:
        entries = [[data.keys[i], int(data.labels[i]), data.class_names[data.labels[i]]] for i in data.indices(split)]
        lines = ",\n".join(f"  {json.dumps(entry)}" for entry in entries)
        lists.append(f'"{split}": [\n{lines}\n]' if entries else f'"{split}": []')
    text = "{\n" + ",\n".join(lists) + "\n}\n"
    write_atomically(path, text.encode())
