"""Findings about sentences from their features, and the report that holds them.

Pure functions find classes that a backbone can hardly distinguish, sentences unlike their class, and sentences that the
statistics-based selection of BiomedCoOp would drop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from biomedcoop.methods.selection import select_sentences, sentence_scores, z_scores
from biomedcoop.prompts.checks import Fault

CLOSE = 0.95
"""Cosine of class embeddings above which few images can distinguish the classes."""


@dataclass(frozen=True)
class Outlier:
    """The least typical sentence of a class.

    Attributes:
        z: cosine of the sentence with the class's mean embedding, standardised within the class.
        beyond: number of sentences of the class whose z is below -τ.
    """

    class_name: str
    sentence: str
    z: float
    beyond: int


@dataclass
class PromptReport:
    """The findings of :func:`biomedcoop.api.check_prompts`.

    Attributes:
        counts: number of sentences per class.
        missing: classes of the task without sentences.
        unused: classes of the source that the task lacks.
        faults: faults of the text itself.
        words: smallest and largest number of words in a sentence.
        tokens: largest number of tokens in a sentence, as the backbone counts them.
        cut: (class, sentence, tokens) of sentences longer than the backbone's context.
        closest: (class, class, cosine) of class embeddings, the closest first.
        outliers: the least typical sentence of each class.
        accuracy: accuracy of the sentence ensemble ("sentences") and of "a photo of a {}." ("class name") on labelled images,
            with intervals and per-class recall; None without images.
        dropped: sentence indices that the selection drops for all classes on these images; None without images.
        problems: findings that make training wrong, one line each.
        warnings: other findings, one line each.
    """

    source: str
    counts: dict[str, int]
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    words: tuple[int, int] = (0, 0)
    backbone: str | None = None
    tokens: int | None = None
    cut: list[tuple[str, str, int]] = field(default_factory=list)
    closest: list[tuple[str, str, float]] = field(default_factory=list)
    outliers: list[Outlier] = field(default_factory=list)
    images: str | None = None
    accuracy: dict[str, dict[str, Any]] | None = None
    dropped: list[int] | None = None
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)


def class_means(by_class: Mapping[str, Tensor]) -> Tensor:
    """Unit-norm mean [C, E] of each class's unit-norm sentence features [P, E], as in the sentence ensemble and in SCCM."""
    return F.normalize(torch.stack([F.normalize(f, dim=-1).mean(0) for f in by_class.values()]), dim=-1)


def closest_pairs(by_class: Mapping[str, Tensor], most: int = 5) -> list[tuple[str, str, float]]:
    """Pairs of classes by the cosine of their mean embeddings, the closest first.

    Args:
        by_class: raw text features [P, E] of each class.
    """
    means = class_means(by_class)
    cosines = means @ means.T
    pairs = [(a, b, float(cosines[i, j])) for (i, a), (j, b) in combinations(enumerate(by_class), 2)]
    return sorted(pairs, key=lambda pair: -pair[2])[:most]


def outliers(by_class: Mapping[str, Sequence[str]], features: Mapping[str, Tensor], threshold: float) -> list[Outlier]:
    """The least typical sentence of each class.

    Args:
        by_class: sentences of each class.
        features: raw features [P, E] of these sentences.
        threshold: τ, in standard deviations.
    """
    least_typical = []
    for (name, sentences), mean in zip(by_class.items(), class_means(features), strict=True):
        z = z_scores(F.normalize(features[name], dim=-1) @ mean)
        worst = int(z.argmin())
        least_typical.append(Outlier(name, sentences[worst], float(z[worst]), int((z < -threshold).sum())))
    return least_typical


def dropped_by_selection(image_features: Tensor, sentence_features: Tensor, threshold: float) -> list[int]:
    """Sentence indices that BiomedCoOp's statistics-based selection drops, for all classes at once.

    Args:
        image_features: raw image features [N, E]; all of them form one batch.
        sentence_features: raw sentence features [C, P, E].
        threshold: τ, in standard deviations.
    """
    similarities = torch.einsum(
        "ne,cpe->ncp", F.normalize(image_features, dim=-1), F.normalize(sentence_features, dim=-1)
    )
    kept = select_sentences(sentence_scores(similarities).mean(0), threshold)
    return torch.nonzero(~kept).flatten().tolist()
