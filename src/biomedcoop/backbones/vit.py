"""Vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929) with the tensor names of timm.

Plain torch, so that a checkpoint trained with timm (BiomedCLIP's image tower is ``vit_base_patch16_224``) loads by name without
timm or torchvision and a process that only predicts starts quickly. Pre-norm blocks, CLS pooling after the final norm, exact GELU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class ViTConfig:
    """Sizes of the tower. ``width`` must be a multiple of ``heads``; ``image_size`` of ``patch_size``."""

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    mlp_width: int


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def split_heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        b, t, w = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)  # [B, H, T, W/H] each
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:  # [B, T, W] -> [B, T, W]
        q, k, v = self.split_heads(x)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def of_first(self, x: Tensor) -> Tensor:
        """``forward`` for the first token alone: [B, T, W] -> [B, 1, W]."""
        width = x.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        b, t, _ = x.shape
        q = each_row(x[:, :1], weight[:width], bias[:width]).view(b, 1, self.heads, -1).transpose(1, 2)
        keys_values = F.linear(x, weight[width:], bias[width:]).view(b, t, 2, self.heads, -1)
        k, v = keys_values.permute(2, 0, 3, 1, 4)  # [B, H, T, W/H] each
        out = attended_by_one(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def with_probabilities(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``forward`` [B, T, W] and its attention probabilities [B, H, T, T], which the fused product never forms."""
        q, k, v = self.split_heads(x)
        probabilities = attention_probabilities(q, k)
        return self.proj((probabilities @ v).transpose(1, 2).flatten(2)), probabilities


def attention_probabilities(q: Tensor, k: Tensor) -> Tensor:
    """softmax(q kᵀ / √d), [B, H, T, T], of queries and keys [B, H, T, d]; where gradients are on, the graph reaches them."""
    scores: Tensor = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    # weights are frozen, so in the first block the graph has to start here
    return scores.softmax(-1).requires_grad_(torch.is_grad_enabled())


def each_row(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear`` of one row for each image, [B, 1, W] -> [B, 1, O], without gradients as a product for each.

    In a product of a few rows together the bits of a row depend on their number.
    """
    if torch.is_grad_enabled():
        return F.linear(x, weight, bias)
    out = x @ weight.T.expand(x.shape[0], -1, -1)
    return out if bias is None else out + bias


def attended_by_one(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    """Attention of one query for each image, [B, H, 1, d], to the tokens that it sees (all, or where [B, T] is True).

    On a CPU torch's fused product of so few queries splits the tokens among threads, and its bits depend on their number.
    """
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()  # the bits of a product depend on the layout too
    exact = torch.promote_types(q.dtype, torch.float32)
    scores = q.to(exact) @ k.to(exact).transpose(-1, -2) * q.shape[-1] ** -0.5
    if seen is not None:
        scores = scores.masked_fill(~seen[:, None, None], -torch.inf)
    attended: Tensor = scores.softmax(-1).to(v.dtype) @ v
    return attended


class MLP(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class LayerScale(nn.Module):
    """A learned factor for each channel (Touvron et al. 2021, arXiv 2103.17239, section 2.2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    def __init__(self, config: ViTConfig, layer_scale: bool, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=norm_eps)
        self.attn = Attention(config.width, config.heads)
        self.ls1 = LayerScale(config.width) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(config.width, eps=norm_eps)
        self.mlp = MLP(config.width, config.mlp_width)
        self.ls2 = LayerScale(config.width) if layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]

    def of_first(self, x: Tensor) -> Tensor:
        """``forward`` for the first token alone: [B, T, W] -> [B, 1, W]."""
        first = x[:, :1] + self.ls1(self.attn.of_first(self.norm1(x)))
        return first + self.ls2(self.mlp(self.norm2(first)))  # type: ignore[no-any-return]

    def with_attention(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``forward`` [B, T, W] and the attention probabilities [B, H, T, T]."""
        attended, probabilities = self.attn.with_probabilities(self.norm1(x))
        x = x + self.ls1(attended)
        return x + self.ls2(self.mlp(self.norm2(x))), probabilities


class PatchEmbed(nn.Module):
    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.width, kernel_size=config.patch_size, stride=config.patch_size)

    def forward(self, pixels: Tensor) -> Tensor:  # [B, 3, S, S] -> [B, (S/P)^2, W]
        return self.proj(pixels).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class VisionTransformer(nn.Module):
    """Image tower: normalised pixels [B, 3, S, S] -> CLS output [B, W].

    Args:
        layer_scale: what attention and MLP add has a learned factor for each channel.
        norm_eps: what each LayerNorm adds to the variance.
        registers: tokens without a place behind the class token (Darcet et al. 2024, arXiv 2309.16588).
    """

    def __init__(
        self, config: ViTConfig, *, layer_scale: bool = False, norm_eps: float = 1e-6, registers: int = 0
    ) -> None:
        super().__init__()
        self.config = config
        tokens = (config.image_size // config.patch_size) ** 2 + 1
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, config.width))
        self.reg_token = nn.Parameter(torch.zeros(1, registers, config.width)) if registers else None
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(Block(config, layer_scale, norm_eps) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, eps=norm_eps)

    def embed(self, pixels: Tensor) -> Tensor:
        """Tokens before the first block: [B, T, W], CLS first, then registers."""
        patches = self.patch_embed(pixels)
        # from the shape, not by len(): an export keeps the number of images open
        cls = self.cls_token.expand(patches.shape[0], -1, -1)
        tokens = torch.cat([cls, patches], dim=1) + self.pos_embed
        if self.reg_token is None:
            return tokens
        return torch.cat([tokens[:, :1], self.reg_token.expand(tokens.shape[0], -1, -1), tokens[:, 1:]], dim=1)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.embed(pixels)
        *blocks, last = self.blocks
        assert isinstance(last, Block)
        for block in blocks:
            x = block(x)
        # only the CLS output is used, so the last block computes it alone, unless a hook waits for all its activations
        # or its layers are quantised
        whole = is_watched(last) or not isinstance(last.attn.qkv, nn.Linear)
        x = last(x) if whole else last.of_first(x)
        return self.norm(x)[:, 0]  # type: ignore[no-any-return]


def is_watched(block: nn.Module) -> bool:
    """Whether the block, or a module in it, has a forward hook."""
    return any(module._forward_hooks for module in block.modules())
