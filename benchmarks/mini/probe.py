"""Linear probes on features and on raw pixels, with few images and with all.

scikit-learn's logistic regression on standardised features, C chosen by stratified 5-fold cross-validation (log loss) within the
training images used. Raw pixels: the backbone's own transform (short edge bicubic, centre crop) to 24 × 24 RGB, divided by 255.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from benchmarks.datasets import SEEDS
from benchmarks.mini.kept import kept
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.crops import resize_and_crop
from biomedcoop.data.images.reading import read_image
from biomedcoop.data.sampling.few_shot import sample_few_shot
from biomedcoop.evaluation.bootstrap import Floats
from biomedcoop.features.parallel import run_ahead

Labels = npt.NDArray[np.int64]

SHOTS = 16
C_GRID = tuple(10.0**exponent for exponent in np.arange(-5, 2.01, 0.5))
FOLDS = 5
RAW_SIZE = 24
PROTOCOL = f"raw {RAW_SIZE}, C {C_GRID[0]:g}-{C_GRID[-1]:g} ({len(C_GRID)}), {FOLDS} folds, log loss, {SHOTS} shots, 3"
"""Names what cached raw-pixel results were made with; a change of the probe or of the cached file needs a new version."""


def standardised(train: Floats, test: Floats) -> tuple[Floats, Floats]:
    """Both with the mean and deviation of ``train``; a constant column is only centred."""
    mean, deviation = train.mean(0), train.std(0)
    deviation[deviation < 1e-8] = 1.0
    return (train - mean) / deviation, (test - mean) / deviation


def on_span(train: Floats, test: Floats) -> tuple[Floats, Floats]:
    """Both in coordinates of the span of the training rows, where that is smaller.

    The weights of an L2-regularised logistic regression lie in that span, so the answers stay the same.
    """
    n, d = train.shape
    if n >= d:
        return train, test
    basis = np.linalg.svd(train, full_matrices=False)[2].T  # [d, n]
    return train @ basis, test @ basis


def choose_c(features: Floats, labels: Labels) -> float:
    """The C of the grid with the smallest log loss over the folds.

    C ascends, each fit starts from the one before, and once the loss has grown for two steps it is not followed further: the
    large C are slow to fit and overfit only more.
    """
    classes = np.unique(labels)
    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(features, labels))
    models = [LogisticRegression(max_iter=2000, warm_start=True) for _ in folds]
    losses: list[float] = []
    for c in C_GRID:
        loss = 0.0
        for model, (fit, held) in zip(models, folds, strict=True):
            model.set_params(C=c).fit(features[fit], labels[fit])
            loss += float(log_loss(labels[held], model.predict_proba(features[held]), labels=classes))
        losses.append(loss)
        if len(losses) - int(np.argmin(losses)) > 2:
            break
    return C_GRID[int(np.argmin(losses))]


def probe(train: Floats, labels: Labels, test: Floats) -> tuple[Labels, float]:
    """Answers of a linear probe on ``test``, and the C that was chosen within ``train``."""
    # products this small are slower on several threads, and many times slower when other work wants the same cores
    with threadpool_limits(1):
        train, test = on_span(*standardised(train.astype(np.float64), test.astype(np.float64)))
        c = choose_c(train, labels)
        return LogisticRegression(C=c, max_iter=5000).fit(train, labels).predict(test), c


def probes(data: Dataset, features: Floats, split: str) -> dict[str, Any]:
    """Scores of the 16-shot probes and of the probe on all training images.

    Args:
        features: of all images of ``data``, [N, D].

    Returns:
        "draws": 0 or 1 for each draw and scored image, [3, n]; "16": their mean over the draws, [n]; "all": 0 or 1, [n];
        "c": the C chosen for each draw and for all images.
    """
    held = data.indices(split)
    truth = data.labels[held]
    right, cs = [], []
    for seed in SEEDS:
        draw = sample_few_shot(data, SHOTS, seed)[0]
        answers, c = probe(features[draw], data.labels[draw], features[held])
        right.append(answers == truth)
        cs.append(c)
    train = data.indices("train")
    answers, c = probe(features[train], data.labels[train], features[held])
    return collected(np.array(right), answers == truth, [*cs, c])


def collected(draws: npt.ArrayLike, everything: npt.ArrayLike, c: list[float]) -> dict[str, Any]:
    """What :func:`probes` returns, from which answers are right."""
    right = np.asarray(draws, dtype=float)
    return {"draws": right, "16": right.mean(0), "all": np.asarray(everything, dtype=float), "c": c}


def raw_pixels(data: Dataset) -> Floats:
    """[N, 24 · 24 · 3] in 0..1."""
    crops = run_ahead(lambda image: resize_and_crop(read_image(image), RAW_SIZE), list(data.images))
    return np.stack([crop.reshape(-1) for crop in crops]) / 255.0


def cached_raw_probes(data: Dataset, split: str, cache: Path | None) -> dict[str, Any]:
    """:func:`probes` on raw pixels, which do not depend on the backbone, from ``cache`` where it has them."""

    def compute() -> dict[str, Any]:
        result = probes(data, raw_pixels(data), split)
        return {"c": result["c"], **{key: result[key].astype(int).tolist() for key in ("draws", "all")}}

    what = [PROTOCOL, SHOTS, SEEDS, data.name, split, *data.keys, *data.labels.tolist(), *data.splits.tolist()]
    found = kept(cache, f"raw-pixels-{split}-{data.name}", what, compute)
    return collected(found["draws"], found["all"], found["c"])
