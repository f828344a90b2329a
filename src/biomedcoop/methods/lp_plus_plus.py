"""LP++ (Huang et al., CVPR 2024, arXiv 2404.02285): a linear probe whose class weights are mixed with the text embeddings.

    logits = f · Wᵀ + b + α ⊙ (f · tᵀ)

W starts as the sum of each class's features. The learning rates are computed from the data: 4N/λ_max(FᵀF) for W and b, and
N/(4 max_c Σ_i (f_i · t_c)²) for the α of each class, which takes a step every tenth epoch. The number of
epochs is the one with the best accuracy on validation images, or in a cross-validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.images.crops import Crops
from biomedcoop.errors import UserError
from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, Method, Progress, State, Task, register
from biomedcoop.methods.class_embeddings import template_embeddings, text_state
from biomedcoop.methods.settings import class_template, setting
from biomedcoop.methods.training import cross_entropy, drawn_as_linear, reporter
from biomedcoop.methods.validation import stacked, validations

if TYPE_CHECKING:
    from torch import Tensor

ALPHA_EVERY, ALPHA_FACTOR = 10, 250.0

DEFAULT_EPOCHS = 35
"""Number of epochs where nothing can be chosen, the best for all datasets together at 1 to 16 images per class."""


@dataclass(frozen=True)
class LPPlusPlusSettings:
    """Settings of the text side and of the training."""

    template: str = class_template("text of each class")
    epochs: int = setting(300, "training steps, each on all training images", least=1)
    momentum: float = setting(0.9, "momentum of the steps of W and b", least=0, most=1)


@dataclass
class Head:
    """Trained parameters of LP++ for R runs: W [R, C, E], b [R, C], α [R, 1, C]."""

    weight: Tensor
    bias: Tensor
    alpha: Tensor

    def logits(self, f: Tensor, t: Tensor) -> Tensor:
        """Logits [R, N, C] of unit-norm features [R, N, E] and class embeddings [C, E]."""
        return f @ self.weight.transpose(1, 2) + self.bias[:, None] + self.alpha * (f @ t.T)

    def copy(self) -> Head:
        return Head(*(p.detach().clone() for p in (self.weight, self.bias, self.alpha)))

    def where(self, runs: Tensor, other: Head) -> Head:
        """A head with this head's parameters in the runs selected by ``runs``, bool [R], and the other head's in the rest."""
        mine, theirs = ((h.weight, h.bias, h.alpha) for h in (self, other))
        chosen = (
            torch.where(runs.view(-1, *(1,) * (a.dim() - 1)), a.detach(), b) for a, b in zip(mine, theirs, strict=True)
        )
        return Head(*chosen)


@register
class LPPlusPlus(Method):
    name = "lp++"
    title = "LP++"
    paper = "Huang et al. 2024, arXiv 2404.02285"
    settings_type = LPPlusPlusSettings
    abilities = Abilities(
        uses_images=True,
        needs_all_views=True,
        chooses="the number of epochs",
        otherwise=f"at most {DEFAULT_EPOCHS} epochs",
    )
    parameters = "weights: C × (E + 1); mixing: C"
    learned = ("weight", "bias", "alpha")
    crops: ClassVar[Crops] = Crops(smallest=0.5, flip=0.5)

    def fit(
        self, task: Task, settings: LPPlusPlusSettings, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[State]:
        t = template_embeddings(task.backbone, task.class_names, settings.template)
        chosen = torch.stack([chosen_epochs(task, run, t, settings, seed) for run, seed in enumerate(seeds)])
        epochs = int(chosen.max())  # later ones would not be used
        f, on_step = F.normalize(task.features, dim=-1), reporter(progress, epochs)
        head = initial_head(f, task.labels, t, seeds)
        trainer, best = Trainer(head, f, task.labels, t, settings.momentum), head.copy()
        for epoch in range(epochs):
            loss = trainer.step()
            best = head.where(chosen == epoch + 1, best)
            if on_step is not None:
                on_step(epoch, loss[:, None])
        if not all(bool(p.isfinite().all()) for p in (best.weight, best.bias, best.alpha)):
            raise UserError("training diverged (values are not finite); lower the momentum, e.g. --set momentum=0.5")
        return [
            text_state(task.backbone, t, weight=w, bias=b, alpha=a[0])
            for w, b, a in zip(best.weight, best.bias, best.alpha, strict=True)
        ]

    def logits(self, state: State, features: Tensor, backbone: Backbone) -> Tensor:
        head = Head(state["weight"][None], state["bias"][None], state["alpha"][None, None])
        return head.logits(F.normalize(features, dim=-1)[None], state["class_embeddings"])[0]


def chosen_epochs(task: Task, run: int, t: Tensor, settings: LPPlusPlusSettings, seed: int) -> Tensor:
    """The number of epochs of a run, with the most right answers; int64 without dimensions.

    In a tie, validation images take the largest number, as published, and a cross-validation the one nearest to
    :data:`DEFAULT_EPOCHS` by their ratio.
    """
    epochs = torch.arange(1, settings.epochs + 1, device=t.device)
    distance = -epochs.float() if task.val_features is not None else (epochs / DEFAULT_EPOCHS).log().abs()
    right = torch.zeros_like(epochs)
    for part in stacked(validations(task, run)):
        f, val = F.normalize(part.task.features, dim=-1), F.normalize(part.features, dim=-1)
        head = initial_head(f, part.task.labels, t, [seed] * len(f))
        trainer = Trainer(head, f, part.task.labels, t, settings.momentum)
        for epoch in range(settings.epochs):
            trainer.step()
            right[epoch] += (head.logits(val, t).argmax(-1) == part.labels).sum()
    best = right == right.max()
    return epochs[torch.where(best, distance, torch.inf).argmin()]


def initial_head(f: Tensor, labels: Tensor, t: Tensor, seeds: Sequence[int]) -> Head:
    """Initial parameters: W is the sum of each class's features, b is drawn as by ``torch.nn.Linear``, and α is 250 times the mean
    cosine of an image and its class."""
    c, e = t.shape
    one_hot = F.one_hot(labels, c).to(f.dtype)  # [R, N, C]
    # as published, the sums are taken in half precision
    weight = (one_hot.half().transpose(1, 2) @ f.half()).to(f.dtype)
    bias = torch.stack([drawn_as_linear((c,), e, torch.Generator().manual_seed(seed)) for seed in seeds])
    cosines = ((f @ t.T) * one_hot).sum(1) / one_hot.sum(1).clamp(min=1)  # [R, C]
    alpha = (ALPHA_FACTOR * cosines.mean(1))[:, None, None].expand(-1, 1, c).clone()
    return Head(weight, bias.to(f.device, f.dtype), alpha)


class Trainer:
    """Trains ``head`` in place with full-batch steps. As published, the gradient of α accumulates and is never reset."""

    def __init__(self, head: Head, f: Tensor, labels: Tensor, t: Tensor, momentum: float) -> None:
        self.head, self.f, self.labels, self.t, self.momentum = head, f, labels, t, momentum
        n = f.shape[1]
        # FᵀF and FFᵀ have the same largest eigenvalue; the smaller one is hundreds of times as quick with few images
        gram = f.transpose(1, 2) @ f if n > f.shape[2] else f @ f.transpose(1, 2)
        # on the CPU for every device: Apple's GPUs lack it, others are no faster
        self.rate = 4 * n / torch.linalg.eigvalsh(gram.cpu())[:, -1].to(f.device)  # [R]
        self.alpha_rate = n / (4 * (f @ t.T).square().sum(1).amax(1))  # [R]
        self.velocity = [torch.zeros_like(head.weight), torch.zeros_like(head.bias)]
        self.alpha_gradient = torch.zeros_like(head.alpha)
        self.epoch = 0

    def step(self) -> Tensor:
        """Train one epoch; returns the loss of each run before the step, [R]."""
        head = self.head
        parameters = [p.detach().requires_grad_() for p in (head.weight, head.bias, head.alpha)]
        log_p = Head(*parameters).logits(self.f, self.t).log_softmax(-1)
        loss = cross_entropy(log_p, self.labels)
        *gradients, alpha_gradient = torch.autograd.grad(loss.sum(), parameters)
        for p, v, g in zip((head.weight, head.bias), self.velocity, gradients, strict=True):
            v.mul_(self.momentum).add_(g)
            p.sub_(self.rate.view(-1, *(1,) * (p.dim() - 1)) * v)
        self.alpha_gradient += alpha_gradient
        self.epoch += 1
        if self.epoch % ALPHA_EVERY == 0:
            head.alpha -= self.alpha_rate[:, None, None] * self.alpha_gradient
        return loss.detach()
