"""Maps from the attention of a vision transformer: which patches its class token or pooling head attends to, through all blocks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.explain.channels import class_scores


def attention_rollout(classifier: Classifier, pixels: Tensor, classes: Tensor, layer: str) -> Tensor:
    """Attention rollout (Abnar & Zuidema, ACL 2020, arXiv 2005.00928, section 3), with the mean over heads.

        R = Π_b (½ mean_h A_b + ½ I), the first block rightmost;   map = row of the class token in R

    An attention pooling head comes last; no token passes it unchanged, so its factor is mean_h A alone. The map shows where
    information can come from, whatever the class: it is the same map for every class.

    Args:
        pixels: normalised, [B, 3, S, S].
        classes, layer: not used, as all classes have one map and all blocks count.

    Returns:
        [B, h, w], at least 0.

    Raises:
        UserError: the image tower has no attention.
    """
    with torch.no_grad():
        _, blocks = classifier.backbone.attention_maps(pixels)
        rollout = _identity(blocks[0])
        for attention in blocks:
            passed = attention.float().mean(1) @ rollout
            rollout = 0.5 * passed + 0.5 * rollout if _is_block(attention) else passed
    return _of_features(rollout)


def gradient_attention(classifier: Classifier, pixels: Tensor, classes: Tensor, layer: str) -> Tensor:
    """Gradient times attention (Chefer et al., ICCV 2021, arXiv 2103.15679, equations 5 and 6), for the class score s_c.

        R = I;   for each block b:  R ← R + mean_h (∂s_c/∂A_b ⊙ A_b)⁺ R;   map = row of the class token in R

    After the attention A of a pooling head, R is mean_h (∂s_c/∂A ⊙ A)⁺ R.

    Args:
        pixels: normalised, [B, 3, S, S].
        classes: class of each image, int64 [B].
        layer: not used, as all blocks count.

    Returns:
        [B, h, w], at least 0.

    Raises:
        UserError: the image tower has no attention, or no gradients pass through it.
    """
    with torch.enable_grad():
        features, blocks = classifier.backbone.attention_maps(pixels)
        score = class_scores(classifier, features, classes).sum()
    gradients = torch.autograd.grad(score, blocks)
    relevance = _identity(blocks[0])
    for attention, gradient in zip(blocks, gradients, strict=True):
        weighted = (gradient * attention.detach()).float().relu().mean(1)
        passed = weighted @ relevance
        relevance = relevance + passed if _is_block(attention) else passed
    return _of_features(relevance)


def _identity(attention: Tensor) -> Tensor:
    """[B, T, T] for attention [B, H, T, T]."""
    b, _, t, _ = attention.shape
    return torch.eye(t, device=attention.device).expand(b, t, t)


def _is_block(attention: Tensor) -> bool:
    """Whether tokens attend to tokens, past which they also go unchanged; else it is an attention pooling head [B, H, 1, T]."""
    return attention.shape[2] == attention.shape[3]


def _of_features(relevance: Tensor) -> Tensor:
    """Relevance for the class token or the pooled one, the first row of [B, T or 1, T] -> that of each patch, [B, h, w]."""
    # the patches stand last, and class token and registers are too few for one more row
    side = math.isqrt(relevance.shape[2])
    return relevance[:, 0, -side * side :].view(-1, side, side)
