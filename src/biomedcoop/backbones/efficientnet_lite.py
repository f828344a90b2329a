"""EfficientNet-Lite (Tan & Le 2019, arXiv 1905.11946) with the tensor names of timm's ``tf_efficientnet_lite0`` and its kin.

It is EfficientNet with ReLU6 for swish, without squeeze-and-excitation, and with a stem and a head whose widths are not scaled (Liu
2020, "Higher accuracy on vision models with EfficientNet-Lite"). The published weights were trained with TensorFlow: its "same"
padding puts the odd row and column of a stride at the end, and its batch normalisation adds 0.001 to the variance. timm has
both for the names that begin with ``tf_``; for the others it has torch's padding and 0.00001.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biomedcoop.backbones.bfloat16 import has_bfloat16
from biomedcoop.backbones.clip_resnet import BatchNorm

STAGES = ((1, 3, 1), (2, 3, 2), (2, 5, 2), (3, 3, 2), (3, 5, 1), (4, 5, 2), (1, 3, 1))
"""Blocks, kernel and stride of each stage of the smallest model (Table 1 of the paper)."""

DEPTHS = {f"efficientnet_lite{n}": depth for n, depth in enumerate((1.0, 1.1, 1.2, 1.4, 1.8))}
"""By timm's name, the factor of the number of blocks; the first and last stage are not scaled."""

TENSORFLOW = "tf_"
"""Begins timm's name of a model with TensorFlow's padding and normalisation."""

TENSORFLOW_EPS, TORCH_EPS = 1e-3, 1e-5


@dataclass(frozen=True)
class BlockConfig:
    """Sizes of one block: channels that come in, that the depthwise convolution sees, and that go out; kernel and stride."""

    inputs: int
    hidden: int
    outputs: int
    kernel: int
    stride: int


@dataclass(frozen=True)
class EfficientNetLiteConfig:
    """Sizes of the tower: channels of the stem, the blocks of each stage, and the width of the pooled output.

    Attributes:
        tensorflow: padding and normalisation are TensorFlow's.
    """

    image_size: int
    stem: int
    stages: tuple[tuple[BlockConfig, ...], ...]
    width: int
    tensorflow: bool


def is_efficientnet_lite(name: str) -> bool:
    """Whether it is timm's name of an EfficientNet-Lite, without the tag of its weights."""
    return name.removeprefix(TENSORFLOW) in DEPTHS


def blocks_of(name: str) -> list[int]:
    """Number of blocks of each stage of a model, by timm's name."""
    first, *inner, last = (blocks for blocks, _, _ in STAGES)
    depth = DEPTHS[name.removeprefix(TENSORFLOW)]
    return [first, *(math.ceil(blocks * depth) for blocks in inner), last]


def read_config(name: str, image_size: int, shape: Callable[[str, int], torch.Size]) -> EfficientNetLiteConfig:
    """Sizes of a tower from the shapes of its tensors; depth, kernels and strides are those of the name.

    Args:
        name: timm's name, without the tag of its weights.
        image_size: side of the input, px.
        shape: gives the shape of a tensor by its name and number of dimensions.
    """
    stem = channels = shape("conv_stem.weight", 4)[0]
    stages = []
    for stage, (blocks, (_, kernel, stride)) in enumerate(zip(blocks_of(name), STAGES, strict=True)):
        configs = []
        for number in range(blocks):
            block = f"blocks.{stage}.{number}."
            hidden = shape(block + "conv_dw.weight", 4)[0]
            outputs = shape(block + ("conv_pwl.weight" if stage else "conv_pw.weight"), 4)[0]
            configs.append(BlockConfig(channels, hidden, outputs, kernel, 1 if number else stride))
            channels = outputs
        stages.append(tuple(configs))
    width = shape("conv_head.weight", 4)[0]
    return EfficientNetLiteConfig(image_size, stem, tuple(stages), width, name.startswith(TENSORFLOW))


class Convolution(nn.Conv2d):
    """A convolution without bias that gives ceil(size / stride) positions along each side.

    With weights in bfloat16 (:mod:`biomedcoop.backbones.precision`), maps of float32 are rounded on their way in; sums are float32.

    Attributes:
        odd_last: what a stride leaves of the padding goes behind the last row and column (TensorFlow), not before the first.
    """

    odd_last = False

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dtype != x.dtype:
            return self.coarse(x)
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1 or not self.odd_last:
            return super().forward(x)
        missing = [max(0, (math.ceil(n / stride) - 1) * stride + kernel - n) for n in (x.shape[3], x.shape[2])]
        x = F.pad(x, [side for total in missing for side in (total // 2, total - total // 2)])
        return F.conv2d(x, self.weight, stride=stride, groups=self.groups)

    def coarse(self, x: Tensor) -> Tensor:
        dtype = self.weight.dtype
        rounded = x.to(dtype, memory_format=torch.channels_last)
        if x.device.type == "cpu" and not has_bfloat16():
            # products of rounded numbers are exact in float32, several times as fast as PyTorch's loops for bfloat16
            out: Tensor = self._conv_forward(rounded.to(x.dtype), self.weight.to(x.dtype), None).to(dtype)
        else:
            out = super().forward(rounded)
        return out.to(x.dtype)


class Norm(BatchNorm):
    """Batch normalisation by the running statistics, then ReLU6 unless it is ``linear``."""

    def __init__(self, channels: int, *, linear: bool = False) -> None:
        super().__init__(channels, TORCH_EPS)
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x if self.linear else F.relu6(x, inplace=True)


class Block(nn.Module):
    """Convolutions, each with its normalisation, and a shortcut where input and output have the same shape."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.shortcut = config.stride == 1 and config.inputs == config.outputs

    def pairs(self) -> list[tuple[Convolution, Norm]]:
        """Convolutions in order, each with its normalisation."""
        convolutions = [module for module in self.children() if isinstance(module, Convolution)]
        return list(zip(convolutions, (module for module in self.children() if isinstance(module, Norm)), strict=True))

    def forward(self, x: Tensor) -> Tensor:  # [B, inputs, H, W] -> [B, outputs, H/stride, W/stride]
        out = x
        for convolution, norm in self.pairs():
            out = norm(convolution(out))
        return out + x if self.shortcut else out


class DepthwiseSeparable(Block):
    """Depthwise, then pointwise."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__(config)
        self.conv_dw = Convolution(config.inputs, config.inputs, config.kernel, config.stride, groups=config.inputs)
        self.bn1 = Norm(config.inputs)
        self.conv_pw = Convolution(config.inputs, config.outputs)
        self.bn2 = Norm(config.outputs, linear=True)


class InvertedResidual(Block):
    """Pointwise to more channels, depthwise, pointwise to few (Sandler et al. 2018, arXiv 1801.04381)."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__(config)
        self.conv_pw = Convolution(config.inputs, config.hidden)
        self.bn1 = Norm(config.hidden)
        self.conv_dw = Convolution(config.hidden, config.hidden, config.kernel, config.stride, groups=config.hidden)
        self.bn2 = Norm(config.hidden)
        self.conv_pwl = Convolution(config.hidden, config.outputs)
        self.bn3 = Norm(config.outputs, linear=True)


class EfficientNetLite(nn.Module):
    """Image tower: normalised pixels [B, 3, S, S] -> mean of the last map [B, W]."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__()
        self.config = config
        self.conv_stem = Convolution(3, config.stem, 3, stride=2)
        self.bn1 = Norm(config.stem)
        first, *others = config.stages
        stages = [nn.Sequential(*map(DepthwiseSeparable, first))]
        stages += [nn.Sequential(*map(InvertedResidual, stage)) for stage in others]
        self.blocks = nn.Sequential(*stages)
        self.conv_head = Convolution(config.stages[-1][-1].outputs, config.width)
        self.bn2 = Norm(config.width)
        if config.tensorflow:
            for module in self.modules():
                if isinstance(module, Convolution):
                    module.odd_last = True
                elif isinstance(module, Norm):
                    module.eps = TENSORFLOW_EPS

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.bn1(self.conv_stem(pixels))
        x = self.bn2(self.conv_head(self.blocks(x)))
        return x.mean((2, 3))  # type: ignore[no-any-return]
