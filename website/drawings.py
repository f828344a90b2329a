"""Figures of the concept pages: ``python -m website.drawings`` writes them to ``docs/concepts``.

What the first three show is computed, not sketched: BiomedCoOp with the shipped backbone, trained on the package's simulated breast
ultrasound, 16 images per class, recipe fast, seed 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from scipy.stats import beta

import biomedcoop as bc
from biomedcoop.drawing import drawing
from biomedcoop.methods.selection import select_sentences, z_scores
from biomedcoop.prompts.sentences import sentences_for

FOLDER = Path(__file__).parent.parent / "docs/concepts"
INK, FROZEN, LEARNED, WORDS = "#263238", "#90a4ae", "#00796b", "#e08a00"
CLASSES = ("#1565c0", "#c62828", "#2e7d32")
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "biomedcoop",
    "text.color": INK,
    "axes.labelcolor": INK,
    "figure.facecolor": "white",
}


@dataclass(frozen=True)
class Example:
    """A trained classifier and what its losses saw: embeddings of unit norm.

    Attributes:
        class_names: C names.
        sentences: of each class and sentence [C, P, E].
        template: of "a photo of a ..." [C, E].
        learned: of the learned context and the class name [C, E].
        free: the same, learned without SCCM.
        images: of test images [N, E].
        labels: of these images [N].
        scores: of each sentence index, mean over the training images [P].
        threshold: τ.
        scale: factor of the cosines.
    """

    class_names: tuple[str, ...]
    sentences: torch.Tensor
    template: torch.Tensor
    learned: torch.Tensor
    free: torch.Tensor
    images: torch.Tensor
    labels: np.ndarray
    scores: torch.Tensor
    threshold: float
    scale: float


def example(source: str = "simulated:breast-ultrasound", shots: int = 16) -> Example:
    """Train on simulated images; a minute on one core."""
    data = bc.load_dataset(source)
    classifier, free = (
        bc.fit(data, "biomedcoop", shots=shots, recipe="fast", settings=settings, progress=False)
        for settings in (None, {"sccm_weight": 0})
    )
    test = data.part("test")
    tower, names = classifier.backbone, data.class_names
    found = sentences_for(names, "busi").by_class
    count = int(classifier.settings["n_sentences"])
    with torch.inference_mode():
        sentences = torch.stack([unit(tower.encode_text(list(texts[:count]))) for texts in found])
        template = unit(tower.encode_text([f"a photo of a {name}." for name in names]))
    images = bc.embed(test, backbone=tower, progress=False).features
    return Example(
        names,
        sentences,
        template,
        unit(classifier.state["class_embeddings"]),
        unit(free.state["class_embeddings"]),
        unit(torch.from_numpy(images)),
        test.labels,
        classifier.state["sentences.score"],
        float(classifier.settings["threshold"]),
        float(tower.logit_scale),
    )


def unit(vectors: torch.Tensor) -> torch.Tensor:
    return F.normalize(vectors, dim=-1)


def overview() -> Figure:
    """What is frozen and what is learned."""
    figure, axes = plt.subplots(figsize=(9, 4.1))
    axes.set(xlim=(0, 9), ylim=(0, 4.1))
    axes.axis("off")

    def box(x: float, y: float, width: float, words: str, colour: str) -> None:
        shape = FancyBboxPatch((x, y), width, 0.7, boxstyle="round,pad=0.04", facecolor=colour, edgecolor="none")
        axes.add_patch(shape)
        dark = colour != FROZEN
        axes.text(
            x + width / 2, y + 0.35, words, ha="center", va="center", color="white" if dark else INK, fontsize=9.5
        )

    def arrow(start: tuple[float, float], end: tuple[float, float], words: str = "") -> None:
        axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": INK, "lw": 1.3})
        if words:
            axes.text((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.1, words, ha="center", fontsize=8.5)

    box(0.1, 3.2, 1.7, "16 images\nof each class", INK)
    box(2.6, 3.2, 1.8, "image encoder", FROZEN)
    box(0.1, 1.7, 1.7, "4 context vectors\n+ class name", LEARNED)
    box(2.6, 1.7, 1.8, "text encoder", FROZEN)
    box(0.1, 0.2, 1.7, "sentences about\neach class", WORDS)
    box(2.6, 0.2, 1.8, "text encoder", FROZEN)
    box(5.4, 3.2, 1.5, "cross-entropy", INK)
    box(5.4, 1.7, 1.5, "KDSP", INK)
    box(5.4, 0.2, 1.5, "SCCM", INK)
    for y in (3.55, 2.05, 0.55):
        arrow((1.85, y), (2.54, y))
    arrow((4.46, 3.55), (5.34, 3.55))
    arrow((4.46, 2.05), (5.34, 3.35))
    arrow((4.46, 2.05), (5.34, 2.05))
    arrow((4.46, 1.95), (5.34, 0.75))
    arrow((4.46, 0.65), (5.34, 1.8))
    arrow((4.46, 0.55), (5.34, 0.55))
    for y, words in (
        (3.55, "be right about\nthe labels"),
        (2.05, "answer as the kept\nsentences would"),
        (0.55, "stay near the mean\nof all sentences"),
    ):
        axes.text(7.1, y, words, va="center", fontsize=9.5)
    for x, words, colour in ((0.1, "frozen", FROZEN), (1.3, "learned", LEARNED), (2.6, "given once", WORDS)):
        axes.add_patch(
            FancyBboxPatch((x, 1.22), 0.12, 0.12, boxstyle="round,pad=0.02", facecolor=colour, edgecolor="none")
        )
        axes.text(x + 0.24, 1.27, words, va="center", fontsize=8.5)
    return figure


def sccm(seen: Example) -> Figure:
    """Sentences, their means, and the class embeddings before and after training, in two of the directions."""
    means = unit(seen.sentences.mean(1))
    centre = means.mean(0)
    plane = torch.linalg.svd(means - centre).Vh[:2].T  # [E, 2], through the means of three classes
    flat = {
        name: ((vectors - centre) @ plane).numpy()
        for name, vectors in zip(MARKS, (seen.sentences, means, seen.template, seen.learned, seen.free), strict=True)
    }
    figure, axes = plt.subplots(figsize=(7.6, 4.4))
    for c, colour in enumerate(CLASSES[: len(means)]):
        for name, look in MARKS.items():
            axes.scatter(*flat[name][c].T, **{key: colour if value == INK else value for key, value in look.items()})
        for name in ("learned", "learned without SCCM"):
            arrow = {"arrowstyle": "->", "color": colour, "lw": 1, "alpha": 0.6, "shrinkA": 5, "shrinkB": 5}
            axes.annotate("", flat[name][c], flat["“a photo of a …”"][c], arrowprops=arrow)
    marks = [axes.scatter([], [], **look) for look in MARKS.values()]
    beside = {"bbox_transform": axes.transAxes, "frameon": False}
    figure.legend(marks, list(MARKS), loc="upper left", bbox_to_anchor=(1.0, 1.0), **beside)
    colours = [axes.scatter([], [], color=colour) for colour in CLASSES]
    figure.legend(colours, seen.class_names, loc="lower left", bbox_to_anchor=(1.0, 0.0), **beside)
    axes.set(xticks=[], yticks=[], xlabel="the plane through the three means of sentences")
    axes.set_aspect("equal")
    return figure


MARKS: dict[str, dict[str, Any]] = {
    "a sentence": {"s": 9, "alpha": 0.35, "lw": 0, "color": INK},
    "mean of a class's sentences": {"s": 90, "facecolor": "none", "edgecolor": INK, "lw": 2},
    "“a photo of a …”": {"s": 45, "marker": "s", "color": INK},
    "learned": {"s": 120, "marker": "*", "color": INK},
    "learned without SCCM": {"s": 120, "marker": "*", "facecolor": "white", "edgecolor": INK},
}


def selection(seen: Example) -> Figure:
    """The score of each sentence index in standard deviations, and the band that the selection keeps."""
    z = z_scores(seen.scores).numpy()
    kept = select_sentences(seen.scores, seen.threshold).numpy()
    figure, axes = plt.subplots(figsize=(7.6, 3.1))
    axes.axhspan(-seen.threshold, seen.threshold, color=LEARNED, alpha=0.09, lw=0)
    axes.axhline(0, color=INK, lw=0.7)
    index = np.arange(1, len(z) + 1)
    for mask, colour, words in ((kept, LEARNED, "kept"), (~kept, CLASSES[1], "left out")):
        axes.vlines(index[mask], 0, z[mask], color=colour, lw=1)
        axes.scatter(index[mask], z[mask], s=22, color=colour, label=f"{words}: {int(mask.sum())}")
    axes.set(xlabel="number of the sentence", ylabel="score, standard deviations", xlim=(0, len(z) + 1))
    axes.text(len(z) + 1.3, seen.threshold, f"τ = {seen.threshold:g}", va="center", fontsize=9)
    axes.text(len(z) + 1.3, -seen.threshold, f"−{seen.threshold:g}", va="center", fontsize=9)
    axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def kdsp(seen: Example) -> Figure:
    """Answers of the template, the teacher and the learned classifier about the test image on which the template errs most."""
    kept = select_sentences(seen.scores, seen.threshold)
    teacher = unit(seen.sentences[:, kept].mean(1))
    answers = [
        (seen.scale * seen.images @ classes.T).softmax(-1).numpy() for classes in (seen.template, teacher, seen.learned)
    ]
    rows = np.arange(len(seen.labels))
    shown = int((answers[1] - answers[0])[rows, seen.labels].argmax())
    figure, axes = plt.subplots(figsize=(7.6, 2.9))
    titles = (
        "“a photo of a …”,\nbefore training",
        "teacher: mean of the\nkept sentences",
        "learned context,\nafter training",
    )
    for part, (answer, colour) in enumerate(zip(answers, (FROZEN, WORDS, LEARNED), strict=True)):
        places = np.arange(len(seen.class_names)) + 0.27 * (part - 1)
        bars = axes.bar(places, 100 * answer[shown], 0.25, color=colour, label=titles[part])
        axes.bar_label(bars, fmt="%.0f", fontsize=8.5, padding=1)
    names = [name + ("\n(the label)" if c == seen.labels[shown] else "") for c, name in enumerate(seen.class_names)]
    axes.set_xticks(np.arange(len(names)), names)
    axes.set(ylabel="probability, %", ylim=(0, 112))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), labelspacing=1)
    return figure


def frozen() -> Figure:
    """How many numbers each way of learning changes, for BiomedCLIP and three classes."""
    width, joint, classes = 768, 512, 3
    rows = {
        "context of BiomedCoOp: 4 vectors": 4 * width,
        "linear probe: a vector and a number for each class": classes * (joint + 1),
        "CLIP-Adapter: two layers": 2 * joint * joint // 4,
        "image tower (fine-tuning)": 86_190_000,
        "both towers": 196_000_000,
    }
    figure, axes = plt.subplots(figsize=(7.6, 2.7))
    names, numbers = list(rows), list(rows.values())
    colours = [LEARNED] * 3 + [FROZEN] * 2
    bars = axes.barh(names[::-1], numbers[::-1], color=colours[::-1], height=0.6)
    axes.bar_label(bars, [f"{number:,}" for number in numbers[::-1]], padding=4, fontsize=9)
    axes.set(xscale="log", xlim=(1e2, 8e9), xlabel="numbers that training changes")
    return figure


def intervals() -> Figure:
    """The 95 % interval of an accuracy of 80 % by the number of test images (Clopper and Pearson 1934)."""
    numbers = np.array([10, 20, 30, 50, 100, 200, 500, 1000])
    right = np.round(0.8 * numbers)
    low = 100 * beta.ppf(0.025, right, numbers - right + 1)
    high = 100 * beta.ppf(0.975, right + 1, numbers - right)
    figure, axes = plt.subplots(figsize=(7.6, 3))
    places = np.arange(len(numbers))
    axes.vlines(places, low, high, color=LEARNED, lw=7, alpha=0.35)
    axes.scatter(places, 100 * right / numbers, color=LEARNED, zorder=3)
    for place, bottom, top in zip(places, low, high, strict=True):
        axes.text(place, bottom - 4.5, f"{bottom:.0f}–{top:.0f}", ha="center", fontsize=9)
    axes.set_xticks(places, [f"{number:,}" for number in numbers])
    axes.set(xlabel="independent test images", ylabel="accuracy, %", ylim=(30, 103))
    return figure


def draw(folder: Path, seen: Example) -> None:
    """Write all figures as SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Callable[[], Figure]] = {
        "overview": overview,
        "sccm": lambda: sccm(seen),
        "selection": lambda: selection(seen),
        "kdsp": lambda: kdsp(seen),
        "frozen": frozen,
        "intervals": intervals,
    }
    with drawing(STYLE):
        for name, make in figures.items():
            figure = make()
            figure.savefig(folder / f"{name}.svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
            plt.close(figure)


if __name__ == "__main__":
    seen = example()
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER, seen)
    means = unit(seen.sentences.mean(1))
    for words, classes in (("template", seen.template), ("learned", seen.learned), ("learned without SCCM", seen.free)):
        right = ((seen.images @ classes.T).argmax(1).numpy() == seen.labels).mean()
        print(
            f"{words}: cosine to the mean of the sentences {(classes * means).sum(1).mean():.2f}, {right:.0%} of test images right"
        )
