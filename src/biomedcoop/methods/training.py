"""The published optimisation: SGD with momentum and weight decay, cosine per epoch after one constant warm-up epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from biomedcoop.errors import UserError
from biomedcoop.methods.base import Progress, Task

WARMUP_LR = 1e-5

Losses = Callable[[Tensor], Tensor]
"""Batch indices [R, B] -> losses by run and term [R, T]."""

OnStep = Callable[[int, Tensor], None]
"""Called with the number of a step (0-based) and its losses [R, T]."""

Gradients = Callable[[Tensor, Sequence[Tensor]], Sequence[Tensor]]
"""Losses [R, T] and parameters [R, ...] -> a gradient for each parameter."""


def learning_rate(epoch: int, epochs: int, peak: float) -> float:
    """Rate of a whole epoch (0-based): 1e-5 in the first, then ½·peak·(1 + cos(π (epoch − 1) / epochs)); never quite zero."""
    if epoch == 0:
        return WARMUP_LR
    return 0.5 * peak * (1 + math.cos(math.pi * (epoch - 1) / epochs))


def batches(n: int, size: int, epochs: int, peak: float, seeds: Sequence[int]) -> Iterator[tuple[Tensor, float]]:
    """Shuffled batches of R runs in step, each run in the order of its own seed.

    An incomplete last batch is dropped, unless it is the only one.

    Yields:
        Indices int64 [R, B] into the N support images and the learning rate.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    for epoch in range(epochs):
        order = torch.stack([torch.randperm(n, generator=g) for g in generators])  # [R, N]
        for start in range(0, max(n - size, 0) + 1, size):
            yield order[:, start : start + size], learning_rate(epoch, epochs, peak)


def steps_in(n: int, size: int, epochs: int) -> int:
    """How many batches :func:`batches` yields."""
    return epochs * max(n // size, 1)


def sgd(
    parameters: Sequence[Tensor],
    losses: Losses,
    schedule: Iterable[tuple[Tensor, float]],
    *,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    max_norm: float = 0.0,
    gradients: Gradients | None = None,
    on_step: OnStep | None = None,
) -> None:
    """Train in place with stochastic gradient descent; the rest is that of :func:`descend`."""
    optimizer = torch.optim.SGD(parameters, lr=WARMUP_LR, momentum=momentum, weight_decay=weight_decay)
    descend(optimizer, parameters, losses, schedule, max_norm=max_norm, gradients=gradients, on_step=on_step)


def descend(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[Tensor],
    losses: Losses,
    schedule: Iterable[tuple[Tensor, float]],
    *,
    max_norm: float = 0.0,
    gradients: Gradients | None = None,
    on_step: OnStep | None = None,
) -> None:
    """Train in place. The runs share nothing, so the gradient of their sum is each run's own gradient.

    Args:
        optimizer: of ``parameters``.
        parameters: trainable tensors, each [R, ...].
        losses: batch indices [R, B] -> losses by run and term [R, T].
        max_norm: length to which a longer gradient of a run is shortened; 0 for no limit.
        gradients: what is descended; by default the gradient of the sum of all losses.
        schedule: batch indices and learning rate of every step.
        on_step: called after each step with its number and the losses.

    Raises:
        UserError: a parameter is not finite any more.
    """
    for step, (index, rate) in enumerate(schedule):
        optimizer.param_groups[0]["lr"] = rate
        terms = losses(index)
        found = gradients(terms, parameters) if gradients else torch.autograd.grad(terms.sum(), parameters)
        for parameter, gradient in zip(parameters, shortened(found, max_norm) if max_norm else found, strict=True):
            parameter.grad = gradient
        optimizer.step()
        if on_step is not None:
            on_step(step, terms.detach())
    if not all(bool(torch.isfinite(p).all()) for p in parameters):
        raise UserError("training diverged (values are not finite); lower the learning rate, e.g. --set lr=0.001")


def shortened(gradients: Sequence[Tensor], most: float) -> list[Tensor]:
    """Gradients [R, ...], those of a run multiplied by one number so that together they are at most ``most`` long."""
    length = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)  # [R]
    share = (most / length).clamp(max=1)
    return [g * share.view(-1, *(1,) * (g.dim() - 1)) for g in gradients]


def reporter(progress: Progress | None, total: int) -> OnStep | None:
    """An ``on_step`` that tells ``progress`` the mean loss, at most 100 times (reading it waits for the device)."""
    if progress is None:
        return None
    every = max(1, total // 100)

    def on_step(step: int, terms: Tensor) -> None:
        if (step + 1) % every == 0 or step + 1 == total:
            progress(step + 1, total, f"loss {float(terms.sum(-1).mean()):.3f}")

    return on_step


def batch_of(task: Task) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A function of batch indices [R, B] -> unit-norm features [R, B, E] and labels [R, B]."""
    features = F.normalize(task.features, dim=-1)
    runs = torch.arange(len(features), device=features.device)[:, None]
    return lambda index: (features[runs, index], task.labels[runs, index])


def cross_entropy(log_p: Tensor, labels: Tensor) -> Tensor:
    """Log-probabilities [R, B, C] and labels [R, B] -> mean over the batch [R]."""
    return -log_p.gather(2, labels[:, :, None]).mean((1, 2))


def drawn_as_linear(shape: Sequence[int], inputs: int, generator: torch.Generator) -> Tensor:
    """Weights or biases as ``torch.nn.Linear`` of so many inputs draws them, from a generator of our own."""
    return torch.empty(*shape).uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
