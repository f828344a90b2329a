"""Which images a method answers rightly, for a cell of a study: a method, a number of images and a recipe on one dataset.

From stored features. A method that reads sentences gets the 25 of each class that pretraining has not seen. Methods that need
validation images get min(shots, 4) per class, as published.
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.datasets import SEEDS, unused_sentences
from benchmarks.tasks import right_answers, settings_of, task_of
from biomedcoop.evaluation.study.cells import Answers
from biomedcoop.evaluation.study.inputs import encoded, loaded
from biomedcoop.methods import get_method

COST = {"biomedcoop": 8.0, "cocoop": 12.0, "linear-probe": 2.0, "tip-adapter-f": 2.0}
"""How much longer than the others a method takes, for the order of cells."""


def answers(
    dataset: str, backbone: str, name: str, shots: int, recipe: str = "paper", given: Any = (), split: str = "test"
) -> Answers:
    """Which images of a split a method answers rightly, [seeds][images]."""
    data, features = encoded(dataset, backbone)
    scored = data.indices(split)
    sentences = unused_sentences(data) if get_method(name).abilities.uses_sentences else None
    task = task_of(data, features, loaded(backbone), shots, sentences, SEEDS)
    labels = torch.from_numpy(data.labels[scored])
    return right_answers(name, task, settings_of(name, data, recipe, given), SEEDS, features[scored], labels)


def compute(dataset: str, key: Any, backbone: str) -> Answers:
    return answers(dataset, backbone, *key)
