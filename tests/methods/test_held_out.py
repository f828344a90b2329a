"""Answers about training images that a fit has not seen equal those of fits on the other images, one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from biomedcoop.backbones.base import Backbone
from biomedcoop.methods import Task, get_method
from biomedcoop.methods.held_out import held_out_logits

RUNS, SHOTS, CLASSES = 2, 4, 3


@pytest.fixture
def task(tiny: Backbone) -> Task:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(RUNS, SHOTS * CLASSES * 2, tiny.embed_dim, generator=generator)
    labels = torch.arange(CLASSES).repeat_interleave(SHOTS * 2).expand(RUNS, -1)
    return Task(tiny, ["cyst", "stone", "tumor"], features, labels, views=2)


@pytest.mark.parametrize("name", ["linear-probe", "tip-adapter", "clip-adapter"])
def test_each_image_is_answered_by_a_fit_without_it(name: str, task: Task, tiny: Backbone) -> None:
    method = get_method(name)
    settings = method.settings({"epochs": 3} if name == "clip-adapter" else {})
    folds = torch.tensor([0, 1, 2, 1]).repeat(RUNS, CLASSES)  # of unequal sizes
    found = held_out_logits(method, task, settings, [1, 2], folds)
    assert found.shape == (RUNS, SHOTS * CLASSES * 2, CLASSES)
    for run in range(RUNS):
        of_rows = folds[run].repeat_interleave(2)
        for fold in range(3):
            features, labels = task.features[run, of_rows != fold], task.labels[run, of_rows != fold]
            alone = replace(task, features=features[None], labels=labels[None])
            state = method.fit(alone, settings, [1 + run])[0]
            expected = method.logits(state, task.features[run, of_rows == fold], tiny)
            torch.testing.assert_close(found[run, of_rows == fold], expected, rtol=1e-3, atol=1e-3)
