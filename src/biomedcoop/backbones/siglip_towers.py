"""The two towers of SigLIP (Zhai et al. 2023, arXiv 2303.15343), with the tensor names of CLIP's transformer.

The image tower is a ViT without class token; a learned query, the probe, pools its tokens by attention. The text tower sees all
positions of its context, padding included, and its output is that of the last position. It was trained so: cut padding changes
the features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from biomedcoop.backbones.bert import empty_embedding
from biomedcoop.backbones.clip_towers import TextConfig, ViTConfig
from biomedcoop.backbones.clip_transformer import MLP, Attention, Transformer
from biomedcoop.backbones.vit import attended_by_one, attention_probabilities


class PoolingHead(nn.Module):
    """Multi-head attention pooling: tokens [B, T, W] -> [B, W]."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width = config.blocks.width
        self.probe = nn.Parameter(torch.zeros(1, 1, width))
        self.attention = Attention(config.blocks)
        self.layernorm = nn.LayerNorm(width, eps=config.blocks.norm_eps)
        self.mlp = MLP(config.blocks)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.attention.of_query(self.probe.expand(x.shape[0], -1, -1), x)
        return self.finish(attended_by_one(q, k, v))

    def with_probabilities(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``forward`` [B, W] and the probe's attention probabilities [B, H, 1, T]."""
        q, k, v = self.attention.of_query(self.probe.expand(x.shape[0], -1, -1), x)
        probabilities = attention_probabilities(q, k)
        return self.finish(probabilities @ v), probabilities

    def finish(self, attended: Tensor) -> Tensor:  # [B, H, 1, W/H] -> [B, W]
        pooled = self.attention.out_proj(attended.transpose(1, 2).flatten(2))
        return (pooled + self.mlp(self.layernorm(pooled)))[:, 0]  # type: ignore[no-any-return]


class VisionTransformer(nn.Module):
    """Image tower: normalised pixels [B, 3, S, S] -> raw features [B, W]. The width is that of the joint space."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        width, patch = config.blocks.width, config.patch_size
        # as published, pixels beyond the last whole patch are not seen
        tokens = (config.image_size // patch) ** 2
        self.conv1 = nn.Conv2d(3, width, kernel_size=patch, stride=patch)
        self.positional_embedding = nn.Parameter(torch.zeros(tokens, width))
        self.transformer = Transformer(config.blocks)
        self.ln_post = nn.LayerNorm(width, eps=config.blocks.norm_eps)
        self.head = PoolingHead(config)

    def embed(self, pixels: Tensor) -> Tensor:
        """Tokens before the first block: [B, T, W]."""
        return self.conv1(pixels).flatten(2).transpose(1, 2) + self.positional_embedding  # type: ignore[no-any-return]

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.embed(pixels)
        for block in self.transformer.resblocks:
            x = block(x)
        return self.head(self.ln_post(x))  # type: ignore[no-any-return]


class Towers(nn.Module):
    """Both towers, the scale and the bias.

    Attributes:
        logit_bias: bias of the sigmoid loss. It is the same for every class, so it changes no softmax, and nothing uses it.
        pad_id: token that fills a text up to the context length.
    """

    def __init__(self, image: ViTConfig, text: TextConfig, pad_id: int) -> None:
        super().__init__()
        self.embed_dim, self.text_config, self.pad_id = image.blocks.width, text, pad_id
        width = text.blocks.width
        self.visual = VisionTransformer(image)
        self.token_embedding = empty_embedding(text.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.zeros(text.positions, width))
        self.transformer = Transformer(text.blocks)
        self.ln_final = nn.LayerNorm(width, eps=text.blocks.norm_eps)
        self.head = nn.Linear(width, self.embed_dim)
        self.logit_scale = nn.Parameter(torch.zeros(1))
        self.logit_bias = nn.Parameter(torch.zeros(1))

    def encode_text(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Word embeddings [B, L, W] and mask [B, L] -> raw features [B, E], from the last position of the context."""
        b, length, _ = embeddings.shape
        positions = len(self.positional_embedding)
        pad = self.token_embedding.weight[self.pad_id]
        real = torch.where(mask[:, :, None], embeddings, pad)
        filled = torch.cat([real, pad.expand(b, positions - length, -1)], dim=1)
        last = torch.full((b,), positions - 1, device=embeddings.device)
        x = self.transformer(filled + self.positional_embedding, last)
        return self.head(self.ln_final(x))  # type: ignore[no-any-return]
