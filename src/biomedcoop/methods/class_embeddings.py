"""Class embeddings from text, and the state of a text-based method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from biomedcoop.backbones.base import Backbone
from biomedcoop.errors import UserError
from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import State

if TYPE_CHECKING:
    from torch import Tensor


def template_embeddings(backbone: Backbone, class_names: Sequence[str], template: str, unit: bool = True) -> Tensor:
    """Text features [C, E] of a template filled with the class names, of unit norm unless ``unit`` is False, without gradient.

    Raises:
        UserError: a text is longer than the backbone's context; two truncated names might be the same.
    """
    texts = [template.replace("{}", name) for name in class_names]
    for name, tokens in zip(class_names, backbone.token_counts(texts), strict=True):
        if tokens > backbone.context_length:
            raise UserError(
                f"class {name[:60]!r} in its template makes {tokens} tokens, {backbone.name} reads "
                f"{backbone.context_length}; shorten the name"
            )
    with torch.no_grad():
        features = backbone.encode_text(texts).to(backbone.learning_dtype)
        return F.normalize(features, dim=-1) if unit else features


def text_state(backbone: Backbone, class_embeddings: Tensor, **more: Tensor) -> State:
    """State of a text-based method: unit-norm class embeddings [C, E], the logit scale, and further tensors."""
    return {
        "class_embeddings": F.normalize(class_embeddings.detach().float(), dim=-1).cpu(),
        "logit_scale": torch.tensor(backbone.logit_scale),
        **{key: value.detach().cpu().clone() for key, value in more.items()},
    }
