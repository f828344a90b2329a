"""Do the words matter? The tables of ``docs/results/prompts.md``.

    BIOMEDCOOP_DATA=FOLDER python benchmarks/words.py --work WORK > tables.md

On every dataset the same methods get different words: the sentences of the library that pretraining has not seen (25 of each
class), the same sentences dealt at random to the classes of the task, a part of them, the templates of the modality, the one
template "a photo of a {}.", or none at all. The methods: the sentence ensemble, which learns nothing, and BiomedCoOp at 1, 4 and
16 images per class with the published settings. Then BiomedCoOp at 4 images with other thresholds of the sentence selection.

The seed also deals or draws the sentences. Differences are each set of words minus the library. What else is done, and what the
intervals are, is in ``study.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from command import start
from mini_accuracy import SEEDS, unused_sentences
from study import Cell, Results, arguments, dataset_table, difference_table, encoded, loaded, run_cells, section

from biomedcoop.data.catalogue import find
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.sampling.few_shot import sample_few_shot
from biomedcoop.errors import UserError
from biomedcoop.features.texts import encode_texts
from biomedcoop.methods import Task, get_method
from biomedcoop.prompts import sentences_for
from biomedcoop.prompts.library import templates_of
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


def compute(dataset: str, key: Any, backbone_name: str) -> list[list[int]]:
    """Which test images are answered rightly, [seeds][images]."""
    words_name, shots, threshold = key
    backbone = loaded(backbone_name)
    data, features = encoded(dataset, backbone_name)
    test = data.indices("test")
    truth = torch.from_numpy(data.labels[test])
    method = get_method("biomedcoop" if shots else "zero-shot-ensemble")
    given: dict[str, float] = {}
    if words_name == "none":
        given |= {"sccm_weight": 0.0, "kdsp_weight": 0.0}
    if threshold is not None:
        given["threshold"] = threshold
    entry = find(data.name, data.class_names)
    settings = method.settings(given, "paper", entry.name if entry else None)
    right = []
    together = [[seed] for seed in SEEDS] if words_name in DRAWN else [list(SEEDS)]
    for seeds in together:
        texts = sentences(data, words_name, seeds[0])
        flat = encode_texts(backbone, [text for own in texts for text in own])
        words = torch.from_numpy(flat).view(len(texts), -1, backbone.embed_dim)
        draws = np.stack([sample_few_shot(data, shots or 1, seed)[0] for seed in seeds])
        task = Task(backbone, data.class_names, features[draws], torch.from_numpy(data.labels[draws]), words)
        for state in method.fit(task, settings, seeds):
            with torch.inference_mode():
                right.append((method.logits(state, features[test], backbone).argmax(1) == truth).int().tolist())
    return right


# --- tables -------------------------------------------------------------------------------------------------------


def print_tables(results: Results) -> None:
    print(
        "Accuracy in percent, mean of the seeds. Words: " + "; ".join(f"*{k}*: {v}" for k, v in WORDS.items()) + ".\n"
    )
    for shots in (0, *SHOTS):
        here = words_at(shots)
        title = "Sentence ensemble, nothing trained" if shots == 0 else f"BiomedCoOp, {shots} per class"
        differences = {
            f"{w} − {REFERENCE}": ([(w, shots, None)], [(REFERENCE, shots, None)]) for w in here if w != REFERENCE
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
        difference_table(
            results, {f"{k} − none dropped": ([c], [everything]) for k, c in taus.items() if c != everything}
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args = arguments(parser)
    print_tables(run_cells(compute, cells(args.datasets), args))


if __name__ == "__main__":
    start(main)
