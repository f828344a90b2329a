"""The two towers of OpenAI's CLIP, with the tensor names of its checkpoints: a ViT or a ResNet, and a causal text transformer.

The text tower starts from token *embeddings*, because learned context vectors replace word embeddings; positions still apply.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from biomedcoop.backbones.bert import empty_embedding
from biomedcoop.backbones.clip_resnet import ModifiedResNet, ResNetConfig
from biomedcoop.backbones.clip_transformer import Transformer, TransformerConfig
from biomedcoop.backbones.vit import each_row


@dataclass(frozen=True)
class ViTConfig:
    image_size: int
    patch_size: int
    blocks: TransformerConfig


@dataclass(frozen=True)
class TextConfig:
    vocab_size: int
    positions: int
    blocks: TransformerConfig


class VisionTransformer(nn.Module):
    """Image tower: normalised pixels [B, 3, S, S] -> raw features [B, E], from the class token."""

    def __init__(self, config: ViTConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        width, patch = config.blocks.width, config.patch_size
        tokens = (config.image_size // patch) ** 2 + 1
        self.conv1 = nn.Conv2d(3, width, kernel_size=patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(tokens, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(config.blocks)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, embed_dim))

    def embed(self, pixels: Tensor) -> Tensor:
        """Tokens before the first block: [B, T, W], class token first."""
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(patches.shape[0], 1, -1)
        return self.ln_pre(torch.cat([first, patches], dim=1) + self.positional_embedding)  # type: ignore[no-any-return]

    def forward(self, pixels: Tensor) -> Tensor:
        first = torch.zeros(pixels.shape[0], dtype=torch.int64, device=pixels.device)
        x = self.ln_post(self.transformer(self.embed(pixels), first))
        return each_row(x[:, None], self.proj.T)[:, 0]


class Towers(nn.Module):
    """Both towers and the scale; the text tower's tensors have no prefix in the published checkpoints."""

    def __init__(self, image: ViTConfig | ResNetConfig, text: TextConfig, embed_dim: int) -> None:
        super().__init__()
        self.embed_dim, self.text_config = embed_dim, text
        width = text.blocks.width
        self.visual: VisionTransformer | ModifiedResNet
        if isinstance(image, ViTConfig):
            self.visual = VisionTransformer(image, embed_dim)
        else:
            self.visual = ModifiedResNet(image, embed_dim)
        self.token_embedding = empty_embedding(text.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.zeros(text.positions, width))
        self.transformer = Transformer(text.blocks)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, embed_dim))
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def encode_text(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Word embeddings [B, L, W] and mask [B, L] -> raw features [B, E], from the last real token."""
        length = embeddings.shape[1]
        # padding stands behind the end, where no real token sees it
        end = (mask.to(torch.int64) * torch.arange(length, device=mask.device)).argmax(1)
        x = self.transformer(embeddings + self.positional_embedding[:length], end)
        return self.ln_final(x) @ self.text_projection  # type: ignore[no-any-return]
