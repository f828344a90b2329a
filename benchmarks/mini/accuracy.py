"""Accuracy of one dataset: class names, unused sentences, linear probes on features and on raw pixels."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.datasets import NAMES, related, unused_sentences
from benchmarks.mini.probe import cached_raw_probes, probes
from benchmarks.tasks import right_answers, task_of
from biomedcoop import load_dataset
from biomedcoop.backbones.base import Backbone
from biomedcoop.data.dataset import Dataset
from biomedcoop.errors import UserError
from biomedcoop.evaluation.bootstrap import Estimate, Floats
from biomedcoop.evaluation.intervals import bootstrap_means, share_or_bootstrap
from biomedcoop.features.images import encode_images
from biomedcoop.methods import get_method

EXEMPT = ("bccd_cells",)
"""Pretraining has seen red cells only, one of the three classes: shown, but no aim is set for it."""

# Test accuracy in percent of logistic regression on raw pixels as the data card gives it: (16 per class, all training images)
CARD = {
    "btmri": (65.4, 74.5),
    "busi": (45.3, 61.0),
    "ham10000": (40.5, 47.9),
    "retina": (53.4, 66.1),
    "lungcolon": (67.7, 68.6),
    "kneexray": (30.4, 38.7),
    "covid_radiography": (64.4, 76.7),
    "covid_cxr3": (91.3, 92.9),
    "pneumoniamnist": (80.0, 85.0),
    "mednist": (94.8, 98.7),
    "bccd_cells": (94.4, 97.9),
}

COLUMNS = {
    "largest": "largest class",
    "class_names": "class names",
    "balanced": "class names, balanced",
    "sentences": "unused sentences",
    "dealt": "dealt sentences",
    "gain_dealt": "unused − dealt",
    "probe_16": "probe, 16",
    "probe_all": "probe, all",
    "raw_16": "raw pixels, 16",
    "raw_all": "raw pixels, all",
    "gain_16": "probe − raw, 16",
    "gain_all": "probe − raw, all",
}


@dataclass(frozen=True)
class Row:
    """One dataset.

    Attributes:
        dataset, group: its name, "seen" or "unseen".
        held: the images that were scored; its ``groups`` are those of :func:`benchmarks.datasets.related`.
        features: of these images, [N, E].
        scores: by column, of these images, [N]; the mean over the draws where there are several.
        estimates, samples: by column, and the resampled values behind the intervals.
        draws: accuracy of the 16-shot probes draw by draw, for "features" and "raw pixels".
    """

    dataset: str
    group: str
    held: Dataset
    features: npt.NDArray[np.float32]
    scores: dict[str, Floats]
    estimates: dict[str, Estimate]
    samples: dict[str, Floats]
    draws: dict[str, list[float]]

    @property
    def images(self) -> int:
        return len(self.held)

    @property
    def groups(self) -> int:
        """Groups of related images among those that were scored."""
        return self.images if self.held.groups is None else len(np.unique(self.held.groups))


def estimated(
    scores: dict[str, Floats], seed: int, groups: npt.NDArray[np.str_] | None = None
) -> tuple[dict[str, Estimate], dict[str, Floats]]:
    """Mean of each column's per-image scores with its 95 % interval, and the resampled means.

    Where all images are right or all are wrong the interval is Wilson's. Differences ("gain_…") are no shares and keep theirs.
    """
    found, samples = bootstrap_means(scores, seed, groups)
    n = len(next(iter(scores.values())))
    shares = {k: e if k.startswith("gain") else share_or_bootstrap(e, n, groups) for k, e in found.items()}
    return shares, samples


def rescored(row: Row, scores: dict[str, Floats]) -> Row:
    """The row with other columns."""
    estimates, samples = estimated(scores, NAMES.index(row.dataset), row.held.groups)
    return replace(row, scores=scores, estimates=estimates, samples=samples)


def balanced(right: Floats, truth: npt.NDArray[np.int64]) -> Floats:
    """Scores of the images whose mean is the balanced accuracy, [N].

    Each lies above or below it by its own influence: N / (C n_c) times (right − recall of its class c). So resampled means are,
    to first order, the balanced accuracy of the resample.
    """
    classes, of, counts = np.unique(truth, return_inverse=True, return_counts=True)
    recall = np.bincount(of, right) / counts
    scores: Floats = recall.mean() + len(truth) / (len(classes) * counts[of]) * (right - recall[of])
    return scores


def right_by_text(
    backbone: Backbone, data: Dataset, features: Floats, split: str, sentences: Sequence[Sequence[str]] | None
) -> Floats:
    """Which images of the split the zero-shot method or, with sentences, the sentence ensemble answers rightly, [N]."""
    name = "zero-shot" if sentences is None else "zero-shot-ensemble"
    every, scored = torch.from_numpy(features), data.indices(split)
    task = task_of(data, every, backbone, 0, sentences, [0])
    labels = torch.from_numpy(data.labels[scored])
    (right,) = right_answers(name, task, get_method(name).settings({}), [0], every[scored], labels)
    return np.array(right, dtype=float)


@contextmanager
def timed(clock: dict[str, float], what: str) -> Iterator[None]:
    """Add the seconds of the block to what the clock has."""
    begin = time.monotonic()
    yield
    clock[what] = clock.get(what, 0.0) + time.monotonic() - begin


def training_and(name: str, split: str) -> Dataset:
    """A dataset's training images, then those of the split."""
    data = load_dataset(name)
    return data.select(np.concatenate([data.indices("train"), data.indices(split)]))


def dealt(sentences: list[list[str]]) -> list[list[str]]:
    """Every class gets the list of the next one, the last class that of the first: words that are wrong for all."""
    return sentences[1:] + sentences[:1]


def scores_of(
    backbone: Backbone, data: Dataset, split: str, clock: dict[str, float]
) -> tuple[Floats, dict[str, Floats], dict[str, Any]]:
    """Features of all images [N, E], scores of the split's images by column, and the probes of :func:`probes`."""
    with timed(clock, "encoding"):
        features = encode_images(backbone, data)
    with timed(clock, "texts"):
        scores = {"class_names": right_by_text(backbone, data, features, split, None)}
        try:
            sentences = unused_sentences(data)
        except UserError:  # the library has none for these classes
            pass
        else:
            for key, texts in (("sentences", sentences), ("dealt", dealt(sentences))):
                scores[key] = right_by_text(backbone, data, features, split, texts)
    with timed(clock, "probes on features"):
        found = probes(data, features, split)
    return features, scores | {f"probe_{kind}": found[kind] for kind in ("16", "all")}, found


def measure(
    backbone: Backbone, name: str, group: str, split: str, cache: Path | None, clock: dict[str, float]
) -> tuple[Row, dict[str, Any]]:
    """All columns of one dataset, and what belongs in the JSON file beside them."""
    data = training_and(name, split)
    features, scores, ours = scores_of(backbone, data, split, clock)
    held = data.indices(split)
    truth = data.labels[held]
    with timed(clock, "probes on raw pixels"):
        raw = cached_raw_probes(data, split, cache)
    scores["largest"] = (truth == np.bincount(truth).argmax()).astype(float)
    scores["balanced"] = balanced(scores["class_names"], truth)
    for kind in ("16", "all"):
        scores |= {f"raw_{kind}": raw[kind], f"gain_{kind}": ours[kind] - raw[kind]}
    scores["gain_names"] = scores["class_names"] - scores["largest"]
    if "sentences" in scores:
        scores["gain_dealt"] = scores["sentences"] - scores["dealt"]
    scored = data.select(held)
    scored = replace(scored, groups=related(scored))
    draws = {"features": ours["draws"].mean(1).tolist(), "raw pixels": raw["draws"].mean(1).tolist()}
    row = rescored(Row(name, group, scored, features[held], {}, {}, {}, draws), scores)
    numbers = {
        "group": group,
        "images": row.images,
        "groups": row.groups,
        "classes": len(data.class_names),
        **{key: asdict(row.estimates[key]) for key in (*COLUMNS, "gain_names") if key in row.estimates},
        "draws": draws,
        "chosen_c": {"features": ours["c"], "raw pixels": raw["c"]},
    }
    return row, numbers
