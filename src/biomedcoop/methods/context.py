"""Learned context vectors in front of the class name (CoOp, Zhou et al. 2022, arXiv 2109.01134), for R runs at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from biomedcoop.backbones.base import Backbone
from biomedcoop.errors import UserError


class ClassPrompts:
    """Token embeddings of "<context> <class name>." for C classes, of which the M context tokens are replaced.

    [CLS] · M context tokens · name tokens · "." · [SEP], padded to the longest of the C prompts.

    Args:
        backbone: its token embeddings are used and its text tower encodes.
        class_names: C names.
        context_words: words whose token embeddings are the context's initial values, e.g. "a photo of a".
    """

    def __init__(self, backbone: Backbone, class_names: Sequence[str], context_words: str) -> None:
        self.backbone = backbone
        tokens = int((backbone.tokenize([context_words]) != 0).sum()) - 2  # less [CLS] and [SEP]
        ids = backbone.tokenize([f"{context_words} {name}." for name in class_names]).to(backbone.device)  # [C, L]
        if tokens < 1 or ids.shape[1] < tokens + 3:
            raise UserError(
                f"context words {context_words[:60]!r} do not fit the backbone's {backbone.context_length} tokens"
            )
        with torch.no_grad():
            embedded = backbone.embed_tokens(ids)  # [C, L, D]
        self.mask = ids != 0  # [C, L]
        self.prefix = embedded[:, :1]  # [C, 1, D]
        self.suffix = embedded[:, 1 + tokens :]  # [C, L - 1 - M, D]
        self.initial_context = embedded[0, 1 : 1 + tokens].clone()  # [M, D]

    def encode(self, context: Tensor) -> Tensor:
        """Context [R, M, D] -> raw class embeddings [R, C, E]; one pass of the text tower for all runs."""
        r, c = len(context), len(self.prefix)
        prompts = torch.cat(
            [
                self.prefix.expand(r, -1, -1, -1),
                context[:, None].expand(-1, c, -1, -1),
                self.suffix.expand(r, -1, -1, -1),
            ],
            dim=2,
        )  # [R, C, L, D]
        features = self.backbone.encode_text_embeddings(prompts.flatten(0, 1), self.mask.repeat(r, 1))
        return features.view(r, c, -1)
