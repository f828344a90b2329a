"""SS-Text-U (Silva-Rodríguez and Konukoglu 2026, arXiv 2603.02959): SS-Text that also learns from images without labels.

    Z = Sinkhorn(exp(s · f_u · n(w)ᵀ)) with the classes' shares r of the labelled images
    w_c = (n_c / N) s / 2 · Σ_{i in c} f_i + s / M · Σ_j Z_jc f_j + t_c;  logits = s · f · n(w)ᵀ

From w = t, Z and w follow from each other three times. Z holds the share of each class in each of M unlabelled images: its rows add
up to 1, its columns nearly to M r. Each of ten Sinkhorn steps scales the classes first, then the images. At most 24 unlabelled
images per class are used, drawn by the seed.

A class without a labelled image gets a quarter of the smallest share of the others, before the shares are scaled to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, Method, Progress, State, Task, register
from biomedcoop.methods.class_embeddings import template_embeddings, text_state
from biomedcoop.methods.settings import class_template, setting
from biomedcoop.methods.ss_text import class_sums, unit
from biomedcoop.methods.tip_adapter import cache_of

if TYPE_CHECKING:
    from torch import Tensor

ABSENT = 4
"""A class without a labelled image gets the smallest share of the others divided by this."""


@dataclass(frozen=True)
class SSTextUSettings:
    """Settings of the text, of the weights and of the assignment of unlabelled images."""

    template: str = class_template("text of each class")
    image_weight: float = setting(
        0.0, "weight of the images beside the text, which weighs 1; 0 for the backbone's logit scale", least=0, most=1e6
    )
    logit_scale: float = setting(
        0.0, "factor s of the assignment; larger makes it harder; 0 for the backbone's own", least=0, most=1000
    )
    unlabelled_per_class: int = setting(24, "unlabelled images used, as a multiple of the number of classes", least=1)
    iterations: int = setting(3, "times that assignment and prototypes are computed", least=0)
    sinkhorn: int = setting(10, "Sinkhorn steps of each assignment", least=1)


@register
class SSTextU(Method):
    name = "ss-text-u"
    title = "SS-Text-U"
    paper = "Silva-Rodríguez and Konukoglu 2026, arXiv 2603.02959"
    settings_type = SSTextUSettings
    abilities = Abilities(uses_images=True, needs_all_views=True, uses_unlabelled=True, closed_form=True)
    parameters = "nothing"
    learned: ClassVar[tuple[str, ...]] = ()

    def fit(
        self, task: Task, settings: SSTextUSettings, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[State]:
        assert task.unlabelled is not None
        text = template_embeddings(task.backbone, task.class_names, settings.template)
        pool, most = unit(task.unlabelled), settings.unlabelled_per_class * len(text)
        unlabelled = torch.stack([pool[drawn(len(pool), most, seed).to(pool.device)] for seed in seeds])
        own = task.backbone.logit_scale
        w = prototypes(
            *cache_of(task), unlabelled, text, settings.image_weight or own, settings.logit_scale or own, settings
        )
        return [text_state(task.backbone, w_r) for w_r in w]


def drawn(total: int, most: int, seed: int) -> Tensor:
    """At most ``most`` of ``total`` positions, int64, in order."""
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    return order[:most].sort().values


def prototypes(
    f: Tensor,
    one_hot: Tensor,
    unlabelled: Tensor,
    text: Tensor,
    weight: float,
    scale: float,
    settings: SSTextUSettings,
) -> Tensor:
    """Prototypes [R, C, E] before they are scaled to unit norm.

    Args:
        f, one_hot: unit-norm features [R, N, E] of the labelled images and their labels [R, N, C].
        unlabelled: unit-norm features [R, M, E].
        text: text of each class, [C, E].
        weight: weight of the images beside the text.
        scale: factor of the cosines in the assignment.
    """
    share = one_hot.mean(1)  # [R, C]
    labelled = weight / 2 * share[..., None] * class_sums(f, one_hot) + text
    if settings.iterations == 0:
        return labelled
    marginal = shares(share)
    w = text.expand_as(labelled)
    for _ in range(settings.iterations):
        z = assigned(scale * unlabelled @ unit(w).transpose(1, 2), marginal, settings.sinkhorn)
        w = labelled + weight / unlabelled.shape[1] * class_sums(unlabelled, z)
    return w


def shares(share: Tensor) -> Tensor:
    """Shares [R, C] of the classes, with a positive one for each class without an image; they add up to 1."""
    least = share.masked_fill(share == 0, torch.inf).amin(1, keepdim=True)
    return F.normalize(torch.where(share > 0, share, least / ABSENT), p=1, dim=1)


def assigned(scores: Tensor, marginal: Tensor, steps: int) -> Tensor:
    """Sinkhorn's assignment Z [R, M, C] of scores [R, M, C] to shares [R, C].

    In logarithms, because exp of a score of 100 is beyond single precision.
    """
    images = scores.shape[1]
    log_z = scores - scores.flatten(1).logsumexp(1)[:, None, None]
    for _ in range(steps):
        log_z = log_z - log_z.logsumexp(1, keepdim=True) + marginal.log()[:, None]
        log_z = log_z - log_z.logsumexp(2, keepdim=True) - torch.tensor(images).log()
    return images * log_z.exp()
