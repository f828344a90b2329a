"""Patients, folds or sites on top and the classes in each are refused; folders within a class are fine."""

from __future__ import annotations

from itertools import product

import pytest

from biomedcoop.data.readers.folder_levels import check_levels
from biomedcoop.errors import UserError


def layout(*paths: str) -> dict[str, set[tuple[str, ...]]]:
    """The folders between a class folder and its images, from "patient/0" and the like."""
    below: dict[str, set[tuple[str, ...]]] = {}
    for path in paths:
        upper, *parts = path.split("/")
        below.setdefault(upper, set()).add(tuple(parts))
    return below


def each(uppers: str, lowers: str) -> dict[str, set[tuple[str, ...]]]:
    return layout(*(f"{upper}/{lower}" for upper, lower in product(uppers.split(), lowers.split())))


@pytest.mark.parametrize(
    "below",
    [
        each("8863 8864 8867", "0 1"),
        each("fold_0 fold_1 fold_2", "all hem"),
        each("hospitalA hospitalB", "benign malignant"),
        each("Charité Mayo", "benign malignant"),
        each("Charité Mayo", "0 1"),
        each("p1 p2 p3 p4", "cyst stone normal_kidney"),
        layout("p1/cyst", "p2/cyst", "p3/stone", "p4/stone", "p5/cyst"),  # one diagnosis per patient
        layout("8863/0", "8863/1", "8864/0", "8867/0", "8867/1"),  # a patient without one of the classes
        layout("A/p1/benign", "A/p2/malignant", "B/p3/benign", "B/p4/malignant", "B/p5/benign"),
    ],
)
def test_levels_of_which_nobody_can_say(below: dict[str, set[tuple[str, ...]]]) -> None:
    with pytest.raises(UserError, match=r"data: are the classes the upper folders \(.*columns path,label") as caught:
        check_levels(below, "data")
    assert "\n" not in str(caught.value)
    assert all(name in str(caught.value) for name in sorted(below)[:3])


@pytest.mark.parametrize(
    "below",
    [
        layout("benign", "malignant"),
        layout("benign/p1", "benign/p2", "malignant/p3", "malignant/p4"),  # patients have names of their own
        layout("a/p1", "a/p2", "b/p3", "b/p4"),
        each("benign malignant", "1 2 3"),  # patients counted in each class
        each("benign malignant", "40X 100X 200X 400X"),
        each("0 1 2 3 4", "left right"),
        layout("benign/p1/T1", "benign/p1/T2", "malignant/p2/T1", "malignant/p2/T2"),
        layout("grade1/p1/series1", "grade1/p1/series2", "grade2/p2/series1", "grade2/p2/series2"),
        layout("benign/images", "malignant/images"),
        layout("8863/0", "8863", "8864/0", "8864"),  # images in the upper folders themselves
        each("benign", "0 1"),
        layout("benign/p1/pre", "malignant/p2/contrast", "benign/p3/contrast"),
    ],
)
def test_folders_within_a_class(below: dict[str, set[tuple[str, ...]]]) -> None:
    check_levels(below, "data")


@pytest.mark.parametrize(
    "below", [each("benign malignant", "train test"), each("fold_0 fold_1", "Training Validation Testing")]
)
def test_splits_below_the_classes(below: dict[str, set[tuple[str, ...]]]) -> None:
    with pytest.raises(
        UserError, match=r"hold the split folders .*; put the splits above the classes \(train/<class>/…\)"
    ):
        check_levels(below, "data")
