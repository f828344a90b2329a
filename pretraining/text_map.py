"""The text map, freed from what differs between sentences of one class.

While it is trained, the text map learns sentences by heart: it finds a class by sentences that it has seen better than by others.
What tells a class is the spread between classes, what tells one of its sentences from another is style. The best linear guess
of a class's mean from one sentence is Wiener's filter B (B + α S)⁻¹, with B the scatter of the classes' mean texts and S the
covariance of style; it stands before the trained map, and one matrix is exported.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pretraining.words import TextMap, Words

STYLE_WEIGHT = 30.0
"""α, chosen on validation images."""
RIDGE = 0.01
"""Added to the diagonal, so that axes in which no text differs are left out."""


@torch.no_grad()
def without_style(project: TextMap, words: Words) -> Tensor:
    """The weights [E, W] of a trained text map behind the filter.

    B counts every class of the library twice, by its mean sentence and its mean template, so that names stay what they are.
    """
    kinds = [(texts.features, kind) for texts in words.library for kind in (texts.sentence, ~texts.sentence)]
    means = torch.stack([project.standardised(features[kind]).mean(0) for features, kind in kinds])
    style = words.style / project.deviation
    between, within = means.T @ means, style.T @ style / len(style)
    noisy = between + STYLE_WEIGHT * within + RIDGE * torch.eye(len(between))
    return torch.linalg.solve(noisy, between @ project.linear.weight.T).T
