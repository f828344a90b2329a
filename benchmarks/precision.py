"""What coarser image features cost in accuracy: the table of ``docs/performance.md``.

    BIOMEDCOOP_DATA=FOLDER python benchmarks/precision.py > table.md

Accuracy on all test images with features in float32, bfloat16 and int8: class names alone (zero-shot), and Tip-Adapter and LP++
trained on 16 images per class of the same features, mean of three draws. Beside it the smallest cosine of any test image's feature
to that in float32.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from command import start
from mini_accuracy import GROUPS, SEEDS

from biomedcoop import load_dataset
from biomedcoop.api import fit_runs, predict_dataset
from biomedcoop.backbones import load_backbone
from biomedcoop.features.images import encode_images

PRECISIONS = ("float32", "bfloat16", "int8")
METHODS = ("zero-shot", "tip-adapter", "lp++")


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mini", help="a name, or a folder in open_clip layout")
    args = parser.parse_args()
    backbones = {precision: load_backbone(args.backbone, precision=precision) for precision in PRECISIONS}
    columns = [f"{method}, {precision}" for method in METHODS for precision in PRECISIONS]
    print("| group | dataset | " + " | ".join(columns) + " | cosine, bfloat16 | cosine, int8 |")
    print("|---|---|" + "--:|" * (len(columns) + 2))
    for group, names in GROUPS.items():
        rows = []
        for name in names:
            data = load_dataset(name)
            part = data.part("test")
            cells = []
            for method in METHODS:
                for backbone in backbones.values():
                    runs = fit_runs(data, method, backbone, 16, SEEDS)
                    right = [(predict_dataset(run, part).argmax(1) == part.labels).mean() for run in runs]
                    cells.append(100 * float(np.mean(right)))
            exact, *others = (unit(encode_images(backbone, part)) for backbone in backbones.values())
            cosines = [float((exact * other).sum(1).min()) for other in others]
            rows.append(cells)
            values = [f"{cell:.1f}" for cell in cells] + [f"{cosine:.4f}" for cosine in cosines]
            print(f"| {group} | {name} | " + " | ".join(values) + " |", flush=True)
        means = [f"**{mean:.1f}**" for mean in np.mean(rows, axis=0)]
        print(f"| {group} | **mean** | " + " | ".join(means) + " | | |", flush=True)
    print(f"\n{torch.get_num_threads()} threads, {backbones['float32'].name}.")


if __name__ == "__main__":
    start(main)
