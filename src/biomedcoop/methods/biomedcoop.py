"""BiomedCoOp (Koleilat et al., CVPR 2025, arXiv 2411.15232).

Context vectors in front of the class name are learned on a frozen backbone with

    loss = CE + λ1 · SCCM + λ2 · KDSP

- SCCM: mean over C·E elements of (t_c − m_c)²; t_c is the class embedding, m_c the unit-norm mean of its sentence embeddings.
- KDSP: KL(p_teacher ‖ p); the teacher uses the sentences that the statistics-based selection keeps on this batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, Progress, State, Task, register
from biomedcoop.methods.calib_prompt import label_loss
from biomedcoop.methods.context import ContextMethod, ContextSettings, Embeddings
from biomedcoop.methods.selection import select_sentences, sentence_scores
from biomedcoop.methods.settings import setting
from biomedcoop.methods.training import Losses, batch_of, schedule_of

if TYPE_CHECKING:
    from torch import Tensor

ROWS_PER_PART = 1024
SENTENCE_SCORE, SENTENCE_KEPT = "sentences.score", "sentences.kept"
"""Tensors of a state that :func:`sentence_use` describes."""


@dataclass(frozen=True)
class BiomedCoOpSettings(ContextSettings):
    """Settings of :class:`ContextSettings` and of the losses SCCM and KDSP."""

    batch_size: int = 4
    lr: float = 0.0025
    sccm_weight: float = setting(1.0, "λ1, weight of SCCM; 0 switches it off", least=0)
    kdsp_weight: float = setting(1.0, "λ2, weight of KDSP; 0 switches it off", least=0)
    threshold: float = setting(1.5, "τ of the sentence selection, in standard deviations", above=0)
    n_sentences: int = setting(50, "maximum number of sentences per class; the first ones are used", least=1)


@register
class BiomedCoOp(ContextMethod):
    name = "biomedcoop"
    title = "BiomedCoOp"
    paper = "Koleilat et al. 2025, arXiv 2411.15232"
    settings_type = BiomedCoOpSettings
    abilities = Abilities(uses_images=True, uses_sentences=True, retargets=True)

    def fit(
        self, task: Task, settings: BiomedCoOpSettings, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[State]:
        states = super().fit(task, settings, seeds, progress)
        if not settings.kdsp_weight:  # the selection has no part in the training
            return states
        return [state | use for state, use in zip(states, sentence_use(task, settings, seeds), strict=True)]

    def losses(self, task: Task, settings: BiomedCoOpSettings, embeddings: Embeddings) -> Losses:
        """Terms: CE, λ1·SCCM, λ2·KDSP."""
        batch, scale = batch_of(task), task.backbone.logit_scale
        teacher = teacher_of(task, settings)  # [C, P, E]
        mean = F.normalize(teacher.mean(1), dim=-1)  # [C, E]
        scores = scores_of(task, teacher)  # [R, N·V, P]

        def losses(index: Tensor) -> Tensor:
            f, y = batch(index)  # [R, B, E], [R, B]
            t = embeddings()  # [R, C, E]
            log_p = (scale * f @ t.transpose(1, 2)).log_softmax(-1)  # [R, B, C]
            sccm = (t - mean).square().mean((1, 2))
            kept = kept_in(scores, index, settings).to(f.dtype)  # [R, P]
            selected = F.normalize(
                torch.einsum("rp,cpe->rce", kept, teacher), dim=-1
            )  # the sum has the direction of the mean
            log_q = (scale * f @ selected.transpose(1, 2)).log_softmax(-1)
            # divided by B·C, as published, where the Kullback-Leibler divergence of a batch would be divided by B
            kdsp = (log_q.exp() * (log_q - log_p)).mean((1, 2))
            terms = [label_loss(log_p, y, t, settings), settings.sccm_weight * sccm, settings.kdsp_weight * kdsp]
            return torch.stack(terms, dim=1)

        return losses


def teacher_of(task: Task, settings: BiomedCoOpSettings) -> Tensor:
    """Unit-norm features [C, P, E] of the sentences that the method reads."""
    assert task.sentence_features is not None
    return F.normalize(task.sentence_features[:, : settings.n_sentences], dim=-1)


def scores_of(task: Task, teacher: Tensor) -> Tensor:
    """Scores [R, N·V, P] of the sentence indices for each support image."""
    scale = task.backbone.logit_scale
    parts = torch.split(task.features, ROWS_PER_PART, dim=1)  # because a view for each epoch makes many rows
    unit = (F.normalize(part, dim=-1) for part in parts)
    return torch.cat([sentence_scores(scale * torch.einsum("rne,cpe->rncp", f, teacher)) for f in unit], dim=1)


def kept_in(scores: Tensor, index: Tensor, settings: BiomedCoOpSettings) -> Tensor:
    """Sentences that the selection keeps on a batch [R, B]: bool [R, P]."""
    runs = torch.arange(len(scores), device=scores.device)[:, None]
    return select_sentences(scores[runs, index].mean(1), settings.threshold)


def sentence_use(task: Task, settings: BiomedCoOpSettings, seeds: Sequence[int]) -> list[State]:
    """What the selection did in each run: for each sentence index, its mean score over the support images, and the share of the
    training steps that kept it; both float32 [P].
    """
    scores = scores_of(task, teacher_of(task, settings))
    kept = torch.zeros_like(scores[:, 0])
    indices = torch.stack([index for index, _ in schedule_of(task, settings, seeds, settings.warmup_epochs)])
    for index in indices.to(scores.device):
        kept += kept_in(scores, index, settings)
    values = zip(scores.mean(1).float().cpu(), (kept / len(indices)).float().cpu(), strict=True)
    return [{SENTENCE_SCORE: score, SENTENCE_KEPT: share} for score, share in values]
