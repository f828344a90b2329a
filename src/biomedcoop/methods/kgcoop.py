"""KgCoOp: knowledge-guided context optimisation (Yao et al., CVPR 2023, arXiv 2303.13283).

    loss = CE + W · (1 − mean_c cos(t_c, t⁰_c))

t_c is the embedding of class c with the learned context, t⁰_c that of the template (on the sphere the paper's squared distance is
twice one minus the cosine).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from biomedcoop.data.catalogue import Recipe
from biomedcoop.lazy import torch
from biomedcoop.methods.base import Abilities, Task, register, require_range, require_template, template_embeddings
from biomedcoop.methods.context import ContextMethod, ContextSettings, Embeddings
from biomedcoop.methods.training import Losses, batch_of, cross_entropy

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class KgCoOpSettings(ContextSettings):
    """
    Attributes:
        weight: W, of the distance to the template's embedding.
        template: text with ``{}`` where the class name goes, which the learned prompt stays near to.
    """

    batch_size: int = 128
    weight: float = 1.0
    template: str = "a photo of a {}."


@register
class KgCoOp(ContextMethod):
    name = "kgcoop"
    title = "KgCoOp"
    paper = "Yao et al. 2023, arXiv 2303.13283"
    settings_type = KgCoOpSettings
    abilities = Abilities(uses_images=True, retargets=True)
    tuned: ClassVar[Mapping[str, Any]] = {"weight": 1.0, "lr": 0.01}
    fast: ClassVar[Mapping[str, Any]] = {
        "epochs": 8,
        "warmup_epochs": 0,
        "lr": 0.7,
        "momentum": 0.5,
        "max_norm": 0.5,
    }

    def published(self, recipe: Recipe | None, base_to_novel: bool) -> Mapping[str, Any]:
        if base_to_novel:
            return {"epochs": 50, "weight": 8.0}
        return {"weight": recipe.kgcoop_weight} if recipe else {}

    def check(self, settings: KgCoOpSettings) -> None:
        super().check(settings)
        require_range(self.name, settings, 0, "weight")
        require_template(self.name, settings)

    def losses(self, task: Task, settings: KgCoOpSettings, embeddings: Embeddings) -> Losses:
        batch, scale = batch_of(task), task.backbone.logit_scale
        template = template_embeddings(task.backbone, task.class_names, settings.template)  # [C, E]

        def losses(index: Tensor) -> Tensor:
            f, y = batch(index)  # [R, B, E], [R, B]
            t = embeddings()  # [R, C, E]
            ce = cross_entropy((scale * f @ t.transpose(1, 2)).log_softmax(-1), y)
            away = 1 - (t * template).sum(-1).mean(1)
            return torch.stack([ce, settings.weight * away], dim=1)

        return losses
