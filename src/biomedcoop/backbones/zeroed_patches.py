"""The constant tokens of Biomed-DPT's published code: four patch tokens of a ViT are overwritten by zeros before each block.

Biomed-DPT (Peng et al. 2025, arXiv 2505.05189) calls zero vectors its visual prompt. Nothing of them is learned, so features can be
stored as those of any other backbone; the changed fingerprint keeps them apart. ``--backbone biomedclip+zeroed-patches`` asks for
it.
"""

from __future__ import annotations

import hashlib

from torch import Tensor

from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.catalogue import ZEROED_PATCHES
from biomedcoop.backbones.vit import Block, VisionTransformer
from biomedcoop.errors import UserError

ZEROED = slice(1, 5)
"""Tokens that are overwritten: the four behind the class token, which are the first four patches of the top row."""


class ZeroedBlock(Block):
    """A block that sees zeros in place of four patch tokens, in each of its forms."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(zeroed(x))

    def of_first(self, x: Tensor) -> Tensor:
        return super().of_first(zeroed(x))

    def with_attention(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().with_attention(zeroed(x))


def zeroed(x: Tensor) -> Tensor:
    """Tokens [B, T, W] with zeros at :data:`ZEROED`."""
    x = x.clone()
    x[:, ZEROED] = 0
    return x


def zero_patches(backbone: Backbone) -> None:
    """Overwrite four patch tokens before each block of the image tower, in place; name and fingerprint say so.

    Raises:
        UserError: the image tower is not a ViT with the tensor names of timm, or has fewer than five tokens.
    """
    tower = next((part for part in backbone.image_tower.modules() if isinstance(part, VisionTransformer)), None)
    if tower is None or tower.pos_embed.shape[1] < ZEROED.stop:
        raise UserError(
            f"{backbone.name}: {ZEROED_PATCHES} needs an image tower that is a ViT in timm's form with at least four patches, "
            f"such as biomedclip; leave {ZEROED_PATCHES} out"
        )
    for block in tower.blocks:
        block.__class__ = ZeroedBlock  # keeps the block's tensors and their names
    backbone.name += ZEROED_PATCHES
    backbone.fingerprint = hashlib.sha256(f"{backbone.fingerprint}{ZEROED_PATCHES}".encode()).hexdigest()[
        : len(backbone.fingerprint)
    ]
