"""BiomedCoOp (Koleilat et al., CVPR 2025, arXiv 2411.15232).

Context vectors in front of the class name are learned on a frozen backbone with

    loss = CE + λ1 · SCCM + λ2 · KDSP

- SCCM: mean over C·E elements of (t_c − m_c)²; t_c is the class embedding, m_c the unit-norm mean of its sentence embeddings.
- KDSP: KL(p_teacher ‖ p); the teacher uses the sentences that the statistics-based selection keeps on this batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, Task, register
from biomedcoop.methods.context import ContextMethod, ContextSettings, Embeddings
from biomedcoop.methods.selection import select_sentences, sentence_scores
from biomedcoop.methods.settings import setting
from biomedcoop.methods.training import Losses, batch_of, cross_entropy

if TYPE_CHECKING:
    from torch import Tensor

ROWS_PER_PART = 1024


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

    def losses(self, task: Task, settings: BiomedCoOpSettings, embeddings: Embeddings) -> Losses:
        """Terms: CE, λ1·SCCM, λ2·KDSP."""
        assert task.sentence_features is not None
        batch, scale = batch_of(task), task.backbone.logit_scale
        teacher = F.normalize(task.sentence_features[:, : settings.n_sentences], dim=-1)  # [C, P, E]
        mean = F.normalize(teacher.mean(1), dim=-1)  # [C, E]
        scores = torch.cat(  # [R, N·V, P]; in parts, because a view for each epoch makes many rows
            [
                sentence_scores(scale * torch.einsum("rne,cpe->rncp", F.normalize(part, dim=-1), teacher))
                for part in torch.split(task.features, ROWS_PER_PART, dim=1)
            ],
            dim=1,
        )
        runs = torch.arange(len(scores), device=scores.device)[:, None]

        def losses(index: Tensor) -> Tensor:
            f, y = batch(index)  # [R, B, E], [R, B]
            t = embeddings()  # [R, C, E]
            log_p = (scale * f @ t.transpose(1, 2)).log_softmax(-1)  # [R, B, C]
            sccm = (t - mean).square().mean((1, 2))
            kept = select_sentences(scores[runs, index].mean(1), settings.threshold).to(f.dtype)  # [R, P]
            selected = F.normalize(
                torch.einsum("rp,cpe->rce", kept, teacher), dim=-1
            )  # the sum has the direction of the mean
            log_q = (scale * f @ selected.transpose(1, 2)).log_softmax(-1)
            # divided by B·C, as published, where the Kullback-Leibler divergence of a batch would be divided by B
            kdsp = (log_q.exp() * (log_q - log_p)).mean((1, 2))
            terms = [cross_entropy(log_p, y), settings.sccm_weight * sccm, settings.kdsp_weight * kdsp]
            return torch.stack(terms, dim=1)

        return losses
