"""BiomedCoOp at 16 images per class, beside the class names and the sentences that it starts from.

It is trained through the package's own functions, with the sentences of the library that a user gets, one model for each seed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import biomedcoop as bc
from benchmarks.datasets import SEEDS, library_sentences
from benchmarks.mini.accuracy import Row, rescored
from benchmarks.mini.kept import kept
from benchmarks.mini.probe import SHOTS
from benchmarks.mini.tables import table_with_means
from benchmarks.tasks import settings_of
from biomedcoop.backbones.base import Backbone
from biomedcoop.data.dataset import Dataset
from biomedcoop.evaluation.bootstrap import Floats
from biomedcoop.evaluation.evaluate import predict_dataset
from biomedcoop.report.table import Table

WAYS = {
    "ensemble": ("zero-shot-ensemble", "general"),
    "general": ("biomedcoop", "general"),
    "fast": ("biomedcoop", "fast"),
}
"""Method and recipe by column."""

LEARNED = {
    "largest": "largest class",
    "class_names": "zero-shot",
    "ensemble": "ensemble",
    "general": "BiomedCoOp, general",
    "fast": "BiomedCoOp, fast",
}


def right_answers(backbone: Backbone, data: Dataset, scored: Dataset, method: str, recipe: str) -> dict[str, Any]:
    """Which of the scored images the model of each seed answers rightly, [seeds][images], and the seconds that it took."""
    begin = time.monotonic()
    fitted = bc.fit_runs(data, method, backbone, SHOTS, SEEDS, recipe=recipe)
    right = [predict_dataset(classifier, scored).argmax(1) == scored.labels for classifier in fitted]
    return {"right": [answers.astype(int).tolist() for answers in right], "seconds": time.monotonic() - begin}


def learned(
    backbone: Backbone, rows: Sequence[Row], split: str, cache: Path | None, clock: dict[str, float]
) -> list[Row]:
    """The rows with the columns :data:`LEARNED`; one result per dataset and column of :data:`WAYS` is kept in ``cache``."""
    found = []
    for row in rows:
        data = bc.load_dataset(row.dataset)
        scores: dict[str, Floats] = {key: row.scores[key] for key in ("largest", "class_names")}
        draws = {}
        for way, (method, recipe) in WAYS.items():
            print(f"{row.dataset}: {LEARNED[way]} …", file=sys.stderr, flush=True)
            settings, images = settings_of(method, data, recipe), zip(data.keys, data.labels, data.splits, strict=True)
            what = [
                bc.__version__,
                backbone.fingerprint,
                split,
                SHOTS,
                SEEDS,
                settings,
                library_sentences(data),
                *images,
            ]
            name = f"learned-{backbone.fingerprint[:12]}-{split}-{row.dataset}-{way}"
            result = kept(cache, name, what, partial(right_answers, backbone, data, row.held, method, recipe))
            scores[way] = np.mean(result["right"], axis=0)
            draws[way] = np.mean(result["right"], axis=1).tolist()
            spent = f"{method} with recipe {recipe}"
            clock[spent] = clock.get(spent, 0.0) + result["seconds"]
        found.append(replace(rescored(row, scores), draws=draws))
    return found


def learned_table(rows: Sequence[Row], backbone: Backbone, split: str) -> Table:
    note = (
        f"{backbone.name} ({backbone.fingerprint}), {split} images. BiomedCoOp: {SHOTS} images per class, mean of the seeds "
        f"{', '.join(map(str, SEEDS))}. It and the ensemble read all sentences of the library."
    )
    return table_with_means(rows, LEARNED, [note])
