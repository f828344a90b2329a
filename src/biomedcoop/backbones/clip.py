"""OpenAI's CLIP (Radford et al. 2021, arXiv 2103.00020) in open_clip layout: a ViT or a ResNet, and a causal text transformer.

Plain torch with the tensor names of OpenAI's and open_clip's checkpoints. The ResNet is the paper's (section 2.4): a stem of three
convolutions, average pooling for every stride (anti-aliasing, Zhang 2019, arXiv 1904.11486), attention for the last pooling.
The text tower starts from token *embeddings*, because learned context vectors replace word embeddings; positions still apply.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biomedcoop.backbones.base import Backbone, Drop
from biomedcoop.backbones.bert import empty_embedding
from biomedcoop.backbones.open_clip import encode_and_keep
from biomedcoop.backbones.open_clip_files import (
    CONFIG,
    ClipDescription,
    check_tensors,
    fill,
    fingerprint,
    read_clip_description,
    read_weights,
    shape_of,
)
from biomedcoop.backbones.tokenizer import ClipTokenizer, Tokenizer
from biomedcoop.backbones.vit import is_watched
from biomedcoop.errors import UserError

RESNET_STRIDE = 32
"""Pixels to a position of the ResNet's last stage, and how many times its ``width`` that stage is wide."""


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a transformer. ``width`` must be a multiple of ``heads``."""

    width: int
    layers: int
    heads: int
    mlp_width: int
    quick_gelu: bool
    causal: bool


@dataclass(frozen=True)
class ViTConfig:
    image_size: int
    patch_size: int
    blocks: TransformerConfig


@dataclass(frozen=True)
class ResNetConfig:
    """Sizes of the ResNet: ``layers`` bottlenecks in each stage, ``heads`` of the attention pooling."""

    image_size: int
    width: int
    layers: tuple[int, int, int, int]
    heads: int


@dataclass(frozen=True)
class TextConfig:
    vocab_size: int
    positions: int
    blocks: TransformerConfig


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
        """What ``forward`` gives for one token of each row, [B, T, W] and positions [B] -> [B, 1, W]."""
        (b, t, w), rows = x.shape, torch.arange(len(x), device=x.device)
        q = F.linear(x[rows, position][:, None], self.in_proj_weight[:w], self.in_proj_bias[:w])
        k, v = F.linear(x, self.in_proj_weight[w:], self.in_proj_bias[w:]).chunk(2, dim=-1)
        seen = torch.arange(t, device=x.device) <= position[:, None] if self.causal else x.new_ones(b, t).bool()
        q, k, v = (split_heads(part, self.heads) for part in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None, None])
        return self.out_proj(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def weights(self, x: Tensor) -> Tensor:
        """Attention probabilities [B, H, T, T] of an image; the fused product of ``forward`` never forms them."""
        q, k, _ = self.queries_keys_values(x)
        scores: Tensor = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        return scores.softmax(-1)


class MLP(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.quick_gelu = config.quick_gelu
        self.c_fc = nn.Linear(config.width, config.mlp_width)
        self.c_proj = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)
        # OpenAI trained with an approximation of GELU; with the exact one its features drift from layer to layer
        x = x * torch.sigmoid(1.702 * x) if self.quick_gelu else F.gelu(x)
        return self.c_proj(x)  # type: ignore[no-any-return]


class Block(nn.Module):
    """Pre-norm residual block."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.width)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]

    def of_one(self, x: Tensor, position: Tensor) -> Tensor:
        """What ``forward`` gives for one token of each row, [B, T, W] and positions [B] -> [B, 1, W]."""
        own = x[torch.arange(len(x), device=x.device), position][:, None]
        own = own + self.attn.of_one(self.ln_1(x), position)
        return own + self.mlp(self.ln_2(own))  # type: ignore[no-any-return]

    def attention_weights(self, x: Tensor) -> Tensor:
        """What this block would attend to, [B, H, T, T]."""
        return self.attn.weights(self.ln_1(x))


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
            return last(x)[torch.arange(len(x), device=x.device), position]  # type: ignore[no-any-return]
        return last.of_one(x, position)[:, 0]


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
        first = self.class_embedding.expand(len(patches), 1, -1)
        return self.ln_pre(torch.cat([first, patches], dim=1) + self.positional_embedding)  # type: ignore[no-any-return]

    def forward(self, pixels: Tensor) -> Tensor:
        first = torch.zeros(len(pixels), dtype=torch.int64, device=pixels.device)
        return self.ln_post(self.transformer(self.embed(pixels), first)) @ self.proj  # type: ignore[no-any-return]


class BatchNorm(nn.Module):
    """Batch normalisation by the running statistics, whatever mode the tower is put in."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; a stride is an average pooling in front of both last convolutions."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = BatchNorm(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = BatchNorm(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = BatchNorm(4 * planes)
        self.downsample: nn.Sequential | None = None
        if stride > 1 or inputs != 4 * planes:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, 4 * planes, 1, bias=False), BatchNorm(4 * planes))

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, 4 planes, H/stride, W/stride]
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(self.pool(out)))
        return F.relu(out + (x if self.downsample is None else self.downsample(self.pool(x))))

    def pool(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.stride) if self.stride > 1 else x


class AttentionPool(nn.Module):
    """Positions and their mean as tokens; the mean attends to all: [B, W, H, H] -> [B, E]."""

    def __init__(self, config: ResNetConfig, embed_dim: int) -> None:
        super().__init__()
        self.heads = config.heads
        width = config.width * RESNET_STRIDE
        positions = (config.image_size // RESNET_STRIDE) ** 2 + 1
        self.positional_embedding = nn.Parameter(torch.zeros(positions, width))
        self.k_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1) + self.positional_embedding
        q = split_heads(self.q_proj(tokens[:, :1]), self.heads)  # [B, H, 1, W/H]
        k, v = (split_heads(f(tokens), self.heads) for f in (self.k_proj, self.v_proj))
        out = F.scaled_dot_product_attention(q, k, v)
        return self.c_proj(out.flatten(1))  # type: ignore[no-any-return]


class ModifiedResNet(nn.Module):
    """Image tower: normalised pixels [B, 3, S, S] -> raw features [B, E]."""

    def __init__(self, config: ResNetConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = BatchNorm(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = BatchNorm(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = BatchNorm(width)
        inputs, stages = width, []
        for stage, depth in enumerate(config.layers):
            planes = width * 2**stage
            strides = [1 if stage == 0 else 2] + [1] * (depth - 1)
            stages.append(
                nn.Sequential(*(Bottleneck(inputs if n == 0 else 4 * planes, planes, s) for n, s in enumerate(strides)))
            )
            inputs = 4 * planes
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.attnpool = AttentionPool(config, embed_dim)

    def forward(self, pixels: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(pixels)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.avg_pool2d(F.relu(self.bn3(self.conv3(x))), 2)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.attnpool(x)  # type: ignore[no-any-return]


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


class ClipBackbone(Backbone):
    """A loaded CLIP. Use :func:`load_clip`.

    Image layers are named as in the checkpoint, without ``visual.``: for instance ``transformer.resblocks.11.ln_1`` of a ViT
    (tokens [B, T, W], class token first), ``layer4`` of a ResNet ([B, C, H, W]).
    """

    towers: Towers

    def __init__(
        self, name: str, towers: Towers, tokenizer: Tokenizer, described: ClipDescription, digest: str
    ) -> None:
        self.name, self.fingerprint = name, digest
        self.towers, self.tokenizer = towers, tokenizer
        self.device, self.dtype = towers.logit_scale.device, towers.logit_scale.dtype
        self.image_tower = towers.visual
        self.image_size = towers.visual.config.image_size
        self.mean, self.std = described.mean, described.std
        self.context_length = tokenizer.context_length
        self.embed_dim = towers.embed_dim
        self.token_dim = towers.text_config.blocks.width
        self.logit_scale = float(towers.logit_scale.float().exp())

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        return self.tokenizer(texts)

    def mask(self, ids: Tensor) -> Tensor:
        """Token ids [B, L] -> bool [B, L], True up to the end of the text, which has the highest id; token 0 is the word "!"."""
        return torch.arange(ids.shape[1], device=ids.device) <= ids.argmax(1, keepdim=True)

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        return [self.tokenizer.count(text) for text in texts]

    def embed_tokens(self, ids: Tensor) -> Tensor:
        return self.towers.token_embedding(ids)  # type: ignore[no-any-return]

    def encode_text_embeddings(self, embeddings: Tensor, mask: Tensor, drop: Drop | None = None) -> Tensor:
        if drop is not None:
            raise UserError(f"{self.name}: the text tower of a CLIP has no dropout; use --set text_dropout=0")
        return self.towers.encode_text(embeddings, mask)

    def image_activations(self, pixels: Tensor, layer: str) -> tuple[Tensor, Tensor]:
        visual = self.towers.visual
        example = "layer4"
        if isinstance(visual, VisionTransformer):
            example = f"transformer.resblocks.{visual.config.blocks.layers - 1}.ln_1"
        return encode_and_keep(self, pixels, visual, layer, example)

    def attention_maps(self, pixels: Tensor) -> Tensor:
        visual = self.towers.visual
        if not isinstance(visual, VisionTransformer):
            raise UserError(
                f"{self.name}: its image tower is a ResNet, which has no attention maps; use a backbone with a ViT"
            )
        maps = []
        with torch.no_grad():
            x = visual.embed(pixels)
            for block in visual.transformer.resblocks:
                assert isinstance(block, Block)
                maps.append(block.attention_weights(x))
                x = block(x)
        return torch.stack(maps, dim=1)


def load_clip(
    folder: Path, *, name: str | None = None, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> ClipBackbone:
    """Load a CLIP from a directory in open_clip layout.

    Args:
        folder: holds the configuration, the weights and the tokenizer.
        name: how the backbone calls itself; the folder's name by default.
        device: where the towers are.
        dtype: in what the text tower computes; the image tower computes in float32.

    Raises:
        UserError: a file is missing or unreadable, tensors are missing, unexpected, misshapen or not finite, or the
            configuration disagrees with them.
    """
    described = read_clip_description(folder)
    state = plain_names(read_weights(folder))
    towers = build_towers(described, state, folder)
    tokenizer = ClipTokenizer.from_directory(folder, described.context_length)
    tokenizer.check_fits(towers.text_config.vocab_size, folder)
    facts = [
        dataclasses.asdict(towers.visual.config),
        dataclasses.asdict(towers.text_config),
        {"mean": described.mean, "std": described.std},
    ]
    digest = fingerprint(facts, state, tokenizer.signature())
    fill(towers, state, device, dtype)
    return ClipBackbone(name or folder.name, towers, tokenizer, described, digest)


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by OpenAI's names: BatchNorm's counters of training steps left out, no ``text.`` before the text tower's.

    open_clip writes ``text.`` where its configuration has ``custom_text``; the tower is the same.
    """
    prefix = "" if "token_embedding.weight" in state else "text."
    return {k.removeprefix(prefix): v for k, v in state.items() if not k.endswith(".num_batches_tracked")}


def build_towers(described: ClipDescription, state: Mapping[str, Tensor], folder: Path) -> Towers:
    """Towers on the meta device whose sizes fit ``state``, after checking every tensor of it and what the configuration says."""

    def shape(key: str, dimensions: int) -> torch.Size:
        return shape_of(state, key, dimensions, folder)

    def transformer(prefix: str, width: int, layers: int, heads: int, causal: bool) -> TransformerConfig:
        mlp_width = shape(f"{prefix}transformer.resblocks.0.mlp.c_fc.weight", 2)[0]
        return TransformerConfig(width, layers, heads, mlp_width, described.quick_gelu, causal)

    def image_heads(width: int) -> int:
        if width % described.head_width:
            raise UserError(
                f"{folder}: the image tower's width {width} is no multiple of head_width {described.head_width} in {CONFIG}"
            )
        return width // described.head_width

    positions, text_width = shape("positional_embedding", 2)
    if text_width % described.text_heads:
        raise UserError(f"{folder}: the text tower's width {text_width} is no multiple of {described.text_heads} heads")
    if described.context_length > positions:
        raise UserError(
            f"{folder}: context_length {described.context_length} exceeds the {positions} positions of the weights"
        )
    blocks = transformer("", text_width, described.text_layers, described.text_heads, causal=True)
    text = TextConfig(shape("token_embedding.weight", 2)[0], positions, blocks)
    embed_dim = shape("text_projection", 2)[1]
    found = {"embed_dim": embed_dim, "text_cfg width": text_width, "text_cfg vocab_size": text.vocab_size}
    mlps = {"text_cfg mlp_ratio": blocks}

    image: ViTConfig | ResNetConfig
    if isinstance(described.image_layers, int):
        width, _, _, patch = shape("visual.conv1.weight", 4)
        blocks = transformer("visual.", width, described.image_layers, image_heads(width), causal=False)
        image = ViTConfig(side(shape("visual.positional_embedding", 2)[0]) * patch, patch, blocks)
        found |= {"vision_cfg width": width, "vision_cfg patch_size": patch}
        mlps["vision_cfg mlp_ratio"] = blocks
    else:
        width = shape("visual.layer1.0.conv1.weight", 4)[0]
        image_size = side(shape("visual.attnpool.positional_embedding", 2)[0]) * RESNET_STRIDE
        image = ResNetConfig(image_size, width, described.image_layers, image_heads(width * RESNET_STRIDE))
        found["vision_cfg width"] = width
    found["vision_cfg image_size"] = image.image_size

    for key, told in described.sizes.items():
        if key in mlps and int(mlps[key].width * told) != mlps[key].mlp_width:
            raise UserError(
                f"{folder}: {key} {told} in {CONFIG}, {mlps[key].mlp_width / mlps[key].width:g} in the weights"
            )
        if found.get(key, told) != told:
            raise UserError(f"{folder}: {key} {told} in {CONFIG}, {found[key]} in the weights")
    with torch.device("meta"):
        towers = Towers(image, text, embed_dim)
    check_tensors(state, {k: v.shape for k, v in towers.state_dict().items()}, folder)
    return towers


def side(tokens: int) -> int:
    """Of the square of positions beside the first token; at least 1, so that a lone token is refused by its tensor's shape."""
    return max(1, round(math.sqrt(tokens - 1)))
