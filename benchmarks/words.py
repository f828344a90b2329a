"""Do the words matter? The tables of ``docs/results/prompts.md``.

    BIOMEDCOOP_DATA=FOLDER python benchmarks/words.py --work WORK > tables.md

On every dataset the same methods get different words: the sentences of the library that pretraining has not seen (25 of each
class), the same sentences dealt at random to the classes of the task, a part of them, the templates of the modality, the one
template "a photo of a {}.", or none at all. The methods: the sentence ensemble, which learns nothing, and BiomedCoOp at 1, 4 and
16 images per class with the published settings. Then BiomedCoOp at 4 images with other thresholds of the sentence selection.

Three seeds; a seed draws the images and the order of the batches, and deals or draws the sentences. All test images are scored.
Differences are paired: each set of words minus the library, on the same images, draws and seeds. Two 95 % intervals: over test
images (bootstrap over groups of related ones, mean over the seeds), and over datasets x seeds (Student's t, which counts what
another draw or dataset would change). Seen and unseen datasets are never averaged together.

Every cell is a file in WORK; a second run computes only what is missing. Cells run side by side on --jobs processes of one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from mini_accuracy import GROUPS, SEEDS, Floats, complete_groups, estimated, mean_estimate, related, unused_sentences
from mini_tables import percent

from biomedcoop import load_dataset
from biomedcoop.api import modality_and_organ
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.data.catalogue import find
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.fewshot import sample_few_shot
from biomedcoop.errors import UserError
from biomedcoop.evaluation.bootstrap import Estimate
from biomedcoop.features.encode import encode_images, encode_texts
from biomedcoop.methods import Task, get_method
from biomedcoop.output import write_atomically
from biomedcoop.prompts import sentences_for
from biomedcoop.prompts.library import templates_of

REFERENCE = "library"
WORDS = {
    "none": "no sentences: λ1 = λ2 = 0",
    "one template": '"a photo of a {}."',
    "templates": "templates of the modality, 10",
    "shuffled": "library, dealt at random to the classes, 25",
    "5": "library, 5 of 25",
    "10": "library, 10 of 25",
    REFERENCE: "library, 25",
}
DRAWN = ("shuffled", "5", "10")
"""Words that differ from seed to seed."""
SHOTS = (1, 4, 16)
PARTS = ("5", "10")
PART_SHOTS = (0, 1, 4)
"""How many sentences is asked where a fit is cheap; 0: the ensemble."""
THRESHOLDS, THRESHOLD_SHOTS = (0.5, 1.0, 2.0, 1e6), 4
STUDENT = {15: 2.145, 18: 2.110}  # 97.5 % quantile of Student's t with n - 1 degrees of freedom


@dataclass(frozen=True)
class Cell:
    """One dataset, method and set of words, three seeds."""

    dataset: str
    words: str
    shots: int  # 0: the ensemble
    threshold: float | None = None  # None: the published one

    @property
    def name(self) -> str:
        tau = "" if self.threshold is None else f"-tau{self.threshold:g}"
        return f"{self.dataset}-{self.shots}-{self.words.replace(' ', '_')}{tau}"

    @property
    def cost(self) -> int:
        return self.shots * (len(SEEDS) if self.words in DRAWN else 1)


def cells(datasets: Sequence[str]) -> list[Cell]:
    """All that the tables need, the costly ones first."""
    found = [Cell(d, w, k) for d in datasets for k in (0, *SHOTS) for w in words_at(k)]
    found += [Cell(d, REFERENCE, THRESHOLD_SHOTS, tau) for d in datasets for tau in THRESHOLDS]
    return sorted(found, key=lambda cell: -cell.cost)


def words_at(shots: int) -> list[str]:
    """Sets of words that are compared at so many images per class."""
    return [w for w in WORDS if (w != "none" or shots) and (w not in PARTS or shots in PART_SHOTS)]


# --- one cell -----------------------------------------------------------------------------------------------------


@cache
def loaded(backbone: str) -> Backbone:
    torch.set_num_threads(1)
    return load_backbone(backbone)


@cache
def encoded(dataset: str, backbone: str) -> tuple[Dataset, torch.Tensor]:
    data = load_dataset(dataset)
    data = data.select(np.concatenate([data.indices("train"), data.indices("test")]))
    return data, torch.from_numpy(encode_images(loaded(backbone), data))


def sentences(data: Dataset, words: str, seed: int) -> list[list[str]]:
    """The words of each class; all classes get as many."""
    if words in ("none", "one template"):
        return [[f"a photo of a {name}."] for name in data.class_names]
    if words == "templates":
        texts = templates_of(modality_and_organ(data)[0] or library_modality(data))[1]
        return [[text.replace("{}", name) for text in texts] for name in data.class_names]
    own = unused_sentences(data)
    if own is None:
        raise UserError(f"{data.name}: the library has no sentences for its classes")
    rng = np.random.default_rng([seed, 4])
    if words == "shuffled":
        flat = [sentence for texts in own for sentence in texts]
        dealt = [flat[i] for i in rng.permutation(len(flat))]
        return [dealt[c :: len(own)] for c in range(len(own))]
    if words == REFERENCE:
        return own
    return [[texts[i] for i in rng.permutation(len(texts))[: int(words)]] for texts in own]


def library_modality(data: Dataset) -> str | None:
    """Modality of a dataset that is not of the benchmark; those of several modalities have none."""
    from biomedcoop.prompts.library import library

    source = sentences_for(data.class_names, data.name, "library").source.removeprefix("library: ")
    modality = str(library()[source]["modality"])
    return None if modality == "several" else modality


def compute(cell: Cell, backbone_name: str) -> list[list[int]]:
    """Which test images are answered rightly, [seeds][images]."""
    backbone = loaded(backbone_name)
    data, features = encoded(cell.dataset, backbone_name)
    test = data.indices("test")
    truth = torch.from_numpy(data.labels[test])
    method = get_method("biomedcoop" if cell.shots else "zero-shot-ensemble")
    given: dict[str, float] = {}
    if cell.words == "none":
        given |= {"sccm_weight": 0.0, "kdsp_weight": 0.0}
    if cell.threshold is not None:
        given["threshold"] = cell.threshold
    entry = find(data.name, data.class_names)
    settings = method.settings(given, entry.recipe if entry else None)
    right = []
    together = [[seed] for seed in SEEDS] if cell.words in DRAWN else [list(SEEDS)]
    for seeds in together:
        texts = sentences(data, cell.words, seeds[0])
        flat = encode_texts(backbone, [text for own in texts for text in own])
        words = torch.from_numpy(flat).view(len(texts), -1, backbone.embed_dim)
        draws = np.stack([sample_few_shot(data, cell.shots or 1, seed)[0] for seed in seeds])
        task = Task(backbone, data.class_names, features[draws], torch.from_numpy(data.labels[draws]), words)
        for state in method.fit(task, settings, seeds):
            with torch.inference_mode():
                right.append((method.logits(state, features[test]).argmax(1) == truth).int().tolist())
    return right


def run(cell: Cell, backbone: str, work: Path) -> tuple[str, float]:
    start = time.monotonic()
    right = compute(cell, backbone)
    write_atomically(work / f"{cell.name}.json", json.dumps(right).encode())
    return cell.name, time.monotonic() - start


# --- tables -------------------------------------------------------------------------------------------------------


class Results:
    """All cells, and means and paired differences of them.

    Args:
        groups: group of each test image of every dataset.
        work: holds the cells.
    """

    def __init__(self, groups: dict[str, npt.NDArray[np.str_]], work: Path) -> None:
        self.groups, self.work = groups, work

    def right(self, dataset: str, words: str, shots: int, threshold: float | None = None) -> Floats:
        """[seeds, images]."""
        path = self.work / f"{Cell(dataset, words, shots, threshold).name}.json"
        return np.array(json.loads(path.read_text(encoding="utf-8")), dtype=float)

    def of(
        self,
        names: Sequence[str],
        cell: tuple[str, int, float | None],
        minus: tuple[str, int, float | None] | None = None,
    ) -> tuple[Estimate, str]:
        """Mean over datasets and seeds of a cell (less another), its interval over images, and that over datasets x seeds."""
        values, samples, each = [], [], []
        for name in names:
            scores = self.right(name, *cell)
            if minus is not None:
                scores = scores - self.right(name, *minus)
            found, drawn = estimated({"gain": scores.mean(0)}, list(self.groups).index(name), self.groups[name])
            values.append(found["gain"].value or 0.0)
            samples.append(drawn["gain"])
            each += scores.mean(1).tolist()
        half = STUDENT.get(len(each), float("nan")) * np.std(each, ddof=1) / len(each) ** 0.5
        middle = float(np.mean(each))
        spread = (
            "–" if np.isnan(half) else f"{100 * (middle - half):+.1f} to {100 * (middle + half):+.1f}".replace("-", "−")
        )
        return mean_estimate(values, samples), spread


def number(value: float) -> str:
    return f"{100 * value:.1f}".replace("-", "−")


def dataset_table(results: Results, columns: dict[str, tuple[str, int, float | None]]) -> list[str]:
    """Accuracy of every dataset (mean of the seeds) and the mean of each group."""
    lines = ["| group | dataset | " + " | ".join(columns) + " |", "|---|---|" + "--:|" * len(columns)]
    for group, names in GROUPS.items():
        here = [name for name in names if name in results.groups]
        for name in here:
            values = [number(results.right(name, *cell).mean()) for cell in columns.values()]
            lines.append(f"| {group} | {name} | " + " | ".join(values) + " |")
        if here == list(names):
            means = [f"**{number(results.of(here, cell)[0].value or 0.0)}**" for cell in columns.values()]
            lines.append(f"| {group} | **mean** | " + " | ".join(means) + " |")
    return lines


def difference_table(
    results: Results, rows: dict[str, tuple[tuple[str, int, float | None], tuple[str, int, float | None]]]
) -> list[str]:
    """A row for each (what, minus what), with both intervals, for each complete group."""
    groups = complete_groups(results.groups)
    head = [f"{group}: {what}" for group in groups for what in ("points (over images)", "over datasets × seeds")]
    lines = ["| | " + " | ".join(head) + " |", "|---|" + "--:|" * len(head)]
    for label, (cell, minus) in rows.items():
        parts = []
        for group in groups:
            estimate, spread = results.of(GROUPS[group], cell, minus)
            parts += [percent(estimate, sign=True), spread]
        lines.append(f"| {label} | " + " | ".join(parts) + " |")
    return lines


def section(title: str, *parts: str | Sequence[str]) -> None:
    for part in (f"### {title}", *parts):
        print(part if isinstance(part, str) else "\n".join(part), end="\n\n", flush=True)


def print_tables(results: Results) -> None:
    print(
        "Accuracy in percent, mean of the seeds. Words: " + "; ".join(f"*{k}*: {v}" for k, v in WORDS.items()) + ".\n"
    )
    for shots in (0, *SHOTS):
        here = words_at(shots)
        title = "Sentence ensemble, nothing trained" if shots == 0 else f"BiomedCoOp, {shots} per class"
        differences = {
            f"{w} − {REFERENCE}": ((w, shots, None), (REFERENCE, shots, None)) for w in here if w != REFERENCE
        }
        section(
            title,
            dataset_table(results, {words: (words, shots, None) for words in here}),
            difference_table(results, differences),
        )
    taus = {("none dropped" if tau > 100 else f"τ = {tau:g}"): (REFERENCE, THRESHOLD_SHOTS, tau) for tau in THRESHOLDS}
    everything = (REFERENCE, THRESHOLD_SHOTS, 1e6)
    section(
        f"Threshold of the selection: BiomedCoOp, {THRESHOLD_SHOTS} per class, library",
        dataset_table(results, {**taus, "published": (REFERENCE, THRESHOLD_SHOTS, None)}),
        difference_table(results, {f"{k} − none dropped": (c, everything) for k, c in taus.items() if c != everything}),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="of the results, one file a cell")
    parser.add_argument("--backbone", default="mini", help="a name, or a folder in open_clip layout")
    parser.add_argument("--datasets", help="only these, separated by commas")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    every = [name for names in GROUPS.values() for name in names]
    wanted = args.datasets.split(",") if args.datasets else every
    if unknown := set(wanted) - set(every):
        parser.error(f"no dataset {sorted(unknown)[0]!r} here; known: {', '.join(every)}")
    # cells of another backbone are other cells
    work = args.work / load_backbone(args.backbone).fingerprint[:12]
    work.mkdir(parents=True, exist_ok=True)
    for name in wanted:  # images once, before several processes ask for them
        encoded(name, args.backbone)
    todo = [cell for cell in cells(wanted) if not (work / f"{cell.name}.json").is_file()]
    start = time.monotonic()
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(run, cell, args.backbone, work) for cell in todo]
        for done, future in enumerate(as_completed(waiting), start=1):
            name, seconds = future.result()
            minutes = (time.monotonic() - start) / 60
            print(f"{done}/{len(todo)} {name} {seconds:.1f} s, {minutes:.1f} min in all", file=sys.stderr, flush=True)
    tests = {name: (data := encoded(name, args.backbone)[0]).select(data.indices("test")) for name in wanted}
    print_tables(Results({name: related(data) for name, data in tests.items()}, work))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
