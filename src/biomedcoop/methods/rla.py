"""RLA (Fahes et al. 2024, arXiv 2410.05270): ProLIP's rule on stored features, a matrix that starts as the identity.

    logits = s · n(W f) · tᵀ;   loss = cross-entropy + λ ‖W − I‖²

ProLIP trains the last projection of the image tower, with λ = 1/K for K images of each class and ‖·‖ the Frobenius norm, by Adam
for 300 steps on all images at once and a cosine to 0. RLA does so with an E × E matrix behind the projection. The published code
takes another random crop of every image in each step; here every step takes all rows. For classes of different size, K is the mean
number of images. The text side does not change, so W serves new classes, and a class without a training image keeps its words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.images.crops import Crops
from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, Method, Progress, State, Task, register
from biomedcoop.methods.class_embeddings import template_embeddings, text_state
from biomedcoop.methods.settings import class_template, setting
from biomedcoop.methods.training import AdamW, Losses, cross_entropy, descend, reporter

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RLASettings:
    """Settings of the text side and of the training."""

    template: str = class_template("text of each class")
    penalty: float = setting(
        0.0, "λ, weight of the distance to the identity; 0 for 1/K with K images per class", least=0
    )
    epochs: int = setting(300, "training steps, each on all training images", least=1)
    lr: float = setting(1e-4, "peak of the learning rate of Adam, which follows a cosine to 0", above=0)


@register
class RLA(Method):
    name = "rla"
    title = "RLA (ProLIP on features)"
    paper = "Fahes et al. 2024, arXiv 2410.05270"
    settings_type = RLASettings
    abilities = Abilities(uses_images=True, retargets=True, needs_all_views=True)
    parameters = "matrix: E²"
    learned = ("matrix",)
    crops: ClassVar[Crops] = Crops(smallest=0.5, flip=0.5)

    def fit(
        self, task: Task, settings: RLASettings, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[State]:
        text = template_embeddings(task.backbone, task.class_names, settings.template)
        f = F.normalize(task.features, dim=-1)
        matrix = torch.eye(f.shape[-1], dtype=f.dtype, device=f.device).repeat(len(f), 1, 1).requires_grad_()
        penalty = settings.penalty or len(text) / task.n_images
        index, steps = torch.arange(f.shape[1]).expand(len(f), -1), settings.epochs
        rates = (0.5 * settings.lr * (1 + math.cos(math.pi * step / steps)) for step in range(steps))
        descend(
            AdamW([matrix], eps=1e-4, weight_decay=0.0),
            [matrix],
            losses_of(f, task.labels, text, task.backbone.logit_scale, penalty, matrix),
            [(index, rate) for rate in rates],
            on_step=reporter(progress, steps),
        )
        return [text_state(task.backbone, text, matrix=own) for own in matrix]

    def logits(self, state: State, features: Tensor, backbone: Backbone) -> Tensor:
        turned = F.normalize(F.normalize(features, dim=-1) @ state["matrix"].T, dim=-1)
        return state["logit_scale"] * turned @ state["class_embeddings"].T

    def retarget(self, state: State, task: Task, settings: RLASettings) -> State:
        return {
            **state,
            **text_state(task.backbone, template_embeddings(task.backbone, task.class_names, settings.template)),
        }


def losses_of(f: Tensor, labels: Tensor, text: Tensor, scale: float, penalty: float, matrix: Tensor) -> Losses:
    """Cross-entropy and penalty [R, 2] of the matrices [R, E, E] on all unit-norm features [R, N, E], whatever the batch."""
    identity = torch.eye(f.shape[-1], dtype=f.dtype, device=f.device)

    def losses(_index: Tensor) -> Tensor:
        logits = scale * F.normalize(f @ matrix.mT, dim=-1) @ text.T
        held = penalty * (matrix - identity).square().sum((1, 2))
        return torch.stack([cross_entropy(logits.log_softmax(-1), labels), held], 1)

    return losses
