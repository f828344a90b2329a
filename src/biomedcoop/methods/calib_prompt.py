"""CalibPrompt: losses that calibrate a learned context (BMVC 2025, arXiv 2509.15226), as settings of every context learner.

    L = LS + smac_weight · SMAC + separation_weight · AS

- LS: cross-entropy with 1 − a on the true class and a / (C − 1) on each other one.
- SMAC: mean over classes of |mean p_c − [q_c (1 − a) + (1 − q_c) a / (C − 1)]|; the mean is over the batch and q_c is the share of
  class c in it.
- AS: mean cosine of two different class embeddings.

All are off by default, so that each method has its own published loss; label_smoothing=0.1, smac_weight=1 and separation_weight=3
are published for BiomedCLIP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from biomedcoop.lazy import torch
from biomedcoop.methods.training import cross_entropy

if TYPE_CHECKING:
    from torch import Tensor


def label_loss(log_p: Tensor, labels: Tensor, class_embeddings: Tensor, settings: Any) -> Tensor:
    """The loss [R] of a batch that knows the labels: cross-entropy, with CalibPrompt's changes where the settings ask for them.

    Args:
        log_p: log-probabilities [R, B, C].
        labels: classes, int64 [R, B].
        class_embeddings: unit-norm, [R, C, E], or [R, B, C, E] where each image has its own.
        settings: of a context learner; see :class:`biomedcoop.methods.context.ContextSettings`.
    """
    a, classes = settings.label_smoothing, log_p.shape[-1]
    loss = cross_entropy(log_p, labels)
    if a:
        of_others = -(log_p.sum(-1) - log_p.gather(2, labels[:, :, None])[:, :, 0]).mean(1)
        loss = (1 - a) * loss + a / (classes - 1) * of_others
    if settings.smac_weight:
        share = (labels[:, :, None] == torch.arange(classes, device=labels.device)).to(log_p.dtype).mean(1)  # [R, C]
        wanted = share * (1 - a) + (1 - share) * a / (classes - 1)
        loss = loss + settings.smac_weight * (log_p.exp().mean(1) - wanted).abs().mean(-1)
    if settings.separation_weight:
        cosines = class_embeddings @ class_embeddings.transpose(-1, -2)  # [R, (B,) C, C]
        others = cosines.sum((-1, -2)) - torch.diagonal(cosines, dim1=-2, dim2=-1).sum(-1)
        loss = loss + settings.separation_weight * (others / (classes * (classes - 1))).view(len(loss), -1).mean(1)
    return loss
