"""The passes of a frozen EfficientNet-Lite on a CPU: each convolution with its normalisation, ReLU6 and shortcut is one operator.

Batch normalisation by fixed statistics is a scale and a shift of each channel, so it goes into the weights. oneDNN then keeps the
maps channels-last and each map is written once: memory, not arithmetic, bounds a depthwise convolution.

No map is padded by a copy. TensorFlow puts the odd row of a stride at the end, oneDNN as torch before the first: with image and
kernels upside down and mirrored, torch's padding gives the same positions, and the mean over positions does not know.
"""

from __future__ import annotations

from threading import Lock

import torch
from torch import Tensor

from biomedcoop.backbones.efficientnet_lite import Block, Convolution, EfficientNetLite, Norm

MIRRORED = (2, 3)
"""Dimensions of maps and kernels that are turned round."""


def can_prepack_convolutions(trunk: EfficientNetLite) -> bool:
    """Whether it is a float32 model on a CPU, and this build of torch has the operators for its weights."""
    return (
        all(weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in trunk.parameters())
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_reorder_convolution_weight")
    )


class PrepackedConvolution:
    """A convolution with the normalisation behind it."""

    def __init__(self, convolution: Convolution, norm: Norm) -> None:
        scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
        kernels = convolution.weight.detach() * scale[:, None, None, None]
        if convolution.odd_last:
            kernels = kernels.flip(MIRRORED)
        self.geometry = list(convolution.padding), list(convolution.stride), [1, 1], convolution.groups
        kernels = kernels.contiguous(memory_format=torch.channels_last)
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(kernels, *self.geometry)
        self.bias = norm.bias.detach() - norm.running_mean * scale
        self.after = ("none", [], "") if norm.linear else ("hardtanh", [0.0, 6.0], "")

    def __call__(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        weights = self.weight, self.bias, *self.geometry
        if shortcut is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *weights, *self.after)  # type: ignore[no-any-return]
        add = torch.ops.mkldnn._convolution_pointwise.binary
        return add(x, shortcut, *weights, "add", 1.0, None, [], None)  # type: ignore[no-any-return]


class PrepackedEfficientNetLite:
    """The forward pass of a trunk, without gradients; prepacked at its first call with each number of threads.

    oneDNN chooses the order of weights for the threads that share an operation: another number takes up to twice the time.

    Args:
        lock: held while weights are prepacked, so that several threads do not do it at once.
    """

    def __init__(self, trunk: EfficientNetLite, lock: Lock) -> None:
        self.trunk, self.lock = trunk, lock
        self.blocks: dict[int, list[tuple[list[PrepackedConvolution], bool]]] = {}

    def __call__(self, pixels: Tensor) -> Tensor:
        threads = torch.get_num_threads()
        blocks = self.blocks.get(threads) or self.prepack(threads)
        x = pixels.flip(MIRRORED) if self.trunk.config.tensorflow else pixels
        x = x.contiguous(memory_format=torch.channels_last)
        for (*convolutions, last), shortcut in blocks:
            before = x
            for convolution in convolutions:
                x = convolution(x)
            x = last(x, before if shortcut else None)
        return x.mean((2, 3))

    def prepack(self, threads: int) -> list[tuple[list[PrepackedConvolution], bool]]:
        """Each block's convolutions, and whether it has a shortcut; stem and head count as blocks."""
        trunk = self.trunk
        with self.lock:
            if threads not in self.blocks:
                blocks = [block for block in trunk.modules() if isinstance(block, Block)]
                self.blocks[threads] = [
                    ([PrepackedConvolution(trunk.conv_stem, trunk.bn1)], False),
                    *(([PrepackedConvolution(*pair) for pair in block.pairs()], block.shortcut) for block in blocks),
                    ([PrepackedConvolution(trunk.conv_head, trunk.bn2)], False),
                ]
            return self.blocks[threads]
