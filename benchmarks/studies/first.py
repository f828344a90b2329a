"""The main job on real datasets, three seeds each: ``docs/results/first.md``.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.studies.first --runs RUNS --page

For every dataset and seed it is the command
``biomedcoop train --data D --method biomedcoop --shots 16 --seed S --recipe paper --compare zero-shot,zero-shot-ensemble``.
Finished runs in RUNS are not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.command import positive, start
from benchmarks.studies.study import show
from biomedcoop import api
from biomedcoop.evaluation.bootstrap import Estimate
from biomedcoop.evaluation.wording import percent
from biomedcoop.report.table import Table

DATASETS = {"seen": ("btmri", "kneexray"), "unseen": ("busi", "ham10000", "retina")}
METHODS = ("biomedcoop", "zero-shot", "zero-shot-ensemble")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, metavar="FOLDER", help="of the runs' folders")
    parser.add_argument("--shots", type=positive, default=16, help="images per class")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="one run each")
    parser.add_argument("--backbone", default="mini", help="a name, or a folder in open_clip layout")
    parser.add_argument("--page", action="store_true", help="renew docs/results/first.md too")
    args = parser.parse_args()
    results: dict[tuple[str, int], dict[str, Any]] = {}
    seconds: dict[tuple[str, int], float] = {}
    for name in (n for names in DATASETS.values() for n in names):
        for seed in args.seeds:
            out = args.runs / f"{name}-{seed}"
            if not (out / "metrics.json").is_file():
                start = time.monotonic()
                api.train(
                    name,
                    out,
                    method=METHODS[0],
                    shots=args.shots,
                    seed=seed,
                    backbone=args.backbone,
                    recipe="paper",
                    compare=METHODS[1:],
                )
                seconds[name, seed] = time.monotonic() - start
            results[name, seed] = json.loads((out / "metrics.json").read_text(encoding="utf-8"))

    rows = []
    for group, names in DATASETS.items():
        for name in names:
            for method in (*METHODS, "majority class"):
                own = [results[name, seed]["rows"][method] for seed in args.seeds]
                cells = [percent(Estimate(**row["accuracy"])) for row in own]
                for key in ("accuracy", "macro_f1", "auroc", "calibration_error"):
                    cells.append(f"{100 * statistics.mean(row[key]['value'] for row in own):.1f}")
                rows.append([group, name, method, *cells])
    columns = ["group", "dataset", "method", *(f"seed {s}" for s in args.seeds), "mean", "macro-F1", "AUROC", "ECE"]
    notes = []
    if seconds:
        slowest = max(seconds, key=lambda k: seconds[k])
        median = statistics.median(seconds.values())
        notes.append(
            f"Seconds per run, all three methods: median {median:.0f}, slowest {seconds[slowest]:.0f} ({slowest[0]})."
        )
    show("first", {"accuracy": Table(columns, rows, "lll" + "r" * (len(args.seeds) + 4), notes)}, args)


if __name__ == "__main__":
    start(main)
