"""Methods that learn from stored features, on the validation images of all datasets: right answers and the time of a fit.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.studies.probes
    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.studies.probes --methods "krr,clap:lr=0.3 variant=constant" --shots 4

Recipe "general" by default, three seeds, without validation images for the method. A method may have settings behind a colon.
The mean over the datasets of each group, %, and the processor time of the fit of one seed, ms, as a mean over the datasets.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from benchmarks.command import start
from benchmarks.datasets import GROUPS, NAMES, SEEDS
from biomedcoop.evaluation.study.inputs import encoded, loaded
from biomedcoop.methods import get_method
from biomedcoop.report.table import Table
from biomedcoop.tasks.build import task_from_features
from biomedcoop.tasks.plan import plan_fit
from biomedcoop.tasks.request import FitRequest

METHODS = "zero-shot,linear-probe,lp++,tip-adapter,clip-adapter,krr,zs-lp,clap,rla"


def measured(dataset: str, name: str, shots: int, recipe: str, given: dict[str, str]) -> tuple[float, float]:
    """Right answers on validation images, %, and the processor time of the fit of one seed, ms."""
    data, features = encoded(dataset, "mini")
    backbone = loaded("mini")
    plan = plan_fit(FitRequest(data, method=name, shots=shots, seeds=SEEDS, recipe=recipe, settings=given), data)
    folds = [choice.folds for choice in plan.choices]
    labels = torch.from_numpy(data.labels)
    task = task_from_features(backbone, data.class_names, features, labels, plan.draws, None, None, folds)
    method, val = get_method(name), data.indices("val")
    began = time.process_time()
    states = method.fit(task, plan.settings, SEEDS)
    took = (time.process_time() - began) / len(SEEDS)
    right = [
        (method.logits(state, features[val], backbone).argmax(1) == labels[val]).double().mean() for state in states
    ]
    return 100 * float(np.mean(right)), 1000 * took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=METHODS, help="separated by commas")
    parser.add_argument("--shots", default="1,4,16", help="images per class, separated by commas")
    parser.add_argument("--datasets", default=",".join(NAMES), help="only these, separated by commas")
    parser.add_argument("--recipe", default="general")
    args = parser.parse_args()
    datasets = args.datasets.split(",")
    if unknown := set(datasets) - set(NAMES):
        parser.error(f"no dataset {sorted(unknown)[0]!r} here; known: {', '.join(NAMES)}")
    groups = {group: own for group, names in GROUPS.items() if (own := [name for name in names if name in datasets])}
    shots = [int(word) for word in args.shots.split(",")]
    titles = [f"{group}, {k}" for group in groups for k in shots]
    table = Table(["method", *titles, *(f"ms, {k}" for k in shots)], [])
    for row in args.methods.split(","):
        name, _, given = row.partition(":")
        settings = dict(pair.split("=") for pair in given.split())
        found = {k: {d: measured(d, name, k, args.recipe, settings) for d in datasets} for k in shots}
        means = [np.mean([found[k][d][0] for d in own]) for own in groups.values() for k in shots]
        times = [np.mean([took for _, took in found[k].values()]) for k in shots]
        table.rows.append([row, *(f"{mean:.1f}" for mean in means), *(f"{took:.0f}" for took in times)])
        print(*table.rows[-1], sep="  ", flush=True)
    print(f"\n{table.markdown()}")


if __name__ == "__main__":
    start(main)
