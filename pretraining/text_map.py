"""The text map, fitted anew to the trained images.

While the tail is trained, its text map learns the sentences by heart: it finds a class by sentences that it has seen better than by
others. The map here begins with the least-squares one from texts onto the mean images of their classes, which leaves out what
differs between sentences of one class, and takes few small steps by the losses of the tail.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pretraining.joint import BATCH, clamp_scale, class_weights, set_rate
from pretraining.words import TextMap, Words

STEPS = 400
RATE = 5e-5
STYLE_PENALTY = 0.1
"""Weight of the variance between sentences of one class, against the squared error of a class's two mean texts."""
RIDGE = 0.01
NORM = 10.0
"""Of the weights at the start: lengths of texts do not matter, but a step's share of them does."""


@torch.no_grad()
def least_squares_texts(words: Words, project: TextMap, means: Tensor) -> Tensor:
    """Weights [E, W] that map the mean sentence and the mean template of each class onto its mean image [C, E].

    They minimise the squared error with a penalty on what differs between sentences of one class (a regularised linear
    discriminant analysis, with images for targets).
    """
    rows = [
        project.standardised(own.features[kind]).mean(0) for own in words.own for kind in (own.sentence, ~own.sentence)
    ]
    texts = torch.stack(rows)
    style = words.style / project.deviation
    gram = texts.T @ texts + STYLE_PENALTY * style.T @ style / len(style) + RIDGE * torch.eye(texts.shape[1])
    weights = torch.linalg.solve(gram, texts.T @ means.repeat_interleave(2, 0)).T
    return weights * NORM / weights.norm()


def fit_text_map(features: Tensor, labels: Tensor, words: Words, scale: Tensor, rng: torch.Generator) -> TextMap:
    """A text map for images that stay as they are.

    Args:
        features: of the pool's images, unit norm [n, E].
        labels: classes of the pool, [n].
        scale: logarithm of the logits' scale to begin with.
    """
    project = TextMap(words.all_features(), features.shape[1])
    means = torch.stack([features[labels == c].mean(0) for c in range(len(words.own))])
    with torch.no_grad():
        project.linear.weight.copy_(least_squares_texts(words, project, means))
        project.scale.copy_(scale)
    optimizer = torch.optim.AdamW([{"params": project.parameters(), "peak": RATE}], betas=(0.9, 0.98))
    weight = class_weights(labels)
    for step in range(STEPS):
        set_rate(optimizer, step, STEPS)
        some = torch.multinomial(weight, BATCH, replacement=True, generator=rng)
        loss = words.loss(features[some], labels[some], project, rng)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        clamp_scale(project)
    print(f"text map: loss {loss.item():.2f}, scale {project.scale.exp():.0f}", flush=True)
    return project
