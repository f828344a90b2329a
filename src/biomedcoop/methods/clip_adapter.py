"""CLIP-Adapter (Gao et al., IJCV 2024, arXiv 2110.04544).

Two layers adapt the image feature, and the result is mixed with the feature itself; the text side is that of zero-shot.

    f' = α · relu(W₂ relu(W₁ f)) + (1 − α) · f;   logits = s · f' · tᵀ

α is a setting in training. The α of the answers can be chosen without validation images, after the idea of HOSO (arXiv 2603.04341):
layers that are trained without a fold of the training images answer about this fold with each α of :data:`RATIOS`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.images.crops import Crops
from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, Method, Progress, State, Task, register
from biomedcoop.methods.class_embeddings import template_embeddings, text_state
from biomedcoop.methods.settings import class_template, setting
from biomedcoop.methods.training import (  # the same pieces as CoCoOp's training
    WARMUP_LR,
    Losses,
    batch_of,
    cross_entropy,
    drawn_as_linear,
    reporter,
    schedule_of,
    sgd,
    steps_in,
)
from biomedcoop.methods.validation import Validation, first_best, right_by_run

if TYPE_CHECKING:
    from torch import Tensor


RATIOS = tuple(k / 20 for k in range(21))
"""Values of α that are compared."""


@dataclass(frozen=True)
class CLIPAdapterSettings:
    """Settings of the two layers and their training."""

    ratio: float = setting(0.5, "α, share of the adapted feature in the mixture", least=0, most=1)
    search: bool = setting(False, "choose the α of the answers; training takes ratio")
    reduction: int = setting(4, "divisor: the hidden layer has 1/reduction of the width of an image feature", least=1)
    template: str = class_template("text of each class")
    epochs: int = setting(20, "passes over the training images", least=1)
    batch_size: int = setting(32, "images in a training step", least=1)
    lr: float = setting(
        0.01, "peak of the learning rate, which follows a cosine over the steps; SGD has no momentum", above=0
    )


@register
class CLIPAdapter(Method):
    name = "clip-adapter"
    title = "CLIP-Adapter"
    paper = "Gao et al. 2024, arXiv 2110.04544"
    settings_type = CLIPAdapterSettings
    abilities = Abilities(uses_images=True, retargets=True, chooses="α", otherwise="the setting ratio as α")
    parameters = "adapter: E² / 2"
    learned = ("weight1", "weight2")
    crops: ClassVar[Crops] = Crops(smallest=0.5, flip=0.5)

    def chooses(self, settings: CLIPAdapterSettings) -> str:
        return super().chooses(settings) if settings.search else ""

    def fit(
        self, task: Task, settings: CLIPAdapterSettings, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[State]:
        template = template_embeddings(task.backbone, task.class_names, settings.template)
        ratio = chosen_ratios(task, settings, template, seeds)
        weights = trained_adapter(task, settings, template, seeds, progress)
        return [
            text_state(task.backbone, template, weight1=w1, weight2=w2, ratio=r)
            for w1, w2, r in zip(*weights, ratio, strict=True)
        ]

    def logits(self, state: State, features: Tensor, backbone: Backbone) -> Tensor:
        f = F.normalize(features, dim=-1)
        adapted = adapt(f[None], state["weight1"][None], state["weight2"][None], state["ratio"])[0]
        return state["logit_scale"] * adapted @ state["class_embeddings"].T

    def retarget(self, state: State, task: Task, settings: CLIPAdapterSettings) -> State:
        template = template_embeddings(task.backbone, task.class_names, settings.template)
        return {**state, **text_state(task.backbone, template)}


def chosen_ratios(task: Task, settings: CLIPAdapterSettings, template: Tensor, seeds: Sequence[int]) -> Tensor:
    """The α of each run's answers [R], with the most right ones; in a tie the nearest to the α of the training."""
    ratios = torch.tensor(RATIOS)

    def right(part: Validation, owners: Tensor) -> Tensor:
        weights = trained_adapter(part.task, settings, template, [seeds[owner] for owner in owners.tolist()])
        f = F.normalize(part.features, dim=-1)
        answers = [(adapt(f, *weights, ratio) @ template.T).argmax(-1) == part.labels for ratio in RATIOS]
        return torch.stack([own.sum(1) for own in answers], 1)

    found = right_by_run(task, right) if settings.search else None
    if found is None:
        return torch.full((len(seeds),), settings.ratio)
    return ratios[first_best(found, (ratios - settings.ratio).abs()).cpu()]


def trained_adapter(
    task: Task,
    settings: CLIPAdapterSettings,
    template: Tensor,
    seeds: Sequence[int],
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """Weights of each run, [R, H, E] and [R, E, H]."""
    weights = tuple(w.requires_grad_() for w in initial_adapter(task.backbone, settings.reduction, seeds))
    schedule = schedule_of(task, settings, seeds)
    sgd(
        weights,
        adapter_losses(task, settings, template, weights),
        ((index, rate) for (index, _), rate in zip(schedule, rates(settings.epochs, settings.lr), strict=False)),
        momentum=0.0,
        weight_decay=0.0,
        on_step=reporter(progress, steps_in(task.n_images, settings.batch_size, settings.epochs)),
    )
    down, up = (w.detach() for w in weights)
    return down, up


def adapt(f: Tensor, weight1: Tensor, weight2: Tensor, ratio: float | Tensor) -> Tensor:
    """Adapt unit-norm features [R, N, E]; the result has the same shape and is not normalised again."""
    hidden = (f @ weight1.transpose(1, 2)).relu()
    return ratio * (hidden @ weight2.transpose(1, 2)).relu() + (1 - ratio) * f


def adapter_losses(task: Task, settings: CLIPAdapterSettings, template: Tensor, weights: Sequence[Tensor]) -> Losses:
    """Cross-entropy [R, 1] of a batch [R, B]."""
    batch, scale = batch_of(task), task.backbone.logit_scale

    def losses(index: Tensor) -> Tensor:
        f, y = batch(index)
        logits = scale * adapt(f, weights[0], weights[1], settings.ratio) @ template.T
        return cross_entropy(logits.log_softmax(-1), y)[:, None]

    return losses


def initial_adapter(backbone: Backbone, reduction: int, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Weights of each run, drawn as ``torch.nn.Linear`` does: [R, H, E] and [R, E, H]."""
    e = backbone.embed_dim
    h = max(1, e // reduction)
    down, up = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        down.append(drawn_as_linear((h, e), e, generator))
        up.append(drawn_as_linear((e, h), h, generator))
    return tuple(torch.stack(w).to(backbone.device, backbone.learning_dtype) for w in (down, up))  # type: ignore[return-value]


def rates(epochs: int, peak: float) -> Iterator[float]:
    """Learning rate of every *iteration*: 1e-5 once, then an endless cosine with a half period of ``epochs`` iterations.

    The published code does the same: it steps a schedule meant for epochs at every batch.
    """
    yield WARMUP_LR
    k = 0
    while True:
        yield 0.5 * peak * (1 + math.cos(math.pi * k / epochs))
        k += 1
