"""How should a temperature be fitted to few images? Log-loss on validation images, by the targets and by ln T's prior.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.studies.temperature

Of each method, number of images per class and group, it prints the mean log-loss without a temperature (T = 1) and with each way of
fitting it: by the number of images that the targets count more (C: one of each class, as Platt), and by the prior's standard
deviation; "none" is no prior. The last row of a method is the mean of its rows.
Settings are those of recipe general, two draws each.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.command import start
from benchmarks.datasets import GROUPS
from biomedcoop import fit_runs
from biomedcoop.classifier import temperature
from biomedcoop.errors import Note
from biomedcoop.evaluation.study.inputs import encoded

METHODS = ("krr", "simpleshot", "linear-probe", "clip-adapter", "gda", "tip-adapter")
SHOTS = (2, 4, 16)
SEEDS = (1, 2)
WAYS = {
    "0, 1": (0.0, 1.0),
    "1, 0.25": (1.0, 0.25),
    "1, 0.5": (1.0, 0.5),
    "1, 1": (1.0, 1.0),
    "1, 2": (1.0, 2.0),
    "1, none": (1.0, 1e9),
    "C, 1": (None, 1.0),
}
"""Number of images that the targets count more, None for one of each class, and standard deviation of the prior."""


def log_loss(logits: Any, labels: Any, t: float) -> float:
    """Mean log-loss of logits [N, C] divided by a temperature."""
    return float(torch.nn.functional.cross_entropy(torch.as_tensor(logits) / t, torch.as_tensor(labels)))


def losses(name: str, method: str, shots: int) -> Iterator[list[float]]:
    """For each draw, the log-loss on the validation split with T = 1 and with each way."""
    data, features = encoded(name, "mini")
    held: list[tuple[Any, Any]] = []
    real = temperature.fit_temperature

    def kept(logits: Any, labels: Any) -> float:
        held.append((logits, labels))
        return 1.0

    with patch.object(temperature, "fit_temperature", kept):
        classifiers = fit_runs(data, method=method, shots=shots, seeds=SEEDS)
    val = data.indices("val")
    for classifier, (logits, labels) in zip(classifiers, held, strict=True):
        with torch.inference_mode():
            answers = classifier.logits(torch.as_tensor(features[val]))
        found = [log_loss(answers, data.labels[val], 1.0)]
        for images, spread in WAYS.values():
            shared = len(data.class_names) if images is None else images
            with patch.multiple(temperature, SHARED_IMAGES=shared, SPREAD=spread):
                found.append(log_loss(answers, data.labels[val], real(logits, labels)))
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    args = parser.parse_args()
    warnings.simplefilter("ignore", Note)
    print("| method | shots | group | T = 1 |", *(f"{way} |" for way in WAYS))
    print("|---|--:|---|--:|" + "--:|" * len(WAYS))
    for method in args.methods:
        every = []
        for shots in SHOTS:
            for group, names in GROUPS.items():
                mean = np.mean([np.mean(list(losses(name, method, shots)), axis=0) for name in names], axis=0)
                every.append(mean)
                print(f"| {method} | {shots} | {group} |", *(f"{x:.3f} |" for x in mean), flush=True)
        print(f"| {method} | all | all |", *(f"{x:.3f} |" for x in np.mean(every, axis=0)), flush=True)


if __name__ == "__main__":
    start(main)
