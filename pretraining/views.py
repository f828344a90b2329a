"""What the towers see of an image: augmented views, the test view, and the descriptors that its feature must tell."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

SIZE = 96
MEAN = torch.tensor((0.48145466, 0.4578275, 0.40821073))[:, None, None]
STD = torch.tensor((0.26862954, 0.26130258, 0.27577711))[:, None, None]
DESCRIPTORS = 256


def augment(images: Tensor, rng: torch.Generator, colour: float) -> Tensor:
    """uint8 [B, STORED, STORED, 3] -> normalised [B, 3, SIZE, SIZE]: random affine crop, flip, exposure, tint, blur, noise.

    Args:
        colour: strength of the changes of exposure and tint; at 0 there are none.
    """
    b = len(images)

    def u(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(b, *shape, generator=rng)

    x = images.permute(0, 3, 1, 2).float() / 255
    side = u(0.35, 1.0).sqrt()
    ratio = torch.exp(u(-0.25, 0.25))
    sx, sy = (side * ratio).clamp(max=1.0), (side / ratio).clamp(max=1.0)
    angle = u(-0.35, 0.35)
    flip = torch.where(u(0, 1) < 0.5, -1.0, 1.0)
    cx, cy = u(-1, 1) * (1 - sx), u(-1, 1) * (1 - sy)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack([sx * cos * flip, -sy * sin, cx, sx * sin * flip, sy * cos, cy], 1).view(b, 2, 3)
    grid = F.affine_grid(theta, [b, 3, SIZE, SIZE], align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    gamma, gain = torch.exp(colour * u(-0.5, 0.5, 1, 1, 1)), 1 + colour * u(-0.3, 0.3, 1, 1, 1)
    x = x.clamp(1e-3, 1).pow(gamma) * gain + colour * u(-0.15, 0.15, 1, 1, 1)
    x = x * (1 + colour * 0.12 * (2 * torch.rand(b, 3, 1, 1, generator=rng) - 1))
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    mix = u(0, 1, 1, 1, 1) * (u(0, 1, 1, 1, 1) < 0.4)
    x = x * (1 - mix) + soft * mix
    x = x + torch.randn(x.shape, generator=rng) * u(0, 0.05, 1, 1, 1)
    return (x.clamp(0, 1) - MEAN) / STD


def centre(images: Tensor) -> Tensor:
    """The test view: SIZE pixels from the stored STORED by antialiased resize."""
    x = (
        F.interpolate(images.permute(0, 3, 1, 2).float(), (SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 255)
        / 255
    )
    return (x - MEAN) / STD


def descriptors(pixels: Tensor) -> Tensor:
    """What the eye would measure first, [B, D]: a thumbnail, gradient directions, fine texture and spread on a grid.

    Args:
        pixels: normalised views [B, 3, SIZE, SIZE].
    """
    thumbnail = F.adaptive_avg_pool2d(pixels, 24)
    grey = pixels.mean(1, keepdim=True)
    dx, dy = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2], grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
    size, angle = (dx.square() + dy.square() + 1e-8).sqrt(), torch.atan2(dy, dx) * 2
    waves = [size * angle.cos(), size * angle.sin(), size * (2 * angle).cos(), size * (2 * angle).sin(), size]
    soft = F.avg_pool2d(grey, 3, 1, 1)
    softer = F.avg_pool2d(F.avg_pool2d(grey, (9, 1), 1, (4, 0)), (1, 9), 1, (0, 4))
    fine, coarse = (grey - soft).abs()[..., 1:-1, 1:-1], (soft - softer).abs()[..., 1:-1, 1:-1]
    maps = F.adaptive_avg_pool2d(torch.cat([*waves, fine, coarse], 1), 8)
    spread = (F.adaptive_avg_pool2d(pixels.square(), 8) - F.adaptive_avg_pool2d(pixels, 8).square()).clamp(min=0).sqrt()
    gains = torch.tensor([6.0, 6.0, 6.0, 6.0, 4.0, 12.0, 6.0])[:, None, None]
    return torch.cat([thumbnail.flatten(1), (maps * gains).flatten(1), spread.flatten(1)], 1)


class Describe(torch.nn.Module):
    """Predicts an image's descriptors from its feature, along their principal axes.

    The axes are those of augmented views of the pool. An axis of variance v counts v^0.5, between "as it is" (a few large
    shapes are everything) and "whitened" (noise is as good as shape), so that small differences between images of one kind,
    a joint space or a colour, are told as well.
    """

    mean: Tensor
    axes: Tensor

    def __init__(self, embed: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(embed, DESCRIPTORS)
        size = descriptors(torch.zeros(1, 3, SIZE, SIZE)).shape[1]
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("axes", torch.zeros(size, DESCRIPTORS))

    def fit_axes(self, views: Iterable[Tensor]) -> None:
        """Find the axes of normalised views [b, 3, SIZE, SIZE]."""
        x = torch.cat([descriptors(v) for v in views])
        self.mean.copy_(x.mean(0))
        variance, vectors = torch.linalg.eigh((x - self.mean).T @ (x - self.mean) / len(x))
        axes = vectors[:, -DESCRIPTORS:] * variance[-DESCRIPTORS:].clamp(min=1e-9).pow(-0.25)
        self.axes.copy_(axes / ((x - self.mean) @ axes).std())

    def loss(self, features: Tensor, pixels: Tensor) -> Tensor:
        """Mean squared error in units of the target's variance, from features standardised over the batch, as a linear probe
        has them. Shapes: unit-norm features [B, E], views [B, 3, SIZE, SIZE]."""
        target = (descriptors(pixels) - self.mean) @ self.axes
        spread, mean = torch.std_mean(features, 0)
        return F.mse_loss(self.linear((features - mean) / (spread + 1e-4)), target)
