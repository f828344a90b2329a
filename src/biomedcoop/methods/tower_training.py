"""Training through the towers: the contract and the loop of methods whose gradients pass the image tower.

Runs are trained one after another, since each has towers of its own. A step is one update from a batch of random crops; the batch
passes the tower in parts of the size that the tower encodes at once, so memory does not grow with the batch. It holds the trained
tensors four times (values, gradients, two moments of Adam), the activations of one part, and the decoded images
(:data:`biomedcoop.features.pixels.KEPT_BYTES`).

An epoch's random numbers depend on the run's seed and the epoch alone. After each epoch the state is kept in the cache folder, so
a training that was killed continues there and ends with the same bits.
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.images.crops import Crops
from biomedcoop.errors import UserError
from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Method, Pixels, Progress, State, Task
from biomedcoop.methods.resuming import Resumption
from biomedcoop.methods.settings import setting
from biomedcoop.methods.training import AdamW
from biomedcoop.threads import torch_cores

if TYPE_CHECKING:
    from torch import Tensor


WARM_UP = 0.1
"""Share of the steps in which the learning rate rises: Adam's first steps have full length, however uncertain their direction."""


@dataclass(frozen=True)
class TowerSettings:
    """Settings of a training through the towers by AdamW; the learning rate rises for a tenth of the steps, then falls."""

    epochs: int = setting(15, "passes over the training images", least=1)
    batch_size: int = setting(16, "images in a training step", least=1)
    lr: float = setting(3e-5, "largest learning rate of the tensors of the towers", above=0)
    weight_decay: float = setting(0.0, "weight decay of AdamW", least=0, most=1000)
    hours: float = setting(6.0, "longest training that is begun, by the time of its second step, in hours", above=0)


class Learner(ABC):
    """One run of a method: its trainable tensors, and what a step computes from them.

    Attributes:
        backbone: copy of the frozen backbone that computes with the trainable tensors.
        groups: trainable tensors with the largest learning rate of each group.
    """

    backbone: Backbone
    groups: Sequence[tuple[Sequence[Tensor], float]]

    def shared(self) -> Sequence[Tensor]:
        """What all images of a step share, such as class embeddings; computed once for a step, with gradients."""
        return ()

    @abstractmethod
    def losses(self, pixels: Tensor, labels: Tensor, shared: Sequence[Tensor]) -> Tensor:
        """Loss [B] of each image of normalised pixels [B, 3, S, S] with labels [B]."""

    @abstractmethod
    def state(self) -> State:
        """The state of the run after the last step, on the CPU."""

    @property
    def parameters(self) -> list[Tensor]:
        """All trainable tensors."""
        return [tensor for tensors, _ in self.groups for tensor in tensors]


class TowerMethod(Method):
    """A method that trains through the towers; a subclass makes the :class:`Learner` of a run."""

    crops: ClassVar[Crops] = Crops(smallest=0.5, flip=0.5)

    @abstractmethod
    def learners(self, task: Task, settings: Any, seeds: Sequence[int]) -> Sequence[Any]:
        """For each run, a function that makes its :class:`Learner`, so that only one stands in memory."""

    def threads(self, task: Task, settings: Any) -> int:
        return torch_cores()

    def fit(self, task: Task, settings: Any, seeds: Sequence[int], progress: Progress | None = None) -> list[State]:
        if task.pixels is None:
            raise UserError(f"{self.name} trains through the image tower and needs images, but was given features only")
        begun = [
            Resumption(
                {
                    "method": self.name,
                    "settings": dataclasses.asdict(settings),
                    "seed": seed,
                    "backbone": task.backbone.fingerprint,
                    "device": str(task.backbone.device),
                    "threads": torch.get_num_threads(),
                    "classes": list(task.class_names),
                    "crops": vars(self.crops),
                },
                [task.features[run], task.labels[run]],
            )
            for run, seed in enumerate(seeds)
        ]
        states = []
        for run, make in enumerate(self.learners(task, settings, seeds)):
            learner = make()
            clock = Clock(self.name, task, settings, run, len(seeds), progress)
            train(learner, task.pixels, run, task.labels[run].cpu(), settings, seeds[run], begun[run], clock)
            states.append(learner.state())
        for one in begun:
            one.forget()
        return states


class Clock:
    """Reports the steps of all runs, and refuses a training that would take too long."""

    def __init__(self, method: str, task: Task, settings: Any, run: int, runs: int, progress: Progress | None) -> None:
        self.method, self.backbone, self.hours, self.progress = method, task.backbone, settings.hours, progress
        self.in_run = settings.epochs * len(parts_of(task.n_images, settings.batch_size))
        self.before, self.total = run * self.in_run, runs * self.in_run
        self.timed, self.last = 0, time.monotonic()

    def tell(self, step: int, loss: Tensor) -> None:
        """After step ``step`` (0-based) of the run.

        Raises:
            UserError: the steps that are left would take longer than the setting ``hours``.
        """
        done = self.before + step + 1
        if self.progress is not None:
            self.progress(done, self.total, f"loss {float(loss):.3f}")
        if self.timed < 2:  # the first step also sets up memory and kernels
            if self.backbone.device.type == "cuda":
                torch.cuda.synchronize(self.backbone.device)
            seconds, self.last = time.monotonic() - self.last, time.monotonic()
            self.timed += 1
            hours = seconds * (self.total - done) / 3600
            if self.timed == 2 and hours > self.hours:
                told = f"{hours:.0f}" if hours >= 10 else f"{hours:.2g}"
                raise UserError(
                    f"{self.method} would take about {told} hours on {self.backbone.device}: {self.total - done} steps of "
                    f"{seconds:.2g} s through {self.backbone.name}; use --device cuda, a smaller backbone or --set epochs=…, or "
                    f"allow it with --set hours={math.ceil(hours)}"
                )


def parts_of(n: int, size: int) -> list[int]:
    """Sizes of the batches of an epoch: as few as hold ``size`` at most, of nearly equal size."""
    number = math.ceil(n / size)
    return [n // number + (part < n % number) for part in range(number)]


def train(
    learner: Learner,
    pixels: Pixels,
    run: int,
    labels: Tensor,
    settings: Any,
    seed: int,
    begun: Resumption,
    clock: Clock,
) -> None:
    """Train one run in place, from where it was interrupted.

    Args:
        labels: labels [N] of the run's images, on the CPU.

    Raises:
        UserError: training diverged, or would take too long.
    """
    from biomedcoop.features.passes import image_batch

    backbone, parameters = learner.backbone, learner.parameters
    optimizers = [AdamW(tensors, 1e-8, settings.weight_decay) for tensors, _ in learner.groups]
    tensors = [
        *parameters,
        *(t for optimizer in optimizers for t in [*optimizer.first, *optimizer.second, optimizer.fading]),
    ]
    finished = begun.restore(tensors)
    sizes, at_once = parts_of(len(labels), settings.batch_size), image_batch(backbone.original)
    # convolutions and their gradients take a quarter less time with the channels last
    layout = torch.contiguous_format if backbone.tower_kind == "vit" else torch.channels_last
    step, warm = finished * len(sizes), max(1, WARM_UP * clock.in_run)
    for epoch in range(finished, settings.epochs):
        generator = torch.Generator().manual_seed(random.Random(f"{seed}, {epoch}").getrandbits(63))
        order = torch.randperm(len(labels), generator=generator)
        for rows in order.split(sizes):  # type: ignore[no-untyped-call]
            shared = learner.shared()
            leaves = [tensor.detach().requires_grad_() for tensor in shared]
            total = torch.zeros((), device=backbone.device)
            for part in rows.split(at_once):
                x, y = pixels(run, part, generator).to(memory_format=layout), labels[part].to(backbone.device)
                loss = learner.losses(x, y, leaves).sum() / len(rows)
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
            if shared:
                torch.autograd.backward(list(shared), [gradient_of(leaf) for leaf in leaves])
            share = 0.5 * (1 + math.cos(math.pi * step / clock.in_run)) * min(1, (step + 1) / warm)
            for optimizer, (own, rate) in zip(optimizers, learner.groups, strict=True):
                optimizer.step(
                    [gradient_of(parameter) for parameter in own], torch.tensor(rate * share, device=backbone.device)
                )
            for parameter in parameters:
                parameter.grad = None
            clock.tell(step, total)
            step += 1
        begun.keep(tensors, epoch + 1, last=epoch + 1 == settings.epochs)
    if not all(bool(torch.isfinite(p).all()) for p in parameters):
        begun.forget()
        raise UserError(
            f"training diverged (values are not finite); lower the learning rate, e.g. --set lr={settings.lr / 10:g}"
        )


def gradient_of(tensor: Tensor) -> Tensor:
    """The gradient that has been added up in a leaf; zeros if nothing depends on it."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy [B] of each row of logits [B, C]."""
    return F.cross_entropy(logits, labels, reduction="none")
