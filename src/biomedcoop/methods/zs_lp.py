"""ZS-LP (Silva-Rodríguez et al., CVPR 2024, arXiv 2312.12730): a linear probe by cosines that starts as zero-shot.

    logits = s · f · n(w);   w_c starts as the text embedding of class c

w is trained by gradient descent with momentum on the cross-entropy of all training images at once, for 300 epochs. As published, w
starts as the text embedding before normalisation: the norm of w divides the gradient, so it decides how far a step turns w. The
published code draws at most 256 rows for a step; here every step takes all rows. Its medical version (arXiv 2506.06076) trains
without the epoch of warm-up. The gradient is written out: with unit-norm n_c, probabilities p and one-hot labels y of N rows,

    g_c = s / N Σ_i (p_ic − y_ic) f_i;   ∂/∂w_c = (g_c − (g_c · n_c) n_c) / ‖w_c‖

A class without a training image is pushed away from the images of the others, as a class that none of them shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from biomedcoop.data.images.crops import Crops
from biomedcoop.errors import UserError
from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, Method, Progress, State, Task, register
from biomedcoop.methods.class_embeddings import template_embeddings, text_state
from biomedcoop.methods.settings import class_template, setting
from biomedcoop.methods.training import cross_entropy, learning_rate, reporter

if TYPE_CHECKING:
    from torch import Tensor

OnEpoch = Callable[[int, "Tensor"], None]
"""Callback with the number of an epoch (0-based) and the losses [R] before its step."""


@dataclass(frozen=True)
class ZSLPSettings:
    """Settings of the text side and of the training."""

    template: str = class_template("text of each class")
    unit_start: bool = setting(False, "start from text embeddings of unit norm instead of raw ones")
    epochs: int = setting(300, "training steps, each on all training images", least=1)
    lr: float = setting(0.1, "peak of the learning rate, which follows a cosine", above=0)
    momentum: float = setting(0.9, "momentum of the steps", least=0, below=1)
    warmup_epochs: int = setting(1, "epochs at a learning rate of 1e-5 before the cosine", least=0)


@register
class ZSLP(Method):
    name = "zs-lp"
    title = "ZS-LP"
    paper = "Silva-Rodríguez et al. 2024, arXiv 2312.12730"
    settings_type = ZSLPSettings
    abilities = Abilities(uses_images=True, needs_all_views=True)
    parameters = "weights: C × E"
    learned = ("class_embeddings",)
    crops: ClassVar[Crops] = Crops(smallest=0.5, flip=0.5)

    def fit(
        self, task: Task, settings: ZSLPSettings, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[State]:
        text = template_embeddings(task.backbone, task.class_names, settings.template, settings.unit_start)
        probe = self.probe(F.normalize(task.features, dim=-1), task.labels, text, task.backbone.logit_scale, settings)
        on_step = reporter(progress, settings.epochs)
        probe.train(settings, None if on_step is None else lambda epoch, losses: on_step(epoch, losses[:, None]))
        return [text_state(task.backbone, w) for w in probe.weight]

    def probe(self, f: Tensor, labels: Tensor, text: Tensor, scale: float, settings: ZSLPSettings) -> Probe:
        """The untrained probe; for the arguments see :class:`Probe`."""
        return Probe(f, labels, text, scale)


class Probe:
    """Class weights of R runs in training, in the precision of the features.

    Args:
        f: unit-norm features [R, N, E].
        labels: int64 [R, N].
        text: text embedding of each class, [C, E].
        scale: factor s of the cosines.

    Attributes:
        weight: w, [R, C, E].
        one_hot: labels, [R, N, C].
    """

    def __init__(self, f: Tensor, labels: Tensor, text: Tensor, scale: float) -> None:
        self.f, self.labels, self.text, self.scale = f, labels, text, scale
        self.one_hot = F.one_hot(labels, len(text)).to(f.dtype)
        self.weight = text.expand(len(f), -1, -1).clone()

    def log_probabilities(self, weight: Tensor) -> Tensor:
        """Log-probabilities [R, N, C] with weights [..., C, E]."""
        return (self.scale * self.f @ F.normalize(weight, dim=-1).mT).log_softmax(-1)

    def pull(self) -> tuple[Tensor | float, Tensor | float]:
        """A penalty [R] of the weights, and its gradient [R, C, E]."""
        return 0.0, 0.0

    def after_epoch(self) -> None:
        """What changes after the step of an epoch, besides the weights."""

    def train(self, settings: ZSLPSettings, on_epoch: OnEpoch | None = None) -> None:
        """Train ``weight`` in place.

        Raises:
            UserError: training diverged to values that are not finite.
        """
        rows, velocity = self.f.shape[1], torch.zeros_like(self.weight)
        for epoch in range(settings.epochs):
            norm = self.weight.norm(dim=-1, keepdim=True)
            unit = self.weight / norm
            log_p = (self.scale * self.f @ unit.mT).log_softmax(-1)
            outer = (log_p.exp() - self.one_hot).mT @ self.f * (self.scale / rows)
            penalty, pull = self.pull()
            velocity.mul_(settings.momentum)
            velocity.add_((outer - (outer * unit).sum(-1, keepdim=True) * unit) / norm).add_(pull)
            self.weight -= learning_rate(epoch, settings.epochs, settings.lr, settings.warmup_epochs) * velocity
            self.after_epoch()
            if on_epoch is not None:
                on_epoch(epoch, cross_entropy(log_p, self.labels) + penalty)
        if not bool(self.weight.isfinite().all()):
            raise UserError("training diverged (values are not finite); lower the learning rate, e.g. --set lr=0.01")
