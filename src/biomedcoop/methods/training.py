"""The published optimisation: SGD with momentum and weight decay, cosine per epoch after one constant warm-up epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from biomedcoop.errors import UserError
from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Progress, Task

if TYPE_CHECKING:
    from torch import Tensor

WARMUP_LR = 1e-5

STEPS_BEFORE_RECORDING = 3
"""Steps before a CUDA graph is recorded; they set up workspaces and choose kernels, which must not be part of the graph."""

BLOCK = 2**16
"""Numbers of each tensor that an optimiser changes at once on a CPU: 256 kB each in float32."""

Losses = Callable[["Tensor"], "Tensor"]
"""Function of batch indices [R, B] that returns losses by run and term [R, T]."""

OnStep = Callable[[int, "Tensor"], None]
"""Callback with the number of a step (0-based) and its losses [R, T]."""

Gradients = Callable[["Tensor", Sequence["Tensor"]], Sequence["Tensor"]]
"""Function of losses [R, T] and parameters [R, ...] that returns a gradient for each parameter."""


def learning_rate(epoch: int, epochs: int, peak: float, warmup: int = 1) -> float:
    """Learning rate of an epoch (0-based): 1e-5 in the first ``warmup``, then ½·peak·(1 + cos(π (epoch − warmup) / epochs))."""
    if epoch < warmup:
        return WARMUP_LR
    return 0.5 * peak * (1 + math.cos(math.pi * (epoch - warmup) / epochs))


def batches(
    n: int,
    size: int,
    epochs: int,
    peak: float,
    seeds: Sequence[int],
    views: int = 1,
    per_epoch: bool = False,
    warmup: int = 1,
) -> Iterator[tuple[Tensor, float]]:
    """Shuffled batches of R runs in parallel; each run has the order of its own seed.

    An incomplete last batch is dropped, unless it is the only one.

    Args:
        n: number N of support images.
        views: rows V of each image; row i·V + v is view v of image i. Each step draws one view by the run's seed.
        per_epoch: use view e in epoch e instead of drawing a view.
        warmup: number of epochs at the warm-up rate.

    Yields:
        Indices int64 [R, B] into the N·V rows and the learning rate.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    views_of = [torch.Generator().manual_seed(-1 - seed) for seed in seeds]  # seeds themselves are never negative
    for epoch in range(epochs):
        order = torch.stack([torch.randperm(n, generator=g) for g in generators])  # [R, N]
        if per_epoch:
            order = order * views + epoch
        elif views > 1:
            order = order * views + torch.stack([torch.randint(views, (n,), generator=g) for g in views_of])
        for start in range(0, max(n - size, 0) + 1, size):
            yield order[:, start : start + size], learning_rate(epoch, epochs, peak, warmup)


def schedule_of(task: Task, settings: Any, seeds: Sequence[int], warmup: int = 1) -> Iterator[tuple[Tensor, float]]:
    """:func:`batches` of a task's support images, by the method's settings."""
    size, epochs = settings.batch_size, settings.epochs
    return batches(task.n_images, size, epochs, settings.lr, seeds, task.views, task.per_epoch, warmup)


def steps_in(n: int, size: int, epochs: int) -> int:
    """Number of batches that :func:`batches` yields."""
    return epochs * max(n // size, 1)


class Optimizer(Protocol):
    """Changes parameters in place. Its state stays on the device, so that a step can be recorded and replayed."""

    def step(self, gradients: Sequence[Tensor], rate: Tensor) -> None:
        """Take one step along the gradients; ``rate`` is a scalar on the parameters' device."""


class SGD:
    """v ← momentum · v + g + weight_decay · p;  p ← p − rate · v."""

    def __init__(self, parameters: Sequence[Tensor], momentum: float, weight_decay: float) -> None:
        self.parameters, self.momentum, self.weight_decay = parameters, momentum, weight_decay
        self.velocity = [torch.zeros_like(p, requires_grad=False) for p in parameters]

    def step(self, gradients: Sequence[Tensor], rate: Tensor) -> None:
        with torch.no_grad():
            for p, v, g in zip(self.parameters, self.velocity, gradients, strict=True):
                v.mul_(self.momentum).add_(g).add_(p, alpha=self.weight_decay)
                p.sub_(rate * v)


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101), betas 0.9 and 0.999."""

    def __init__(self, parameters: Sequence[Tensor], eps: float, weight_decay: float) -> None:
        self.parameters, self.eps, self.weight_decay = parameters, eps, weight_decay
        self.first, self.second = ([torch.zeros_like(p, requires_grad=False) for p in parameters] for _ in range(2))
        # powers of the betas, for the correction of the first steps; Apple's GPUs have no float64
        device = parameters[0].device
        exact = torch.float32 if device.type == "mps" else torch.float64
        self.fading = torch.ones(2, dtype=exact, device=device)
        self.betas = torch.tensor([0.9, 0.999], dtype=exact, device=device)

    def step(self, gradients: Sequence[Tensor], rate: Tensor) -> None:
        with torch.no_grad():
            self.fading.mul_(self.betas)
            first, second = (1 - self.fading).to(rate.dtype)
            for whole in zip(self.parameters, self.first, self.second, gradients, strict=True):
                for p, m, v, g in in_blocks(whole):
                    m.lerp_(g, 0.1)
                    v.mul_(0.999).addcmul_(g, g, value=0.001)
                    if self.weight_decay:
                        p.mul_(1 - rate * self.weight_decay)
                    p.sub_((rate / first * m).div_((v / second).sqrt_().add_(self.eps)))


def in_blocks(tensors: Sequence[Tensor]) -> Iterable[Sequence[Tensor]]:
    """Parts of tensors of one shape that fit into the cache of a core together; on other devices the tensors as they are."""
    if tensors[0].device.type != "cpu" or not all(tensor.is_contiguous() for tensor in tensors):
        return [tensors]
    return zip(*(torch.split(tensor.view(-1), BLOCK) for tensor in tensors), strict=True)


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
    recordable: bool = True,
) -> None:
    """Train in place with stochastic gradient descent; see :func:`descend` for the other arguments."""
    descend(
        SGD(parameters, momentum, weight_decay),
        parameters,
        losses,
        schedule,
        max_norm=max_norm,
        gradients=gradients,
        on_step=on_step,
        recordable=recordable,
    )


def descend(
    optimizer: Optimizer,
    parameters: Sequence[Tensor],
    losses: Losses,
    schedule: Iterable[tuple[Tensor, float]],
    *,
    max_norm: float = 0.0,
    gradients: Gradients | None = None,
    on_step: OnStep | None = None,
    recordable: bool = True,
) -> None:
    """Train in place. The runs share no parameter, so the gradient of their summed losses is each run's own gradient.

    No step waits for the device: all batches and rates are on it before the first step. On CUDA a step is recorded once as a graph
    and replayed, because the many small kernels of a few short prompts take longer to launch than to compute.

    Args:
        optimizer: optimizer of ``parameters``.
        parameters: trainable tensors, each [R, ...].
        losses: function of batch indices [R, B] that returns losses by run and term [R, T].
        max_norm: maximum norm of a run's gradient; 0 for no limit.
        gradients: computes the gradients; by default the gradient of the sum of all losses.
        schedule: batch indices and learning rate of every step, all batches of one size.
        on_step: called after each step with its number and the losses, which the next step may overwrite.
        recordable: True if every step does the same work on the host, so that a step can be recorded.

    Raises:
        UserError: training diverged to values that are not finite.
    """
    batch_indices, batch_rates = zip(*schedule, strict=True)
    device, dtype = parameters[0].device, parameters[0].dtype
    indices = torch.stack(batch_indices).to(device)  # [S, R, B]
    rates = torch.tensor(batch_rates, dtype=dtype, device=device)

    def take(index: Tensor, rate: Tensor) -> Tensor:
        terms = losses(index)
        computed = gradients(terms, parameters) if gradients else torch.autograd.grad(terms.sum(), parameters)
        optimizer.step(shortened(computed, max_norm) if max_norm else computed, rate)
        return terms.detach()

    # a graph records the current GPU alone
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        run = recorded(take) if device.type == "cuda" and recordable else take
        for step in range(len(indices)):
            terms = run(indices[step], rates[step])
            if on_step is not None:
                on_step(step, terms)
    if not all(bool(torch.isfinite(p).all()) for p in parameters):
        raise UserError("training diverged (values are not finite); lower the learning rate, e.g. --set lr=0.001")


def shortened(gradients: Sequence[Tensor], most: float) -> list[Tensor]:
    """Gradients [R, ...], scaled run by run so that the norm of a run's gradients together is at most ``most``."""
    length = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)  # [R]
    share = (most / length).clamp(max=1)
    return [g * share.view(-1, *(1,) * (g.dim() - 1)) for g in gradients]


@cache
def recording_stream(gpu: int) -> torch.cuda.Stream:
    """The stream of all recordings on a GPU: the libraries behind torch keep a workspace of megabytes for each stream."""
    return torch.cuda.Stream(gpu)  # type: ignore[no-untyped-call]


def recorded(take: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A training step that is replayed as a CUDA graph; the first steps run normally, on the stream of the recording."""
    side = recording_stream(torch.cuda.current_device())
    graph: torch.cuda.CUDAGraph | None = None
    taken = 0
    held: tuple[Tensor, ...] = ()

    def step(index: Tensor, rate: Tensor) -> Tensor:
        nonlocal graph, taken, held
        taken += 1
        if taken <= STEPS_BEFORE_RECORDING:
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                terms = take(index, rate)
            torch.cuda.current_stream().wait_stream(side)
            return terms
        if graph is None:
            graph_index, graph_rate = index.clone(), rate.clone()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=side):
                graph_terms = take(graph_index, graph_rate)
            held = (graph_index, graph_rate, graph_terms)
        held[0].copy_(index)
        held[1].copy_(rate)
        graph.replay()
        return held[2]

    return step


def reporter(progress: Progress | None, total: int) -> OnStep | None:
    """An ``on_step`` that reports the mean loss to ``progress``, at most 100 times: reading the loss waits for the device."""
    if progress is None:
        return None
    every = max(1, total // 100)

    def on_step(step: int, terms: Tensor) -> None:
        if (step + 1) % every == 0 or step + 1 == total:
            progress(step + 1, total, f"loss {float(terms.sum(-1).mean()):.3f}")

    return on_step


def batch_of(task: Task) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A function of batch indices [R, B] that returns unit-norm features [R, B, E] and labels [R, B]."""
    features = F.normalize(task.features, dim=-1)
    runs = torch.arange(len(features), device=features.device)[:, None]
    return lambda index: (features[runs, index], task.labels[runs, index])


def cross_entropy(log_p: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy [R] of log-probabilities [R, B, C] and labels [R, B], the mean over the batch."""
    return -log_p.gather(2, labels[:, :, None]).mean((1, 2))


def drawn_as_linear(shape: Sequence[int], inputs: int, generator: torch.Generator) -> Tensor:
    """Initial weights or biases, drawn as by ``torch.nn.Linear`` with this number of inputs, from ``generator``."""
    return torch.empty(*shape).uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
