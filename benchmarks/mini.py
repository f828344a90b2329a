"""What a mini backbone knows: the tables of ``docs/results/mini.md``.

    BIOMEDCOOP_DATA=FOLDER python benchmarks/mini.py [--json FILE] [--figures FOLDER] > tables.md

For every dataset: accuracy of the class names alone, of the sentences that pretraining did not use, and of a linear probe on
the features, beside the same probe on raw pixels. Seen and unseen datasets are never averaged together. Seen: labelled images
of at least some of the dataset's classes were in pretraining (of bccd_cells only red blood cells). Unseen: no image of the
dataset was; still, the covid sets are chest X-rays as pneumoniamnist is and share the name 'normal lungs' with it, and
busi's class names are those of the simulated scans that pretraining drew.

Intervals: bootstrap over groups of related images (the column ``group`` of the dataset folder's manifest.csv); Wilson's where
all answers are right or all wrong.

Linear probe: scikit-learn's logistic regression on standardised features, C chosen by stratified 5-fold cross-validation
(log loss) within the training images used. Raw pixels: the backbone's own transform (short edge bicubic,
centre crop) to 24 × 24 RGB, divided by 255, then the very same probe.

Then what the texts mean to it: cosines between the classes of the library, the modality and organ that it reads off images,
the nearest sentences of the whole library. ``--tables-only`` leaves that out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from command import start
from mini_accuracy import GROUPS, PROTOCOL, SEEDS, SHOTS, Row, complete_groups, measure, wilson
from mini_tables import accuracy_table, aims, aims_table, draws_table, group_means, group_table
from mini_words import (
    IMAGES_PER_DATASET,
    library_classes,
    mean_directions,
    modality_confusion,
    modality_figure,
    modality_means,
    modality_table,
    nearest_sentences,
    nearest_summary,
    nearest_table,
    right_answers,
    similarity_figure,
    similarity_summary,
    similarity_table,
)

from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.output import write_atomically


def section(title: str, *parts: str | Sequence[str]) -> None:
    """Print a heading and paragraphs or tables below it, an empty line after each."""
    for part in (f"## {title}", *parts):
        print(part if isinstance(part, str) else "\n".join(part), end="\n\n", flush=True)


def print_meaning(backbone: Backbone, rows: Sequence[Row], figures: Path | None) -> dict[str, Any]:
    """Tables of what the texts mean; the figures too, where wanted; returns the numbers for JSON."""
    classes = library_classes()
    directions = mean_directions(backbone, [c.sentences for c in classes])
    cosines = directions @ directions.T
    summary = similarity_summary(classes, cosines)
    section(
        "Cosine similarity of class texts",
        "Mean of the sentences that pretraining has not used; 'seen': pretraining had real images of both classes.",
        similarity_table(summary),
    )
    confusion = modality_confusion(backbone, rows)
    section(
        "Modality and organ by text",
        f"Percent of each row's images, at most {IMAGES_PER_DATASET} per dataset (seed 0); bold: the right answer; "
        "both right: with Wilson's 95 % interval, which takes the images as unrelated.",
        modality_table(confusion),
    )
    found = nearest_sentences(backbone, rows)
    shares_table, shares = nearest_summary(found, complete_groups(row.dataset for row in rows))
    section(
        "Nearest sentences of the whole library",
        "How often the nearest of all unused sentences is of the right dataset and class, percent:",
        shares_table,
        "The three nearest sentences of images drawn by seed (0):",
        nearest_table(found),
    )
    if figures is not None:
        similarity_figure(classes, cosines, figures / "similarity.png")
        modality_figure(confusion, figures / "modality.png")
    return {
        "similarity": summary,
        "modality": {
            "columns": confusion.columns,
            "rows": [
                {
                    "group": group,
                    "dataset": dataset,
                    "true": confusion.columns[column],
                    "images": n,
                    "shares": shares.tolist(),
                    "both_right": asdict(wilson(float(right["both"].mean()), n)),
                }
                for (group, dataset, column, n), shares, right in zip(
                    confusion.rows, confusion.shares, right_answers(confusion), strict=True
                )
            ],
            "means": {
                group: {k: asdict(e) for k, e in means.items()} for group, means in modality_means(confusion).items()
            },
        },
        "nearest": shares,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mini", help="a name, or a folder in open_clip layout")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="images that are scored")
    parser.add_argument("--datasets", help="only these, separated by commas")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all numbers")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="of raw-pixel results; by default beside --json")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="write the figures there")
    parser.add_argument("--tables-only", action="store_true", help="accuracy tables and aims, nothing else")
    args = parser.parse_args()
    wanted = args.datasets.split(",") if args.datasets else [n for names in GROUPS.values() for n in names]
    listed = [(group, name) for group, names in GROUPS.items() for name in names]
    if unknown := set(wanted) - {name for _, name in listed}:
        parser.error(f"no dataset {sorted(unknown)[0]!r} here; known: {', '.join(name for _, name in listed)}")
    cache = args.cache or (args.json.parent if args.json else None)
    backbone = load_backbone(args.backbone)
    clock: dict[str, float] = {}
    rows, numbers = [], {}
    for seed, (group, name) in enumerate(listed):
        if name in wanted:
            print(f"{name} …", file=sys.stderr, flush=True)
            row, numbers[name] = measure(backbone, name, group, args.split, cache, seed, clock)
            rows.append(row)
    means = group_means(rows)
    found = aims(rows, means, args.split)
    section(
        "Accuracy",
        f"Backbone {backbone.name} ({backbone.fingerprint}), {args.split} images, percent with the 95 % bootstrap interval. "
        "Related images (of one patient, lesion or field of view, or near-duplicates) are not independent, so whole groups "
        "of them are resampled ('groups': how many there are among the scored images). "
        f"Probe on {SHOTS} images per class: mean of the draws {', '.join(map(str, SEEDS))}; the intervals are over images "
        "only, the spread between draws is in the table below.",
        "Seen: labelled images of at least some of the dataset's classes were in pretraining (of bccd_cells only red blood "
        "cells). Unseen: no image of the dataset was; the covid sets, chest X-rays as pneumoniamnist is, share the name "
        "'normal lungs' with it, busi its class names with simulated scans.",
        accuracy_table(rows),
        "Percent right, draw by draw:",
        draws_table(rows),
        *(("Means over the datasets of a group:", group_table(rows, means)) if means else ()),
        "Aims" + ("" if args.split == "test" else " (the card's figures are of the test images)") + ":",
        aims_table(found),
    )
    extra: dict[str, Any] = {}
    if not args.tables_only:
        extra |= print_meaning(backbone, rows, args.figures)
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
            **extra,
            "seconds": clock,
        }
        write_atomically(args.json, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")


if __name__ == "__main__":
    start(main)
