"""Prepacked weights: frozen layers whose weights are reordered once for many passes of one shape.

A product of a few hundred rows with a weight matrix spends a tenth to a fifth of its time on reordering the weights as the
processor wants them, at every call, forward and backward. The libraries behind torch can keep the reordered copy: Intel's MKL
in float32, oneDNN in bfloat16. The operators are torch's own, but undocumented (its compiler uses them). Where they are missing,
the layers compute as before. An EfficientNet-Lite is prepacked as a whole (``prepack_convolutions.py``).

A prepacked backbone holds a second model that shares the tensors of the first. The first is never changed, so any number of
threads may use both.
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
from biomedcoop.backbones.bfloat16 import has_bfloat16
from biomedcoop.backbones.efficientnet_lite import EfficientNetLite
from biomedcoop.backbones.prepack_convolutions import PrepackedEfficientNetLite, can_prepack_convolutions
from biomedcoop.backbones.vit import is_watched


def prepack_text_tower(backbone: Backbone) -> Backbone:
    """The same backbone for many passes of its text tower.

    It takes the memory of the text tower's dense layers once more, and twice more where gradients pass through them.
    """
    other = copy.copy(backbone)
    other.towers = _prepack(backbone.towers)
    return other


def prepack_image_tower(backbone: Backbone, images: int | None = None) -> Backbone:
    """The same backbone for passes of its image tower without gradients; prepacked once, and kept as long as the tower lives.

    Args:
        images: images of a full pass, which the weights of dense layers are prepacked for; by default those of the first pass.
    """
    other = copy.copy(backbone)
    tower = backbone.image_tower
    # a changed weight or a new hook needs another copy
    modules = [tower]  # one plain walk: this is asked at every prediction
    for module in modules:
        modules += [child for child in module._modules.values() if child is not None]
    tensors = [t for m in modules for kind in (m._parameters, m._buffers) for t in kind.values() if t is not None]
    try:
        versions = [t._version for t in tensors]
    except RuntimeError:  # one was made in inference mode and has no version
        versions = [0 if t.is_inference() else t._version for t in tensors]
    # another dtype is another place in memory
    state = images, any([m._forward_hooks for m in modules]), [t.data_ptr() for t in tensors], versions
    kept = _kept.get(tower)
    if kept is None or kept[0] != state:
        packed = _prepack(tower, images)
        kept = _kept[tower] = state, None if packed is tower else packed  # None: it must not keep itself alive
    other.image_tower = tower if kept[1] is None else kept[1]
    return other


_kept: WeakKeyDictionary[nn.Module, tuple[Any, nn.Module | None]] = WeakKeyDictionary()


def tensors_of(tower: nn.Module) -> list[Tensor]:
    """Parameters and buffers."""
    return [*tower.parameters(), *tower.buffers()]


def _prepack(tower: nn.Module, images: int | None = None) -> nn.Module:
    """A copy that shares all tensors, with prepacked layers; the tower itself where nothing can be prepacked."""
    if is_watched(tower) or not any(map(can_prepack, tower.modules())):
        return tower
    tensors = {id(tensor): tensor for tensor in tensors_of(tower)}
    tower, lock = copy.deepcopy(tower, tensors), Lock()
    for layer in filter(can_prepack, tower.modules()):
        if isinstance(layer, EfficientNetLite):
            layer.forward = PrepackedEfficientNetLite(layer, lock)  # type: ignore[method-assign]
        else:
            layer.forward = PrepackedLinear(layer, lock, images)  # type: ignore[arg-type]
    return tower


def can_prepack(layer: nn.Module) -> bool:
    """Whether it is a dense layer or an EfficientNet-Lite on a CPU, and this build of torch has the operators for its weights."""
    if isinstance(layer, EfficientNetLite):
        return can_prepack_convolutions(layer)
    if type(layer) is not nn.Linear or layer.weight.device.type != "cpu":
        return False
    if layer.weight.dtype == torch.float32:
        has_library = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
        return has_library and hasattr(torch.ops.mkl, "_mkl_reorder_linear_weight")
    if layer.weight.dtype == torch.bfloat16:
        return has_bfloat16() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    return False


class PrepackedLinear:
    """The forward pass of a dense layer whose weights are prepacked for one number of rows.

    Args:
        lock: held while weights are prepacked, so that several threads do not do it at once.
        batch: size of the first dimension of the inputs to prepack for; by default that of the first call.
    """

    def __init__(self, layer: nn.Linear, lock: Lock, batch: int | None = None) -> None:
        self.weight, self.bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
        self.lock, self.batch = lock, batch
        self.rows = 0
        self.forward_weight: Tensor | None = None
        self.backward_weight: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        rows, needs_gradient = x.numel() // self.weight.shape[1], torch.is_grad_enabled() and x.requires_grad
        needs_backward = needs_gradient and self.weight.dtype == torch.float32
        if self.forward_weight is None or (needs_backward and self.backward_weight is None):
            self.prepack(rows if self.batch is None else rows // len(x) * self.batch, needs_backward)
        if rows == len(x) and rows < self.rows and not needs_gradient:
            # a row for each image: filling up costs next to nothing, and the bits of an image are those of a full pass
            filled = self(F.pad(x.reshape(rows, -1), (0, 0, 0, self.rows - rows)))
            return filled[:rows].view(*x.shape[:-1], -1)
        if rows != self.rows or (needs_gradient and self.backward_weight is None):
            return F.linear(x, self.weight, self.bias)
        flat = x.reshape(rows, -1)
        out: Tensor = _Product.apply(flat, self) if needs_gradient else self.product(flat)  # type: ignore[no-untyped-call]
        return out.view(*x.shape[:-1], -1)

    def prepack(self, rows: int, needs_backward: bool) -> None:
        float32 = self.weight.dtype == torch.float32
        reorder = torch.ops.mkl._mkl_reorder_linear_weight if float32 else torch.ops.mkldnn._reorder_linear_weight
        with self.lock:
            self.rows = self.rows or rows
            if needs_backward and self.backward_weight is None:
                self.backward_weight = reorder(self.weight.t().contiguous(), self.rows)
            if self.forward_weight is None:  # set last: other threads read it without the lock
                self.forward_weight = reorder(self.weight, self.rows)

    def product(self, x: Tensor) -> Tensor:
        if self.weight.dtype == torch.float32:
            return torch.ops.mkl._mkl_linear(x, self.forward_weight, self.weight, self.bias, self.rows)  # type: ignore[no-any-return]
        return torch.ops.mkldnn._linear_pointwise(x, self.forward_weight, self.bias, "none", [], "")  # type: ignore[no-any-return]


class _Product(torch.autograd.Function):
    """The product with a gradient for its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: PrepackedLinear) -> Tensor:
        ctx.layer = layer
        return layer.product(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        layer: PrepackedLinear = ctx.layer
        product = torch.ops.mkl._mkl_linear
        return product(gradients[0], layer.backward_weight, layer.weight.t(), None, layer.rows), None
