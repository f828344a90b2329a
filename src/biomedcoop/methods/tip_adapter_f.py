"""Tip-Adapter-F (Zhang et al., ECCV 2022, arXiv 2207.09057): the keys of Tip-Adapter's cache are trained.

Keys start as the features of the support images and are trained with the cross-entropy; values do not change. A trial with each of
the cache weights α = 0, 1, … starts from the initial keys; the best on validation images, or in a cross-validation, is kept. Then
α and β are searched as in Tip-Adapter. In the published biomedical code, the trials share their keys, and its last training changes
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, Progress, Task, register
from biomedcoop.methods.settings import setting
from biomedcoop.methods.tip_adapter import (
    DEFAULT_WEIGHTS,
    TipAdapter,
    TipAdapterSettings,
    Weights,
    cache_of,
    chosen_weights,
    from_cache,
)
from biomedcoop.methods.training import AdamW, Losses, OnStep, batch_of, descend, reporter, schedule_of, steps_in
from biomedcoop.methods.validation import Validation, validations

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TipAdapterFSettings(TipAdapterSettings):
    """Settings of :class:`TipAdapterSettings` and of the training of the keys by AdamW (eps 1e-4)."""

    trials: int = setting(10, "number of values 0, 1, … of α to try in training", least=1)
    beta: float = setting(1.0, "β in training", least=0, most=1000)
    epochs: int = setting(20, "passes over the training images", least=1)
    batch_size: int = setting(256, "images in a training step", least=1)
    lr: float = setting(0.001, "peak of the learning rate of AdamW, which follows a cosine over all steps", above=0)
    weight_decay: float = setting(0.01, "weight decay of AdamW", least=0, most=1000)


@register
class TipAdapterF(TipAdapter):
    name = "tip-adapter-f"
    title = "Tip-Adapter-F"
    settings_type = TipAdapterFSettings
    abilities = Abilities(
        uses_images=True,
        chooses="the α of the training, β and α",
        otherwise="untrained keys, β = {:g} and α = {:g}".format(*DEFAULT_WEIGHTS),
    )
    parameters = "keys: N × E"
    learned: ClassVar[tuple[str, ...]] = ("keys",)

    def cache(
        self,
        task: Task,
        text: Tensor,
        settings: TipAdapterFSettings,
        seeds: Sequence[int],
        progress: Progress | None,
    ) -> tuple[Tensor, Tensor, list[Weights]]:
        chosen = [chosen_trial(validations(task, run), text, settings, seed) for run, seed in enumerate(seeds)]
        trials = torch.tensor([[float(trial)] for trial, _ in chosen], device=text.device)  # [R, 1]
        keys, values = trained_cache(task, text, settings, seeds, trials, progress)
        return keys[:, 0], values, [weights for _, weights in chosen]


def chosen_trial(
    parts: Sequence[Validation], text: Tensor, settings: TipAdapterFSettings, seed: int
) -> tuple[int, Weights]:
    """The trial with the most right answers in all parts together, the first in a tie, and the best β and α with its keys.

    Without parts it is the trial with α = 0, where the keys learn nothing, with Tip-Adapter's default β and α.
    """
    if not parts:
        return 0, DEFAULT_WEIGHTS
    alphas = torch.arange(settings.trials, dtype=text.dtype, device=text.device)
    right, caches = torch.zeros(settings.trials, dtype=torch.int64, device=text.device), []
    for part in parts:
        keys, values = trained_cache(part.task, text, settings, [seed], alphas[None])
        f = F.normalize(part.features, dim=-1)[:, None]
        logits = cache_logits(f, text, settings.beta, keys, values[:, None], alphas)  # [1, A, V, C]
        right += (logits.argmax(-1) == part.labels[:, None]).sum(-1)[0]
        caches.append((part, keys[0], values))
    best = int(right.argmax())
    return best, chosen_weights([(part, k[best][None], v) for part, k, v in caches], text, settings)


def trained_cache(
    task: Task,
    text: Tensor,
    settings: TipAdapterFSettings,
    seeds: Sequence[int],
    alphas: Tensor,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """Keys [R, A, N, E] trained with each of A cache weights ``alphas`` [R, A], and values [R, N, C]."""
    start, values = cache_of(task)
    keys = start[:, None].repeat(1, alphas.shape[1], 1, 1).requires_grad_()
    losses = key_losses(task, text, settings.beta, keys, values, alphas)
    order = [index for index, _ in schedule_of(task, settings, seeds)]
    total = steps_in(task.n_images, settings.batch_size, settings.epochs)
    train_keys(keys, losses, order, settings, reporter(progress, total))
    return keys.detach(), values


def cache_logits(f: Tensor, text: Tensor, beta: float, keys: Tensor, values: Tensor, alphas: Tensor) -> Tensor:
    """Logits [R, A, B, C] of unit-norm features [R, 1, B, E] with the keys [R, A, N, E] of each trial; α is [A] or [R, A]."""
    return f @ text.T + alphas[..., None, None] * from_cache(f @ keys.transpose(2, 3), values, beta)


def key_losses(task: Task, text: Tensor, beta: float, keys: Tensor, values: Tensor, alphas: Tensor) -> Losses:
    """Cross-entropy [R, A] of a batch [R, B], a term for each trial."""
    batch = batch_of(task)

    def losses(index: Tensor) -> Tensor:
        f, y = batch(index)
        log_p = cache_logits(f[:, None], text, beta, keys, values[:, None], alphas).log_softmax(-1)  # [R, A, B, C]
        right = log_p.gather(3, y[:, None, :, None].expand(*log_p.shape[:3], 1))
        return -right.mean((2, 3))

    return losses


def train_keys(
    keys: Tensor, losses: Losses, order: Sequence[Tensor], settings: TipAdapterFSettings, on_step: OnStep | None = None
) -> None:
    """Train the keys in place with AdamW; the learning rate of step k of n is ½ lr (1 + cos(π k / n))."""
    optimizer = AdamW([keys], eps=1e-4, weight_decay=settings.weight_decay)
    n = len(order)
    schedule = ((index, 0.5 * settings.lr * (1 + math.cos(math.pi * k / n))) for k, index in enumerate(order))
    descend(optimizer, [keys], losses, schedule, on_step=on_step)
