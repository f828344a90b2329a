"""What one backbone knows more than another: paired differences on the same images and draws."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.mini.accuracy import COLUMNS, Row, rescored, scores_of, training_and
from benchmarks.mini.tables import table_with_means
from biomedcoop.backbones.base import Backbone
from biomedcoop.report.table import Table

COMPARED = ("probe_16", "probe_all", "class_names", "sentences")
AGAINST = {f"gain_{key}": COLUMNS[key] for key in COMPARED}


def against(other: Backbone, rows: Sequence[Row], split: str, clock: dict[str, float]) -> list[Row]:
    """The rows with the columns :data:`AGAINST`: their scores minus those of the other backbone, image by image."""
    found = []
    for row in rows:
        print(f"{row.dataset}: {other.name} …", file=sys.stderr, flush=True)
        _, scores, _ = scores_of(other, training_and(row.dataset, split), split, clock)
        gains = {f"gain_{key}": row.scores[key] - scores[key] for key in COMPARED if key in scores}
        found.append(rescored(row, gains))
    return found


def against_table(rows: Sequence[Row], backbone: Backbone, other: Backbone, split: str) -> Table:
    one, two = (f"{b.name} ({b.fingerprint})" for b in (backbone, other))
    return table_with_means(rows, AGAINST, [f"{one} minus {two}, in points, on the same {split} images."])
