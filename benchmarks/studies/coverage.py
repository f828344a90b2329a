"""Coverage of prediction sets over many random splits, on stored features: ``docs/results/coverage.md``.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.studies.coverage --page

Probabilities are those of zero-shot, which learns from no image, so that every image can calibrate or test. Each split draws n
calibration images and one test image per repetition; the theory gives the coverage ⌈(n + 1)(1 − α)⌉ / (n + 1) exactly for scores
without ties. Images are drawn as one of each group.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.command import positive, start
from benchmarks.datasets import NAMES, related
from benchmarks.studies.study import show
from biomedcoop.classifier.conformal import position, set_scores, threshold
from biomedcoop.data.sampling.calibration import one_of_each_set
from biomedcoop.evaluation.study.inputs import encoded, loaded
from biomedcoop.methods import get_method
from biomedcoop.report.table import Table
from biomedcoop.tasks.build import task_without_images
from biomedcoop.tasks.options import SCORES

SPLITS = 1000
ALPHA = 0.1
CALIBRATION = (8, 9, 15, 48)
"""Numbers of calibration images; 8 are too few for 0.1."""
TESTED = 100
"""Test images of a split."""


class Found(NamedTuple):
    """Results of many splits: mean coverage, its standard error, mean size, share of the sets of all classes, coverage clipped."""

    coverage: float
    error: float
    size: float
    whole: float
    clipped: float


def coverage(
    probabilities: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    score: str,
    n: int,
    splits: int,
    seed: int = 0,
) -> Found:
    """Coverage of random splits of images into n for calibration and at most :data:`TESTED` others.

    Args:
        probabilities: [N, C] of a classifier that learned from none of the images.
        labels: [N].
    """
    generator = np.random.default_rng(seed)
    scores = set_scores(probabilities, score, generator.random(len(labels)))
    true = scores[np.arange(len(labels)), labels]
    covered, sizes, whole, clipped = [], [], [], []
    for _ in range(splits):
        drawn = generator.choice(len(labels), min(n + TESTED, len(labels)), replace=False)
        own, new = true[drawn[:n]], true[drawn[n:]]
        limit = threshold(own, ALPHA)
        members = scores[drawn[n:]] <= limit
        covered.append((new <= limit).mean())
        sizes.append(members.sum(axis=1).mean())
        whole.append(members.all(axis=1).mean())
        clipped.append((new <= np.sort(own)[min(n, position(n, ALPHA)) - 1]).mean())
    error = float(np.std(covered, ddof=1) / np.sqrt(splits))
    return Found(float(np.mean(covered)), error, float(np.mean(sizes)), float(np.mean(whole)), float(np.mean(clipped)))


def promised(n: int, alpha: float = ALPHA) -> float:
    """The coverage that the theory gives, 1 where every set is all classes."""
    return min(1.0, position(n, alpha) / (n + 1))


def zero_shot(dataset: str, backbone: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Probabilities and labels of one image of each group."""
    data, features = encoded(dataset, backbone)
    kept = one_of_each_set(np.unique(related(data), return_inverse=True)[1])
    method = get_method("zero-shot")
    (state,) = method.fit(task_without_images(loaded(backbone), data.class_names), method.settings({}), [0])
    with torch.no_grad():
        logits = method.logits(state, features[kept], loaded(backbone))
    return logits.double().softmax(-1).numpy(), data.labels[kept]


def tables(backbone: str, splits: int) -> dict[str, Table]:
    """A table by score and number of calibration images, and one by dataset."""
    inputs = {name: zero_shot(name, backbone) for name in NAMES}
    results = {
        (name, score, n): coverage(*inputs[name], score, n, splits)
        for name in NAMES
        for score in SCORES
        for n in CALIBRATION
    }
    rows = []
    for score in SCORES:
        for n in CALIBRATION:
            found = [results[name, score, n] for name in NAMES]
            away = [abs(one.coverage - promised(n)) <= 3 * one.error + 1e-12 for one in found]
            means = [
                100 * float(np.mean([getattr(one, part) for one in found])) for part in ("coverage", "whole", "clipped")
            ]
            cells = f"{100 * promised(n):.1f}", f"{means[0]:.2f}", f"{sum(away)} of {len(away)}"
            rows.append([score, n, *cells, f"{means[1]:.1f}", f"{means[2]:.1f}"])
    columns = [
        "score",
        "calibration images",
        "theory, %",
        "coverage, %",
        "within 3 errors",
        "sets of all classes, %",
        "clipped, %",
    ]
    by_dataset = [
        [
            name,
            len(inputs[name][1]),
            inputs[name][0].shape[1],
            *(
                f"{100 * one.coverage:.2f} ± {100 * one.error:.2f}"
                for one in (results[name, score, 48] for score in SCORES)
            ),
            *(f"{results[name, score, 48].size:.2f}" for score in SCORES),
        ]
        for name in NAMES
    ]
    heads = [*(f"coverage, {score}" for score in SCORES), *(f"classes, {score}" for score in SCORES)]
    return {
        "scores": Table(columns, rows),
        "datasets": Table(["dataset", "images", "classes", *heads], by_dataset),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mini", help="a name, or a folder in open_clip layout")
    parser.add_argument("--splits", type=positive, default=SPLITS, help="random splits of each dataset")
    parser.add_argument("--page", action="store_true", help="renew the page in docs/results/ too")
    args = parser.parse_args()
    show("coverage", tables(args.backbone, args.splits), args)


if __name__ == "__main__":
    start(main)
