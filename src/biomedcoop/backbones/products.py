"""Frozen weights laid out once for many products of one shape.

A product of a few hundred rows with a weight matrix spends a tenth to a fifth of its time on copying the weights into the order
that the processor wants, at every call, forward and on the way back. The libraries behind torch can keep that copy: Intel's MKL in
float32, oneDNN in bfloat16. The operators are torch's own but not documented (its compiler uses them); where they are missing,
everything works as before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biomedcoop.backbones.base import Backbone


def text_layers(backbone: Backbone) -> list[nn.Module]:
    """Modules of the text tower, and what both towers share."""
    return [module for name, module in backbone.towers.named_modules() if not name.startswith("visual.")]


@contextlib.contextmanager
def packed(modules: Iterable[nn.Module], *, keep: bool = False) -> Iterator[None]:
    """Inside, dense layers among the modules compute products of as many rows as their first faster, and others as ever.

    Laying out takes about the time of a pass, and as much memory as the weights; twice as much where gradients pass.

    Args:
        keep: hold what is laid out for the next time, until the layer goes or has other weights; only for passes without gradients.
    """
    layers = [module for module in modules if type(module) is nn.Linear and can_pack(module.weight)]
    lock = Lock()
    try:
        for layer in layers:
            layer.forward = _kept_of(layer, lock) if keep else Packed(layer, lock)  # type: ignore[method-assign,assignment]
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


_kept: WeakKeyDictionary[nn.Module, tuple[Weights, Packed]] = WeakKeyDictionary()

Weights = tuple[int, torch.dtype, int]


def _kept_of(layer: nn.Linear, lock: Lock) -> Packed:
    weight = layer.weight
    weights = weight.data_ptr(), weight.dtype, 0 if weight.is_inference() else weight._version
    kept = _kept.get(layer)
    if kept is None or kept[0] != weights:
        kept = _kept[layer] = weights, Packed(layer, lock)
    return kept[1]


def can_pack(weight: Tensor) -> bool:
    """Whether this build of torch has the operators for such weights."""
    if weight.device.type != "cpu":
        return False
    if weight.dtype == torch.float32:
        has_library = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
        return has_library and hasattr(torch.ops.mkl, "_mkl_reorder_linear_weight")
    if weight.dtype == torch.bfloat16:
        has_library = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        return (
            has_library
            and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
            and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        )
    return False


class Packed:
    """What a dense layer computes, its weights laid out for the number of rows that it meets first.

    Args:
        lock: held while they are laid out, so that threads do not do it at once.
    """

    def __init__(self, layer: nn.Linear, lock: Lock) -> None:
        self.weight, self.bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
        self.lock = lock
        self.rows = 0
        self.there: Tensor | None = None
        self.back: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        rows, learns = x.numel() // self.weight.shape[1], torch.is_grad_enabled() and x.requires_grad
        wants_back = learns and self.weight.dtype == torch.float32
        if self.there is None or (wants_back and self.back is None):
            self.lay_out(rows, wants_back)
        if rows != self.rows or (learns and self.back is None):
            return F.linear(x, self.weight, self.bias)
        flat = x.reshape(rows, -1)
        out: Tensor = _Learned.apply(flat, self) if learns else self.product(flat)  # type: ignore[no-untyped-call]
        return out.view(*x.shape[:-1], -1)

    def lay_out(self, rows: int, wants_back: bool) -> None:
        exact = self.weight.dtype == torch.float32
        pack = torch.ops.mkl._mkl_reorder_linear_weight if exact else torch.ops.mkldnn._reorder_linear_weight
        with self.lock:
            self.rows = self.rows or rows
            if wants_back and self.back is None:
                self.back = pack(self.weight.t().contiguous(), self.rows)
            if self.there is None:  # other threads look at it without the lock
                self.there = pack(self.weight, self.rows)

    def product(self, x: Tensor) -> Tensor:
        if self.weight.dtype == torch.float32:
            return torch.ops.mkl._mkl_linear(x, self.there, self.weight, self.bias, self.rows)  # type: ignore[no-any-return]
        return torch.ops.mkldnn._linear_pointwise(x, self.there, self.bias, "none", [], "")  # type: ignore[no-any-return]


class _Learned(torch.autograd.Function):
    """The product with a way back to its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Packed) -> Tensor:
        ctx.packed = packed
        return packed.product(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        own: Packed = ctx.packed
        product = torch.ops.mkl._mkl_linear
        return product(gradients[0], own.back, own.weight.t(), None, own.rows), None
