"""What the texts mean to a backbone: similarity of classes, modality and organ, nearest sentences, and their figures."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mini_accuracy import (
    GROUPS,
    WITHOUT_IMAGES,
    Floats,
    Row,
    complete_groups,
    estimated,
    mean_estimate,
    wilson,
)
from mini_tables import percent

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.catalogue import find
from biomedcoop.errors import UserError
from biomedcoop.evaluation.bootstrap import Estimate
from biomedcoop.features.texts import encode_texts
from biomedcoop.output import write_atomically
from biomedcoop.prompts import sentences_for

sys.path.append(str(Path(__file__).parent.parent / "pretraining"))
from captions import FILES, LIBRARY, MODALITY_TEMPLATES, SOURCES, modality_and_organ

IMAGES_PER_DATASET = 200
"""Most images of one dataset in the confusion of modalities."""
EXAMPLES_PER_DATASET = 2


@dataclass(frozen=True)
class LibraryClass:
    """A class of the sentence library with the sentences that pretraining has not used."""

    file: str
    name: str
    modality: str
    organ: str
    sentences: tuple[str, ...]


def library_classes() -> list[LibraryClass]:
    """All classes of the library that pretraining knows, files of one modality side by side."""
    found = []
    for name in FILES:
        content = json.loads((LIBRARY / f"{name}.json").read_text(encoding="utf-8"))
        for class_name, sentences in content["classes"].items():
            modality, organ = modality_and_organ(name, class_name)
            found.append(LibraryClass(name, class_name, modality, organ, tuple(sentences[1::2])))
    modalities = {c.file: {k.modality for k in found if k.file == c.file} for c in found}
    order = ("X-ray", "CT", "MRI", "ultrasound")

    def place(c: LibraryClass) -> tuple[int, str]:
        mixed = len(modalities[c.file]) > 1
        return (-1 if mixed else order.index(c.modality) if c.modality in order else len(order)), c.file

    return sorted(found, key=place)


def had_images(c: LibraryClass) -> bool:
    """Whether pretraining had real images of the class."""
    return c.file in GROUPS["seen"] and (c.file, c.name) not in WITHOUT_IMAGES


def unit(x: npt.NDArray[Any]) -> Floats:
    """Rows at length one."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def mean_directions(backbone: Backbone, texts: Sequence[Sequence[str]]) -> Floats:
    """Unit mean of the unit features of each group of texts, [n, E]."""
    flat = unit(encode_texts(backbone, [text for group in texts for text in group]).astype(np.float64))
    ends = np.cumsum([len(group) for group in texts])
    return unit(np.stack([part.mean(0) for part in np.split(flat, ends[:-1])]))


def similarity_summary(classes: Sequence[LibraryClass], cosines: Floats) -> list[dict[str, Any]]:
    """Cosines of pairs of classes by what the two have in common, for all and for those whose classes both had real images."""
    kinds: dict[str, list[tuple[float, bool]]] = {
        "one dataset, one modality": [],
        "two datasets, one modality": [],
        "two modalities": [],
    }
    one, two, across = kinds.values()
    for i, a in enumerate(classes):
        for j, b in enumerate(classes[:i]):
            where = across if a.modality != b.modality else one if a.file == b.file else two
            where.append((float(cosines[i, j]), had_images(a) and had_images(b)))
    rows = []
    for pairs, values in kinds.items():
        for scope, chosen in (("all", [v for v, _ in values]), ("seen", [v for v, seen in values if seen])):
            if chosen:
                low, high = np.quantile(chosen, [0.05, 0.95])
                row = {"mean": float(np.mean(chosen)), "low": float(low), "high": float(high)}
                rows.append({"pairs": pairs, "classes": scope, "n": len(chosen), **row})
    return rows


def similarity_table(summary: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["| pairs of classes within | classes | pairs | mean cosine | 5–95 % of pairs |", "|---|---|--:|--:|--:|"]
    for row in summary:
        cells = f"{row['n']} | {row['mean']:.2f} | {row['low']:.2f} to {row['high']:.2f}"
        lines.append(f"| {row['pairs']} | {row['classes']} | {cells.replace('-', '−')} |")
    return lines


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
            key: mean_estimate([float(right[i][key].mean()) for i in own], [one[key] for one in samples])
            for key in ("both", "modality")
        }
    return means


def modality_table(confusion: Confusion) -> list[str]:
    """Percent of each row's images; the right answer in bold, 0 left out; "both right" with Wilson's interval."""
    head = ["group", "dataset", "true", "images", "both right", "modality right"]
    head += [f"{organ} {modality}" for modality, organ in confusion.columns]
    lines = ["| " + " | ".join(head) + " |", "|---|---|---|" + "--:|" * (len(head) - 3)]
    right = right_answers(confusion)
    for (group, dataset, column, n), shares, values in zip(confusion.rows, confusion.shares, right, strict=True):
        cells = [f"{100 * s:.0f}" if round(100 * s) else "" for s in shares]
        cells[column] = f"**{100 * shares[column]:.0f}**"
        true = " ".join(reversed(confusion.columns[column]))
        both, modality = percent(wilson(float(values["both"].mean()), n)), 100 * values["modality"].mean()
        start = f"| {group} | {dataset} | {true} | {n} | {both} | {modality:.0f} | "
        lines.append(start + " | ".join(cells) + " |")
    for i, (group, means) in enumerate(modality_means(confusion).items()):
        if i == 0:
            lines.append("")
        both, modality = percent(means["both"]), percent(means["modality"])
        lines.append(f"Mean of the {group} rows, percent: both right {both}, modality right {modality}.")
    return lines


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


def nearest_summary(found: Sequence[Nearest], complete: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Table of how often the nearest sentence is of the right file and class, and the same numbers for JSON.

    Args:
        complete: the groups to give means of (over those of their datasets that have sentences).
    """
    head = "| group | dataset | library file | images | right dataset | by chance | right class | by chance |"
    lines, numbers = [head, "|---|---|---|--:|--:|--:|--:|--:|"], {}
    resampled = []
    for i, one in enumerate(found):
        scores = {"file": one.right_file, "class": one.right_class}
        estimates, samples = estimated(scores, i, one.row.held.groups)
        resampled.append(samples)
        cells = [percent(estimates["file"]), f"{100 * one.chance_file:.1f}"]
        cells += [percent(estimates["class"]), f"{100 * one.chance_class:.1f}"]
        lines.append(
            f"| {one.row.group} | {one.row.dataset} | {one.file} | {one.row.images} | " + " | ".join(cells) + " |"
        )
        numbers[one.row.dataset] = {k: asdict(e) for k, e in estimates.items()}
    if complete:
        lines.append("")
    for group in complete:
        own = [i for i, one in enumerate(found) if one.row.group == group]
        if own:
            of_file = mean_estimate([found[i].right_file.mean() for i in own], [resampled[i]["file"] for i in own])
            of_class = mean_estimate([found[i].right_class.mean() for i in own], [resampled[i]["class"] for i in own])
            both = f"right dataset {percent(of_file)}, right class {percent(of_class)}"
            lines.append(f"Mean of the {group} datasets, percent: {both}.")
            numbers[f"mean of {group}"] = {"file": asdict(of_file), "class": asdict(of_class)}
    return lines, numbers


def nearest_table(found: Sequence[Nearest]) -> list[str]:
    lines = ["| group | dataset | true class | nearest sentence | its class | cosine |", "|---|---|---|---|---|--:|"]
    for one in found:
        for number, (truth, three) in enumerate(one.examples, start=1):
            for rank, (text, file, name, cosine) in enumerate(three):
                image = (one.row.group, f"{one.row.dataset} {number}", truth) if rank == 0 else ("", "", "")
                mark = " ✓" if (file, name) == (one.file, truth) else ""
                lines.append("| " + " | ".join((*image, text, f"{file}: {name}{mark}", f"{cosine:.2f}")) + " |")
    return lines


# --- figures ------------------------------------------------------------------------------------------------------


def write_figure(draw: Callable[[Any], None], size: tuple[float, float], path: Path) -> None:
    """Draw on a figure with matplotlib's default settings, whatever the user's are, and write it as PNG."""
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.style.context("default"):
        figure = Figure(figsize=size, layout="compressed")
        FigureCanvasAgg(figure)
        draw(figure)
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getvalue())


def similarity_figure(classes: Sequence[LibraryClass], cosines: Floats, path: Path) -> None:
    """Heat map of the classes of the library, with lines between its files."""
    n = len(classes)
    files = list(dict.fromkeys(c.file for c in classes))
    simulated = {file for key, file in SOURCES.items() if key.startswith("simulated")}
    starts = [next(i for i, c in enumerate(classes) if c.file == file) for file in files] + [n]

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        image = axes.imshow(cosines, cmap="RdBu_r", vmin=-1, vmax=1)
        names = [c.name for c in classes]
        axes.set_xticks(range(n), names, rotation=90, fontsize=9)
        axes.set_yticks(range(n), names, fontsize=9)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for start in starts[1:-1]:
            axes.axhline(start - 0.5, color="black", linewidth=0.9)
            axes.axvline(start - 0.5, color="black", linewidth=0.9)
        for file, start, end in zip(files, starts, starts[1:], strict=False):
            modalities = {c.modality for c in classes[start:end]}
            modality = modalities.pop() if len(modalities) == 1 else "several modalities"
            real = [had_images(c) for c in classes[start:end]]
            pretrained = "seen" if all(real) else "partly seen" if any(real) else "unseen"
            pretrained = "simulated only" if file in simulated else pretrained
            label = f"{file}\n{modality}\n{pretrained}" if end - start > 2 else f"{file}, {modality}\n{pretrained}"
            axes.text(n + 0.2, (start + end - 1) / 2, label, va="center", ha="left", fontsize=9.5, linespacing=1.25)
        axes.set_title("Cosine similarity of class texts (mean of the sentences that pretraining has not used)", pad=12)
        bar = figure.colorbar(image, ax=axes, shrink=0.4, aspect=25, pad=0.01)
        bar.outline.set_visible(False)
        bar.set_label("cosine")

    write_figure(draw, (0.235 * n + 4.6, 0.235 * n + 2.2), path)


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
