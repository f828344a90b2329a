"""What a mini backbone knows: ``docs/results/mini.md``.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.mini --figures docs/results --page

For every dataset: accuracy of the class names alone, of the sentences that pretraining did not use, and of a linear probe on
the features, beside the same probe on raw pixels. Seen and unseen datasets are never averaged together. Seen: labelled images
of at least some of the dataset's classes were in pretraining (of bccd_cells only red blood cells). Unseen: no image of the
dataset was; still, the covid sets are chest X-rays as pneumoniamnist is and share the name 'normal lungs' with it.

Intervals: bootstrap over groups of related images (the column ``group`` of the dataset folder's manifest.csv); Wilson's where
all answers are right or all wrong.

Then what the texts mean to it: cosines between the classes of the library, the modality and organ that it reads off images,
the nearest sentences of the whole library. ``--tables-only`` leaves that out.

``--learned`` adds BiomedCoOp at 16 images per class, three seeds, with two recipes; a stopped command goes on where it was.
``--against`` adds the paired differences to another backbone, such as an earlier mini.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.command import start
from benchmarks.datasets import GROUPS, NAMES, complete_groups
from benchmarks.mini.accuracy import Row, measure
from benchmarks.mini.against import AGAINST, against, against_table
from benchmarks.mini.learned import LEARNED, learned, learned_table
from benchmarks.mini.modality import modality_confusion, modality_figure, modality_numbers, modality_table
from benchmarks.mini.nearest import nearest_sentences, nearest_summary, nearest_table
from benchmarks.mini.probe import PROTOCOL
from benchmarks.mini.similarity import (
    library_classes,
    mean_directions,
    similarity_figure,
    similarity_summary,
    similarity_table,
)
from benchmarks.mini.tables import accuracy_table, aims, aims_table, draws_table, group_means, group_table
from benchmarks.studies.study import show
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.output import write_atomically
from biomedcoop.report.table import Table


def meaning(backbone: Backbone, rows: Sequence[Row], figures: Path | None) -> tuple[dict[str, Table], dict[str, Any]]:
    """Tables of what the texts mean, and the numbers for JSON; draws the figures where they are wanted."""
    classes = library_classes()
    directions = mean_directions(backbone, [c.sentences for c in classes])
    cosines = directions @ directions.T
    summary = similarity_summary(classes, cosines)
    confusion = modality_confusion(backbone, rows)
    found = nearest_sentences(backbone, rows)
    nearest, shares = nearest_summary(found, complete_groups(row.dataset for row in rows))
    if figures is not None:
        figures.mkdir(parents=True, exist_ok=True)
        similarity_figure(classes, cosines, figures / "similarity.png")
        modality_figure(confusion, figures / "modality.png")
    tables = {
        "similarity": similarity_table(summary),
        "modality": modality_table(confusion),
        "nearest": nearest,
        "examples": nearest_table(found),
    }
    return tables, {"similarity": summary, "modality": modality_numbers(confusion), "nearest": shares}


def as_json(rows: Sequence[Row], columns: Mapping[str, str]) -> dict[str, Any]:
    """Columns of the datasets and of their means."""
    of = {row.dataset: row.estimates for row in rows} | group_means(rows, columns)
    return {name: {key: asdict(estimate) for key, estimate in found.items()} for name, found in of.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mini", help="a name, or a folder in open_clip layout")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="images that are scored")
    parser.add_argument("--datasets", help="only these, separated by commas")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all numbers")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keeps results; by default beside --json")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="write the figures there")
    parser.add_argument("--tables-only", action="store_true", help="accuracy tables and aims, nothing else")
    parser.add_argument("--learned", action="store_true", help="BiomedCoOp too; takes minutes")
    parser.add_argument("--against", metavar="FOLDER", help="another backbone: what this one knows more")
    parser.add_argument("--page", action="store_true", help="renew docs/results/mini.md too")
    args = parser.parse_args()
    wanted = args.datasets.split(",") if args.datasets else list(NAMES)
    listed = [(group, name) for group, names in GROUPS.items() for name in names]
    if unknown := set(wanted) - set(NAMES):
        parser.error(f"no dataset {sorted(unknown)[0]!r} here; known: {', '.join(NAMES)}")
    if args.page and (set(wanted) != set(NAMES) or args.split != "test" or args.tables_only):
        parser.error("--page needs all datasets, their test images and all tables")
    cache = args.cache or (args.json.parent if args.json else None)
    if args.learned and cache is None:
        parser.error("--learned needs --cache or --json, where finished results are kept")
    backbone = load_backbone(args.backbone)
    other = load_backbone(args.against) if args.against else None
    if other is not None and other.fingerprint == backbone.fingerprint:
        parser.error(f"--against {args.against} has the same weights as {args.backbone}; give another backbone")
    clock: dict[str, float] = {}
    rows, numbers = [], {}
    for group, name in listed:
        if name in wanted:
            print(f"{name} …", file=sys.stderr, flush=True)
            row, numbers[name] = measure(backbone, name, group, args.split, cache, clock)
            rows.append(row)
    means = group_means(rows)
    found = aims(rows, means, args.split)
    related = "Whole groups of related images (a patient, a lesion, a field of view, near-duplicates) are resampled."
    accuracy = accuracy_table(rows)
    of = f"{backbone.name} ({backbone.fingerprint}), {args.split} images."
    tables = {
        "accuracy": Table(accuracy.columns, accuracy.rows, accuracy.align, [f"{of} {related}"]),
        "draws": draws_table(rows),
        "means": group_table(rows, means),
        "aims": aims_table(found),
    }
    further: dict[str, Any] = {}
    if not args.tables_only:
        more, further = meaning(backbone, rows, args.figures)
        tables |= more
    if args.learned:
        trained = learned(backbone, rows, args.split, cache, clock)
        tables["learned"] = learned_table(trained, backbone, args.split)
        further["learned"] = as_json(trained, LEARNED) | {"draws": {row.dataset: row.draws for row in trained}}
    if other is not None:
        gains = against(other, rows, args.split, clock)
        tables["against"] = against_table(gains, backbone, other, args.split)
        further["against"] = {"fingerprint": other.fingerprint, **as_json(gains, AGAINST)}
    show("mini", tables, args)
    print("Seconds: " + ", ".join(f"{what} {seconds:.0f}" for what, seconds in clock.items()) + ".")
    if args.json:
        content = {
            "backbone": backbone.name,
            "fingerprint": backbone.fingerprint,
            "split": args.split,
            "protocol": PROTOCOL,
            "datasets": numbers,
            "means": {group: {k: asdict(e) for k, e in columns.items()} for group, columns in means.items()},
            "aims": found,
            **further,
            "seconds": clock,
        }
        write_atomically(args.json, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")


if __name__ == "__main__":
    start(main)
