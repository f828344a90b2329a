"""RLA (Fahes et al. 2024, arXiv 2410.05270): ProLIP's rule on stored features, a matrix that starts as the identity.

    logits = s · n(W f) · tᵀ;   loss = cross-entropy + λ ‖W − I‖²

ProLIP trains the last projection of the image tower, with λ = 1/K for K images of each class and ‖·‖ the Frobenius norm, by Adam
for 300 steps on all images at once and a cosine to 0. RLA does so with an E × E matrix behind the projection. The published code
takes another random crop of every image in each step; here every step takes all rows. For classes of different size, K is the mean
number of images. The text side does not change, so W serves new classes, and a class without a training image keeps its words.
The published values hold in every recipe: with ``mini``, ten times the learning rate gained less than a point on validation images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.projection import Projection
from biomedcoop.data.images.crops import Crops
from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, Method, Progress, State, Task, register
from biomedcoop.methods.class_embeddings import template_embeddings, text_state
from biomedcoop.methods.settings import class_template, setting
from biomedcoop.methods.training import AdamW, Gradients, Losses, cross_entropy, descend, reporter

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
        x, start = (
            self.inputs(task.features),
            Projection(*(part.to(task.features) for part in self.start(task.backbone))),
        )
        offset = x.new_zeros(len(x), *start.weight.shape)
        penalty = settings.penalty or len(text) / task.n_images
        index, steps = torch.arange(x.shape[1]).expand(len(x), -1), settings.epochs
        rates = (0.5 * settings.lr * (1 + math.cos(math.pi * step / steps)) for step in range(steps))
        losses, gradients = objective(x, task.labels, text, task.backbone.logit_scale, penalty, start, offset)
        descend(
            AdamW([offset], eps=1e-4, weight_decay=0.0),
            [offset],
            losses,
            [(index, rate) for rate in rates],
            gradients=gradients,
            on_step=reporter(progress, steps),
        )
        trained = (Projection(start.weight + own, start.bias) for own in offset)
        return [text_state(task.backbone, text, **self.kept(one)) for one in trained]

    def start(self, backbone: Backbone) -> Projection:
        """The matrix before training."""
        e = backbone.embed_dim
        return Projection(torch.eye(e, device=backbone.device), torch.zeros(e, device=backbone.device))

    def inputs(self, features: Tensor) -> Tensor:
        """What the matrix takes, from raw image features [..., E]."""
        return F.normalize(features, dim=-1)

    def kept(self, trained: Projection) -> State:
        """What a state holds of a trained matrix."""
        return {"matrix": trained.weight}

    def logits(self, state: State, features: Tensor, backbone: Backbone) -> Tensor:
        trained = Projection(state["matrix"], state.get("bias", torch.zeros((), device=features.device)))
        return state["logit_scale"] * turned(self.inputs(features), trained) @ state["class_embeddings"].T

    def retarget(self, state: State, task: Task, settings: RLASettings) -> State:
        return {
            **state,
            **text_state(task.backbone, template_embeddings(task.backbone, task.class_names, settings.template)),
        }


def turned(x: Tensor, projection: Projection) -> Tensor:
    """Unit-norm features [..., N, E] behind a matrix."""
    return F.normalize(x @ projection.weight.mT + projection.bias, dim=-1)


def objective(
    x: Tensor, labels: Tensor, text: Tensor, scale: float, penalty: float, start: Projection, offset: Tensor
) -> tuple[Losses, Gradients]:
    """Cross-entropy and penalty [R, 2] of the offsets W − W₀ [R, E, W] on all inputs [R, N, W], whatever the batch; their gradient.

    Autograd stops at the moved features [R, N, E]. From there on the gradient is one product of matrices, which adds the penalty's.
    """
    before = x @ start.weight.mT + start.bias
    moved = before

    def losses(_index: Tensor) -> Tensor:
        nonlocal moved
        moved = torch.baddbmm(before, x, offset.mT).requires_grad_()
        logits = scale * F.normalize(moved, dim=-1) @ text.T
        held = penalty * torch.linalg.vector_norm(offset, dim=(1, 2)).square()
        return torch.stack([cross_entropy(logits.log_softmax(-1), labels), held], 1)

    def gradients(terms: Tensor, _parameters: Sequence[Tensor]) -> list[Tensor]:
        (along,) = torch.autograd.grad(terms.sum(), moved)
        return [torch.baddbmm(offset, along.mT, x, beta=2 * penalty)]

    return losses, gradients
