"""What a method chooses its values on: folds of its training images, or the validation images of a published recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from biomedcoop.data.dataset import Dataset
from biomedcoop.data.sampling.few_shot import MAX_VAL_SHOTS, Draw, sample_few_shot, sample_validation
from biomedcoop.data.sampling.folds import FOLDS, draw_folds, why_undivided
from biomedcoop.errors import UserError
from biomedcoop.methods.recipes import PUBLISHED
from biomedcoop.tasks.request import FitRequest

if TYPE_CHECKING:
    from biomedcoop.methods import Method


class Choice(NamedTuple):
    """What one run chooses on.

    Attributes:
        val_draw: validation images; empty if there are folds.
        folds: fold of each training image; all 0 if there are validation images or no two folds. For a method that leaves out
            one image or group at a time, each has a fold of its own.
        how: a sentence for the report; empty for a method that chooses nothing.
        note: the same sentence if it must be known before the work.
    """

    val_draw: Draw
    folds: Draw
    how: str = ""
    note: str = ""


def choices_of(
    request: FitRequest,
    data: Dataset,
    method: Method,
    settings: Any,
    shots: int | None,
    draws: Sequence[Draw],
    validation: bool = True,
) -> list[Choice]:
    """What each run chooses on.

    Args:
        settings: settings of the method, which may choose nothing with them.
        shots: training images per class; None if all are drawn.
        draws: training images of each run.
        validation: with a published recipe, give validation images beside them.

    Raises:
        UserError: a published recipe needs validation images, and no training image of a class is left for them.
    """
    if not method.chooses(settings):
        return [Choice(_nothing(), np.zeros_like(draw)) for draw in draws]
    find = _on_images if validation and request.recipe in PUBLISHED else _by_folds
    return [find(request, data, method, shots, draw, seed) for draw, seed in zip(draws, request.seeds, strict=True)]


def kept_for_validation(request: FitRequest, data: Dataset) -> int:
    """Training images per class that a published recipe leaves for validation if the data have no validation split."""
    return MAX_VAL_SHOTS if request.recipe in PUBLISHED and not data.counts("val").any() else 0


def _by_folds(request: FitRequest, data: Dataset, method: Method, shots: int | None, draw: Draw, seed: int) -> Choice:
    able = method.abilities
    if able.leaves_one_out:
        sets, labels = sets_of(data, draw), data.labels[draw]
        if any(len(np.unique(sets[labels == label])) > 1 for label in labels):
            how = f"{method.name} chooses {able.chooses} by leaving out each of the {len(draw)} training images."
            return Choice(_nothing(), sets, how)
    folds, reason = folds_of(data, draw, seed)
    if folds is None:
        how = f"{method.name} takes {able.otherwise} and chooses nothing by cross-validation: {reason}."
        return Choice(_nothing(), np.zeros_like(draw), how, how)
    number = folds.max() + 1
    how = f"{method.name} chooses {able.chooses} by {number}-fold cross-validation within the {len(draw)} training images."
    return Choice(_nothing(), folds, how)


def folds_of(data: Dataset, draw: Draw, seed: int) -> tuple[Draw | None, str]:
    """Fold of each of the drawn training images; or None, and why they cannot be divided."""
    sets = sets_of(data, draw)
    try:
        if len(np.unique(data.labels[draw])) < 2:
            raise UserError("a realistic draw may hold one class only")
        return draw_folds(data.labels[draw], sets, FOLDS, seed), ""
    except UserError:
        undivided = why_undivided(data.select(draw), sets)
        return None, undivided or "the groups or classes of the training images cannot be divided"


def sets_of(data: Dataset, draw: Draw) -> Draw:
    """The set of each drawn image: an image that is drawn twice, and the images of a group, are of one set."""
    names = [str(i) if data.groups is None or not data.groups[i] else f"group {data.groups[i]}" for i in draw.tolist()]
    return np.asarray(np.unique(names, return_inverse=True)[1], dtype=np.int64)


def _on_images(request: FitRequest, data: Dataset, method: Method, shots: int | None, draw: Draw, seed: int) -> Choice:
    what = f"{method.name} chooses {method.abilities.chooses}"
    if data.counts("val").any():
        val = sample_few_shot(data, shots, seed, request.repeat_shots)[1]
        return Choice(val, np.zeros_like(draw), f"{what} on {len(val)} validation images.")
    try:
        val = sample_validation(data, draw, shots, seed)
    except UserError as error:
        raise UserError(
            f"with recipe {request.recipe}, {method.name} needs validation images: {error}; or use recipe general, which "
            "chooses by cross-validation within the training images"
        ) from error
    how = f"{what} on {len(val)} training images that were not drawn: the data have no validation split."
    return Choice(val, np.zeros_like(draw), how, how)


def _nothing() -> Draw:
    return np.zeros(0, dtype=np.int64)
