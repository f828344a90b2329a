"""Statistics-based sentence selection of BiomedCoOp (arXiv 2411.15232, section on KDSP): a pure function of the scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from biomedcoop.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def sentence_scores(similarities: Tensor) -> Tensor:
    """Score of each sentence index for each image: the logit of the best class.

    Args:
        similarities: s · f_b · e_{c,i} as [..., C, P].

    Returns:
        [..., P]. The score of a batch is its mean over the images: one score per sentence *index*, shared by all classes.
    """
    return similarities.amax(-2)


def z_scores(scores: Tensor) -> Tensor:
    """Standardised scores [..., P]; zero where all scores are equal.

    The published code first standardises by median and median absolute deviation and then by mean and standard deviation
    (n - 1). The second step undoes any effect of the first, and a median absolute deviation of zero makes the first crash; this
    function takes the second step only.
    """
    centred = scores - scores.mean(-1, keepdim=True)
    spread = scores.std(-1, keepdim=True) if scores.shape[-1] > 1 else torch.zeros_like(centred)
    return torch.where(spread > 0, centred / spread, 0.0)


def select_sentences(scores: Tensor, threshold: float) -> Tensor:
    """Mask of the sentences whose score is no outlier: |z_i| <= τ.

    Args:
        scores: [..., P].
        threshold: τ > 0, in standard deviations.

    Returns:
        bool [..., P]; at least one is True: for a very small τ, the sentence nearest to the mean score.
    """
    distance = z_scores(scores).abs()
    return (distance <= threshold) | (distance == distance.amin(-1, keepdim=True))
