"""Tables of the collected datasets with the group of each image, as ``biomedcoop benchmark`` reads them.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.grouped TABLES
    biomedcoop benchmark benchmarks/protocols/few-shot.toml --data-root TABLES --out OUT

A split file names no groups; the column ``group`` of a manifest.csv does (patient, lesion, field of view, near-duplicates).
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from benchmarks.command import start
from benchmarks.datasets import NAMES, related
from biomedcoop import load_dataset
from biomedcoop.data.dataset import Dataset


def write_table(data: Dataset, path: Path) -> None:
    """One line for each image: path, label, class, split and group."""
    assert data.root is not None
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "class_name", "split", "group"])
        columns = zip(data.keys, data.labels, data.splits, related(data), strict=True)
        rows.writerows(
            [(data.root / key).absolute(), label, data.class_names[label], split, group]
            for key, label, split, group in columns
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, metavar="TABLES", help="folder to write")
    args = parser.parse_args()
    args.tables.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        write_table(load_dataset(name), args.tables / f"{name}.csv")


if __name__ == "__main__":
    start(main)
