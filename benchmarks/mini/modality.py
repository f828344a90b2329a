"""The modality and organ that a backbone reads off images, by the texts of their templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.datasets import complete_groups
from benchmarks.mini.accuracy import Row, estimated
from benchmarks.mini.similarity import mean_directions, unit
from biomedcoop.backbones.base import Backbone
from biomedcoop.data.catalogue import find
from biomedcoop.errors import UserError
from biomedcoop.evaluation.bootstrap import Estimate, Floats
from biomedcoop.evaluation.intervals import mean_of, wilson
from biomedcoop.evaluation.wording import percent
from biomedcoop.report.figures import write_figure
from biomedcoop.report.table import Table
from pretraining.captions import FILES, MODALITY_TEMPLATES, SOURCES, modality_and_organ

IMAGES_PER_DATASET = 200
"""Most images of one dataset."""


def kind_of(dataset: str, class_name: str) -> tuple[str, str]:
    """Modality and organ of a class of a dataset."""
    if dataset in SOURCES or dataset in FILES:
        return modality_and_organ(dataset, class_name)
    entry = find(dataset)
    if entry is None:
        raise UserError(f"{dataset}: modality and organ are neither in the captions nor in the catalogue")
    return entry.modality, entry.organ


@dataclass(frozen=True)
class Confusion:
    """Modality and organ as read off the images.

    Attributes:
        columns: the (modality, organ) pairs to choose from, K.
        rows: (group, dataset, index of the true column, images), one per dataset and true pair.
        shares: [rows, K], share of the row's images that were taken for the column.
        answers: per row, the column that each image was taken for.
        related: per row, the group of each image.
    """

    columns: list[tuple[str, str]]
    rows: list[tuple[str, str, int, int]]
    shares: Floats
    answers: list[npt.NDArray[np.int64]]
    related: list[npt.NDArray[np.str_] | None]


def modality_confusion(backbone: Backbone, rows: Sequence[Row]) -> Confusion:
    """At most 200 images per dataset, drawn by seed, against the templates of every modality and organ at hand."""
    kinds = [[kind_of(row.dataset, name) for name in row.held.class_names] for row in rows]
    columns = list(dict.fromkeys(kind for of_row in kinds for kind in of_row))
    texts = [[t.format(modality=m, organ=o) for t in MODALITY_TEMPLATES] for m, o in columns]
    directions = mean_directions(backbone, texts)
    listed, shares, kept, related = [], [], [], []
    for row, of_row in zip(rows, kinds, strict=True):
        n = min(IMAGES_PER_DATASET, row.images)
        drawn = np.sort(np.random.default_rng(0).choice(row.images, n, replace=False))
        answers = (unit(row.features[drawn]) @ directions.T).argmax(1)
        truth = np.array([columns.index(kind) for kind in of_row])[row.held.labels[drawn]]
        for column in dict.fromkeys(columns.index(kind) for kind in of_row):
            mine = answers[truth == column]
            groups = row.held.groups
            kept.append(mine)
            related.append(None if groups is None else groups[drawn][truth == column])
            listed.append((row.group, row.dataset, column, len(mine)))
            shares.append(np.bincount(mine, minlength=len(columns)) / len(mine))
    return Confusion(columns, listed, np.stack(shares), kept, related)


def right_answers(confusion: Confusion) -> list[dict[str, Floats]]:
    """Of each row: which images have "both" (modality and organ) right, which have the "modality" right, 0 or 1."""
    modalities = np.array([modality for modality, _ in confusion.columns])
    return [
        {"both": (mine == c).astype(float), "modality": (modalities[mine] == modalities[c]).astype(float)}
        for (_, _, c, _), mine in zip(confusion.rows, confusion.answers, strict=True)
    ]


def modality_means(confusion: Confusion) -> dict[str, dict[str, Estimate]]:
    """Mean over the rows of each complete group; intervals from resampling the images of each row, by groups."""
    right, means = right_answers(confusion), {}
    for group in complete_groups(dataset for _, dataset, *_ in confusion.rows):
        own = [i for i, row in enumerate(confusion.rows) if row[0] == group]
        samples = [estimated(right[i], i, confusion.related[i])[1] for i in own]
        means[group] = {
            key: mean_of([float(right[i][key].mean()) for i in own], [one[key] for one in samples])
            for key in ("both", "modality")
        }
    return means


def modality_table(confusion: Confusion) -> Table:
    """Percent of each row's images; the right answer in bold, 0 left out; "both right" with Wilson's interval."""
    head = ["group", "dataset", "true", "images", "both right", "modality right"]
    head += [f"{organ} {modality}" for modality, organ in confusion.columns]
    rows, right = [], right_answers(confusion)
    for (group, dataset, column, n), shares, values in zip(confusion.rows, confusion.shares, right, strict=True):
        cells = [f"{100 * s:.0f}" if round(100 * s) else "" for s in shares]
        cells[column] = f"**{100 * shares[column]:.0f}**"
        true = " ".join(reversed(confusion.columns[column]))
        both, modality = percent(wilson(float(values["both"].mean()), n)), 100 * values["modality"].mean()
        rows.append([group, dataset, true, n, both, f"{modality:.0f}", *cells])
    notes = [
        f"Mean of the {group} rows, percent: both right {percent(means['both'])}, modality right {percent(means['modality'])}."
        for group, means in modality_means(confusion).items()
    ]
    return Table(head, rows, "lll" + "r" * (len(head) - 3), notes)


def modality_numbers(confusion: Confusion) -> dict[str, Any]:
    """The same for JSON."""
    listed = zip(confusion.rows, confusion.shares, right_answers(confusion), strict=True)
    return {
        "columns": confusion.columns,
        "rows": [
            {
                "group": group,
                "dataset": dataset,
                "true": confusion.columns[column],
                "images": n,
                "shares": shares.tolist(),
                "both_right": asdict(wilson(float(right["both"].mean()), n)),
            }
            for (group, dataset, column, n), shares, right in listed
        ],
        "means": {
            group: {k: asdict(e) for k, e in means.items()} for group, means in modality_means(confusion).items()
        },
    }


def modality_figure(confusion: Confusion, path: Path) -> None:
    """Rows: datasets by true modality and organ; columns: what the images were taken for; the right cell is framed."""
    from matplotlib.patches import Rectangle

    columns = [f"{organ}\n{modality}" for modality, organ in confusion.columns]
    names = [f"{dataset}: {' '.join(reversed(confusion.columns[column]))}" for _, dataset, column, _ in confusion.rows]
    first_unseen = next((i for i, row in enumerate(confusion.rows) if row[0] == "unseen"), None)
    n, k = confusion.shares.shape

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        image = axes.imshow(100 * confusion.shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
        for i, (_, _, true, _) in enumerate(confusion.rows):
            axes.add_patch(Rectangle((true - 0.47, i - 0.47), 0.94, 0.94, fill=False, linewidth=1.4, zorder=3))
            for j, share in enumerate(confusion.shares[i]):
                if round(100 * share):
                    colour = "white" if share > 0.62 else "black"
                    axes.text(j, i, f"{100 * share:.0f}", ha="center", va="center", fontsize=9, color=colour)
        axes.set_xticks(range(k), columns, fontsize=8.5, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(n), names, fontsize=9)
        axes.set_xticks(np.arange(k + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="0.92", linewidth=0.8)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("nearest text")
        axes.set_ylabel("dataset: true organ and modality")
        groups = [("seen", 0, n if first_unseen is None else first_unseen)]
        if first_unseen is not None:
            axes.axhline(first_unseen - 0.5, color="black", linewidth=1.5)
            groups.append(("unseen", first_unseen, n))
        for group, start, end in groups:
            if end > start:
                middle = (start + end - 1) / 2
                axes.text(k - 0.35, middle, group, rotation=270, va="center", ha="left", fontsize=11)
        axes.set_title("Organ and modality by text, % of each row's images (frame: the right answer)", pad=10)
        bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=25, pad=0.05)
        bar.outline.set_visible(False)
        bar.set_label("% of the row's images")

    write_figure(draw, (0.62 * k + 4.6, 0.42 * n + 2.4), path)
