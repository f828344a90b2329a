"""One run to report on: 3 classes, 150 test images, a trained method, zero-shot and the majority class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from biomedcoop.evaluation.comparison import Comparison, Predictions
from biomedcoop.evaluation.metrics import Metrics
from biomedcoop.report.run import DatasetSummary, RunReport

NAMES = ("benign", "malignant", "normal")


def predictions(class_names, images: int, skill: float, seed: int = 0):
    """Softmax of noisy logits that favour the true class by ``skill``, and the labels."""
    rng = np.random.default_rng(seed)
    c = len(class_names)
    labels = np.concatenate([np.arange(c), rng.integers(c, size=images - c)])
    logits = rng.normal(size=(images, c)) + skill * np.eye(c)[labels]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return p.astype(np.float32), labels


@pytest.fixture(scope="session")
def comparison() -> Comparison:
    p, labels = predictions(NAMES, 150, 1.5)
    q, _ = predictions(NAMES, 150, 0.5)
    keys = tuple(f"test/{i}.png" for i in range(150))
    return Comparison.of(Predictions(keys, labels, NAMES, {"biomedcoop": p, "zero-shot": q}), n_bootstrap=100)


@pytest.fixture(scope="session")
def rows(comparison) -> Mapping[str, Metrics]:
    return comparison.rows


@pytest.fixture(scope="session")
def run_report(comparison) -> RunReport:
    labels = comparison.predictions.labels
    return RunReport(
        title="BiomedCoOp on busi",
        dataset=DatasetSummary(
            name="busi",
            class_names=NAMES,
            counts={"train": [262, 126, 80], "test": np.bincount(labels)},
            modality="ultrasound",
            organ="breast",
            notes=("The split was drawn with seed 0.",),
        ),
        method="biomedcoop",
        settings={"tau": 1.5, "lambdas": [1.0, 2.0]},
        backbone="mini",
        fingerprint="3f2a9c",
        shots=16,
        seed=1,
        versions={"torch": "2.4.0", "biomedcoop": "0.1.0"},
        comparison=comparison,
        recipe="general",
        notes=("One image was skipped.",),
        command="biomedcoop train --data DATA --shots 16 --seed 1 --out RUN",
    )
