"""What weights of 8 bits cost in an ONNX file: accuracy on test images of every dataset, and the size of the file:
``docs/results/int8.md``.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.studies.int8 --page

Linear probes of 16 training images per class, seed 1, are exported with `biomedcoop.export_onnx`, which gives both accuracies.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import biomedcoop as bc
from benchmarks.command import start
from benchmarks.datasets import GROUPS
from benchmarks.studies.study import show
from biomedcoop.evaluation.intervals import student
from biomedcoop.report.table import Table

MOST_IMAGES = 200
"""Test images of a dataset that are scored."""


def exported(dataset: str, backbone: str, folder: Path) -> dict[str, float]:
    """What `export_onnx` says of the int8 file, which is left in the folder."""
    data = bc.load_dataset(dataset)
    classifier = bc.fit(data, method="linear-probe", backbone=backbone, shots=16, seed=1)
    scored = np.random.default_rng(0).permutation(data.indices("test"))[:MOST_IMAGES]
    written = bc.export_onnx(classifier, folder / "int8.onnx", int8=data.select(np.sort(scored)), overwrite=True)
    assert written.int8 is not None
    bc.export_onnx(classifier, folder / "float32.onnx", overwrite=True)
    return written.int8


def mean_row(group: str, costs: list[dict[str, float]]) -> list[str]:
    """Means of the datasets of a group, with Student's interval of the difference."""
    mean = student([100 * (cost["accuracy"] - cost["accuracy_float32"]) for cost in costs])
    same = 100 * np.mean([cost["same"] for cost in costs])
    return [f"mean of {group}", "", "", "", f"{mean.value:+.1f} [{mean.low:+.1f}, {mean.high:+.1f}]", f"{same:.1f}"]


def tables(backbone: str) -> dict[str, Table]:
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for group, names in GROUPS.items():
            costs = [exported(name, backbone, folder) for name in names]
            for name, cost in zip(names, costs, strict=True):
                shares = [100 * cost[key] for key in ("accuracy_float32", "accuracy", "same")]
                before, after, same = shares
                rows.append(
                    [
                        name,
                        int(cost["images"]),
                        f"{before:.1f}",
                        f"{after:.1f}",
                        f"{after - before:+.1f}",
                        f"{same:.1f}",
                    ]
                )
            rows.append(mean_row(group, costs))
        kinds = ("float32", "int8")  # of the last dataset; the number of classes changes a thousandth
        sizes = [[kind, f"{(folder / f'{kind}.onnx').stat().st_size / 1e6:.1f}"] for kind in kinds]
    columns = ["dataset", "test images", "float32", "int8", "difference", "same class"]
    return {"accuracy": Table(columns, rows), "files": Table(["weights", "file, MB"], sizes)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mini", help="a name, or a folder in open_clip layout")
    parser.add_argument("--page", action="store_true", help="renew the page in docs/results/ too")
    args = parser.parse_args()
    show("int8", tables(args.backbone), args)


if __name__ == "__main__":
    start(main)
