"""KgCoOp: knowledge-guided context optimisation (Yao et al., CVPR 2023, arXiv 2303.13283).

    loss = CE + W · (1 − mean_c cos(t_c, t⁰_c))

t_c is the embedding of class c with the learned context, t⁰_c its embedding with the template. For unit vectors, the squared
distance of the paper equals twice one minus the cosine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from biomedcoop.lazy import torch
from biomedcoop.methods.base import Abilities, Task, register
from biomedcoop.methods.calib_prompt import label_loss
from biomedcoop.methods.class_embeddings import template_embeddings
from biomedcoop.methods.context import ContextMethod, ContextSettings, Embeddings
from biomedcoop.methods.settings import class_template, setting
from biomedcoop.methods.training import Losses, batch_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class KgCoOpSettings(ContextSettings):
    """Settings of :class:`ContextSettings` and of the distance to the template."""

    batch_size: int = 128
    weight: float = setting(1.0, "W, weight of the distance to the template's embedding", least=0)
    template: str = class_template("text that the learned prompt stays near to")


@register
class KgCoOp(ContextMethod):
    name = "kgcoop"
    title = "KgCoOp"
    paper = "Yao et al. 2023, arXiv 2303.13283"
    settings_type = KgCoOpSettings
    abilities = Abilities(uses_images=True, retargets=True)

    def losses(self, task: Task, settings: KgCoOpSettings, embeddings: Embeddings) -> Losses:
        batch, scale = batch_of(task), task.backbone.logit_scale
        template = template_embeddings(task.backbone, task.class_names, settings.template)  # [C, E]

        def losses(index: Tensor) -> Tensor:
            f, y = batch(index)  # [R, B, E], [R, B]
            t = embeddings()  # [R, C, E]
            ce = label_loss((scale * f @ t.transpose(1, 2)).log_softmax(-1), y, t, settings)
            away = 1 - (t * template).sum(-1).mean(1)
            return torch.stack([ce, settings.weight * away], dim=1)

        return losses
