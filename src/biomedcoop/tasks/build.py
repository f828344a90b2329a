"""Build the task of a method from draws and sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from biomedcoop.data.images.facts import Tally
from biomedcoop.data.sampling.few_shot import Draw
from biomedcoop.lazy import torch
from biomedcoop.methods import Task
from biomedcoop.tasks.plan import Plan
from biomedcoop.tasks.sentences import used_per_class

if TYPE_CHECKING:
    from torch import Tensor

    from biomedcoop.backbones.base import Backbone

Count = Callable[[int, int], None]
"""Callback with (images encoded, images in total)."""


def build_task(plan: Plan, backbone: Backbone, *, count: Count | None = None, tally: Tally | None = None) -> Task:
    """The task of a plan; each image and sentence is encoded once or read from the feature store.

    Args:
        count: called with the number of images encoded.
        tally: counts unusual images, such as those of one colour.

    Raises:
        ImageError: an image cannot be read.
        UserError: the method cannot use the backbone.
    """
    from biomedcoop.features.images import encode_images, encode_readable, encode_views

    data, method, views = plan.data, plan.method, plan.views
    method.check_backbone(backbone)
    tower = method.read_from(backbone)

    def encoded(draws: Sequence[Draw], views: int) -> tuple[Tensor, Tensor, list[Draw]]:
        """Features [n, V, E] and labels [n] of the n distinct drawn images, and each draw as rows of these features."""
        used = np.unique(np.concatenate(draws))
        drawn = data.select(used)
        if views == 1:
            features = encode_images(tower, drawn, progress=count, tally=tally)[:, None]
        else:
            features = encode_views(tower, drawn, method.crops, views, progress=count, tally=tally)
        rows = [np.searchsorted(used, draw) for draw in draws]
        return torch.from_numpy(features), torch.from_numpy(drawn.labels), rows

    support = of_runs(*encoded(plan.draws, views))
    validation = of_runs(*encoded(plan.val_draws, 1)) if len(plan.val_draws[0]) else (None, None)
    words = None
    if plan.sentences is not None:
        words = [texts[: used_per_class(plan.sentences, plan.settings)] for texts in plan.sentences.by_class]
    folds = [choice.folds for choice in plan.choices]
    task = _task(backbone, data.class_names, support, validation, words, views, plan.per_epoch, folds)
    if plan.unlabelled is not None:
        images = list(zip(plan.unlabelled.images, plan.unlabelled.names, strict=True))
        unlabelled = encode_readable(tower, images, skip_bad=False, progress=count, tally=tally)[0]
        task = replace(task, unlabelled=torch.from_numpy(unlabelled).to(backbone.device))
    if method.abilities.changes_towers:
        from biomedcoop.features.pixels import SupportPixels

        task = replace(task, pixels=SupportPixels(backbone, data, plan.draws, method.crops))
    return task


def task_from_features(
    backbone: Backbone,
    class_names: Sequence[str],
    features: Tensor,
    labels: Tensor,
    draws: Sequence[Draw],
    val_draws: Sequence[Draw] | None,
    by_class: Sequence[Sequence[str]] | None,
    folds: Sequence[Draw] | None = None,
) -> Task:
    """The task of R runs on images whose features are already computed.

    Args:
        features, labels: raw features [N, E] and labels int64 [N] of all images.
        draws, val_draws: training and validation images of each run; None for no validation images.
        by_class: sentences of each class; None for a method that reads none.
        folds: fold of each training image of each run; None for no folds.
    """
    support = of_runs(features[:, None], labels, draws)
    validation = (None, None) if val_draws is None else of_runs(features[:, None], labels, val_draws)
    return _task(backbone, class_names, support, validation, by_class, folds=folds)


def of_runs(features: Tensor, labels: Tensor, draws: Sequence[Draw]) -> tuple[Tensor, Tensor]:
    """Select the images of R runs: features [N, V, E] and labels [N] -> [R, n·V, E] and [R, n·V]."""
    rows = np.stack(draws)  # [R, n]
    return features[rows].flatten(1, 2), labels[rows].repeat_interleave(features.shape[1], 1)


def _task(
    backbone: Backbone,
    class_names: Sequence[str],
    support: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor] | tuple[None, None],
    by_class: Sequence[Sequence[str]] | None,
    views: int = 1,
    per_epoch: bool = False,
    folds: Sequence[Draw] | None = None,
) -> Task:
    device = backbone.device
    val_features, val_labels = validation
    return Task(
        backbone,
        class_names,
        support[0].to(device),
        support[1].to(device),
        None if by_class is None else sentence_features(backbone, by_class),
        None if val_features is None else val_features.to(device),
        None if val_labels is None else val_labels.to(device),
        views,
        per_epoch,
        None if folds is None else torch.from_numpy(np.stack(folds)).to(device),
    )


def sentence_features(backbone: Backbone, by_class: Sequence[Sequence[str]]) -> Tensor:
    """Raw features [C, P, E] of P sentences of each of C classes, on the backbone's device."""
    from biomedcoop.features.texts import encode_texts

    flat = encode_texts(backbone, [text for sentences in by_class for text in sentences])
    return torch.from_numpy(flat).view(len(by_class), -1, backbone.embed_dim).to(backbone.device)


def task_without_images(
    backbone: Backbone, class_names: Sequence[str], by_class: Sequence[Sequence[str]] | None = None
) -> Task:
    """A task with class names and no images; ``by_class`` gives sentences for a method that reads them."""
    nothing = torch.zeros(1, 0, backbone.embed_dim), torch.zeros(1, 0, dtype=torch.int64)
    return _task(backbone, class_names, nothing, (None, None), by_class)
