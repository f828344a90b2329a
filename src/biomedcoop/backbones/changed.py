"""A backbone with other values of some tensors: what a method that trains the towers leaves behind."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from biomedcoop.backbones.base import Backbone
from biomedcoop.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def with_tensors(backbone: Backbone, tensors: Mapping[str, Tensor]) -> Backbone:
    """The same backbone with other values of some tensors of its towers; all other tensors are shared.

    It has a fingerprint of its own, so that the feature store keeps its features apart.

    Args:
        backbone: stays as it is.
        tensors: values by the name of the parameter in ``backbone.towers``, e.g. "visual.head.proj.weight".

    Raises:
        KeyError: the towers have no parameter of this name.
        ValueError: a tensor has another shape.
    """
    other = unfrozen(backbone, tensors)
    other.fingerprint = changed_fingerprint(backbone, tensors)
    return other


def changed_fingerprint(backbone: Backbone, tensors: Mapping[str, Tensor]) -> str:
    """Fingerprint of the backbone together with the tensors by which its towers differ."""
    digest = hashlib.sha256(backbone.fingerprint.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def unfrozen(backbone: Backbone, tensors: Mapping[str, Tensor]) -> Backbone:
    """The same backbone that computes with ``tensors``, for training: gradients reach them; see :func:`with_tensors`."""
    kept: dict[int, object] = {id(t): t for t in chain(backbone.towers.parameters(), backbone.towers.buffers())}
    if hasattr(backbone, "tokenizer"):
        kept[id(backbone.tokenizer)] = backbone.tokenizer
    other = copy.deepcopy(backbone, kept)
    other.frozen = backbone.original
    put(other, tensors)
    return other


def put(backbone: Backbone, tensors: Mapping[str, Tensor]) -> None:
    """Let the towers of an :func:`unfrozen` backbone compute with these tensors, which may be results of other tensors."""
    shapes = {name: parameter.shape for name, parameter in backbone.original.towers.named_parameters()}
    for name, tensor in tensors.items():
        if shapes[name] != tensor.shape:
            raise ValueError(f"{name} has the shape {list(tensor.shape)}, not {list(shapes[name])}")
        place, _, own = name.rpartition(".")
        module = backbone.towers.get_submodule(place)
        tensor = tensor.to(backbone.device)
        module.__dict__.pop(own, None)
        if tensor.is_leaf:
            # a leaf with a gradient is trained in place, so it must not become another tensor
            parameter: Any = tensor if tensor.requires_grad else torch.nn.Parameter(tensor, requires_grad=False)
            module._parameters[own] = parameter
        else:
            # a result is no parameter, so torch's modules take it only as a plain attribute
            module._parameters.pop(own, None)
            setattr(module, own, tensor)
