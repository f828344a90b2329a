"""The ResNet of OpenAI's CLIP (Radford et al. 2021, arXiv 2103.00020, section 2.4), with the tensor names of its checkpoints.

It has a stem of three convolutions, average pooling for every stride (anti-aliasing, Zhang 2019, arXiv 1904.11486), and attention
for the last pooling.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biomedcoop.backbones.clip_transformer import split_heads
from biomedcoop.backbones.vit import attended_by_one

RESNET_STRIDE = 32
"""Pixels per position of the last stage, along one side; also the width of the last stage, in units of ``width``."""


@dataclass(frozen=True)
class ResNetConfig:
    """Sizes of the ResNet: ``layers`` bottlenecks in each stage, ``heads`` of the attention pooling."""

    image_size: int
    width: int
    layers: tuple[int, int, int, int]
    heads: int


class BatchNorm(nn.Module):
    """Batch normalisation by the running statistics, whatever mode the tower is put in."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; a stride is an average pooling in front of both last convolutions."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = BatchNorm(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = BatchNorm(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = BatchNorm(4 * planes)
        self.downsample: nn.Sequential | None = None
        if stride > 1 or inputs != 4 * planes:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, 4 * planes, 1, bias=False), BatchNorm(4 * planes))

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, 4 planes, H/stride, W/stride]
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(self.pool(out)))
        return F.relu(out + (x if self.downsample is None else self.downsample(self.pool(x))))

    def pool(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.stride) if self.stride > 1 else x


class AttentionPool(nn.Module):
    """Positions and their mean as tokens; the mean attends to all: [B, W, H, H] -> [B, E]."""

    def __init__(self, config: ResNetConfig, embed_dim: int) -> None:
        super().__init__()
        self.heads = config.heads
        width = config.width * RESNET_STRIDE
        positions = (config.image_size // RESNET_STRIDE) ** 2 + 1
        self.positional_embedding = nn.Parameter(torch.zeros(positions, width))
        self.k_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1) + self.positional_embedding
        q = split_heads(self.q_proj(tokens[:, :1]), self.heads)  # [B, H, 1, W/H]
        k, v = (split_heads(f(tokens), self.heads) for f in (self.k_proj, self.v_proj))
        out = attended_by_one(q, k, v)
        return self.c_proj(out.flatten(1))  # type: ignore[no-any-return]


class ModifiedResNet(nn.Module):
    """Image tower: normalised pixels [B, 3, S, S] -> raw features [B, E]."""

    def __init__(self, config: ResNetConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = BatchNorm(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = BatchNorm(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = BatchNorm(width)
        inputs, stages = width, []
        for stage, depth in enumerate(config.layers):
            planes = width * 2**stage
            strides = [1 if stage == 0 else 2] + [1] * (depth - 1)
            stages.append(
                nn.Sequential(*(Bottleneck(inputs if n == 0 else 4 * planes, planes, s) for n, s in enumerate(strides)))
            )
            inputs = 4 * planes
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.attnpool = AttentionPool(config, embed_dim)

    def forward(self, pixels: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(pixels)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.avg_pool2d(F.relu(self.bn3(self.conv3(x))), 2)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.attnpool(x)  # type: ignore[no-any-return]
