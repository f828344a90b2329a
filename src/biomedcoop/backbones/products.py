"""Frozen weights laid out once for many products of one shape.

A product of a few hundred rows with a weight matrix spends a tenth to a fifth of its time on copying the weights into the order
that the processor wants, at every call, forward and on the way back. The libraries behind torch can keep that copy: Intel's MKL in
float32, oneDNN in bfloat16. The operators are torch's own but not documented (its compiler uses them); where they are missing,
everything works as before.

What is laid out is a second model that shares the numbers of the first; the first is never touched, so that any number of threads
may use both.
"""

from __future__ import annotations

import copy
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.vit import is_watched


def laid_out(backbone: Backbone) -> Backbone:
    """The same backbone for many passes of its text tower, whose dense layers take their memory again; twice with gradients."""
    other = copy.copy(backbone)
    other.towers = _laid_out(backbone.towers)
    return other


def laid_out_for_images(backbone: Backbone) -> Backbone:
    """The same backbone for passes of its image tower without gradients; laid out once, for as long as the tower lives."""
    other = copy.copy(backbone)
    tower = backbone.image_tower
    # a changed weight or a hook asks for another
    state = (
        is_watched(tower),
        [(p.data_ptr(), p.dtype, 0 if p.is_inference() else p._version) for p in tower.parameters()],
    )
    kept = _kept.get(tower)
    if kept is None or kept[0] != state:
        made = _laid_out(tower)
        kept = _kept[tower] = state, None if made is tower else made  # None: it must not keep itself alive
    other.image_tower = tower if kept[1] is None else kept[1]
    return other


_kept: WeakKeyDictionary[nn.Module, tuple[Any, nn.Module | None]] = WeakKeyDictionary()


def _laid_out(tower: nn.Module) -> nn.Module:
    """A copy that shares all tensors, with dense layers that compute products of as many rows as their first faster."""
    if is_watched(tower) or not any(map(can_pack, tower.modules())):
        return tower
    tensors = {id(tensor): tensor for tensor in (*tower.parameters(), *tower.buffers())}
    tower, lock = copy.deepcopy(tower, tensors), Lock()
    for layer in filter(can_pack, tower.modules()):
        layer.forward = Packed(layer, lock)  # type: ignore[arg-type]
    return tower


def can_pack(layer: nn.Module) -> bool:
    """Whether it is a dense layer, and this build of torch has the operators for its weights."""
    if type(layer) is not nn.Linear or layer.weight.device.type != "cpu":
        return False
    if layer.weight.dtype == torch.float32:
        has_library = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
        return has_library and hasattr(torch.ops.mkl, "_mkl_reorder_linear_weight")
    if layer.weight.dtype == torch.bfloat16:
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
