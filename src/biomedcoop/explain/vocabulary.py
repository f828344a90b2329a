"""Learned context vectors as words: the nearest entries of the text tower's vocabulary.

CoOp's analysis (Zhou et al. 2022, arXiv 2109.01134, section 4.2 and table 4) searches the vocabulary for the words whose embeddings
have the smallest Euclidean distance to each learned vector. Its authors find the words hard to interpret.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from biomedcoop.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from biomedcoop.backbones.base import Backbone

SAMPLE = 1000
"""Number of words, evenly spaced in the vocabulary, whose nearest other words are searched for the typical distance."""


class NearWord(NamedTuple):
    """A token of the vocabulary near a learned vector.

    Attributes:
        text: its letters.
        whole: True for a whole word, False for a piece of longer words.
        distance: Euclidean distance to the learned vector.
    """

    text: str
    whole: bool
    distance: float


@dataclass(frozen=True)
class ContextVector:
    """A learned vector of the context.

    Attributes:
        number: its place in the context, from 1.
        class_name: the class it belongs to; None where all classes share the context.
        start: word from which its training started; None for a random start.
        moved: Euclidean distance from its start.
        nearest: the nearest words, nearest first.
    """

    number: int
    class_name: str | None
    start: str | None
    moved: float
    nearest: tuple[NearWord, ...]


class Vocabulary:
    """The embeddings [V, D] of a backbone's vocabulary, for the search of near words."""

    def __init__(self, backbone: Backbone) -> None:
        self.tokens = backbone.vocabulary()
        ids = torch.tensor([[token.id for token in self.tokens]], device=backbone.device)
        with torch.no_grad():
            self.embeddings = backbone.embed_tokens(ids)[0].float().cpu()

    def nearest(self, vectors: Tensor, top: int) -> list[tuple[NearWord, ...]]:
        """The ``top`` nearest tokens of each of n vectors [n, D]; of equal distances, the token of the lowest number."""
        # differences, not products: the distance of a word from itself is exactly 0
        distances = torch.cdist(vectors.float(), self.embeddings, compute_mode="donot_use_mm_for_euclid_dist")
        order = distances.sort(dim=1, stable=True)
        return [
            tuple(
                NearWord(self.tokens[i].text, self.tokens[i].whole, distance)
                for i, distance in zip(places[:top], values[:top], strict=True)
            )
            for places, values in zip(order.indices.tolist(), order.values.tolist(), strict=True)
        ]

    def spacing(self) -> float:
        """Median distance between a word and the nearest other one, over :data:`SAMPLE` evenly spaced words."""
        count = len(self.tokens)
        sample = torch.linspace(0, count - 1, min(SAMPLE, count)).long()
        distances = torch.cdist(self.embeddings[sample], self.embeddings)
        distances[torch.arange(len(sample)), sample] = torch.inf
        return float(distances.amin(1).median())


def context_vectors(
    vocabulary: Vocabulary, context: Tensor, initial: Tensor, words: Sequence[str], class_names: Sequence[str], top: int
) -> tuple[ContextVector, ...]:
    """The learned vectors of a context with their nearest words.

    Args:
        context, initial: vectors after and before the training, [M, D] or, class-specific, [C, M, D].
        words: the last ``len(words)`` vectors started as these words; vectors before them started at random.
        class_names: C names.
        top: number of words for each vector.
    """
    m = context.shape[-2]
    starts = [None] * (m - len(words)) + list(words)
    owners = [None] if context.dim() == 2 else list(class_names)
    flat, first = context.reshape(-1, context.shape[-1]).float(), initial.reshape(-1, context.shape[-1]).float()
    moved = (flat - first).norm(dim=1).tolist()
    near = vocabulary.nearest(flat, top)
    places = [(owner, number) for owner in owners for number in range(m)]
    return tuple(
        ContextVector(number + 1, owner, starts[number], moved[i], near[i]) for i, (owner, number) in enumerate(places)
    )
