"""What happens inside an image tower: the output of a layer with its gradients, and the attention of each block."""

from __future__ import annotations

from collections.abc import Iterable
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

from biomedcoop.backbones.base import Backbone
from biomedcoop.errors import UserError


def activations_of(backbone: Backbone, pixels: Tensor, trunk: nn.Module, layer: str) -> tuple[Tensor, Tensor]:
    """Raw features and the output of one layer of the image tower, both in one autograd graph.

    Args:
        pixels: normalised, [B, 3, S, S].
        trunk: the module that holds the layer.
        layer: name of the layer inside ``trunk``.

    Raises:
        UserError: the trunk has no such layer, or no gradients pass through it.
    """
    check_gradients(backbone)
    # a list of modules is never called, only its items
    layers = {n: module for n, module in trunk.named_modules() if n and not isinstance(module, nn.ModuleList)}
    if layer not in layers:
        known = backbone.map_layer or next(iter(layers))
        raise UserError(f"{backbone.name} has no image layer '{layer}'; a layer is, for instance, '{known}'")
    kept: list[Tensor] = []
    thread = get_ident()

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if get_ident() != thread:  # another thread uses the same tower
            return output
        # weights are frozen, so the graph has to start here
        kept.append(output if output.requires_grad else output.requires_grad_())
        return kept[-1]

    handle = layers[layer].register_forward_hook(keep)
    try:
        with torch.enable_grad():
            return backbone.encode_image(pixels), kept[-1]
    finally:
        handle.remove()


def attention_of(backbone: Backbone, tokens: Tensor, blocks: Iterable[Any]) -> tuple[Tensor, list[Tensor]]:
    """The forward pass of a transformer, and the attention probabilities that each block computed it from.

    Where gradients are on, all of it is one autograd graph.

    Args:
        tokens: input of the first block, [B, T, W].
        blocks: in order; each has ``with_attention``.

    Returns:
        Output of the last block [B, T, W], and the attention of each block, [B, H, T, T].

    Raises:
        UserError: gradients are on, and none pass through the tower.
    """
    if torch.is_grad_enabled():
        check_gradients(backbone)
    maps = []
    for block in blocks:
        given = tokens
        tokens, attention = block.with_attention(given)
        for hook in block._forward_hooks.values():  # a trained tower may change a block's output by one
            tokens = hook(block, (given,), tokens)
        maps.append(attention)
    return tokens, maps


def check_gradients(backbone: Backbone) -> None:
    """Refuse a backbone through whose image tower no gradients pass."""
    if backbone.precision == "int8":
        raise UserError(f"no gradients pass through {backbone.name} in int8; load it with precision float32")
