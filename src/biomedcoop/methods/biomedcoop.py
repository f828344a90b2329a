"""BiomedCoOp (Koleilat et al., CVPR 2025, arXiv 2411.15232).

Four context vectors in front of the class name are learned on a frozen backbone with

    loss = CE + λ1 · SCCM + λ2 · KDSP

- SCCM: mean over C·E elements of (t_c − m_c)², t_c the class embedding, m_c the unit-norm mean of the class's sentence embeddings;
- KDSP: KL(p_teacher ‖ p), the teacher made of the sentences that survive the statistics-based selection on this batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from biomedcoop.data.catalogue import Recipe
from biomedcoop.methods.base import Abilities, Method, Progress, State, Task, register, require, text_state
from biomedcoop.methods.context import ClassPrompts
from biomedcoop.methods.selection import select_sentences, sentence_scores
from biomedcoop.methods.training import batches, reporter, sgd, steps_in


@dataclass(frozen=True)
class BiomedCoOpSettings:
    """
    Attributes:
        sccm_weight: λ1.
        kdsp_weight: λ2.
        threshold: τ of the sentence selection, in standard deviations.
        n_sentences: sentences used per class, the first ones.
        context_words: initial words of the context; their tokens are what is learned.
        epochs, batch_size, lr, momentum, weight_decay: SGD; the schedule is cosine with one warm-up epoch.
    """

    sccm_weight: float = 1.0
    kdsp_weight: float = 1.0
    threshold: float = 1.5
    n_sentences: int = 50
    context_words: str = "a photo of a"
    epochs: int = 100
    batch_size: int = 4
    lr: float = 0.0025
    momentum: float = 0.9
    weight_decay: float = 5e-4


@register
class BiomedCoOp(Method):
    name = "biomedcoop"
    title = "BiomedCoOp"
    paper = "Koleilat et al. 2025, arXiv 2411.15232"
    settings_type = BiomedCoOpSettings
    abilities = Abilities(trains=True, uses_sentences=True, retargets=True)

    def published(self, recipe: Recipe) -> Mapping[str, Any]:
        weights = recipe.few_shot
        return {"sccm_weight": weights.sccm, "kdsp_weight": weights.kdsp, "threshold": weights.threshold}

    def check(self, settings: BiomedCoOpSettings) -> None:
        for name in ("sccm_weight", "kdsp_weight", "momentum", "weight_decay"):
            value = getattr(settings, name)
            require(0 <= value < float("inf"), self.name, name, value, "zero or more")
        for name in ("threshold", "lr"):
            value = getattr(settings, name)
            require(0 < value < float("inf"), self.name, name, value, "above zero")
        for name in ("n_sentences", "epochs", "batch_size"):
            require(getattr(settings, name) >= 1, self.name, name, getattr(settings, name), "at least 1")

    def fit(
        self, task: Task, settings: BiomedCoOpSettings, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[State]:
        prompts = ClassPrompts(task.backbone, task.class_names, settings.context_words)
        context = prompts.initial_context.repeat(len(seeds), 1, 1).requires_grad_()  # [R, M, D]
        n = task.labels.shape[1]
        sgd(
            [context],
            biomedcoop_losses(task, settings, prompts, context),
            batches(n, settings.batch_size, settings.epochs, settings.lr, seeds),
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            on_step=reporter(progress, steps_in(n, settings.batch_size, settings.epochs)),
        )
        with torch.no_grad():
            embeddings = prompts.encode(context)  # [R, C, E]
        return [text_state(task.backbone, t, context=ctx) for t, ctx in zip(embeddings, context, strict=True)]


def biomedcoop_losses(
    task: Task, settings: BiomedCoOpSettings, prompts: ClassPrompts, context: Tensor
) -> Callable[[Tensor], Tensor]:
    """The loss as a function of batch indices [R, B] -> [R, 3]: CE, λ1·SCCM, λ2·KDSP.

    All that does not depend on the context is computed here, once: the backbone is frozen.
    """
    assert task.sentence_features is not None
    scale = task.backbone.logit_scale
    features = F.normalize(task.features, dim=-1)  # [R, N, E]
    teacher = F.normalize(task.sentence_features[:, : settings.n_sentences], dim=-1)  # [C, P, E]
    mean = F.normalize(teacher.mean(1), dim=-1)  # [C, E]
    similarities = scale * torch.einsum("rne,cpe->rncp", features, teacher)
    scores = sentence_scores(similarities)  # [R, N, P]
    runs = torch.arange(len(features), device=features.device)[:, None]

    def losses(index: Tensor) -> Tensor:
        f, y = features[runs, index], task.labels[runs, index]  # [R, B, E], [R, B]
        t = F.normalize(prompts.encode(context), dim=-1)  # [R, C, E]
        log_p = (scale * f @ t.transpose(1, 2)).log_softmax(-1)  # [R, B, C]
        ce = -log_p.gather(2, y[:, :, None]).mean((1, 2))
        sccm = (t - mean).square().mean((1, 2))
        kept = select_sentences(scores[runs, index].mean(1), settings.threshold).to(f.dtype)  # [R, P]
        selected = F.normalize(
            torch.einsum("rp,cpe->rce", kept, teacher), dim=-1
        )  # the sum has the direction of the mean
        log_q = (scale * f @ selected.transpose(1, 2)).log_softmax(-1)
        # divided by B·C, as published, where the Kullback-Leibler divergence of a batch would be divided by B
        kdsp = (log_q.exp() * (log_q - log_p)).mean((1, 2))
        return torch.stack([ce, settings.sccm_weight * sccm, settings.kdsp_weight * kdsp], dim=1)

    return losses
