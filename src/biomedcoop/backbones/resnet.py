"""ResNet (He et al. 2016, arXiv 1512.03385) with the tensor names that timm and torchvision share.

The stride of a bottleneck is at its 3x3 convolution, as in both libraries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biomedcoop.backbones.checkpoint import depth
from biomedcoop.backbones.clip_resnet import BatchNorm

STAGES = (1, 2, 3, 4)


@dataclass(frozen=True)
class ResNetConfig:
    """Sizes of a ResNet.

    Attributes:
        image_size: side of the input, px.
        width: channels of the stem.
        blocks: number of blocks of each stage.
        inner: channels inside the blocks of each stage.
        outer: channels behind each stage.
        bottleneck: a block has three convolutions (from ResNet-50 on), not two.
    """

    image_size: int
    width: int
    blocks: tuple[int, ...]
    inner: tuple[int, ...]
    outer: tuple[int, ...]
    bottleneck: bool


def read_config(image_size: int, state: Mapping[str, Tensor], shape: Callable[[str, int], torch.Size]) -> ResNetConfig:
    """The sizes of a ResNet from its tensors.

    Args:
        image_size: side of the input, px.
        state: the tensors by name.
        shape: gives the shape of a tensor by its name and number of dimensions.
    """
    bottleneck = "layer1.0.conv3.weight" in state
    last = "conv3" if bottleneck else "conv2"
    return ResNetConfig(
        image_size=image_size,
        width=shape("conv1.weight", 4)[0],
        blocks=tuple(depth(state, f"layer{stage}.") for stage in STAGES),
        inner=tuple(shape(f"layer{stage}.0.conv1.weight", 4)[0] for stage in STAGES),
        outer=tuple(shape(f"layer{stage}.0.{last}.weight", 4)[0] for stage in STAGES),
        bottleneck=bottleneck,
    )


class Block(nn.Module):
    """Two or three convolutions beside a shortcut: [B, inputs, H, W] -> [B, outer, H/stride, W/stride]."""

    def __init__(self, inputs: int, inner: int, outer: int, stride: int, bottleneck: bool) -> None:
        super().__init__()

        def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)

        self.conv3: nn.Conv2d | None = None
        if bottleneck:
            self.conv1 = convolution(inputs, inner, 1)
            self.conv2 = convolution(inner, inner, 3, stride)
            self.conv3 = convolution(inner, outer, 1)
            self.bn3 = BatchNorm(outer)
        else:
            self.conv1 = convolution(inputs, inner, 3, stride)
            self.conv2 = convolution(inner, outer, 3)
        self.bn1, self.bn2 = BatchNorm(inner), BatchNorm(self.conv2.out_channels)
        self.downsample: nn.Sequential | None = None
        if stride > 1 or inputs != outer:
            self.downsample = nn.Sequential(convolution(inputs, outer, 1, stride), BatchNorm(outer))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.conv3 is not None:
            out = self.bn3(self.conv3(F.relu(out)))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Image tower: normalised pixels [B, 3, S, S] -> mean of the last map [B, W]."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv2d(3, config.width, 7, 2, 3, bias=False)
        self.bn1 = BatchNorm(config.width)
        inputs, stages = config.width, []
        for stage, (count, inner, outer) in enumerate(zip(config.blocks, config.inner, config.outer, strict=True)):
            blocks = []
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(Block(inputs, inner, outer, stride, config.bottleneck))
                inputs = outer
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def forward(self, pixels: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(pixels)))
        x = F.max_pool2d(x, 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean((2, 3))  # type: ignore[no-any-return]
