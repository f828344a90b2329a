"""A ViT without a text tower, for the methods that need no words: DINOv2 and plain ViTs of transformers, ViTs of timm.

DINOv2 (Oquab et al. 2024, arXiv 2304.07193) and ViT (Dosovitskiy et al. 2021, arXiv 2010.11929). The feature of an image is the
class token behind the last LayerNorm. A pooler or a classifier that a checkpoint also holds was trained for another task, so it is
left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biomedcoop.backbones.activations import activations_of, attention_of
from biomedcoop.backbones.base import Backbone, Drop, VocabularyToken
from biomedcoop.backbones.checkpoint import (
    check_names,
    check_tensors,
    common_name,
    fill,
    fingerprint,
    joined,
    read_weights,
    shape_of,
)
from biomedcoop.backbones.image_only_config import CONFIG, ImageDescription, Preparation, read_image_description
from biomedcoop.backbones.vit import VisionTransformer, ViTConfig
from biomedcoop.errors import UserError

WEIGHTS: Sequence[str] = ("model.safetensors", "pytorch_model.bin")

LOGIT_SCALE = 100.0
"""Factor of cosine similarities where no text tower has learned one: the largest that CLIP allows."""

UNUSED = ("pooler.", "classifier.", "head.", "embeddings.mask_token", "mask_token")
"""Beginnings of the names of tensors that no feature depends on."""

OUTSIDE = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "reg_token": "embeddings.register_tokens",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
"""timm's name of a tensor outside the blocks, or of its layer -> that of transformers."""

ATTENTION = {"attn.qkv": "attention.attention.{query,key,value}", "attn.proj": "attention.output.dense"}
DINOV2 = {**ATTENTION, "ls1.gamma": "layer_scale1.lambda1", "ls2.gamma": "layer_scale2.lambda1"}
INSIDE: Mapping[str, Mapping[str, str]] = {
    "dinov2": DINOV2,
    "dinov2_with_registers": DINOV2,
    "vit": {
        **ATTENTION,
        **{"norm1": "layernorm_before", "norm2": "layernorm_after"},
        **{"mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"},
    },
}
"""The same within a block, by layout; names that are equal are left out."""


class Towers(nn.Module):
    """The image tower under the prefix that all backbones give it."""

    def __init__(self, config: ViTConfig, *, layer_scale: bool, norm_eps: float, registers: int) -> None:
        super().__init__()
        self.visual = VisionTransformer(config, layer_scale=layer_scale, norm_eps=norm_eps, registers=registers)


class ImageBackbone(Backbone):
    """An image tower without a text tower.

    Args:
        name: its name.
        towers: a module with the image tower as ``visual``.
        prepared: input side and normalisation.
        digest: its fingerprint.
        dtype: precision of a text tower, if there were one.
    """

    has_text_tower = False
    logit_scale = LOGIT_SCALE
    context_length = token_dim = 0

    def __init__(self, name: str, towers: nn.Module, prepared: Preparation, digest: str, dtype: torch.dtype) -> None:
        assert isinstance(towers.visual, nn.Module)
        self.name, self.fingerprint = name, digest
        self.towers, self.image_tower = towers, towers.visual
        self.device, self.dtype = next(towers.parameters()).device, dtype
        self.image_size, self.mean, self.std = prepared.image_size, prepared.mean, prepared.std

    def _refuse(self) -> NoReturn:
        raise UserError(f"{self.name} has no text tower; choose a backbone with one, such as biomedclip")

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        self._refuse()

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        self._refuse()

    def vocabulary(self) -> list[VocabularyToken]:
        self._refuse()

    def embed_tokens(self, ids: Tensor) -> Tensor:
        self._refuse()

    def encode_text_embeddings(self, embeddings: Tensor, mask: Tensor, drop: Drop | None = None) -> Tensor:
        self._refuse()

    def image_activations(self, pixels: Tensor, layer: str) -> tuple[Tensor, Tensor]:
        return activations_of(self, pixels, self.image_tower, layer)


class ViTBackbone(ImageBackbone):
    """A loaded ViT without a text tower. Use :func:`load_image_only`.

    Image layers are named as in timm, for instance ``blocks.11.norm1`` (tokens [B, T, W], class token first).
    """

    towers: Towers
    tower_kind = "vit"

    def __init__(self, name: str, towers: Towers, described: ImageDescription, digest: str, dtype: torch.dtype) -> None:
        super().__init__(name, towers, described, digest, dtype)
        self.map_layer = f"blocks.{len(towers.visual.blocks) - 1}.norm1"
        self.registers = 0 if towers.visual.reg_token is None else towers.visual.reg_token.shape[1]
        self.embed_dim = towers.visual.config.width

    def attention_maps(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        tower = self.towers.visual
        tokens, maps = attention_of(self, tower.embed(pixels), tower.blocks)
        return tower.norm(tokens)[:, 0], maps


def load_image_only(
    folder: Path, *, name: str | None = None, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> ViTBackbone:
    """Load a ViT in the layout of transformers (DINOv2, ViT) or of timm.

    Args:
        folder: holds ``config.json``, ``model.safetensors`` or ``pytorch_model.bin`` and, for transformers,
            ``preprocessor_config.json``.
        name: name of the backbone; the folder's name by default.
        device: where the tower runs.
        dtype: unused: there is no text tower.

    Raises:
        UserError: a file is missing or unreadable, the configuration asks for another design or disagrees with the tensors, or
            tensors are missing, unexpected, misshapen or not finite.
    """
    described = read_image_description(folder)
    stored = read_weights(folder, WEIGHTS)
    prefix = f"{described.layout}."  # of a model with a head
    stored = {key.removeprefix(prefix): value for key, value in stored.items()}
    stored = {key: value for key, value in stored.items() if not key.startswith(UNUSED)}

    def names_of(key: str) -> list[str]:
        return file_names(key, described.layout)

    config = read_sizes(
        described, lambda key, dimensions: shape_of(stored, names_of(key)[0], dimensions, folder), folder
    )
    layer_scale = names_of("blocks.0.ls1.gamma")[0] in stored
    (register_tokens,) = names_of("reg_token")
    with_registers = described.layout == "dinov2_with_registers"
    registers = shape_of(stored, register_tokens, 3, folder)[1] if with_registers else 0
    with torch.device("meta"):
        towers = Towers(config, layer_scale=layer_scale, norm_eps=described.norm_eps, registers=registers)
    shapes = {key: value.shape for key, value in towers.state_dict().items()}
    files = {key: names_of(key.removeprefix("visual.")) for key in shapes}
    check_names(stored.keys(), {file for names in files.values() for file in names}, folder)
    state = {key: joined(stored, names, folder) for key, names in files.items()}
    facts = [dataclasses.asdict(config), {"layer_scale": layer_scale}, dataclasses.asdict(described)]
    digest = fingerprint(facts, state, "")
    positions = "visual.pos_embed"
    if state[positions].shape != shapes[positions]:
        state[positions] = resized(state[positions], config.image_size // config.patch_size, antialias=with_registers)
    check_tensors(state, shapes, folder, {key: common_name(names) for key, names in files.items()})
    fill(towers, state, device, dtype)
    return ViTBackbone(name or folder.name, towers, described, digest, dtype)


def file_names(key: str, layout: str) -> list[str]:
    """What a checkpoint calls a tensor of :class:`VisionTransformer`: one name, or three for query, key and value."""
    if layout == "timm":
        return [key]
    head, _, rest = key.partition(".")
    if head != "blocks":
        for ours, theirs in OUTSIDE.items():
            if key == ours or key.startswith(f"{ours}."):
                return [theirs + key.removeprefix(ours)]
    number, _, inner = rest.partition(".")
    for ours, theirs in INSIDE[layout].items():
        if inner == ours or inner.startswith(f"{ours}."):
            inner = theirs + inner.removeprefix(ours)
            break
    name = f"encoder.layer.{number}.{inner}"
    start, brace, end = name.partition("{query,key,value}")
    return [start + part + end for part in ("query", "key", "value")] if brace else [name]


def read_sizes(described: ImageDescription, shape: Callable[[str, int], torch.Size], folder: Path) -> ViTConfig:
    """Sizes of the tower from the shapes of its tensors, checked against the configuration.

    Args:
        shape: gives the shape of a tensor by its name and number of dimensions.
    """
    width, _, _, patch = shape("patch_embed.proj.weight", 4)
    tokens, size = shape("pos_embed", 3)[1] - 1, described.image_size
    side = round(tokens**0.5)
    if side == 0 or side**2 != tokens:
        raise UserError(
            f"{folder}: its {tokens + 1} positions are no square and a class token; this ViT is not supported"
        )
    if size % patch:
        raise UserError(
            f"{folder}: the input of {size} px is no multiple of the patches of {patch} px; change it in the files"
        )
    if described.layout == "timm" and side * patch != size:
        raise UserError(f"{folder}: input_size {size} in {CONFIG}, {side * patch} in the weights")
    if width % described.heads:
        raise UserError(f"{folder}: the width {width} is no multiple of {described.heads} heads")
    mlp_width = shape("blocks.0.mlp.fc1.weight", 2)[0]
    return ViTConfig(size, patch, width, described.layers, described.heads, mlp_width)


def resized(positions: Tensor, side: int, antialias: bool) -> Tensor:
    """Position embeddings [1, 1 + n², W] for ``side`` x ``side`` patches, by bicubic interpolation as transformers does it.

    DINOv2 is published with positions for 518 px and used at 224 px. Only with registers is it ``antialias``.
    """
    first, patches = positions[:, :1].float(), positions[:, 1:].float()
    n = round(patches.shape[1] ** 0.5)
    grid = patches.view(1, n, n, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False, antialias=antialias)
    return torch.cat([first, grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
