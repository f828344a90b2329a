"""Frozen weights laid out once for many products of one shape.

A product of a few hundred rows with a weight matrix spends a tenth to a fifth of its time on copying the weights into the order
that the processor wants, at every call, forward and on the way back. Intel's library can keep that copy. The operators are torch's
own but not documented (its compiler uses them); where they are missing, everything works as before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biomedcoop.backbones.base import Backbone


def can_pack(backbone: Backbone) -> bool:
    """Whether this build of torch has the operators, and the text tower's weights are what they take."""
    has_library = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    known = has_library and hasattr(torch.ops.mkl, "_mkl_reorder_linear_weight")
    return known and backbone.device.type == "cpu" and backbone.dtype == torch.float32


@contextlib.contextmanager
def packed(backbone: Backbone, rows: int) -> Iterator[None]:
    """Inside, dense layers of the text tower compute products of ``rows`` rows faster, and others as ever.

    Costs twice the memory of their weights meanwhile, and as much time as about four steps of one run.
    """
    layers = [
        layer
        for name, layer in backbone.towers.named_modules()
        if type(layer) is nn.Linear and not name.startswith("visual.") and can_pack(backbone)
    ]
    try:
        for layer in layers:
            layer.forward = product(layer, rows)  # type: ignore[method-assign,assignment]
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def product(layer: nn.Linear, rows: int) -> Callable[[Tensor], Tensor]:
    """What ``layer`` computes, with its weights laid out for both directions."""
    weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
    pack = torch.ops.mkl._mkl_reorder_linear_weight
    there, back = pack(weight, rows), pack(weight.t().contiguous(), rows)

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return torch.ops.mkl._mkl_linear(x, there, weight, bias, rows)  # type: ignore[no-any-return]

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            return torch.ops.mkl._mkl_linear(gradients[0], back, weight.t(), None, rows)  # type: ignore[no-any-return]

    def forward(x: Tensor) -> Tensor:
        if x.numel() != rows * layer.in_features:
            return F.linear(x, weight, bias)
        flat: Tensor = Product.apply(x.reshape(rows, -1))  # type: ignore[no-untyped-call]
        return flat.view(*x.shape[:-1], -1)

    return forward
