"""From a dataset and its features to a task, and from a task to the answers of a method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.catalogue import find
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.sampling.few_shot import sample_few_shot, sample_validation
from biomedcoop.evaluation.study.cells import Answers
from biomedcoop.methods import Task, get_method
from biomedcoop.tasks.build import task_from_features


def task_of(
    data: Dataset,
    features: torch.Tensor,
    backbone: Backbone,
    shots: int,
    sentences: Sequence[Sequence[str]] | None,
    seeds: Sequence[int],
) -> Task:
    """Support and validation images of each seed, and the words.

    Args:
        features: of all images of ``data``, [N, E].
        shots: images per class; 0 for a method that learns from none.
        sentences: of each class, as many for each; None for a method that reads none.
    """
    drawn = [sample_few_shot(data, max(shots, 1), seed) for seed in seeds]
    val = [v if len(v) else sample_validation(data, t, shots, s) for (t, v), s in zip(drawn, seeds, strict=True)]
    return task_from_features(
        backbone, data.class_names, features, torch.from_numpy(data.labels), [t for t, _ in drawn], val, sentences
    )


def settings_of(name: str, data: Dataset, recipe: str = "paper", given: Any = ()) -> Any:
    """Settings of a method for a dataset; ``given`` are pairs of name and value."""
    entry = find(data.name, data.class_names)
    return get_method(name).settings(dict(given), recipe, entry.name if entry else None)


def right_answers(
    name: str, task: Task, settings: Any, seeds: Sequence[int], features: torch.Tensor, labels: torch.Tensor
) -> Answers:
    """Train a method and score it: which images are answered rightly, [seeds][images].

    Args:
        features, labels: of the scored images, [N, E] and [N].
    """
    method, right = get_method(name), []
    for state in method.fit(task, settings, list(seeds)):
        with torch.inference_mode():
            right.append((method.logits(state, features, task.backbone).argmax(1) == labels).int().tolist())
    return right
