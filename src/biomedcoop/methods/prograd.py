"""ProGrad: prompt-aligned gradient (Zhu et al., ICCV 2023, arXiv 2205.14865).

The context is learned with the cross-entropy. From its gradient g, ProGrad removes the part that opposes general knowledge,
given by the gradient h of T² · KL(zero-shot ‖ learned) at temperature T:

    g ← g − λ (g · ĥ) ĥ   where g · ĥ < 0

The zero-shot model is the teacher, as in the paper. The published biomedical code uses the student as its own teacher; the gradient
of that divergence is rounding noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from biomedcoop.lazy import torch
from biomedcoop.methods.base import Abilities, Task, register
from biomedcoop.methods.calib_prompt import label_loss
from biomedcoop.methods.class_embeddings import template_embeddings
from biomedcoop.methods.context import ContextMethod, ContextSettings, Embeddings
from biomedcoop.methods.settings import class_template, setting
from biomedcoop.methods.training import Gradients, Losses, batch_of

if TYPE_CHECKING:
    from torch import Tensor

NOISE = 1e-3


@dataclass(frozen=True)
class ProGradSettings(ContextSettings):
    """Settings of :class:`ContextSettings` and of the projection."""

    batch_size: int = 128
    temperature: float = setting(1.0, "T, divisor of both logits in the divergence", above=0, most=1000)
    projection: float = setting(
        1.0, "λ, share of the opposing part of the gradient that is removed; 0 for CoOp", least=0
    )
    template: str = class_template("text of the zero-shot teacher")


@register
class ProGrad(ContextMethod):
    name = "prograd"
    title = "ProGrad"
    paper = "Zhu et al. 2023, arXiv 2205.14865"
    settings_type = ProGradSettings
    abilities = Abilities(uses_images=True, retargets=True)

    def losses(self, task: Task, settings: ProGradSettings, embeddings: Embeddings) -> Losses:
        """Terms: the cross-entropy with the labels, and the one with the teacher, which has the gradient of the divergence."""
        batch, scale, heat = batch_of(task), task.backbone.logit_scale, settings.temperature
        template = template_embeddings(task.backbone, task.class_names, settings.template)  # [C, E]

        def losses(index: Tensor) -> Tensor:
            f, y = batch(index)  # [R, B, E], [R, B]
            t = embeddings()  # [R, C, E]
            logits = scale * f @ t.transpose(1, 2)  # [R, B, C]
            teacher = (scale * f @ template.T / heat).softmax(-1)
            general = -(teacher * (logits / heat).log_softmax(-1)).sum(-1).mean(1) * heat**2
            return torch.stack([label_loss(logits.log_softmax(-1), y, t, settings), general], dim=1)

        return losses

    def gradients(self, settings: ProGradSettings) -> Gradients:
        def projected(terms: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
            learned = torch.autograd.grad(terms[:, 0].sum(), parameters, retain_graph=True)
            general = torch.autograd.grad(terms[:, 1].sum(), parameters)
            return [project(g, h, settings.projection) for g, h in zip(learned, general, strict=True)]

        return projected


def project(learned: Tensor, general: Tensor, share: float) -> Tensor:
    """Gradients [R, ...] of each run, less ``share`` of the part that opposes ``general``.

    A gradient stays unchanged where ``general`` is shorter than a thousandth of it. A context that starts as the teacher's template
    has no divergence from the teacher, so the direction of ``general`` is that of rounding errors.
    """
    g, h = learned.flatten(1), general.flatten(1)
    length = h.norm(dim=1, keepdim=True)
    h = torch.where(length > NOISE * g.norm(dim=1, keepdim=True), h / length, 0.0)
    against = (g * h).sum(1, keepdim=True).clamp(max=0)
    return (g - share * against * h).view_as(learned)
