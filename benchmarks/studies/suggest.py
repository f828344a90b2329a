"""Which images to label next: rules against a random choice, ``docs/results/suggest.md``.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.studies.suggest --page

A method learns from 4 labelled images per class. A rule names 4·C of the other training images, whose labels are then used too,
and the method learns again. Three seeds; a random choice is the mean of three. No two images of one group are named, and none of a
group that is labelled. Rules are compared on validation images; the best one is measured on test images. The methods choose nothing
by cross-validation (their default values), which makes a fit cheap. k-centre knows all labelled images; a saved classifier keeps
the means of their classes in their place.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.command import start
from benchmarks.datasets import GROUPS, NAMES, SEEDS, related
from benchmarks.studies.study import show
from benchmarks.tasks import settings_of
from biomedcoop.classifier.domain import unit
from biomedcoop.classifier.suggest import (
    Floats,
    Groups,
    Positions,
    choose,
    margins,
    one_of_each_group,
    spread,
)
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.sampling.few_shot import sample_few_shot
from biomedcoop.evaluation.intervals import student
from biomedcoop.evaluation.metrics import values_of
from biomedcoop.evaluation.study.inputs import encoded, loaded
from biomedcoop.methods import get_method
from biomedcoop.report.table import Table
from biomedcoop.tasks.build import task_from_features

Rule = Callable[[Floats, Floats, Floats, int, Groups], Positions]
"""Function with the arguments and the result of :func:`choose`."""


def least_margin(p: Floats, f: Floats, known: Floats, n: int, groups: Groups) -> Positions:
    return one_of_each_group(np.argsort(margins(p), kind="stable"), groups)[:n]


def most_entropy(p: Floats, f: Floats, known: Floats, n: int, groups: Groups) -> Positions:
    entropy = -(p * np.log(np.maximum(p, 1e-12))).sum(1)
    return one_of_each_group(np.argsort(-entropy, kind="stable"), groups)[:n]


def k_centre(p: Floats, f: Floats, known: Floats, n: int, groups: Groups) -> Positions:
    return spread(f, known, n, groups)


def central(x: Floats, weights: Floats, n: int, groups: Groups) -> Positions:
    """The image nearest to each of n centres of weighted k-means, those of heavy clusters first; no two of a group."""
    from sklearn.cluster import KMeans

    found = KMeans(n, n_init=1, random_state=0).fit(x, sample_weight=weights)
    chosen: list[int] = []
    free = np.ones(len(x), dtype=bool)
    for k in np.argsort(-np.bincount(found.labels_, weights, n), kind="stable"):
        distance = ((x - found.cluster_centers_[k]) ** 2).sum(1)
        best = int(np.argmin(np.where(free, distance, np.inf)))
        chosen.append(best)
        free &= groups != groups[best]
    return np.array(chosen, dtype=np.int64)


def k_means(p: Floats, f: Floats, known: Floats, n: int, groups: Groups) -> Positions:
    return central(unit(f), np.ones(len(f)), n, groups)


def k_means_by_margin(p: Floats, f: Floats, known: Floats, n: int, groups: Groups) -> Positions:
    return central(unit(f), 1 - margins(p) + 1e-6, n, groups)


RULES: dict[str, Rule] = {
    "margin": least_margin,
    "entropy": most_entropy,
    "k-centre": k_centre,
    "margin, then k-centre": choose,
    "k-means": k_means,
    "k-means by margin": k_means_by_margin,
}
Draw = npt.NDArray[np.int64]

METHODS = ("linear-probe", "tip-adapter")
"""One without words and one with; both learn in milliseconds, so that labelling can go on at once."""
SHOTS = 4
RANDOM_DRAWS = 3
MEASURES = ("accuracy", "balanced_accuracy")
RANDOM = "random"

Values = dict[str, list[dict[str, float]]]
"""For each split, the measures of each seed in percent."""


def fitted(name: str, dataset: str, backbone: str, draws: list[Draw]) -> Callable[[int, Draw], Floats]:
    """Fit a method once for each draw; the result gives the probabilities of images by the classifier of a draw."""
    data, features = encoded(dataset, backbone)
    method, labels = get_method(name), torch.from_numpy(data.labels)
    answers = []
    for draw, seed in zip(draws, SEEDS, strict=True):
        task = task_from_features(loaded(backbone), data.class_names, features, labels, [draw], None, None)
        (state,) = method.fit(task, settings_of(name, data, "general"), [seed])
        answers.append(state)

    def probabilities(run: int, images: Draw) -> Floats:
        with torch.inference_mode():
            logits = method.logits(answers[run], features[images], loaded(backbone))
            return np.asarray(logits.softmax(-1).numpy())

    return probabilities


def pool_of(data: Dataset, groups: npt.NDArray[np.str_], draw: Draw) -> Draw:
    """Training images without a label, none of a group that has one."""
    others = np.setdiff1d(data.indices("train"), draw)
    return others[~np.isin(groups[others], groups[draw])]


def measured(name: str, dataset: str, backbone: str) -> dict[str, Values]:
    """Measures of a method after each rule's labels, and before any ("none")."""
    data, features = encoded(dataset, backbone)
    groups = related(data)
    firsts = [sample_few_shot(data, SHOTS, seed)[0] for seed in SEEDS]
    before = fitted(name, dataset, backbone, firsts)
    number = SHOTS * len(data.class_names)
    pools = [pool_of(data, groups, draw) for draw in firsts]
    chosen: dict[str, list[list[Draw]]] = {"none": [[np.zeros(0, dtype=np.int64)] * len(SEEDS)]}
    for rule, order in RULES.items():
        named = []
        for run, pool in enumerate(pools):
            p, f = before(run, pool), features[pool].numpy()
            known = features[firsts[run]].numpy()
            named.append(pool[order(p, f, known, number, groups[pool])])
        chosen[rule] = [named]
    chosen[RANDOM] = [
        [
            pool[one_of_each_group(np.random.default_rng([seed, k]).permutation(len(pool)), groups[pool])[:number]]
            for seed, pool in zip(SEEDS, pools, strict=True)
        ]
        for k in range(RANDOM_DRAWS)
    ]
    found: dict[str, Values] = {}
    for rule, choices in chosen.items():
        found[rule] = {"val": [], "test": []}
        for named in choices:
            draws = [np.concatenate([first, more]) for first, more in zip(firsts, named, strict=True)]
            after = fitted(name, dataset, backbone, draws)
            for split, values in found[rule].items():
                scored = data.indices(split)
                for run in range(len(SEEDS)):
                    own = values_of(after(run, scored), data.labels[scored], data.class_names)
                    values.append({measure: 100 * float(own[measure] or 0) for measure in MEASURES})
    return found


Found = dict[tuple[str, str], dict[str, Values]]
"""By method and dataset."""


def mean(found: Found, name: str, dataset: str, rule: str, split: str, measure: str) -> float:
    return float(np.mean([value[measure] for value in found[name, dataset][rule][split]]))


def gains(found: Found, name: str, datasets: tuple[str, ...], rule: str, split: str, measure: str) -> list[float]:
    """Points above the random choice, by dataset."""
    return [mean(found, name, d, rule, split, measure) - mean(found, name, d, RANDOM, split, measure) for d in datasets]


def best_rule(found: Found) -> str:
    """The rule with the largest gain on validation images, the mean over groups, methods and both measures."""

    def gain(rule: str) -> float:
        groups, both = GROUPS.values(), MEASURES
        return float(
            np.mean([np.mean(gains(found, m, g, rule, "val", w)) for m in METHODS for g in groups for w in both])
        )

    return max(RULES, key=gain)


def rule_table(found: Found) -> Table:
    rows = []
    for rule in RULES:
        for name in METHODS:
            cells = [
                f"{np.mean(gains(found, name, names, rule, 'val', measure)):+.1f}"
                for names in GROUPS.values()
                for measure in MEASURES
            ]
            rows.append([rule, f"`{name}`", *cells])
    columns = [f"{group}, {what}" for group in GROUPS for what in ("accuracy", "balanced")]
    return Table(["rule", "method", *columns], rows, "llrrrr")


def test_table(found: Found, rule: str) -> Table:
    rows = []
    for name in METHODS:
        for group, names in GROUPS.items():
            for measure in MEASURES:
                means = [
                    np.mean([mean(found, name, d, r, "test", measure) for d in names]) for r in ("none", RANDOM, rule)
                ]
                gain = student(gains(found, name, names, rule, "test", measure))
                interval = f"{gain.value:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})"
                what = measure.replace("_", " ")
                rows.append([f"`{name}`", group, what, *(f"{m:.1f}" for m in means), interval])
    columns = ["method", "data", "measure", "4 per class", "+ random", f"+ {rule}", "difference"]
    return Table(columns, rows, "lllrrrr")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mini", help="a name, or a folder in open_clip layout")
    parser.add_argument("--page", action="store_true", help="renew the page in docs/results/ too")
    args = parser.parse_args()
    found: Found = {}
    for dataset in NAMES:
        for name in METHODS:
            found[name, dataset] = measured(name, dataset, args.backbone)
        print(f"{dataset} is measured", file=sys.stderr, flush=True)
    tables = {"suggest rules": rule_table(found), "suggest test": test_table(found, best_rule(found))}
    show("suggest", tables, args)


if __name__ == "__main__":
    start(main)
