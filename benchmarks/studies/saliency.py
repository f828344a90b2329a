"""Are saliency maps true? ``docs/results/saliency.md`` and ``src/biomedcoop/explain/checked.json``.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.studies.saliency --work WORK --page

Lesions are known on simulated images only. Maps explain the labelled class; classifiers learn from 16 images per class with the
recipe "fast". Each result is one file in WORK; what is there is not computed again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import biomedcoop as bc
from benchmarks.command import start
from benchmarks.pages import ROOT
from benchmarks.speed.full_size import write_bin
from benchmarks.studies.study import show
from biomedcoop.backbones.base import Backbone
from biomedcoop.data.masks import find_masks
from biomedcoop.explain.check import CENTRE_BLOB, CheckedImages, MapCheck, check_maps, maps_by_name, read_checked
from biomedcoop.explain.doubts import NOT_CHECKED
from biomedcoop.explain.kinds import MAPS, maps_for
from biomedcoop.explain.sanity import THRESHOLD, randomised, rank_correlations, structural_similarities
from biomedcoop.output import write_atomically
from biomedcoop.report.table import Table

CHECKED = ROOT / "src" / "biomedcoop" / "explain" / "checked.json"

SIMULATED = {
    "breast ultrasound": "simulated:breast-ultrasound?train=16&val=0&test=32",
    "kidney CT": "simulated:kidney-ct?train=16&val=0&test=32",
}
REAL = ("busi", "btmri", "ham10000")
CHANGED = {
    "grad-cam": (*SIMULATED, "busi"),
    "gscorecam": ("breast ultrasound", "busi"),
    "score-cam": ("breast ultrasound", "busi"),
}
"""Datasets of the sanity checks by map."""
METHODS = ("zero-shot", "coop", "kgcoop", "prograd", "biomedcoop", "linear-probe")
LESIONS = {"grad-cam": 48, "gscorecam": 12, "score-cam": 8}
REAL_IMAGES = {"grad-cam": 24, "gscorecam": 8}
SANITY_IMAGES = {"grad-cam": 24, "gscorecam": 8, "score-cam": 6, "attention-rollout": 6, "gradient-attention": 6}
"""Images of a dataset by map. gScoreCAM takes 300 passes for each, Score-CAM 1,280."""
STEPS = 8
"""Points of a curve of deletion or insertion."""
SHARES = (0.02, 0.25, 0.5, 0.75, 1.0)
"""Of the layers, from the output on; the first is the projection alone."""

ON_RANDOM_VIT = ("attention-rollout", "gradient-attention")

Row = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """Where results and classifiers are kept, and the backbone of the classifiers."""

    work: Path
    backbone: Backbone

    def classifier(self, name: str, method: str) -> tuple[bc.Dataset, bc.Classifier]:
        """A dataset and the classifier that learned from it, from its file if it is there."""
        data, folder = (
            bc.load_dataset(SIMULATED.get(name, name)),
            self.work / f"model-{name}-{method}".replace(" ", "-"),
        )
        if not folder.is_dir():
            bc.fit(data, method, self.backbone, shots=16, recipe="fast", progress=False).save(folder)
        return data, bc.load(folder, self.backbone)

    def kept(self, key: str, compute: Callable[[], list[Row]]) -> list[Row]:
        """The rows of a cell from its file, or computed and written there."""
        path = self.work / f"{key.replace(' ', '-')}.json"
        if not path.is_file():
            begin = time.monotonic()
            write_atomically(path, json.dumps(compute(), indent=1).encode())
            print(f"{key}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
        rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))
        return rows

    def measured(self, name: str, method: str, map: str) -> list[Row]:
        """Localisation and curves of one map; the rows of the quickest map hold the baseline too."""
        data, classifier = self.classifier(name, method)
        simulated = name in SIMULATED
        count = (LESIONS if simulated else REAL_IMAGES)[map]
        images = images_of(data, count, self.backbone, lesions=simulated)
        maps = maps_by_name([map])
        if map != "grad-cam":
            del maps[CENTRE_BLOB]
        return as_rows(check_maps(classifier, images, maps, steps=STEPS, sanity=False))

    def changed(self, name: str, method: str, map: str) -> list[Row]:
        """The sanity checks of one map."""
        data, classifier = self.classifier(name, method)
        images = images_of(data, SANITY_IMAGES[map], self.backbone)
        return as_rows(check_maps(classifier, images, {map: maps_by_name([map])[map]}, steps=1))

    def cascade(self, name: str, method: str, map: str) -> list[Row]:
        """Similarity of the maps while more and more layers are randomised."""
        data, classifier = self.classifier(name, method)
        images, function = images_of(data, SANITY_IMAGES[map], self.backbone), maps_by_name([map])[map]
        before, rows = function(classifier, images.crops, images.labels), []
        for share in SHARES:
            other = replace(classifier, backbone=randomised(self.backbone, images.crops, share=share))
            after = function(other, images.crops, images.labels)
            pair = np.nanmean(rank_correlations(before, after)), structural_similarities(before, after).mean()
            rows.append({"share": share, "correlation": float(pair[0]), "similarity": float(pair[1])})
        return rows


def images_of(data: bc.Dataset, count: int, backbone: Backbone, *, lesions: bool = False) -> CheckedImages:
    """The first test images of each class in turn; with ``lesions`` only of classes that have one."""
    part = data.part("test")
    masks = find_masks(part)
    able = [place for place, mask in enumerate(masks) if not lesions or (mask is not None and mask.any())]
    rank = {place: sum(part.labels[other] == part.labels[place] for other in able if other < place) for place in able}
    chosen = sorted(able, key=lambda place: (rank[place], place))[:count]
    return read_checked(part.select(chosen), part.labels[chosen], [masks[place] for place in chosen], backbone)


def as_rows(found: Sequence[MapCheck]) -> list[Row]:
    return [asdict(row) for row in found]


def on_random_vit() -> list[Row]:
    """The sanity checks of some maps on a ViT-B/16 whose weights are random from the start, as BiomedCLIP's are not here."""
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder), bc.load_backbone(write_bin(Path(folder) / "random-vit")))
        return [row for map in ON_RANDOM_VIT for row in study.changed("busi", "zero-shot", map)]


def number(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def estimate(cell: Mapping[str, Any]) -> str:
    interval = "" if cell["low"] is None else f" ({number(cell['low'])} to {number(cell['high'])})"
    return number(cell["value"]) + interval


def short(cell: Mapping[str, Any]) -> str:
    """The value alone, with the three decimals that small areas need."""
    return f"{cell['value']:.3f}"


def truth_table(found: Mapping[tuple[str, str, str], list[Row]], names: Sequence[str], *, lesions: bool) -> Table:
    """A row for each dataset, method and map, and for the baseline."""
    fields = [*(("pointing", "iou", "energy", "area") if lesions else ()), "deletion", "insertion"]
    rows, order = [], [*MAPS, CENTRE_BLOB]
    for name, method in dict.fromkeys((name, method) for name, method, _ in found if name in names):
        every = [row for key, part in found.items() if key[:2] == (name, method) for row in part]
        for row in sorted(every, key=lambda row: order.index(row["map"])):
            facts = name, method, row["map"], row["images"], row["even"]
            rows.append([*facts, *(short(row[field]) if field == "area" else estimate(row[field]) for field in fields)])
    heads = [field.replace("iou", "IoU") for field in fields]
    return Table(["dataset", "method", "map", "n", "even", *heads], rows, "lllrr" + "r" * len(fields))


TESTS = {
    "random weights": "The map fails a sanity check: it hardly depends on what the image tower has learned",
    "another class": "The map fails a sanity check: it looks much the same for another class",
    "nonsense text": "The map fails a sanity check: it looks much the same for a nonsense text in place of the class",
}

Checked = Mapping[tuple[str, str, str, str], Row]
"""By kind of image tower, its weights ("trained" or "random"), map and dataset."""


def correlation(row: Row, test: str) -> float | None:
    value: float | None = row["changes"][test]["correlation"]["value"] if test in row["changes"] else None
    return value


def sanity_table(found: Checked) -> Table:
    """A row for each kind of tower, its weights, map and dataset."""
    rows = []
    for key, row in found.items():
        cells, fails = [], []
        for test in TESTS:
            if (value := correlation(row, test)) is None:
                cells.append("–")
                continue
            cells.append(f"{number(value)} / {number(row['changes'][test]['similarity']['value'])}")
            fails += [test] if value > THRESHOLD else []
        rows.append([*key, row["images"], row["even"], *cells, ", ".join(fails) or "none"])
    columns = ["tower", "weights", "map", "dataset", "n", "even", *TESTS, "fails"]
    note = f"Spearman / SSIM, means over images. A check fails above a rank correlation of {THRESHOLD:g}."
    return Table(columns, rows, "llllrrrrrl", [note])


def checked(found: Checked) -> dict[str, dict[str, str]]:
    """What the package says of a map, by map and kind of tower: checks that fail on some dataset, or that there are none."""
    told: dict[str, dict[str, str]] = {}
    for map in MAPS:
        for tower in (kind for kind in ("vit", "resnet", "efficientnet-lite") if map in maps_for(kind)):
            rows = [row for key, row in found.items() if key[:3] == (tower, "trained", map)]
            highest = {test: max((correlation(row, test) or 0.0 for row in rows), default=0.0) for test in TESTS}
            failed = [
                f"{TESTS[test]} (rank correlation up to {v:.2f})." for test, v in highest.items() if v > THRESHOLD
            ]
            if reason := " ".join(failed) if rows else NOT_CHECKED:
                told.setdefault(map, {})[tower] = reason
    return told


def cascade_table(found: Mapping[tuple[str, str], list[Row]]) -> Table:
    rows = [
        [name, map, *(f"{number(row['correlation'])} / {number(row['similarity'])}" for row in part)]
        for (name, map), part in found.items()
    ]
    return Table(["dataset", "map", *(f"{100 * share:g} %" for share in SHARES)], rows, "ll" + "r" * len(SHARES))


def combinations() -> Iterator[tuple[str, str, str]]:
    """Dataset, method and map of every measured cell."""
    for name in SIMULATED:
        yield from ((name, method, "grad-cam") for method in METHODS)
        yield from ((name, method, "gscorecam") for method in ("zero-shot", "biomedcoop"))
        yield name, "biomedcoop", "score-cam"
    yield from ((name, "zero-shot", "grad-cam") for name in REAL)
    yield from (("busi", "biomedcoop", map) for map in ("grad-cam", "gscorecam"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="keeps the results, one file a cell")
    parser.add_argument("--page", action="store_true", help="renew the page in docs/results/ and checked.json too")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    study = Study(args.work, bc.load_backbone("mini"))
    truth = {key: study.kept("-".join(("truth", *key)), partial(study.measured, *key)) for key in combinations()}
    tower = study.backbone.tower_kind
    changes: dict[tuple[str, str, str, str], Row] = {}
    for map, names in CHANGED.items():
        for name in names:
            (row,) = study.kept(f"sanity-{name}-{map}", partial(study.changed, name, "biomedcoop", map))
            changes[tower, "trained", map, name] = row
    for row in study.kept("sanity-random-vit", on_random_vit):
        changes["vit", "random", row["map"], "busi"] = row
    steps = {
        (name, "grad-cam"): study.kept(f"cascade-{name}", partial(study.cascade, name, "biomedcoop", "grad-cam"))
        for name in CHANGED["grad-cam"]
    }
    tables = {
        "lesions": truth_table(truth, list(SIMULATED), lesions=True),
        "real images": truth_table(truth, REAL, lesions=False),
        "sanity": sanity_table(changes),
        "cascade": cascade_table(steps),
    }
    show("saliency", tables, args)
    if args.page:
        write_atomically(CHECKED, (json.dumps(checked(changes), indent=1) + "\n").encode())


if __name__ == "__main__":
    start(main)
