"""Draws and sentences to the task that a method sees: the one place where it is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.facts import Tally
from biomedcoop.lazy import torch
from biomedcoop.methods import Method, Task
from biomedcoop.tasks.plan import Draw, Plan

if TYPE_CHECKING:
    from torch import Tensor

    from biomedcoop.backbones.base import Backbone

Count = Callable[[int, int], None]
"""Called with (images encoded, images in all)."""


def build_task(plan: Plan, backbone: Backbone, *, count: Count | None = None, tally: Tally | None = None) -> Task:
    """The task of a plan, each image and sentence encoded once or taken from the store.

    Args:
        count: told how many images are encoded.
        tally: counts what is worth a word about the images.

    Raises:
        ImageError: an image cannot be read.
    """
    data, method = plan.data, plan.method
    features, labels = gathered(data, method, backbone, plan.draws, plan.views, count, tally)
    val_features, val_labels = (
        gathered(data, method, backbone, plan.val_draws, 1, count, tally)
        if method.abilities.needs_validation
        else (None, None)
    )
    return Task(
        backbone,
        data.class_names,
        features,
        labels,
        None if plan.sentences is None else sentence_features(backbone, plan.sentences.by_class),
        val_features,
        val_labels,
        plan.views,
        plan.per_epoch,
    )


def gathered(
    data: Dataset,
    method: Method,
    backbone: Backbone,
    draws: Sequence[Draw],
    views: int = 1,
    count: Count | None = None,
    tally: Tally | None = None,
) -> tuple[Tensor, Tensor]:
    """Features [R, n·V, E] and labels [R, n·V] of the drawn images of R runs, on the backbone's device."""
    from biomedcoop.features.images import encode_images, encode_views

    used = np.unique(np.concatenate(draws))
    drawn = data.select(used)
    if views == 1:
        features = encode_images(backbone, drawn, progress=count, tally=tally)[:, None]
    else:
        features = encode_views(backbone, drawn, method.crops, views, progress=count, tally=tally)
    rows = np.stack([np.searchsorted(used, draw) for draw in draws])  # [R, n]
    own, labels = torch.from_numpy(features[rows]), torch.from_numpy(drawn.labels[rows])
    return own.flatten(1, 2).to(backbone.device), labels.repeat_interleave(views, 1).to(backbone.device)


def sentence_features(backbone: Backbone, by_class: Sequence[Sequence[str]]) -> Tensor:
    """Raw features [C, P, E] of P sentences of each of C classes, on the backbone's device."""
    from biomedcoop.features.texts import encode_texts

    flat = encode_texts(backbone, [text for own in by_class for text in own])
    return torch.from_numpy(flat).view(len(by_class), -1, backbone.embed_dim).to(backbone.device)


def task_without_images(
    backbone: Backbone, class_names: Sequence[str], by_class: Sequence[Sequence[str]] | None = None
) -> Task:
    """The task of classes of which there is no image: names, and sentences where the method is made of them."""
    no_images = torch.zeros(1, 0, backbone.embed_dim, device=backbone.device)
    teacher = None if by_class is None else sentence_features(backbone, by_class)
    return Task(backbone, class_names, no_images, torch.zeros(1, 0, dtype=torch.int64), teacher)
