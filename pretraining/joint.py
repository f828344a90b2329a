"""The joint space that the last stages are taught, and the tower that begins near it.

The teacher is a linear map of standardised moments of three stages (mean and deviation of every channel), which keeps more of an
image than the last layer's mean. It begins as a rotation of the principal axes, so that no coordinate is one faint axis, and moves
slowly, while the text map learns at full speed: what the parent knows stays.

The student has the plain layout (last map, mean, one linear map). Its head begins with hinges of the last map's whitened axes,
whose means tell mean and spread, and its projection with the least-squares map onto the teacher's space.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretraining.tail import Tail
from pretraining.words import TextMap, Words

BATCH = 256
SCALE_RANGE = (20.0, 100.0)
IMAGE_RATE = 0.01
"""Rate of the teacher's image map, as a share of the text map's."""
FAINT = 1e-6
"""Share of the mean variance below which an axis of the last map is not blown up."""


class Teacher(nn.Module):
    """Moments [n, D] -> joint space [n, E], not normalised."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, moments: Tensor, embed: int, rng: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("mean", moments.mean(0))
        self.register_buffer("deviation", moments.std(0) + 1e-3)
        self.linear = nn.Linear(moments.shape[1], embed)
        x = (moments - self.mean) / self.deviation
        variance, axes = torch.linalg.eigh(x.T @ x / len(x))
        width = min(embed, x.shape[1])
        kept = torch.zeros(embed, x.shape[1])
        kept[:width] = (axes[:, -width:] * variance[-width:].clamp(min=1e-6).pow(-0.25)).T / math.sqrt(x.shape[1])
        with torch.no_grad():
            rotation = torch.linalg.qr(torch.randn(embed, embed, generator=rng))[0]
            self.linear.weight.copy_(rotation @ kept)
            self.linear.bias.zero_()

    def forward(self, moments: Tensor) -> Tensor:
        return self.linear((moments - self.mean) / self.deviation)  # type: ignore[no-any-return]


def class_weights(labels: Tensor) -> Tensor:
    """A class of n images is drawn as often as the root of n."""
    return 1 / torch.bincount(labels).clamp(min=1).float().sqrt()[labels]


def set_rate(optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
    """A warm-up of 50 steps, then a cosine."""
    share = min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share


def fit_joint(
    moments: list[Tensor], labels: Tensor, words: Words, embed: int, steps: int, lr: float, rng: torch.Generator
) -> tuple[Teacher, TextMap]:
    """Teacher and text map, trained on the moments of every view."""
    x, y = torch.cat(moments), labels.repeat(len(moments))
    teacher, project = Teacher(x, embed, rng), TextMap(words.all_features(), embed)
    with torch.no_grad():
        project.linear.weight.copy_(torch.randn(project.linear.weight.shape, generator=rng) / math.sqrt(3 * 384))
    optimizer = torch.optim.AdamW(
        [
            {"params": project.parameters(), "peak": lr, "weight_decay": 0.05},
            {"params": teacher.parameters(), "peak": lr * IMAGE_RATE, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    weight = class_weights(y)
    for step in range(steps):
        set_rate(optimizer, step, steps)
        some = torch.multinomial(weight, BATCH, replacement=True, generator=rng)
        loss = words.loss(F.normalize(teacher(x[some]), dim=-1), y[some], project, rng)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        clamp_scale(project)
    print(f"joint map: loss {loss.item():.2f}, scale {project.scale.exp():.0f}", flush=True)
    return teacher.requires_grad_(False), project


def clamp_scale(project: TextMap) -> None:
    """Keep the scale where a few prompts can still be learned later."""
    with torch.no_grad():
        project.scale.clamp_(math.log(SCALE_RANGE[0]), math.log(SCALE_RANGE[1]))


@torch.no_grad()
def begin_head(tail: Tail, maps: Tensor) -> None:
    """Give the head units that keep what the last map holds: of each whitened axis z one in the straight part of ReLU6 (its
    mean), and ReLU(z), ReLU(-z) and ReLU(-z - 1) (its spread).

    Args:
        maps: of stage 5, of some images [C, N, P].
    """
    z = tail.last_map(maps).flatten(1)
    width = len(z)
    mean = z.mean(1, keepdim=True)
    covariance = (z - mean) @ (z - mean).T / z.shape[1]
    variance, axes = torch.linalg.eigh(covariance)
    white = (axes / (variance.clamp(min=0) + FAINT * variance.mean()).sqrt()).T
    shift = -(white @ mean)[:, 0]
    rows = [(0.6 * white, 0.6 * shift + 3), (white, shift), (-white, -shift), (-white, -shift - 1)]
    units = len(tail.head.weight)
    tail.head.weight.copy_(torch.cat([weight for weight, _ in rows])[:units])
    tail.head.bias.copy_(torch.cat([bias for _, bias in rows])[:units])
    if units > 4 * width:
        raise ValueError(f"a head of {units} units on {width} channels is not supported")


@torch.no_grad()
def least_squares(units: Tensor, target: Tensor, ridge: float = 1e-3) -> nn.Linear:
    """The linear map of standardised units [n, U] onto targets [n, E], with a small ridge."""
    mean, deviation = units.double().mean(0), units.double().std(0) + 1e-3
    x, centre = (units.double() - mean) / deviation, target.double().mean(0)
    gram = x.T @ x / len(x) + ridge * torch.eye(x.shape[1], dtype=torch.float64)
    weight = (torch.linalg.solve(gram, x.T @ (target.double() - centre) / len(x)) / deviation[:, None]).T
    linear = nn.Linear(units.shape[1], target.shape[1])
    linear.weight.copy_(weight)
    linear.bias.copy_(centre - weight @ mean)
    return linear
