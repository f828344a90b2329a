"""Tip-Adapter-F (Zhang et al., ECCV 2022, arXiv 2207.09057): the keys of Tip-Adapter's cache are trained.

Keys start as the features of the support images and are trained with the cross-entropy; values do not change. A trial with each of
the cache weights α = 0, 1, … starts from the initial keys; the trial with the best validation accuracy is kept. Then α and β are
searched as in Tip-Adapter. In the published biomedical code, the trials share their keys, and its last training changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, Progress, State, Task, register
from biomedcoop.methods.class_embeddings import template_embeddings
from biomedcoop.methods.settings import setting
from biomedcoop.methods.tip_adapter import TipAdapter, TipAdapterSettings, cache_of, cached_states, from_cache
from biomedcoop.methods.training import AdamW, Losses, OnStep, batch_of, descend, reporter, schedule_of, steps_in

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
    abilities = Abilities(uses_images=True, needs_validation=True)
    parameters = "keys: N × E"

    def fit(
        self,
        task: Task,
        settings: TipAdapterFSettings,  # type: ignore[override]
        seeds: Sequence[int],
        progress: Progress | None = None,
    ) -> list[State]:
        assert task.val_features is not None
        assert task.val_labels is not None
        start, values = cache_of(task)
        keys = start[:, None].repeat(1, settings.trials, 1, 1).requires_grad_()  # [R, A, N, E]
        alphas = torch.arange(settings.trials, dtype=keys.dtype, device=keys.device)
        text = scaled_text(task, settings)
        total = steps_in(task.n_images, settings.batch_size, settings.epochs)
        losses = key_losses(task, text, settings.beta, keys, values, alphas)
        schedule = schedule_of(task, settings, seeds)
        train_keys(keys, losses, [index for index, _ in schedule], settings, reporter(progress, total))
        with torch.no_grad():
            f = F.normalize(task.val_features, dim=-1)[:, None]  # [R, 1, V, E]
            logits = cache_logits(f, text, settings.beta, keys, values[:, None], alphas)  # [R, A, V, C]
            best = keys.detach()[torch.arange(len(seeds)), best_trial(logits, task.val_labels)]
            return cached_states(task, settings, best, values)


def best_trial(logits: Tensor, labels: Tensor) -> Tensor:
    """Trial with the most correct validation images, [R], from logits [R, A, V, C] and labels [R, V]; the first wins a tie."""
    return (logits.argmax(-1) == labels[:, None]).sum(-1).argmax(1)


def scaled_text(task: Task, settings: TipAdapterSettings) -> Tensor:
    """Scaled class embeddings s · t, [C, E]."""
    template = template_embeddings(task.backbone, task.class_names, settings.template)
    return (settings.logit_scale or task.backbone.logit_scale) * template


def cache_logits(f: Tensor, text: Tensor, beta: float, keys: Tensor, values: Tensor, alphas: Tensor) -> Tensor:
    """Logits [R, A, B, C] of unit-norm features [R, 1, B, E] with the keys [R, A, N, E] of each trial."""
    return f @ text.T + alphas[:, None, None] * from_cache(f @ keys.transpose(2, 3), values, beta)


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
