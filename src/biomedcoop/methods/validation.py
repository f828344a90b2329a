"""What a method chooses its values on: validation images, or the folds of a cross-validation within its training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from biomedcoop.lazy import torch
from biomedcoop.methods.base import Task

if TYPE_CHECKING:
    from torch import Tensor


class Validation(NamedTuple):
    """Fits and the images that judge them: a task of R runs, raw features [R, V, E] and labels int64 [R, V]."""

    task: Task
    features: Tensor
    labels: Tensor


def validations(task: Task, run: int) -> list[Validation]:
    """The fits of one run, each of a single run, on which a method chooses; it adds up their right answers.

    With validation images it is the run itself. With folds there is one for each fold, whose images judge what the others teach;
    all views of an image are in its fold. The list is empty if there is nothing to choose on.
    """
    features, labels = task.features[run], task.labels[run]
    one = replace(task, features=features[None], labels=labels[None], val_features=None, val_labels=None, folds=None)
    if task.val_features is not None and task.val_labels is not None:
        return [Validation(one, task.val_features[run][None], task.val_labels[run][None])]
    if task.folds is None or not task.folds[run].any():
        return []
    fold = task.folds[run].repeat_interleave(task.views)  # of each row
    return [
        Validation(
            replace(one, features=features[None, fold != k], labels=labels[None, fold != k]),
            features[None, fold == k],
            labels[None, fold == k],
        )
        for k in range(int(fold.max()) + 1)
    ]


def stacked(parts: Sequence[Validation]) -> list[Validation]:
    """The same fits, those of equal size as the runs of one task, so that they share each step."""
    by_size: dict[tuple[int, int], list[Validation]] = {}
    for part in parts:
        by_size.setdefault((part.task.labels.shape[1], part.labels.shape[1]), []).append(part)
    found = []
    for same in by_size.values():
        features, labels = (torch.cat([getattr(p.task, name) for p in same]) for name in ("features", "labels"))
        task = replace(same[0].task, features=features, labels=labels)
        found.append(Validation(task, torch.cat([p.features for p in same]), torch.cat([p.labels for p in same])))
    return found
