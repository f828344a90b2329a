"""The linear projection at the end of an image tower, and the same tower without it.

Its features are then those that the projection would take, [B, W], and lie in no space with texts. They are stored as those of any
other backbone; a fingerprint of its own keeps them apart.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakValueDictionary

from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.changed import unfrozen
from biomedcoop.errors import UserError
from biomedcoop.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

PLACES = {"visual.head.proj.weight": False, "visual.attnpool.c_proj.weight": False, "visual.proj": True}
"""Names of the projections of the towers, and whether their weight is [W, E] in place of [E, W]."""

_made: WeakValueDictionary[int, Backbone] = WeakValueDictionary()
"""Towers without projection that are in use, by the backbone they come from: classifiers share one, with its prepacked weights."""


class Projection(NamedTuple):
    """features = weight · x + bias.

    Attributes:
        weight: [E, W].
        bias: [E], zeros where the tower has none.
    """

    weight: Tensor
    bias: Tensor


def projection_of(backbone: Backbone) -> Projection:
    """The projection of a backbone's image tower, at least in float32.

    Raises:
        UserError: the image tower has none, or has it in int8.
    """
    place, tensors = _place(backbone), dict(backbone.towers.named_parameters())
    weight = tensors[place].detach().to(backbone.learning_dtype)
    weight = weight.T if PLACES[place] else weight
    bias = tensors.get(place.removesuffix("weight") + "bias")
    return Projection(weight, weight.new_zeros(len(weight)) if bias is None else bias.detach().to(weight.dtype))


def before_projection(backbone: Backbone) -> Backbone:
    """The same backbone whose image features are those before the projection.

    The identity takes the place of the projection, so everything that computes with the tower finds it as it was.

    Raises:
        UserError: see :func:`projection_of`.
    """
    if (made := _made.get(id(backbone))) is not None:
        return made
    place, other = _place(backbone), unfrozen(backbone, {})
    path, _, own = place.rpartition(".")
    module = other.towers.get_submodule(path)
    weight = getattr(module, own)
    width = weight.shape[0 if PLACES[place] else 1]
    identity = torch.eye(width, dtype=weight.dtype, device=weight.device)
    setattr(module, own, torch.nn.Parameter(identity, requires_grad=False))
    if hasattr(module, "bias"):
        module.register_parameter("bias", None)
    other.embed_dim, other.has_text_tower = width, False
    other.name = f"{backbone.name} without its projection"
    other.fingerprint = hashlib.sha256(f"{backbone.fingerprint} without its projection".encode()).hexdigest()
    _made[id(backbone)] = other
    return other


def _place(backbone: Backbone) -> str:
    """The name of the projection's weight."""
    names = {name for name, _ in backbone.towers.named_parameters()}
    place = next((name for name in PLACES if name in names), None)
    if place is None:
        raise UserError(
            f"{backbone.name}: its image tower does not end with a linear projection; use the method rla, which trains a matrix "
            "behind any image tower"
        )
    if backbone.precision == "int8":
        raise UserError(
            f"{backbone.name}: with precision int8 the projection of the image tower is not at hand; choose float32 or bfloat16"
        )
    return place
