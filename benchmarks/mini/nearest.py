"""The sentences of the whole library that lie nearest to images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.mini.accuracy import Row, estimated
from benchmarks.mini.similarity import library_classes, unit
from biomedcoop.backbones.base import Backbone
from biomedcoop.data.catalogue import find
from biomedcoop.errors import UserError
from biomedcoop.evaluation.bootstrap import Floats
from biomedcoop.evaluation.intervals import mean_of
from biomedcoop.evaluation.wording import percent
from biomedcoop.features.texts import encode_texts
from biomedcoop.prompts import sentences_for
from biomedcoop.report.table import Table

EXAMPLES_PER_DATASET = 2


@dataclass(frozen=True)
class Nearest:
    """Nearest sentences of one dataset's images in the whole library.

    Attributes:
        file: the dataset's own file of the library.
        right_file, right_class: per image, whether the nearest sentence is of this file, of its class.
        chance_file, chance_class: the same for a sentence drawn at random.
        examples: true class and the three nearest sentences (text, file, class, cosine) of images drawn by seed.
    """

    row: Row
    file: str
    right_file: Floats
    right_class: Floats
    chance_file: float
    chance_class: float
    examples: list[tuple[str, list[tuple[str, str, str, float]]]]


def nearest_sentences(backbone: Backbone, rows: Sequence[Row]) -> list[Nearest]:
    """For every dataset with sentences of its own in the library."""
    texts = [(text, c.file, c.name) for c in library_classes() for text in c.sentences]
    directions = unit(encode_texts(backbone, [text for text, _, _ in texts]).astype(np.float64))
    found = []
    for row in rows:
        names = row.held.class_names
        entry = find(row.held.name, names)
        try:
            source = sentences_for(names, entry.name if entry else row.held.name, "library").source
        except UserError:
            continue
        file = source.removeprefix("library: ")
        cosines = unit(row.features) @ directions.T
        first = [texts[i] for i in cosines.argmax(1)]
        truth = [names[label] for label in row.held.labels]
        of_file = [t for t in texts if t[1] == file]
        drawn = np.random.default_rng(0).choice(row.images, min(EXAMPLES_PER_DATASET, row.images), replace=False)
        examples = []
        for i in drawn:
            order = np.argsort(-cosines[i], kind="stable")[:3]
            examples.append((truth[i], [(*texts[k], float(cosines[i, k])) for k in order]))
        found.append(
            Nearest(
                row,
                file,
                np.array([f == file for _, f, _ in first], dtype=float),
                np.array([(f, c) == (file, t) for (_, f, c), t in zip(first, truth, strict=True)], dtype=float),
                len(of_file) / len(texts),
                len(of_file) / len(texts) / len({c for _, _, c in of_file}),
                examples,
            )
        )
    return found


def nearest_summary(found: Sequence[Nearest], complete: Sequence[str]) -> tuple[Table, dict[str, Any]]:
    """Table of how often the nearest sentence is of the right file and class, and the same numbers for JSON.

    Args:
        complete: the groups to give means of (over those of their datasets that have sentences).
    """
    rows, notes, numbers, resampled = [], [], {}, []
    for i, one in enumerate(found):
        scores = {"file": one.right_file, "class": one.right_class}
        estimates, samples = estimated(scores, i, one.row.held.groups)
        resampled.append(samples)
        cells = [percent(estimates["file"]), f"{100 * one.chance_file:.1f}"]
        cells += [percent(estimates["class"]), f"{100 * one.chance_class:.1f}"]
        rows.append([one.row.group, one.row.dataset, one.file, one.row.images, *cells])
        numbers[one.row.dataset] = {k: asdict(e) for k, e in estimates.items()}
    for group in complete:
        own = [i for i, one in enumerate(found) if one.row.group == group]
        if own:
            of_file = mean_of([found[i].right_file.mean() for i in own], [resampled[i]["file"] for i in own])
            of_class = mean_of([found[i].right_class.mean() for i in own], [resampled[i]["class"] for i in own])
            both = f"right dataset {percent(of_file)}, right class {percent(of_class)}"
            notes.append(f"Mean of the {group} datasets, percent: {both}.")
            numbers[f"mean of {group}"] = {"file": asdict(of_file), "class": asdict(of_class)}
    head = ["group", "dataset", "library file", "images", "right dataset", "by chance", "right class", "by chance"]
    return Table(head, rows, "lllrrrrr", notes), numbers


def nearest_table(found: Sequence[Nearest]) -> Table:
    rows = []
    for one in found:
        for number, (truth, three) in enumerate(one.examples, start=1):
            for rank, (text, file, name, cosine) in enumerate(three):
                image = (one.row.group, f"{one.row.dataset} {number}", truth) if rank == 0 else ("", "", "")
                mark = " ✓" if (file, name) == (one.file, truth) else ""
                rows.append([*image, text, f"{file}: {name}{mark}", f"{cosine:.2f}"])
    return Table(["group", "dataset", "true class", "nearest sentence", "its class", "cosine"], rows, "lllllr")
