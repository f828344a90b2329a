"""Method "auto" against each of its candidates, and how its mixture was chosen: ``docs/results/auto.md``.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.studies.auto --work WORK --page

Every candidate is fitted once for each dataset and number of images per class, five seeds together, and its logits are kept: of
training images held out in folds, of the validation split and of the test split. From these, ways of choosing are compared on the
validation split. What a way knows beforehand (prior weights and temperatures) comes from the validation splits of the *other*
datasets. Then auto meets the best single method on the test split. With ``--page``, the prior of the package,
``src/biomedcoop/methods/auto.json``, is written from the validation splits of all datasets.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.command import start
from benchmarks.datasets import GROUPS, NAMES, unused_sentences
from benchmarks.pages import ROOT
from benchmarks.studies.study import arguments, run, show
from biomedcoop.evaluation.study.cells import Answers, Cell
from biomedcoop.evaluation.study.inputs import encoded, loaded
from biomedcoop.evaluation.study.results import Results
from biomedcoop.evaluation.wording import number, percent
from biomedcoop.methods import get_method
from biomedcoop.methods.auto import (
    CANDIDATES,
    AutoSettings,
    Prior,
    Tried,
    choose,
    fitted_temperature,
    judging_logits,
    mixture_weights,
    pruned,
    settings_of,
)
from biomedcoop.output import write_atomically
from biomedcoop.report.table import Table
from biomedcoop.tasks.build import task_from_features
from biomedcoop.tasks.plan import plan_fit
from biomedcoop.tasks.request import FitRequest

SHOTS = (1, 2, 4, 8, 16)
SEEDS = (1, 2, 3, 4, 5)
LP = "lp++ with validation images"
"""LP++ as published, which chooses its epochs on validation images that auto does not have."""

MEASURED = {"biomedcoop": (1,)}
"""Images per class at which a candidate was measured, if not at all: more would take hours. At others it takes no part here,
and its prior weight in the package is the smallest one."""

PRIOR = ROOT / "src" / "biomedcoop" / "methods" / "auto.json"
SETTINGS: AutoSettings = get_method("auto").settings({})
Outputs = Mapping[str, Any]
Priors = dict[str, Prior]


def outputs(name: str, dataset: str, shots: int, folder: Path, backbone: str) -> Outputs:
    """Logits of a method: "held" [seeds, N, C] of its training images (none with one image of each class), "val" and "test"."""
    path = folder / f"{dataset}-{name.replace(' ', '-')}-{shots}.npz"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        found = _outputs(name, dataset, shots, backbone)
        part = path.with_suffix(".part.npz")
        np.savez(part, **found)
        part.replace(path)
    return _read(path)


@cache
def _read(path: Path) -> Outputs:
    with np.load(path) as content:
        return dict(content)


def _outputs(name: str, dataset: str, shots: int, backbone: str) -> dict[str, Any]:
    data, features = encoded(dataset, backbone)
    published, method = name == LP, get_method("lp++" if name == LP else name)
    chosen_by, recipe = ("lp++", "paper") if published else ("auto", "fast")
    request = FitRequest(data, method=chosen_by, shots=shots, seeds=SEEDS, recipe=recipe)
    plan = plan_fit(request, data)
    words = unused_sentences(data) if method.abilities.uses_sentences else None
    val = plan.val_draws if published else None
    folds = [choice.folds for choice in plan.choices]
    labels = torch.from_numpy(data.labels)
    task = task_from_features(loaded(backbone), data.class_names, features, labels, plan.draws, val, words, folds)
    settings = method.settings({}, "paper") if published else settings_of(name)
    found: dict[str, Any] = {"labels": task.labels.numpy(), "folds": np.stack(folds)}
    if not published and (shots > 1 or not method.abilities.uses_images):
        found["held"] = judging_logits(method, task, settings, list(SEEDS)).numpy()
    bare = (
        task
        if published
        else task_from_features(loaded(backbone), data.class_names, features, labels, plan.draws, None, words)
    )
    states = method.fit(bare, settings, list(SEEDS))
    for split in ("val", "test"):
        index = data.indices(split)
        with torch.inference_mode():
            logits = [method.logits(state, features[index], loaded(backbone)).float() for state in states]
        found |= {split: torch.stack(logits).numpy(), f"{split}_labels": data.labels[index]}
    return found


def log_p(output: Outputs, part: str, temperature: float) -> Tensor:
    """Log-probabilities [seeds · N] of the right classes."""
    logits = torch.from_numpy(output[part]).double()
    labels = torch.from_numpy(output["labels" if part == "held" else f"{part}_labels"]).expand(logits.shape[:2])
    return (logits / temperature).log_softmax(-1).gather(2, labels[:, :, None]).flatten()


def candidates(shots: int) -> list[str]:
    return [name for name in CANDIDATES if shots in MEASURED.get(name, SHOTS)]


@cache
def prior(shots: int, without: str, folder: Path, backbone: str) -> Priors:
    """What the validation splits of all datasets but one say about each candidate; both groups count the same."""
    path = folder / f"prior-{shots}-{without}.json"
    if path.is_file():
        return {name: Prior(*values) for name, values in json.loads(path.read_text("utf-8")).items()}
    methods = candidates(shots)
    groups = [[name for name in names if name != without] for names in GROUPS.values()]
    temperatures = {
        m: math.exp(
            np.mean([np.mean([math.log(_best(m, d, shots, folder, backbone)) for d in names]) for names in groups])
        )
        for m in methods
    }
    weights = torch.zeros(len(methods), dtype=torch.float64)
    for names in groups:
        tables = [
            torch.stack([log_p(outputs(m, d, shots, folder, backbone), "val", temperatures[m]) for m in methods])
            for d in names
        ]
        own = torch.full_like(weights, 1 / len(methods))
        for _ in range(60):  # the mixture with the highest likelihood, each dataset with the same weight
            own = torch.stack([(table + own.log()[:, None]).softmax(0).mean(1) for table in tables]).mean(0)
        weights += own / len(groups)
    right = {
        m: float(np.mean([np.mean([_right(m, d, shots, folder, backbone) for d in names]) for names in groups]))
        for m in methods
    }
    found = {m: Prior(max(float(w), 1e-3), temperatures[m], right[m]) for m, w in zip(methods, weights, strict=True)}
    write_atomically(path, json.dumps(found).encode())
    return found


@cache
def _best(name: str, dataset: str, shots: int, folder: Path, backbone: str) -> float:
    """The temperature with the smallest log-loss on the validation split."""
    output = outputs(name, dataset, shots, folder, backbone)
    logits, labels = torch.from_numpy(output["val"]).flatten(0, 1), torch.from_numpy(output["val_labels"])
    return fitted_temperature(logits, labels.repeat(len(output["val"]))[:, None], 1.0, 1e6, 1)


def _right(name: str, dataset: str, shots: int, folder: Path, backbone: str) -> float:
    output = outputs(name, dataset, shots, folder, backbone)
    return float((output["val"].argmax(-1) == output["val_labels"]).mean())


Rule = Callable[[list[Tried], Tensor, Tensor], Tensor]
"""Weights from what was tried, the log-probabilities [M, N] of the right classes of held-out images, and the prior weights [M]."""


def _one(scores: Sequence[float]) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(int(np.argmax(scores))), len(scores)).double()


def _best_three(tried: list[Tried], log_p: Tensor, prior: Tensor) -> Tensor:
    weights = torch.zeros_like(prior)
    weights[log_p.mean(1).topk(3).indices] = 1 / 3
    return weights


def _greedy(tried: list[Tried], log_p: Tensor, prior: Tensor) -> Tensor:
    """Greedy selection with repetition (Caruana et al., ICML 2004), 20 steps."""
    weights = torch.zeros_like(prior)
    for _ in range(20):
        sums = (weights[:, None] * log_p.exp()).sum(0) + log_p.exp()  # [M, N]
        weights[int(sums.log().mean(1).argmax())] += 1
    return weights / 20


SINGLE = [name for name in CANDIDATES if name not in MEASURED]
"""Candidates that were measured at all numbers of images per class."""

RULES: dict[str, Rule] = {
    "auto": lambda tried, log_p, prior: mixture_weights(log_p, prior, SETTINGS.prior, 1),
    "prior of 2 images": lambda tried, log_p, prior: mixture_weights(log_p, prior, 2.0, 1),
    "prior of 32 images": lambda tried, log_p, prior: mixture_weights(log_p, prior, 32.0, 1),
    "no choice: the prior": lambda tried, log_p, prior: prior,
    "one, by log-loss": lambda tried, log_p, prior: _one([-(one.log_loss or 0) for one in tried]),
    "one, by accuracy": lambda tried, log_p, prior: _one(
        [(one.accuracy or 0) - 1e-6 * (one.log_loss or 0) for one in tried]
    ),
    "mean of the best three": _best_three,
    "greedy ensemble": _greedy,
}


def compute(dataset: str, key: Any, backbone: str) -> Answers:
    """Which images of a split a method or a way of choosing answers rightly, [seeds][images]."""
    name, shots, split, place = key
    folder = Path(place)
    if name not in RULES:
        output = outputs(name, dataset, shots, folder, backbone)
        return (output[split].argmax(-1) == output[f"{split}_labels"]).astype(int).tolist()
    known, methods = prior(shots, dataset, folder, backbone), candidates(shots)
    parts = {m: outputs(m, dataset, shots, folder, backbone) for m in methods}
    total = sum(one.weight for one in known.values())
    beforehand = torch.tensor([known[m].weight / total for m in methods]).double()
    right: Answers = []
    for seed in range(len(SEEDS)):
        labels = torch.from_numpy(parts[methods[0]]["labels"][seed])
        held = {m: torch.from_numpy(part["held"][seed]) for m, part in parts.items()} if shots > 1 else {}
        tried = choose(held, labels, known, SETTINGS)
        weights = [one.weight for one in tried]
        if held:
            of_right = [
                (held[one.method].double() / one.temperature).log_softmax(-1).gather(1, labels[:, None])[:, 0]
                for one in tried
            ]
            weights = pruned(RULES[name](tried, torch.stack(of_right), beforehand))
        mixed = [
            w * torch.from_numpy(parts[one.method][split][seed] / one.temperature).softmax(-1)
            for one, w in zip(tried, weights, strict=True)
        ]
        answers = torch.stack(mixed).sum(0).argmax(-1).numpy()
        right.append((answers == parts[methods[0]][f"{split}_labels"]).astype(int).tolist())
    return right


def cells(datasets: Sequence[str], rows: Sequence[str], split: str, folder: Path) -> list[Cell]:
    return [
        Cell(
            dataset,
            (row, shots, split, str(folder)),
            f"auto-{split}-{dataset}-{row.replace(' ', '-')}-{shots}",
            float(row in RULES),
        )
        for dataset in datasets
        for row in rows
        for shots in SHOTS
    ]


def _file(dataset: str, row: str, shots: int, split: str) -> str:
    return f"auto-{split}-{dataset}-{row.replace(' ', '-')}-{shots}"


def keys(row: str, split: str, folder: Path) -> list[Any]:
    return [(row, shots, split, str(folder)) for shots in SHOTS]


def accuracy(results: Results, datasets: Sequence[str], every: Sequence[Any]) -> float:
    """Mean over datasets, seeds and keys; without the intervals, which take their time."""
    return float(np.mean([[results.right(dataset, key).mean() for key in every] for dataset in datasets]))


def mean_rows(results: Results, rows: Sequence[str], split: str, folder: Path) -> Table:
    """Mean accuracy by group and images per class, in percent."""
    cells = []
    for row in rows:
        by_shots = keys(row, split, folder)
        values = [accuracy(results, names, [key]) for names in results.complete.values() for key in by_shots]
        means = [accuracy(results, names, by_shots) for names in results.complete.values()]
        cells.append([row, *map(number, values), *map(number, means)])
    columns = [f"{group}, {shots}" for group in results.complete for shots in SHOTS]
    return Table([split, *columns, *(f"{group}, mean" for group in results.complete)], cells)


def best_on(results: Results, group: str, split: str, folder: Path) -> str:
    """The one candidate with the best mean over all numbers of images per class."""
    return max(SINGLE, key=lambda row: accuracy(results, results.complete[group], keys(row, split, folder)))


def difference_rows(val: Results, test: Results, folder: Path) -> Table:
    """Auto minus the best single method and minus LP++ with validation images, on the test split."""
    rows = []
    for group, datasets in test.complete.items():
        best = {split: best_on(results, group, split, folder) for split, results in (("val", val), ("test", test))}
        for what, other in (("best on validation", best["val"]), ("best on test", best["test"]), ("", LP)):
            mean = test.mean(datasets, keys("auto", "test", folder), keys(other, "test", folder))
            name = f"{other} ({what})" if what else other
            rows.append([group, name, percent(mean.over_images, signed=True), percent(mean.over_datasets, signed=True)])
    return Table(["group", "auto minus", "over images", "over datasets"], rows, "llrr")


def write_prior(folder: Path, backbone: str) -> None:
    """The prior of the package, from the validation splits of all datasets."""
    found: dict[str, dict[int, list[float]]] = {}
    for shots in SHOTS:
        known = prior(shots, "none", folder, backbone)
        total = sum(one.weight for one in known.values())
        for m, one in known.items():
            values = (one.weight / total, one.temperature, one.accuracy)
            found.setdefault(m, {})[shots] = [round(value, 4) for value in values]
    lines = [f" {json.dumps(m)}: {json.dumps(own)}" for m, own in found.items()]
    write_atomically(PRIOR, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args = arguments(parser)
    folder = args.work / loaded(args.backbone).fingerprint[:12] / "logits"
    rows, tested = [*RULES, *SINGLE], ["auto", *SINGLE, LP]
    # before the rules, whose prior needs the candidates of all datasets
    run(compute, cells(args.datasets, [*SINGLE, LP], "val", folder), args, "val")
    for name, shots in ((name, k) for name, every in MEASURED.items() for k in every):
        for dataset in args.datasets:
            outputs(name, dataset, shots, folder, args.backbone)
    val = run(compute, cells(args.datasets, rows, "val", folder), args, "val")
    test = run(compute, cells(args.datasets, tested, "test", folder), args)
    tables = {
        "validation": mean_rows(val, rows, "val", folder),
        "test": mean_rows(test, tested, "test", folder),
        "differences": difference_rows(val, test, folder),
    }
    if args.page and set(args.datasets) == set(NAMES):
        write_prior(folder, args.backbone)
    show("auto", tables, args)


if __name__ == "__main__":
    start(main)
