"""OpenAI's CLIP (Radford et al. 2021, arXiv 2103.00020), loaded from a directory in open_clip layout."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from biomedcoop.backbones.activations import activations_of, attention_of
from biomedcoop.backbones.base import Backbone, Drop
from biomedcoop.backbones.checkpoint import check_tensors, fill, fingerprint, read_weights, shape_of
from biomedcoop.backbones.clip_resnet import RESNET_STRIDE, ResNetConfig
from biomedcoop.backbones.clip_towers import TextConfig, Towers, VisionTransformer, ViTConfig
from biomedcoop.backbones.clip_transformer import TransformerConfig
from biomedcoop.backbones.open_clip_config import ClipDescription, read_clip_description
from biomedcoop.backbones.tokenizer import ClipTokenizer, Tokenizer
from biomedcoop.errors import UserError


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
        self.tower_kind, self.map_layer = "resnet", "layer4"
        if isinstance(towers.visual, VisionTransformer):
            last = towers.visual.config.blocks.layers - 1
            self.tower_kind, self.map_layer = "vit", f"transformer.resblocks.{last}.ln_1"
        self.image_size = towers.visual.config.image_size
        self.mean, self.std = described.mean, described.std
        self.context_length = tokenizer.context_length
        self.embed_dim = towers.embed_dim
        self.token_dim = towers.text_config.blocks.width
        self.logit_scale = float(towers.logit_scale.float().exp())

    def mask(self, ids: Tensor) -> Tensor:
        """Token ids [B, L] -> bool [B, L], True up to the end of the text, which has the highest id; token 0 is the word "!"."""
        return torch.arange(ids.shape[1], device=ids.device) <= ids.argmax(1, keepdim=True)

    def pooled_token(self, mask: Tensor) -> Tensor:
        """Mask [B, L] -> position int64 [B] of the end of the text."""
        return mask.sum(1) - 1

    def embed_tokens(self, ids: Tensor) -> Tensor:
        return self.towers.token_embedding(ids)  # type: ignore[no-any-return]

    def encode_text_embeddings(self, embeddings: Tensor, mask: Tensor, drop: Drop | None = None) -> Tensor:
        if drop is not None:
            raise UserError(f"{self.name}: the text tower of a CLIP has no dropout; use --set text_dropout=0")
        return self.towers.encode_text(embeddings, mask)

    def image_activations(self, pixels: Tensor, layer: str) -> tuple[Tensor, Tensor]:
        return activations_of(self, pixels, self.towers.visual, layer)

    def attention_maps(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        visual = self.towers.visual
        if not isinstance(visual, VisionTransformer):
            raise UserError(
                f"{self.name}: its image tower is a ResNet, which has no attention maps; use a backbone with a ViT"
            )
        tokens, maps = attention_of(self, visual.embed(pixels), visual.transformer.resblocks)
        return visual.ln_post(tokens[:, 0]) @ visual.proj, maps


def load_clip(
    folder: Path, *, name: str | None = None, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> ClipBackbone:
    """Load a CLIP from a directory in open_clip layout; arguments as for :func:`biomedcoop.backbones.open_clip.load_open_clip`.

    Raises:
        UserError: as there, or the configuration disagrees with the tensors.
    """
    described = read_clip_description(folder)
    return build_clip(folder, described, plain_names(read_weights(folder)), name, device, dtype)


def build_clip(
    folder: Path,
    described: ClipDescription,
    state: Mapping[str, Tensor],
    name: str | None,
    device: torch.device | str,
    dtype: torch.dtype,
) -> ClipBackbone:
    """A CLIP from its tensors by OpenAI's names and the tokenizer in ``folder``; other arguments as for :func:`load_clip`."""
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
    """Tensors by OpenAI's names: no ``text.`` before the text tower's.

    open_clip writes ``text.`` where its configuration has ``custom_text``; the tower is the same.
    """
    prefix = "" if "token_embedding.weight" in state else "text."
    return {k.removeprefix(prefix): v for k, v in state.items()}


def build_towers(described: ClipDescription, state: Mapping[str, Tensor], folder: Path) -> Towers:
    """Towers on the meta device whose sizes fit ``state``, after checking every tensor of it and what the configuration says."""

    def shape(key: str, dimensions: int) -> torch.Size:
        return shape_of(state, key, dimensions, folder, described.names)

    def transformer(prefix: str, width: int, layers: int, heads: int, causal: bool) -> TransformerConfig:
        mlp_width = shape(f"{prefix}transformer.resblocks.0.mlp.c_fc.weight", 2)[0]
        return TransformerConfig(width, layers, heads, mlp_width, described.quick_gelu, causal)

    def image_heads(width: int) -> int:
        if width % described.head_width:
            raise UserError(
                f"{folder}: the image tower's width {width} is no multiple of head_width {described.head_width} in {described.file}"
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
    of_weights = {"embed_dim": embed_dim, "text_cfg width": text_width, "text_cfg vocab_size": text.vocab_size}
    of_weights |= {"text_cfg positions": positions, "text_cfg mlp_width": blocks.mlp_width}
    mlps = {"text_cfg mlp_ratio": blocks}

    image: ViTConfig | ResNetConfig
    if isinstance(described.image_layers, int):
        width, _, _, patch = shape("visual.conv1.weight", 4)
        blocks = transformer("visual.", width, described.image_layers, image_heads(width), causal=False)
        image = ViTConfig(side(shape("visual.positional_embedding", 2)[0]) * patch, patch, blocks)
        of_weights |= {"vision_cfg width": width, "vision_cfg patch_size": patch}
        of_weights["vision_cfg mlp_width"] = blocks.mlp_width
        mlps["vision_cfg mlp_ratio"] = blocks
    else:
        width = shape("visual.layer1.0.conv1.weight", 4)[0]
        image_size = side(shape("visual.attnpool.positional_embedding", 2)[0]) * RESNET_STRIDE
        image = ResNetConfig(image_size, width, described.image_layers, image_heads(width * RESNET_STRIDE))
        of_weights["vision_cfg width"] = width
    of_weights["vision_cfg image_size"] = image.image_size

    for key, stated in described.sizes.items():
        name = described.names.get(key, key)
        if key in mlps and int(mlps[key].width * stated) != mlps[key].mlp_width:
            raise UserError(
                f"{folder}: {name} {stated} in {described.file}, {mlps[key].mlp_width / mlps[key].width:g} in the weights"
            )
        if of_weights.get(key, stated) != stated:
            raise UserError(f"{folder}: {name} {stated} in {described.file}, {of_weights[key]} in the weights")
    with torch.device("meta"):
        towers = Towers(image, text, embed_dim)
    check_tensors(state, {k: v.shape for k, v in towers.state_dict().items()}, folder, described.names)
    return towers


def side(tokens: int) -> int:
    """Patches along one side of the image, from the number of tokens with the class token; at least 1, so that a lone token is
    refused by the shape of its tensor."""
    return max(1, round(math.sqrt(tokens - 1)))
