"""Do the words matter? ``docs/results/prompts.md``.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.studies.prompts --work WORK --page

On every dataset the same methods get different words: the sentences of the library that pretraining has not seen (25 of each
class), the same sentences dealt at random to the classes of the task, a part of them, the templates of the modality, the one
template "a photo of a {}.", or none at all. The methods: the sentence ensemble, which learns nothing, and BiomedCoOp at 1, 4 and
16 images per class with the published settings. Then BiomedCoOp at 4 images with other thresholds of the sentence selection.

The seed also deals or draws the sentences. Differences are each set of words minus the library.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.command import start
from benchmarks.datasets import SEEDS, unused_sentences
from benchmarks.studies.study import arguments, run, show
from benchmarks.tasks import right_answers, settings_of, task_of
from biomedcoop.data.dataset import Dataset
from biomedcoop.evaluation.study.cells import Answers, Cell
from biomedcoop.evaluation.study.inputs import encoded, loaded
from biomedcoop.evaluation.study.results import Results
from biomedcoop.prompts import sentences_for
from biomedcoop.prompts.library import library, templates_of
from biomedcoop.report.studies import dataset_table, difference_table
from biomedcoop.report.table import Table
from biomedcoop.tasks.sentences import modality_and_organ

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

Key = tuple[str, int, float | None]
"""Words, images per class (0: the ensemble), threshold (None: the published one)."""


def cells(datasets: Sequence[str]) -> list[Cell]:
    """All that the tables need."""
    keys: list[Key] = [(words, shots, None) for shots in (0, *SHOTS) for words in words_at(shots)]
    keys += [(REFERENCE, THRESHOLD_SHOTS, tau) for tau in THRESHOLDS]
    return [cell_of(dataset, key) for dataset in datasets for key in keys]


def cell_of(dataset: str, key: Key) -> Cell:
    words, shots, threshold = key
    tau = "" if threshold is None else f"-tau{threshold:g}"
    cost = shots * (len(SEEDS) if words in DRAWN else 1)
    return Cell(dataset, key, f"{dataset}-{shots}-{words.replace(' ', '_')}{tau}", cost)


def words_at(shots: int) -> list[str]:
    """Sets of words that are compared at so many images per class."""
    return [w for w in WORDS if (w != "none" or shots) and (w not in PARTS or shots in PART_SHOTS)]


# --- one cell -----------------------------------------------------------------------------------------------------


def sentences(data: Dataset, words: str, seed: int) -> list[list[str]]:
    """The words of each class; all classes get as many."""
    if words in ("none", "one template"):
        return [[f"a photo of a {name}."] for name in data.class_names]
    if words == "templates":
        texts = templates_of(modality_and_organ(data)[0] or library_modality(data))[1]
        return [[text.replace("{}", name) for text in texts] for name in data.class_names]
    own = unused_sentences(data)
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
    source = sentences_for(data.class_names, data.name, "library").source.removeprefix("library: ")
    modality = str(library()[source]["modality"])
    return None if modality == "several" else modality


def compute(dataset: str, key: Any, backbone: str) -> Answers:
    """Which test images are answered rightly, [seeds][images]."""
    words, shots, threshold = key
    data, features = encoded(dataset, backbone)
    test = data.indices("test")
    labels = torch.from_numpy(data.labels[test])
    name = "biomedcoop" if shots else "zero-shot-ensemble"
    given: dict[str, float] = {}
    if words == "none":
        given |= {"sccm_weight": 0.0, "kdsp_weight": 0.0}
    if threshold is not None:
        given["threshold"] = threshold
    settings = settings_of(name, data, "paper", given)
    right = []
    for seeds in [[seed] for seed in SEEDS] if words in DRAWN else [list(SEEDS)]:
        task = task_of(data, features, loaded(backbone), shots, sentences(data, words, seeds[0]), seeds)
        right += right_answers(name, task, settings, seeds, features[test], labels)
    return right


# --- tables -------------------------------------------------------------------------------------------------------


def tables(results: Results) -> Iterator[tuple[str, Table]]:
    yield "words", Table(["words", "what they are"], list(map(list, WORDS.items())), "ll")
    for shots in (0, *SHOTS):
        name = f"biomedcoop, {shots} per class" if shots else "ensemble"
        here: dict[str, Key] = {words: (words, shots, None) for words in words_at(shots)}
        yield name, dataset_table(results, here)
        own = here.pop(REFERENCE)
        differences = {f"{words} − {REFERENCE}": ([key], [own]) for words, key in here.items()}
        yield f"{name}, differences", difference_table(results, differences)
    taus = {("none dropped" if tau > 100 else f"τ = {tau:g}"): (REFERENCE, THRESHOLD_SHOTS, tau) for tau in THRESHOLDS}
    yield "threshold", dataset_table(results, {**taus, "published": (REFERENCE, THRESHOLD_SHOTS, None)})
    everything = taus.pop("none dropped")
    differences = {f"{tau} − none dropped": ([key], [everything]) for tau, key in taus.items()}
    yield "threshold, differences", difference_table(results, differences)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args = arguments(parser)
    show("prompts", dict(tables(run(compute, cells(args.datasets), args))), args)


if __name__ == "__main__":
    start(main)
