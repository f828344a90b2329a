"""What a method says of each training image when it has not learned from it: fits on the other folds, all in company."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from biomedcoop.errors import UserError
from biomedcoop.lazy import torch
from biomedcoop.methods.base import Method, Progress, Task, state_on
from biomedcoop.methods.validation import validations

if TYPE_CHECKING:
    from torch import Tensor


def held_out_logits(
    method: Method,
    task: Task,
    settings: Any,
    seeds: Sequence[int],
    folds: Tensor,
    progress: Progress | None = None,
    *,
    choose: bool = False,
) -> Tensor:
    """Logits of every row of the support images, each from a fit on the images of the other folds.

    The fits of equal size are the runs of one call of ``fit``, so they share its passes.

    Args:
        task: R runs; its validation images and its folds are not used.
        seeds: the seed of each run.
        folds: fold of each support image, int64 [R, N], with at least two folds in every run.
        choose: a method that chooses a value chooses it in each fit, on the folds that are left, so that no answer decides about
            itself; by default it takes its default value.

    Returns:
        Logits [R, N·V, C], for the V views of each of the N images.

    Raises:
        UserError: the method changes the towers, so each fit would train them.
    """
    if method.abilities.changes_towers:
        raise UserError(
            f"{method.name} trains the image tower, so fits without some of the images would take as long as all of it"
        )
    bare = replace(task, val_features=None, val_labels=None, folds=folds)
    parts = [(run, fold, part) for run in range(len(seeds)) for fold, part in enumerate(validations(bare, run))]
    by_size: dict[int, list[Any]] = {}
    for found in parts:
        by_size.setdefault(found[2].task.labels.shape[1], []).append(found)
    logits = torch.full((*task.labels.shape, len(task.class_names)), torch.nan, device=task.features.device)
    of_rows = folds.repeat_interleave(task.views, 1)
    for same in by_size.values():
        features, labels = (
            torch.cat([getattr(part.task, name) for *_, part in same]) for name in ("features", "labels")
        )
        inner = torch.stack([_without(folds[run], fold) for run, fold, _ in same]) if choose else None
        joined = replace(bare, features=features, labels=labels, folds=inner)
        states = method.fit(joined, settings, [seeds[run] for run, *_ in same], progress)
        for (run, fold, part), state in zip(same, states, strict=True):
            logits[run, of_rows[run] == fold] = method.logits(
                state_on(state, logits.device), part.features[0], task.backbone
            ).float()
    return logits


def _without(folds: Tensor, fold: int) -> Tensor:
    """Folds of the images outside a fold, numbered from 0."""
    rest = folds[folds != fold]
    return rest - (rest > fold).long()
