"""What the image tower sees of a stored image: the test view, or an augmented one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pretraining.parents import MEAN, STD


def plain(images: Tensor, size: int) -> Tensor:
    """uint8 [B, S, S, 3] -> [B, 3, size, size] in 0..255, bicubic."""
    x = images.permute(0, 3, 1, 2).float()
    return F.interpolate(x, (size, size), mode="bicubic", align_corners=False).clamp(0, 255)


def augmented(images: Tensor, size: int, rng: torch.Generator) -> Tensor:
    """uint8 [B, S, S, 3] -> [B, 3, size, size] in 0..255: random affine crop, flip, sharpness, exposure, tint and noise.

    Sharpness matters as the stored images are small: a user's have finer detail at the same size.
    """
    x = images.permute(0, 3, 1, 2).float()
    b = len(x)

    def u(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(b, *shape, generator=rng)

    side, ratio = u(0.5, 1).sqrt(), torch.exp(u(-0.12, 0.12))
    sx, sy = (side * ratio).clamp(max=1), (side / ratio).clamp(max=1)
    flip, angle = torch.where(u(0, 1) < 0.5, -1.0, 1.0), u(-0.2, 0.2)
    cos, sin = angle.cos(), angle.sin()
    cx, cy = u(-1, 1) * (1 - sx), u(-1, 1) * (1 - sy)
    theta = torch.stack([sx * cos * flip, -sy * sin, cx, sx * sin * flip, sy * cos, cy], 1).view(b, 2, 3)
    grid = F.affine_grid(theta, [b, 3, size, size], align_corners=False)
    x = F.grid_sample(x, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    soft = F.avg_pool2d(F.pad(x, (2,) * 4, mode="replicate"), 5, 1)
    x = x + u(-0.5, 1.5, 1, 1, 1) * (x - soft)
    x = 255 * (x / 255).clamp(1e-3, 1).pow(torch.exp(u(-0.3, 0.3, 1, 1, 1)))
    x = x * (1 + u(-0.2, 0.2, 1, 1, 1)) + 20 * u(-1, 1, 1, 1, 1)
    x = x * (1 + 0.06 * (2 * torch.rand(b, 3, 1, 1, generator=rng) - 1))
    return (x + torch.randn(x.shape, generator=rng) * u(0, 6, 1, 1, 1)).clamp(0, 255)


def normalised(x: Tensor) -> Tensor:
    """[B, 3, size, size] in 0..255 as the image parent wants it."""
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return (x / 255 - mean) / std
