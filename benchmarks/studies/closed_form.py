"""Methods with a closed form beside others, on validation images, and the time of a fit.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.studies.closed_form
    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.studies.closed_form --alphas gda,gda:floor=0,timo:alpha=0 --page
    python -m benchmarks.studies.closed_form --time --set timo:alpha=0 --set timo:search=true,alpha=0

Mean accuracy in percent over the datasets of each group and three seeds, with recipe general, so that methods choose their values
by cross-validation within the training images. Test images are not looked at. Settings of recipe general are chosen by this table:
``--set ss-text:image_weight=2`` compares one more row. The unlabelled images of ``ss-text-u`` are the training images that no run
draws. ``--alphas`` compares fixed values of α in place of a chosen one, from which a method's default follows; ``--page`` renews
``docs/results/values.md``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace

import numpy as np
import torch

from benchmarks.command import start
from benchmarks.datasets import GROUPS, SEEDS, library_sentences
from benchmarks.pages import publish
from benchmarks.tasks import right_answers
from biomedcoop.backbones.base import Backbone
from biomedcoop.data.dataset import Dataset
from biomedcoop.evaluation.study.inputs import encoded, loaded
from biomedcoop.methods import Method, Task, all_methods, get_method
from biomedcoop.methods.base import State
from biomedcoop.report.table import Table
from biomedcoop.tasks.build import task_from_features
from biomedcoop.tasks.plan import plan_fit
from biomedcoop.tasks.request import FitRequest
from biomedcoop.threads import torch_threads

SHOTS = (1, 4, 16)
WIDTHS = (512, 768)
ALPHA_SHOTS = (1, 2, 4, 8, 16)
OTHERS = ("zero-shot", "linear-probe", "lp++", "tip-adapter")
Row = tuple[str, tuple[tuple[str, str], ...]]
"""A method and its single settings."""


def task_of(row: Row, data: Dataset, features: torch.Tensor, shots: int, backbone: str) -> Task:
    """The task of three runs, with folds for a method that chooses, and the images that no run draws as unlabelled ones."""
    name, given = row
    abilities = get_method(name).abilities
    # a plan reads unlabelled images from files, but their features are at hand
    planned = {"method": "ss-text"} if abilities.uses_unlabelled else {"method": name, "settings": dict(given)}
    plan = plan_fit(FitRequest(data, shots=shots, seeds=SEEDS, **planned), data)
    task = task_from_features(
        loaded(backbone),
        data.class_names,
        features,
        torch.from_numpy(data.labels),
        plan.draws,
        None,
        library_sentences(data) if abilities.uses_sentences else None,
        [choice.folds for choice in plan.choices] if abilities.chooses else None,
    )
    if not abilities.uses_unlabelled:
        return task
    return replace(task, unlabelled=features[np.setdiff1d(data.indices("train"), plan.drawn)])


def accuracy(row: Row, dataset: str, shots: int, backbone: str) -> float:
    """Percent of the validation images that are answered rightly, the mean over the seeds."""
    name, given = row
    data, features = encoded(dataset, backbone)
    task = task_of(row, data, features, shots, backbone)
    val = data.indices("val")
    labels = torch.from_numpy(data.labels[val])
    settings = get_method(name).settings(dict(given), "general")
    return 100 * float(np.mean(right_answers(name, task, settings, SEEDS, features[val], labels)))


def alpha_table(row: Row, groups: Mapping[str, Sequence[str]], backbone: str) -> Table:
    """Accuracy of a method with each of its values of α, the same for all datasets, and with the α that it chooses."""
    name, given = row
    method, model = get_method(name), loaded(backbone)
    settings = method.settings(dict(given), "general")
    alphas = sys.modules[type(method).__module__].ALPHAS
    others = [{}, *({"alpha": torch.tensor(alpha)} for alpha in alphas)]
    columns = [(group, shots) for group in groups for shots in ALPHA_SHOTS]
    found = []
    for group, shots in columns:
        shares = []
        for dataset in groups[group]:
            data, features = encoded(dataset, backbone)
            val, task = data.indices("val"), task_of(row, data, features, shots, backbone)
            labels = torch.from_numpy(data.labels[val])
            shares += [
                [right_share(method, {**state, **other}, features[val], labels, model) for other in others]
                for state in method.fit(task, settings, SEEDS)
            ]
        found.append(np.mean(shares, axis=0))
    titles = ["chosen, else the default", *(f"{alpha:g}" for alpha in alphas)]
    rows = [[label, *(f"{of_column[i]:.1f}" for of_column in found)] for i, label in enumerate(titles)]
    return Table([f"{title(row)}, α", *(f"{group}, {shots}" for group, shots in columns)], rows)


def right_share(
    method: Method, state: State, features: torch.Tensor, labels: torch.Tensor, backbone: Backbone
) -> float:
    """Percent of images that a fitted state answers rightly."""
    with torch.inference_mode():
        return 100 * float((method.logits(state, features, backbone).argmax(1) == labels).double().mean())


def widened(model: Backbone, width: int) -> Backbone:
    """The backbone with a joint space of another width, whose text features are drawn by chance."""
    other = copy(model)
    other.embed_dim = width
    other.encode_text = lambda texts: torch.randn(len(texts), width, generator=torch.Generator().manual_seed(2))
    return other


def fit_seconds(
    row: Row, model: Backbone, folds: bool, runs: int = 1, classes: int = 10, images: int = 16, repetitions: int = 5
) -> float:
    """Processor seconds of a fit per run, on features drawn by chance; the least of some repetitions, after one to warm up."""
    name, given = row
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(classes).repeat_interleave(images).expand(runs, -1)
    centres = torch.randn(classes, model.embed_dim, generator=generator)
    features = centres[labels] + 2 * torch.randn(*labels.shape, model.embed_dim, generator=generator)
    names = [f"class {c}" for c in range(classes)]
    sentences = torch.randn(classes, 50, model.embed_dim, generator=generator)
    more = torch.randn(24 * classes, model.embed_dim, generator=generator)
    chosen = (torch.arange(labels.shape[1]) % 5).expand(runs, -1) if folds else None
    task = Task(model, names, features, labels, sentences, folds=chosen, unlabelled=more)
    method, seconds = get_method(name), []
    settings = method.settings(dict(given), "general")
    for _ in range(1 + repetitions):
        begin = time.process_time()
        method.fit(task, settings, list(range(runs)))
        seconds.append(time.process_time() - begin)
    return min(seconds[1:]) / runs


def title(row: Row) -> str:
    return " ".join([row[0], *(f"{key}={value}" for key, value in row[1])])


def accuracy_table(rows: Sequence[Row], groups: Mapping[str, Sequence[str]], backbone: str) -> Table:
    table = [
        [
            title(row),
            *(
                f"{np.mean([accuracy(row, dataset, shots, backbone) for dataset in names]):.1f}"
                for names in groups.values()
                for shots in SHOTS
            ),
        ]
        for row in rows
    ]
    return Table(["method", *(f"{group}, {shots}" for group in groups for shots in SHOTS)], table)


def time_table(rows: Sequence[Row], backbone: str) -> Table:
    """Processor milliseconds of a fit on one thread, at 16 images for each of 10 classes, with stored features of each width."""
    ways = {"fixed": (False, 1), "chosen by folds": (True, 1), "fixed, each of 8": (False, 8)}
    columns = {(width, way): (widened(loaded(backbone), width), *ways[way]) for width in WIDTHS for way in ways}
    with torch_threads(1):
        table = [[title(row), *(f"{1000 * fit_seconds(row, *way):.1f}" for way in columns.values())] for row in rows]
    return Table(["fit, ms", *(f"E = {width}, {way}" for width, way in columns)], table)


def parsed(text: str) -> Row:
    name, _, settings = text.partition(":")
    pairs = [pair.partition("=") for pair in settings.split(",") if pair]
    return get_method(name).name, tuple((key, value) for key, _, value in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mini", help="a name, or a folder in open_clip layout")
    parser.add_argument("--methods", help="only these, separated by commas")
    parser.add_argument("--set", action="append", default=[], metavar="METHOD:NAME=VALUE,…", help="one more row")
    parser.add_argument("--alphas", help="only values of α of these methods, separated by commas")
    parser.add_argument("--page", action="store_true", help="renew the page in docs/results/ by the tables of --alphas")
    parser.add_argument("--time", action="store_true", help="only the time of a fit")
    args = parser.parse_args()
    if args.page and not args.alphas:
        parser.error("--page needs --alphas")
    if args.alphas:
        tables = {name: alpha_table(parsed(name), GROUPS, args.backbone) for name in args.alphas.split(",")}
        for table in tables.values():
            print(table.markdown() + "\n", flush=True)
        if args.page:
            publish("values", tables)
        return
    closed = [name for name, method in all_methods().items() if method.abilities.closed_form]
    rows = [parsed(name) for name in (args.methods.split(",") if args.methods else (*OTHERS, *closed))]
    rows += map(parsed, args.set)
    if not args.time:
        print(accuracy_table(rows, GROUPS, args.backbone).markdown() + "\n", flush=True)
    timed = [row for row in rows if row[0] == "zero-shot" or get_method(row[0]).abilities.closed_form]
    print(time_table(timed, args.backbone).markdown())


if __name__ == "__main__":
    start(main)
