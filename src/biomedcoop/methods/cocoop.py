"""CoCoOp: conditional context optimisation (Zhou et al., CVPR 2022, arXiv 2203.05557).

A small network turns an image feature into one vector that is added to every context vector, so that each image has its own
prompts. The text tower therefore runs once for every image and class, in training and in prediction.

    ctx(f) = ctx + W₂ relu(W₁ f + b₁) + b₂
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from biomedcoop.backbones.base import Backbone
from biomedcoop.errors import notify
from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, Method, Progress, State, Task, register
from biomedcoop.methods.calib_prompt import label_loss
from biomedcoop.methods.context import (
    TEXTS_PER_PASS,
    ClassPrompts,
    ContextSettings,
    encode_prompts,
    prompts_for_new_classes,
    run_dropout,
    text_macs,
)
from biomedcoop.methods.settings import setting
from biomedcoop.methods.training import (
    Losses,
    batch_of,
    drawn_as_linear,
    reporter,
    schedule_of,
    sgd,
    steps_in,
)
from biomedcoop.threads import threads_for, torch_threads

if TYPE_CHECKING:
    from torch import Tensor

NETWORK = ("network.weight1", "network.bias1", "network.weight2", "network.bias2")
LEARNED = ("context", *NETWORK)


@dataclass(frozen=True)
class CoCoOpSettings(ContextSettings):
    """Settings of :class:`ContextSettings` and of the network."""

    epochs: int = 10
    batch_size: int = 1
    lr: float = 0.001
    reduction: int = setting(16, "divisor: the hidden layer has 1/reduction of the width of an image feature", least=1)


@register
class CoCoOp(Method):
    name = "cocoop"
    title = "CoCoOp"
    paper = "Zhou et al. 2022, arXiv 2203.05557"
    settings_type = CoCoOpSettings
    abilities = Abilities(uses_images=True, retargets=True, prompts_per_image=True)
    parameters = "context: M × D; network: (E + D + 1) · E/16 + D"
    learned = LEARNED

    def step_macs(self, task: Task, settings: CoCoOpSettings) -> int:
        return min(settings.batch_size, task.n_images) * text_macs(task, settings)

    def fit(
        self, task: Task, settings: CoCoOpSettings, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[State]:
        prompts = ClassPrompts(task.backbone, task.class_names, settings)
        context = prompts.initial_context(seeds)
        network = initial_network(task.backbone, settings.reduction, seeds)
        parameters = [p.requires_grad_() for p in (context, *network)]
        losses = cocoop_losses(task, settings, prompts, parameters, seeds)
        steps = steps_in(task.n_images, settings.batch_size, settings.epochs)
        prompts.prepack(steps)
        say_how_long(task, settings, losses, parameters, steps)
        sgd(
            parameters,
            losses,
            schedule_of(task, settings, seeds, settings.warmup_epochs),
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            max_norm=settings.max_norm,
            on_step=reporter(progress, steps),
            recordable=settings.text_dropout == 0,
        )
        return [cocoop_state(prompts, learned) for learned in zip(*parameters, strict=True)]

    def logits(self, state: State, features: Tensor, backbone: Backbone) -> Tensor:
        device = backbone.device
        state = {key: value.to(device) for key, value in state.items()}
        f = F.normalize(features, dim=-1).to(device, state["context"].dtype)
        fixed, slots, mask = (state[key] for key in ("prompts.fixed", "prompts.slots", "prompts.mask"))
        if not len(f):
            return features.new_zeros(0, len(fixed))
        rows = []
        texts = min(len(f) * len(fixed), TEXTS_PER_PASS)
        macs = texts * fixed.shape[1] * backbone.text_macs_per_token
        with torch_threads(threads_for(macs)):
            for part in torch.split(f, max(1, TEXTS_PER_PASS // len(fixed))):
                bias = conditional(part[None], [state[key][None] for key in NETWORK])[0]  # [B, D]
                context = state["context"] + bias.view(len(part), *(1,) * (state["context"].dim() - 1), -1)
                t = F.normalize(encode_prompts(backbone, fixed, slots, mask.bool(), context), dim=-1)  # [B, C, E]
                rows.append(state["logit_scale"] * (t @ part[:, :, None])[..., 0])
        return torch.cat(rows).to(features.device)

    def retarget(self, state: State, task: Task, settings: CoCoOpSettings) -> State:
        prompts = prompts_for_new_classes(self.name, task, settings)
        return cocoop_state(prompts, [state[key] for key in LEARNED])


def cocoop_state(prompts: ClassPrompts, learned: Sequence[Tensor]) -> State:
    """State of one run: context, network and prompts, so that prediction needs no tokenizer."""
    fixed = {
        "logit_scale": torch.tensor(prompts.backbone.logit_scale),
        "prompts.fixed": prompts.fixed,
        "prompts.slots": prompts.slots,
        "prompts.mask": prompts.mask,
    }
    return {
        key: value.detach().cpu().clone()
        for key, value in {**dict(zip(LEARNED, learned, strict=True)), **fixed}.items()
    }


def initial_network(backbone: Backbone, reduction: int, seeds: Sequence[int]) -> list[Tensor]:
    """Initial weights of the two layers of each run, drawn as by ``torch.nn.Linear``: [R, H, E], [R, H], [R, D, H], [R, D]."""
    e, d = backbone.embed_dim, backbone.token_dim
    h = max(1, e // reduction)
    runs = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        runs.append(
            [
                drawn_as_linear(shape, inputs, generator)
                for shape, inputs in (((h, e), e), ((h,), e), ((d, h), h), ((d,), h))
            ]
        )
    return [torch.stack(drawn).to(backbone.device, backbone.learning_dtype) for drawn in zip(*runs, strict=True)]


def conditional(f: Tensor, network: Sequence[Tensor]) -> Tensor:
    """Vectors [R, B, D] to add to the context, from unit-norm features [R, B, E] and the network of each run."""
    w1, b1, w2, b2 = network
    hidden = (f @ w1.transpose(1, 2) + b1[:, None]).relu()
    return hidden @ w2.transpose(1, 2) + b2[:, None]


def cocoop_losses(
    task: Task, settings: CoCoOpSettings, prompts: ClassPrompts, parameters: Sequence[Tensor], seeds: Sequence[int]
) -> Losses:
    """Cross-entropy [R, 1] of a batch [R, B]; ``parameters`` are the context and the network's four tensors."""
    batch, scale = batch_of(task), task.backbone.logit_scale
    drop = run_dropout(settings.text_dropout, seeds)
    context, *network = parameters

    def losses(index: Tensor) -> Tensor:
        f, y = batch(index)  # [R, B, E], [R, B]
        bias = conditional(f, network)  # [R, B, D]
        per_image = context[:, None] + bias.view(*bias.shape[:2], *(1,) * (context.dim() - 2), -1)  # [R, B, (C,) M, D]
        t = F.normalize(prompts.encode(per_image.flatten(0, 1), drop), dim=-1)  # [R·B, C, E]
        t = t.view(*index.shape, *t.shape[1:])
        log_p = (scale * (t @ f[..., None])[..., 0]).log_softmax(-1)  # [R, B, C]
        return label_loss(log_p, y, t, settings)[:, None]

    return losses


def say_how_long(
    task: Task, settings: CoCoOpSettings, losses: Losses, parameters: Sequence[Tensor], steps: int
) -> None:
    """Log the expected time of the training and of predictions, measured on a training step."""
    size = min(settings.batch_size, task.n_images)
    first = torch.arange(size, device=task.labels.device).repeat(len(task.labels), 1)
    seconds = 0.0
    for _ in range(2):  # the first pass also warms up
        start = time.perf_counter()
        gradient, *_ = torch.autograd.grad(losses(first).sum(), parameters)
        gradient.sum().item()  # a device may still be at work
        seconds = time.perf_counter() - start
    per_image = seconds / first.numel() / 3  # forward pass only; the backward pass takes twice as long
    notify(
        [
            "cocoop runs the text tower for every image and class: training will take about "
            f"{_duration(seconds * steps)}, and predicting {_duration(100 * per_image)} per 100 images"
        ]
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
