"""What a method chooses its values on: validation images, or the folds of a cross-validation within its training images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def right_by_run(task: Task, right: Callable[[Validation, Tensor], Tensor]) -> Tensor | None:
    """Right answers of each of G candidate values, added up over the fits of each run, for a method that fits many runs at once.

    Args:
        right: called with R' fits of equal size and int64 [R'], the run that each belongs to; returns right answers [R', G].

    Returns:
        int64 [R, G], 0 for a run with nothing to choose on; None if no run has anything.
    """
    by_size: dict[tuple[int, int], list[tuple[int, Validation]]] = {}
    for run in range(len(task.labels)):
        for part in validations(task, run):
            by_size.setdefault((part.task.labels.shape[1], part.labels.shape[1]), []).append((run, part))
    total: Tensor | None = None
    for same in by_size.values():
        (joined,) = stacked([part for _, part in same])
        runs = torch.tensor([run for run, _ in same])
        found = right(joined, runs.to(task.labels.device)).cpu()
        if total is None:
            total = found.new_zeros(len(task.labels), found.shape[1])
        total.index_add_(0, runs, found)
    return total


def first_best(right: Tensor, rank: Tensor) -> Tensor:
    """The candidate with the most right answers [R, G] of each run, int64 [R]; in a tie the one with the lowest ``rank`` [G]."""
    return torch.where(right == right.amax(1, keepdim=True), rank.to(right.device), torch.inf).argmin(1)
