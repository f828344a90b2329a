"""The few-shot draw of the published code, and the base and novel halves of the classes.

The draw repeats the sampler of CoOp and BiomedCoOp (Zhou et al., IJCV 2022; Koleilat et al., CVPR 2025) number for
number: Python's own generator, seeded with the run's seed, first used for the training images.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from biomedcoop.data.dataset import Dataset
from biomedcoop.errors import UserError

Draw = npt.NDArray[np.int64]
"""Positions of drawn images in the dataset."""

MAX_VAL_SHOTS = 4
"""The published protocol validates on min(shots, 4) images per class."""


def sample_few_shot(
    data: Dataset, shots: int | None, seed: int, repeat: bool = False
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw ``shots`` training images per class, then min(shots, 4) validation images per class.

    The classes are visited in the order of their first image in the split, and the images of a class are in file order. The draw
    therefore equals the published one only if ``data`` keeps the order of the published split file.

    Args:
        data: the dataset; its "train" and "val" images are sampled, its "test" images are never used.
        shots: images per class, at least 1; None takes all training and all validation images.
        seed: random seed of a local generator; the global generator does not change.
        repeat: sample a class with fewer than ``shots`` training images with repetition, as the published sampler does.
            Validation classes with too few images are always sampled with repetition.

    Returns:
        Positions in ``data`` of the training images [C·shots] and of the validation images (empty without a val split).

    Raises:
        UserError: ``shots`` below 1, or a class has too few training images and ``repeat`` is off.
    """
    if shots is not None and shots < 1:
        raise UserError(f"--shots {shots}, but at least 1 image per class is needed")
    train, val = _by_class(data, "train"), _by_class(data, "val")
    if not train:
        raise UserError(f"{data.name}: there are no training images to sample from")
    for label, name in enumerate(data.class_names):
        if label not in train:
            raise UserError(f"{data.name}: class {name!r} has no image in train; add some or remove the class")
    smallest = min(train, key=lambda label: len(train[label]))  # what helps it helps every class
    if shots is not None and len(train[smallest]) < shots and not repeat:
        raise UserError(short_class(data.class_names[smallest], len(train[smallest]), shots))
    if shots is None:
        return data.indices("train"), data.indices("val")
    generator = random.Random(int(seed))
    return _draw(generator, train, shots), _draw(generator, val, min(shots, MAX_VAL_SHOTS))


def sample_realistic(data: Dataset, shots: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Draw C·shots training images at the training set's own class frequencies; a class may be missing.

    Args:
        shots: mean number of images per class; None takes all training images.
        seed: random seed of a local generator.

    Returns:
        Positions in ``data`` of the training images, each once.

    Raises:
        UserError: there are fewer training images.

    Example:
        >>> import biomedcoop as bc
        >>> data = bc.load_dataset("simulated:breast-ultrasound?train=4&val=0&test=1")
        >>> len(sample_realistic(data, shots=2, seed=1))
        6
    """
    train = data.indices("train")
    if shots is None:
        return train
    count = shots * len(data.class_names)
    if count > len(train):
        raise UserError(
            f"{data.name} has {len(train)} training images but --shots {shots} takes {count}; lower --shots"
        )
    return np.array(random.Random(f"realistic {seed}").sample(train.tolist(), count), dtype=np.int64)


def short_class(name: str, count: int, shots: int) -> str:
    """The error about a class with fewer training images than shots."""
    return (
        f"class {name!r} has {count} image{'s' * (count != 1)} in train but --shots {shots}; lower --shots, add images, or pass "
        "--repeat-shots or --shots all"
    )


def sample_validation(
    data: Dataset, drawn: npt.NDArray[np.int64], shots: int | None, seed: int
) -> npt.NDArray[np.int64]:
    """Draw min(shots, 4) validation images per class from the training images that were not drawn; for data without a val split.

    A class with fewer images is sampled with repetition, as the published sampler does with validation images.

    Args:
        drawn: positions of the training images that :func:`sample_few_shot` drew.
        shots, seed: arguments of that draw.

    Raises:
        UserError: a class has no training image left.
    """
    taken = set(drawn.tolist())
    left = {label: [i for i in items if i not in taken] for label, items in _by_class(data, "train").items()}
    for label, items in left.items():
        if not items:
            raise UserError(
                f"class {data.class_names[label]!r} has no training image left for validation beside those for training; "
                "lower --shots, add images, or give the data a val split"
            )
    return _draw(random.Random(f"validation {seed}"), left, min(shots or MAX_VAL_SHOTS, MAX_VAL_SHOTS))


def base_novel_classes(n_classes: int) -> tuple[list[int], list[int]]:
    """Labels of the base classes (the first half, rounded up) and of the novel classes (the rest).

    Raises:
        UserError: fewer than two classes.
    """
    if n_classes < 2:
        raise UserError(f"{n_classes} class cannot be divided into base and novel classes; at least 2 are needed")
    first_novel = (n_classes + 1) // 2
    return list(range(first_novel)), list(range(first_novel, n_classes))


def select_classes(data: Dataset, labels: Sequence[int]) -> Dataset:
    """Only the images of the classes ``labels``; class ``labels[i]`` becomes class ``i``.

    Raises:
        UserError: ``labels`` is empty, repeats a label, or holds a label that the dataset does not have.
    """
    if not labels or len(set(labels)) != len(labels) or not set(labels) <= set(range(len(data.class_names))):
        raise UserError(
            f"cannot select classes {list(labels)}: give distinct labels from 0 to {len(data.class_names) - 1}"
        )
    new_label = np.full(len(data.class_names), -1, dtype=np.int64)
    new_label[list(labels)] = np.arange(len(labels))
    kept = data.select(np.flatnonzero(new_label[data.labels] >= 0))
    return replace(kept, labels=new_label[kept.labels], class_names=tuple(data.class_names[label] for label in labels))


def _by_class(data: Dataset, split: str) -> dict[int, list[int]]:
    """Positions of the images of each class, classes in the order of their first image."""
    found: dict[int, list[int]] = {}
    for position in data.indices(split).tolist():
        found.setdefault(int(data.labels[position]), []).append(position)
    return found


def _draw(generator: random.Random, classes: dict[int, list[int]], count: int) -> npt.NDArray[np.int64]:
    drawn: list[int] = []
    for items in classes.values():
        drawn += generator.sample(items, count) if len(items) >= count else generator.choices(items, k=count)
    return np.array(drawn, dtype=np.int64)
