"""What class texts mean to a backbone: their cosines, by what two classes have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.datasets import GROUPS, WITHOUT_IMAGES
from biomedcoop.backbones.base import Backbone
from biomedcoop.evaluation.bootstrap import Floats
from biomedcoop.features.texts import encode_texts
from biomedcoop.report.figures import write_figure
from biomedcoop.report.table import Table
from pretraining.captions import FILES, LIBRARY, modality_and_organ


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


def similarity_table(summary: Sequence[dict[str, Any]]) -> Table:
    rows = [
        [row["pairs"], row["classes"], row["n"]]
        + [text.replace("-", "−") for text in (f"{row['mean']:.2f}", f"{row['low']:.2f} to {row['high']:.2f}")]
        for row in summary
    ]
    return Table(["pairs of classes within", "classes", "pairs", "mean cosine", "5–95 % of pairs"], rows, "llrrr")


def similarity_figure(classes: Sequence[LibraryClass], cosines: Floats, path: Path) -> None:
    """Heat map of the classes of the library, with lines between its files."""
    n = len(classes)
    files = list(dict.fromkeys(c.file for c in classes))
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
            label = f"{file}\n{modality}\n{pretrained}" if end - start > 2 else f"{file}, {modality}\n{pretrained}"
            axes.text(n + 0.2, (start + end - 1) / 2, label, va="center", ha="left", fontsize=9.5, linespacing=1.25)
        axes.set_title("Cosine similarity of class texts (mean of the sentences that pretraining has not used)", pad=12)
        bar = figure.colorbar(image, ax=axes, shrink=0.4, aspect=25, pad=0.01)
        bar.outline.set_visible(False)
        bar.set_label("cosine")

    write_figure(draw, (0.235 * n + 4.6, 0.235 * n + 2.2), path)
