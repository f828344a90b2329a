"""Accuracy of one dataset: class names, unused sentences, linear probes on features and on raw pixels."""

from __future__ import annotations

import csv
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from biomedcoop import load_dataset
from biomedcoop.backbones.base import Backbone
from biomedcoop.data.catalogue import find
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.crops import resize_and_crop
from biomedcoop.data.images.reading import read_image
from biomedcoop.data.sampling.few_shot import sample_few_shot
from biomedcoop.errors import UserError
from biomedcoop.evaluation.bootstrap import Estimate, resampled_weights
from biomedcoop.features.images import encode_images
from biomedcoop.features.parallel import run_ahead
from biomedcoop.features.texts import encode_texts
from biomedcoop.methods import Task, get_method
from biomedcoop.output import write_atomically
from biomedcoop.prompts import sentences_for

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

GROUPS = {
    "seen": ("btmri", "kneexray", "lungcolon", "pneumoniamnist", "mednist", "bccd_cells"),
    "unseen": ("busi", "ham10000", "retina", "covid_radiography", "covid_cxr3"),
}
"""Seen: labelled images of at least some of the dataset's classes were in pretraining. Unseen: no image of the
dataset was, although the covid sets' 'normal lungs' shares its name with a class of pneumoniamnist, chest X-rays too, and busi's
class names are those of the simulated breast scans."""
WITHOUT_IMAGES = (("bccd_cells", "white blood cell"), ("bccd_cells", "platelets"))
"""Classes of seen datasets that pretraining had no image of."""
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

SHOTS, SEEDS = 16, (1, 2, 3)
C_GRID = tuple(10.0**exponent for exponent in np.arange(-5, 2.01, 0.5))
FOLDS = 5
RAW_SIZE = 24
N_BOOTSTRAP = 1000
PROTOCOL = f"raw {RAW_SIZE}, C {C_GRID[0]:g}-{C_GRID[-1]:g} ({len(C_GRID)}), {FOLDS} folds, log loss, {SHOTS} shots, 3"
"""Names what cached raw-pixel results were made with; a change of the probe or of the cached file needs a new version."""

COLUMNS = {
    "largest": "largest class",
    "class_names": "class names",
    "sentences": "unused sentences",
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
        held: the images that were scored; its ``groups`` are those of :func:`related`.
        features: of these images, [N, E].
        estimates, samples: by column, and the resampled values behind the intervals.
        draws: accuracy of the 16-shot probes draw by draw, for "features" and "raw pixels".
    """

    dataset: str
    group: str
    held: Dataset
    features: npt.NDArray[np.float32]
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


def complete_groups(datasets: Iterable[str]) -> list[str]:
    """The groups of which every dataset is there; a mean over a part of one would be read as the group's."""
    there = set(datasets)
    return [group for group, names in GROUPS.items() if set(names) <= there]


# --- linear probe -------------------------------------------------------------------------------------------------


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
    what = [PROTOCOL, SHOTS, SEEDS, data.name, split, *data.keys, *data.labels.tolist(), *data.splits.tolist()]
    digest = hashlib.sha256("\n".join(map(str, what)).encode()).hexdigest()
    path = None if cache is None else cache / f"raw-pixels-{split}-{data.name}.json"
    if path is not None and path.is_file():
        held = json.loads(path.read_text(encoding="utf-8"))
        if held["digest"] == digest:
            return collected(held["draws"], held["all"], held["c"])
    result = probes(data, raw_pixels(data), split)
    if path is not None:
        right = {key: result[key].astype(int).tolist() for key in ("draws", "all")}
        content = {"digest": digest, "c": result["c"], **right}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(content).encode())
    return result


# --- class names and sentences ------------------------------------------------------------------------------------


def unused_sentences(data: Dataset) -> list[list[str]] | None:
    """Sentences of each class that pretraining has not used (it takes those with an even index), None without any."""
    entry = find(data.name, data.class_names)
    try:
        found = sentences_for(data.class_names, entry.name if entry else data.name, "library")
    except UserError:
        return None
    return [list(sentences[1::2]) for sentences in found.by_class]


def answers_by_text(
    backbone: Backbone, class_names: Sequence[str], features: Floats, sentences: list[list[str]] | None = None
) -> Labels:
    """Answers of the package's zero-shot method or, with sentences, of its sentence ensemble."""
    method = get_method("zero-shot" if sentences is None else "zero-shot-ensemble")
    encoded = None
    if sentences is not None:
        flat = encode_texts(backbone, [text for texts in sentences for text in texts])
        encoded = torch.from_numpy(flat).view(len(class_names), -1, backbone.embed_dim)
    nothing = torch.zeros(1, 0, backbone.embed_dim)
    task = Task(backbone, class_names, nothing, torch.zeros(1, 0, dtype=torch.int64), encoded)
    (state,) = method.fit(task, method.settings({}), [0])
    with torch.inference_mode():
        return method.logits(state, torch.from_numpy(features), backbone).argmax(1).numpy()


# --- one dataset --------------------------------------------------------------------------------------------------


def related(data: Dataset) -> npt.NDArray[np.str_]:
    """Group of each image (patient, lesion, field of view, near-duplicates) by the column ``group`` of the folder's manifest.csv.

    An image without one, or of a dataset without the file, is a group of its own.
    """
    found: dict[str, str] = {}
    path = None if data.root is None else data.root / "manifest.csv"
    if path is not None and path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            found = {row["file"]: row.get("group") or "" for row in csv.DictReader(file)}
    return np.array([f"group {found[key]}" if found.get(key) else f"image {key}" for key in data.keys])


def wilson(right: float, n: int) -> Estimate:
    """Share ``right`` of ``n`` independent images with its 95 % interval, which has a width even where all or none are right.

    Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    z = 1.959964
    middle, half = right + z**2 / (2 * n), z * np.sqrt(right * (1 - right) / n + z**2 / (4 * n**2))
    low, high = ((middle + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    return Estimate(right, float(min(max(low, 0.0), right)), float(max(min(high, 1.0), right)))


def estimated(
    scores: dict[str, Floats], seed: int, groups: npt.NDArray[np.str_] | None = None
) -> tuple[dict[str, Estimate], dict[str, Floats]]:
    """Mean of each column's per-image scores with its 95 % interval; all columns see the same resamples.

    Whole groups are resampled, where given. Where all are right or all are wrong, every resample is the same: there the
    interval is Wilson's, with the number of groups for the number of images. Differences ("gain_…") are no proportions and
    keep theirs.
    """
    table = np.stack(list(scores.values()), axis=1)  # [N, K]
    blocks = [w.T @ table / w.sum(0)[:, None] for w in resampled_weights(len(table), N_BOOTSTRAP, seed, groups)]
    samples = dict(zip(scores, np.concatenate(blocks).T, strict=True))
    n = len(table) if groups is None else len(np.unique(groups))

    def one(key: str, values: Floats) -> Estimate:
        value = float(values.mean())
        if value in (0.0, 1.0) and not key.startswith("gain"):
            return wilson(value, n)
        return Estimate.of(value, samples[key])

    return {key: one(key, values) for key, values in scores.items()}, samples


def mean_estimate(values: Sequence[float], samples: Sequence[Floats]) -> Estimate:
    """Mean of several datasets' values; the interval from the mean of their resamples, which are independent."""
    return Estimate.of(float(np.mean(values)), np.mean(samples, axis=0))


def measure(
    backbone: Backbone, name: str, group: str, split: str, cache: Path | None, seed: int, clock: dict[str, float]
) -> tuple[Row, dict[str, Any]]:
    """All columns of one dataset, and what belongs in the JSON file beside them."""

    def timed(what: str, work: Callable[[], Any]) -> Any:
        start = time.monotonic()
        result = work()
        clock[what] = clock.get(what, 0.0) + time.monotonic() - start
        return result

    data = load_dataset(name)
    data = data.select(np.concatenate([data.indices("train"), data.indices(split)]))
    features = timed("encoding", lambda: encode_images(backbone, data))
    held = data.indices(split)
    truth = data.labels[held]
    sentences = unused_sentences(data)

    def right(texts: list[list[str]] | None) -> Floats:
        return (answers_by_text(backbone, data.class_names, features[held], texts) == truth).astype(float)

    scores = {
        "largest": (truth == np.bincount(truth).argmax()).astype(float),
        "class_names": timed("texts", lambda: right(None)),
    }
    if sentences is not None:
        scores["sentences"] = timed("texts", lambda: right(sentences))
    ours = timed("probes on features", lambda: probes(data, features, split))
    raw = timed("probes on raw pixels", lambda: cached_raw_probes(data, split, cache))
    for kind in ("16", "all"):
        scores |= {f"probe_{kind}": ours[kind], f"raw_{kind}": raw[kind], f"gain_{kind}": ours[kind] - raw[kind]}
    scores["gain_names"] = scores["class_names"] - scores["largest"]
    scored = data.select(held)
    scored = replace(scored, groups=related(scored))
    estimates, samples = estimated(scores, seed, scored.groups)
    draws = {"features": ours["draws"].mean(1).tolist(), "raw pixels": raw["draws"].mean(1).tolist()}
    row = Row(name, group, scored, features[held], estimates, samples, draws)
    numbers = {
        "group": group,
        "images": row.images,
        "groups": row.groups,
        "classes": len(data.class_names),
        **{key: asdict(estimates[key]) for key in (*COLUMNS, "gain_names") if key in estimates},
        "draws": draws,
        "chosen_c": {"features": ours["c"], "raw pixels": raw["c"]},
    }
    return row, numbers
