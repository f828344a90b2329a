"""BiomedCoOp (Koleilat et al., CVPR 2025, arXiv 2411.15232).

Context vectors in front of the class name are learned on a frozen backbone with

    loss = CE + λ1 · SCCM + λ2 · KDSP

- SCCM: mean over C·E elements of (t_c − m_c)², t_c the class embedding, m_c the unit-norm mean of the class's sentence embeddings;
- KDSP: KL(p_teacher ‖ p), the teacher made of the sentences that survive the statistics-based selection on this batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from biomedcoop.data.catalogue import Recipe
from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, Task, register, require_range
from biomedcoop.methods.context import ContextMethod, ContextSettings, Embeddings
from biomedcoop.methods.selection import select_sentences, sentence_scores
from biomedcoop.methods.training import Losses, batch_of, cross_entropy

if TYPE_CHECKING:
    from torch import Tensor

ROWS_PER_PART = 1024


@dataclass(frozen=True)
class BiomedCoOpSettings(ContextSettings):
    """
    Attributes:
        sccm_weight: λ1; 0 switches SCCM off.
        kdsp_weight: λ2; 0 switches KDSP off.
        threshold: τ of the sentence selection, in standard deviations.
        n_sentences: most sentences used per class, the first ones.
    """

    batch_size: int = 4
    lr: float = 0.0025
    sccm_weight: float = 1.0
    kdsp_weight: float = 1.0
    threshold: float = 1.5
    n_sentences: int = 50


@register
class BiomedCoOp(ContextMethod):
    name = "biomedcoop"
    title = "BiomedCoOp"
    paper = "Koleilat et al. 2025, arXiv 2411.15232"
    settings_type = BiomedCoOpSettings
    abilities = Abilities(uses_images=True, uses_sentences=True, retargets=True)
    tuned: ClassVar[Mapping[str, Any]] = {"sccm_weight": 5.0, "kdsp_weight": 0.25}
    fast: ClassVar[Mapping[str, Any]] = {
        "kdsp_weight": 0.1,
        "epochs": 9,
        "warmup_epochs": 0,
        "batch_size": 6,
        "lr": 0.4,
        "momentum": 0.8,
        "max_norm": 0.5,
    }

    def published(self, recipe: Recipe | None, base_to_novel: bool) -> Mapping[str, Any]:
        weights = None if recipe is None else recipe.base_to_novel if base_to_novel else recipe.few_shot
        own = (
            {"sccm_weight": weights.sccm, "kdsp_weight": weights.kdsp, "threshold": weights.threshold}
            if weights
            else {}
        )
        return {**super().published(recipe, base_to_novel), **own}

    def check(self, settings: BiomedCoOpSettings) -> None:
        super().check(settings)
        require_range(self.name, settings, 0, "sccm_weight", "kdsp_weight")
        require_range(self.name, settings, 0, "threshold", above=True)
        require_range(self.name, settings, 1, "n_sentences")

    def losses(self, task: Task, settings: BiomedCoOpSettings, embeddings: Embeddings) -> Losses:
        """Terms: CE, λ1·SCCM, λ2·KDSP."""
        assert task.sentence_features is not None
        batch, scale = batch_of(task), task.backbone.logit_scale
        teacher = F.normalize(task.sentence_features[:, : settings.n_sentences], dim=-1)  # [C, P, E]
        mean = F.normalize(teacher.mean(1), dim=-1)  # [C, E]
        scores = torch.cat(  # [R, N·V, P]; in parts, as a view for each epoch makes many rows
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
