"""Images unlike the training images: how the distance and its limit were chosen, and how often the flag is wrong:
``docs/results/unlike.md``.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.studies.unlike --page

Training images are drawn as for a fit, three seeds. A false alarm is an image of the same dataset that is flagged; a detection is
an image of another dataset that is flagged. Candidates are compared on validation images; the chosen one is measured on test
images.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from benchmarks.command import start
from benchmarks.datasets import NAMES, SEEDS
from benchmarks.studies.study import show
from biomedcoop.classifier.domain import DEVIATIONS, class_means, distances, left_out_distances, unit
from biomedcoop.data.sampling.few_shot import sample_few_shot
from biomedcoop.evaluation.study.inputs import encoded
from biomedcoop.report.table import Table

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

SHOTS = (4, 16)
CHEST = {"covid_radiography", "covid_cxr3", "pneumoniamnist"}
"""Datasets of one modality and organ, from several sources; their images are reported apart as the hard case."""
MOST_IMAGES = 300
"""Images of a dataset that are scored, so that no dataset outweighs the others."""


def to_class_means(x: Floats, y: Labels, query: Floats) -> tuple[Floats, Floats]:
    """Distances of left-out training images, and of other images."""
    return left_out_distances(x, y), distances(query, class_means(x, y))


def to_nearest_image(x: Floats, y: Labels, query: Floats) -> tuple[Floats, Floats]:
    nearness = unit(x) @ unit(x).T
    np.fill_diagonal(nearness, -1)
    return 1 - nearness.max(axis=1), distances(query, unit(x))


def mahalanobis(x: Floats, y: Labels, query: Floats) -> tuple[Floats, Floats]:
    """Distance to the nearest class mean by the shared covariance (Ledoit and Wolf's shrinkage); left out in eight parts."""
    parts = np.random.default_rng(0).permutation(len(x)) % 8
    own = np.zeros(len(x))
    for part in range(8):
        kept = parts != part
        own[~kept] = _mahalanobis(x[kept], y[kept], x[~kept])
    return own, _mahalanobis(x, y, query)


def _mahalanobis(x: Floats, y: Labels, query: Floats) -> Floats:
    from sklearn.covariance import ledoit_wolf

    classes, of = np.unique(y, return_inverse=True)
    means = np.stack([unit(x)[of == k].mean(axis=0) for k in range(len(classes))])
    precision = np.linalg.pinv(ledoit_wolf(unit(x) - means[of], assume_centered=True)[0], hermitian=True)
    away = unit(query)[:, None] - means  # [N, C, E]
    return np.sqrt(np.einsum("nce,nce->nc", away @ precision, away).min(axis=1))


CANDIDATES: dict[str, tuple[Callable[[Floats, Labels, Floats], tuple[Floats, Floats]], float, str]] = {
    "nearest class mean, 2.5 deviations": (to_class_means, 2.5, "C·E"),
    f"nearest class mean, {DEVIATIONS:g} deviations": (to_class_means, DEVIATIONS, "C·E"),
    "nearest class mean, 4 deviations": (to_class_means, 4.0, "C·E"),
    "nearest training image, 3 deviations": (to_nearest_image, 3.0, "N·E"),
    "Mahalanobis, 3 deviations": (mahalanobis, 3.0, "C·E + E·E"),
}
CHOSEN = f"nearest class mean, {DEVIATIONS:g} deviations"


def scored(dataset: str, backbone: str, split: str) -> Floats:
    """Features of at most :data:`MOST_IMAGES` images of a split."""
    data, features = encoded(dataset, backbone)
    chosen = np.random.default_rng(0).permutation(data.indices(split))[:MOST_IMAGES]
    return features.numpy()[chosen].astype(np.float64)


def shares(candidate: str, dataset: str, shots: int, split: str, backbone: str) -> dict[str, float]:
    """Share of flagged images of each dataset, mean over the seeds, for training images of one dataset."""
    data, features = encoded(dataset, backbone)
    measure, deviations, _ = CANDIDATES[candidate]
    every = {name: scored(name, backbone, split) for name in NAMES}
    ends = np.cumsum([len(x) for x in every.values()])[:-1]
    flagged = []
    for seed in SEEDS:
        draw, _ = sample_few_shot(data, shots, seed)
        x, y = features.numpy()[draw].astype(np.float64), data.labels[draw]
        own, others = measure(x, y, np.concatenate(list(every.values())))
        unlike = others > own.mean() + deviations * own.std(ddof=1)
        flagged.append([part.mean() for part in np.split(unlike, ends)])
    return dict(zip(NAMES, np.mean(flagged, axis=0), strict=True))


def by_kind(dataset: str, found: dict[str, float]) -> tuple[float, float, float | None]:
    """False alarms, detections, and detections of the same modality and organ from another source."""
    near = CHEST - {dataset} if dataset in CHEST else set()
    far = [share for name, share in found.items() if name != dataset and name not in near]
    return found[dataset], float(np.mean(far)), float(np.mean([found[name] for name in near])) if near else None


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def candidate_table(backbone: str) -> Table:
    rows = []
    for candidate, (_, _, size) in CANDIDATES.items():
        for shots in SHOTS:
            every = [by_kind(name, shares(candidate, name, shots, "val", backbone)) for name in NAMES]
            alarms, far, near = zip(*every, strict=True)
            close = [share for share in near if share is not None]
            cells = [np.mean(alarms), max(alarms), np.mean(far), np.mean(close)]
            rows.append([candidate, size, shots, *(percent(float(cell)) for cell in cells)])
    columns = [
        "distance and limit",
        "numbers kept",
        "shots",
        "false alarms",
        "worst dataset",
        "detected",
        "detected, chest",
    ]
    return Table(columns, rows, "llrrrrr")


def chosen_table(backbone: str) -> Table:
    kinds = {(name, k): by_kind(name, shares(CHOSEN, name, k, "test", backbone)) for name in NAMES for k in SHOTS}
    rows = [[name, *(percent(kinds[name, k][i]) for i in range(3) for k in SHOTS)] for name in NAMES]
    means = []
    for i in range(3):
        for k in SHOTS:
            defined = [share for name in NAMES if (share := kinds[name, k][i]) is not None]
            means.append(percent(float(np.mean(defined))))
    columns = [f"{what}, {k}" for what in ("false alarms", "detected", "detected, chest") for k in SHOTS]
    return Table(["training images of", *columns], [*rows, ["mean", *means]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mini", help="a name, or a folder in open_clip layout")
    parser.add_argument("--page", action="store_true", help="renew the page in docs/results/ too")
    args = parser.parse_args()
    show("unlike", {"test": chosen_table(args.backbone), "candidates": candidate_table(args.backbone)}, args)


if __name__ == "__main__":
    start(main)
