"""The transformer of OpenAI's CLIP (Radford et al. 2021, arXiv 2103.00020), with the tensor names of its checkpoints.

Both towers use it: the ViT for images, and the causal transformer for text. So do both towers of SigLIP.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biomedcoop.backbones.vit import attended_by_one, attention_probabilities, each_row, is_watched


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a transformer. ``width`` must be a multiple of ``heads``.

    Attributes:
        quick_gelu: x * sigmoid(1.702 x) in place of GELU.
        causal: a token sees itself and those before it.
        tanh_gelu: GELU by its approximation with tanh.
        norm_eps: of every LayerNorm.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    quick_gelu: bool
    causal: bool
    tanh_gelu: bool = False
    norm_eps: float = 1e-5


def split_heads(x: Tensor, heads: int) -> Tensor:  # [B, T, W] -> [B, H, T, W/H]
    b, t, w = x.shape
    return x.view(b, t, heads, w // heads).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection; causal: a token sees itself and those before it."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.causal = config.heads, config.causal
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * config.width, config.width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * config.width))
        self.out_proj = nn.Linear(config.width, config.width)

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # [B, T, W] -> [B, H, T, W/H] each
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        return split_heads(q, self.heads), split_heads(k, self.heads), split_heads(v, self.heads)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, W] -> [B, T, W]
        q, k, v = self.queries_keys_values(x)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out_proj(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def of_one(self, x: Tensor, position: Tensor) -> Tensor:
        """``forward`` for one token of each row alone: [B, T, W] and positions [B] -> [B, 1, W]."""
        t, rows = x.shape[1], torch.arange(x.shape[0], device=x.device)
        seen = torch.arange(t, device=x.device) <= position[:, None] if self.causal else None
        q, k, v = self.of_query(x[rows, position][:, None], x)
        out = attended_by_one(q, k, v, seen)
        return self.out_proj(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def of_query(self, query: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, H, 1, W/H] of another token [B, 1, W], with the keys and values of the tokens [B, T, W]."""
        w = x.shape[-1]
        q = each_row(query, self.in_proj_weight[:w], self.in_proj_bias[:w])
        k, v = F.linear(x, self.in_proj_weight[w:], self.in_proj_bias[w:]).chunk(2, dim=-1)
        return split_heads(q, self.heads), split_heads(k, self.heads), split_heads(v, self.heads)

    def with_probabilities(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``forward`` [B, T, W] of an image and its attention probabilities [B, H, T, T], which the fused product never forms."""
        q, k, v = self.queries_keys_values(x)
        probabilities = attention_probabilities(q, k)
        return self.out_proj((probabilities @ v).transpose(1, 2).flatten(2)), probabilities


class MLP(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.quick_gelu = config.quick_gelu
        self.approximate = "tanh" if config.tanh_gelu else "none"
        self.c_fc = nn.Linear(config.width, config.mlp_width)
        self.c_proj = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)
        # OpenAI trained with an approximation of GELU; with the exact one its features drift from layer to layer
        x = x * torch.sigmoid(1.702 * x) if self.quick_gelu else F.gelu(x, approximate=self.approximate)
        return self.c_proj(x)  # type: ignore[no-any-return]


class Block(nn.Module):
    """Pre-norm residual block."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]

    def of_one(self, x: Tensor, position: Tensor) -> Tensor:
        """``forward`` for one token of each row alone: [B, T, W] and positions [B] -> [B, 1, W]."""
        token = x[torch.arange(x.shape[0], device=x.device), position][:, None]
        token = token + self.attn.of_one(self.ln_1(x), position)
        return token + self.mlp(self.ln_2(token))  # type: ignore[no-any-return]

    def with_attention(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``forward`` [B, T, W] of an image and the attention probabilities [B, H, T, T]."""
        attended, probabilities = self.attn.with_probabilities(self.ln_1(x))
        x = x + attended
        return x + self.mlp(self.ln_2(x)), probabilities


class Transformer(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(config) for _ in range(config.layers))

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """Tokens [B, T, W] -> the output [B, W] at one position [B] of each row; the last block computes no other."""
        *blocks, last = self.resblocks
        assert isinstance(last, Block)
        for block in blocks:
            x = block(x)
        if is_watched(last):
            return last(x)[torch.arange(x.shape[0], device=x.device), position]  # type: ignore[no-any-return]
        return last.of_one(x, position)[:, 0]
