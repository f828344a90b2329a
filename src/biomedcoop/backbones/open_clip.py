"""Backbones in the open_clip directory layout with a BERT text tower and an image tower of timm: a ViT or an EfficientNet-Lite.

This is how BiomedCLIP is published (Zhang et al. 2023, arXiv 2303.00915) and how the shipped ``mini`` is stored:
``open_clip_config.json``, ``open_clip_model.safetensors`` or ``open_clip_pytorch_model.bin``, and the tokenizer's files.
Sizes come from the shapes of the tensors, so a checkpoint cannot disagree with its description.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from biomedcoop.backbones.activations import activations_of, attention_of
from biomedcoop.backbones.base import Backbone, Drop
from biomedcoop.backbones.bert import Bert, BertConfig, read_bert_config
from biomedcoop.backbones.checkpoint import check_tensors, depth, fill, fingerprint, read_weights, shape_of
from biomedcoop.backbones.efficientnet_lite import EfficientNetLite, EfficientNetLiteConfig, read_config
from biomedcoop.backbones.open_clip_config import CONFIG, Description, read_description
from biomedcoop.backbones.tokenizer import Tokenizer
from biomedcoop.backbones.vit import VisionTransformer, ViTConfig
from biomedcoop.errors import UserError

ImageConfig = ViTConfig | EfficientNetLiteConfig


class ImageHead(nn.Module):
    def __init__(self, width: int, embed_dim: int, *, bias: bool) -> None:
        super().__init__()
        self.proj = nn.Linear(width, embed_dim, bias=bias)


class ImageTower(nn.Module):
    def __init__(self, config: ImageConfig, embed_dim: int, *, bias: bool) -> None:
        super().__init__()
        self.trunk: VisionTransformer | EfficientNetLite
        self.trunk = VisionTransformer(config) if isinstance(config, ViTConfig) else EfficientNetLite(config)
        self.head = ImageHead(config.width, embed_dim, bias=bias)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head.proj(self.trunk(pixels))  # type: ignore[no-any-return]


class TextTower(nn.Module):
    def __init__(self, config: BertConfig, hidden: int | None, embed_dim: int, *, mean: bool) -> None:
        super().__init__()
        self.transformer = Bert(config, mean=mean)
        if hidden is None:
            self.proj: nn.Module = nn.Linear(config.width, embed_dim, bias=False)
        else:
            self.proj = nn.Sequential(
                nn.Linear(config.width, hidden, bias=False), nn.GELU(), nn.Linear(hidden, embed_dim, bias=False)
            )

    def forward(self, embeddings: Tensor, mask: Tensor, drop: Drop | None = None) -> Tensor:
        return self.proj(self.transformer(embeddings, mask, drop))  # type: ignore[no-any-return]


class Towers(nn.Module):
    """Both towers and the scale, with open_clip's tensor names.

    Args:
        text_hidden: hidden units of the text projection; None for a linear one.
        text_mean: pool the text tower by the mean of its tokens in place of CLS.
        image_bias: the projection of the image tower has a bias.
    """

    def __init__(
        self,
        image: ImageConfig,
        text: BertConfig,
        text_hidden: int | None,
        embed_dim: int,
        *,
        text_mean: bool = False,
        image_bias: bool = False,
    ) -> None:
        super().__init__()
        self.visual = ImageTower(image, embed_dim, bias=image_bias)
        self.text = TextTower(text, text_hidden, embed_dim, mean=text_mean)
        self.logit_scale = nn.Parameter(torch.zeros(()))


class OpenClipBackbone(Backbone):
    """A loaded open_clip directory. Use :func:`load_open_clip`.

    Image layers are named as in the checkpoint, without ``visual.trunk.``: for instance ``blocks.11.norm1`` of a ViT (tokens
    [B, T, W], class token first), ``blocks.6`` or ``bn2`` of an EfficientNet-Lite ([B, C, H, W]).
    """

    towers: Towers

    def __init__(self, name: str, towers: Towers, tokenizer: Tokenizer, described: Description, digest: str):
        self.name, self.fingerprint = name, digest
        self.towers, self.tokenizer = towers, tokenizer
        self.device, self.dtype = towers.logit_scale.device, towers.logit_scale.dtype
        self.image_tower = towers.visual
        self.image_size = towers.visual.trunk.config.image_size
        self.mean, self.std = described.mean, described.std
        self.context_length = tokenizer.context_length
        self.embed_dim = towers.visual.head.proj.out_features
        self.token_dim = towers.text.transformer.config.width
        self.logit_scale = float(towers.logit_scale.float().exp())
        self.tower_kind, self.map_layer = "vit", f"blocks.{len(towers.visual.trunk.blocks) - 1}.norm1"
        if isinstance(towers.visual.trunk, EfficientNetLite):
            # before its ReLU6: behind it, the map of a confident answer is often empty
            self.tower_kind, self.map_layer = "efficientnet-lite", "conv_head"
            # it has hardly a dense layer to quantise; few maps at a time stay in a core's cache
            self.precisions, self.images_per_pass = ("float32", "bfloat16"), 4

    def embed_tokens(self, ids: Tensor) -> Tensor:
        return self.towers.text.transformer.embeddings.word_embeddings(ids)  # type: ignore[no-any-return]

    def encode_text_embeddings(self, embeddings: Tensor, mask: Tensor, drop: Drop | None = None) -> Tensor:
        return self.towers.text(embeddings, mask, drop)  # type: ignore[no-any-return]

    def image_activations(self, pixels: Tensor, layer: str) -> tuple[Tensor, Tensor]:
        return activations_of(self, pixels, self.towers.visual.trunk, layer)

    def attention_maps(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        trunk = self.towers.visual.trunk
        if not isinstance(trunk, VisionTransformer):
            raise UserError(
                f"{self.name}: its image tower is an EfficientNet-Lite, which has no attention maps; use a backbone with a ViT"
            )
        tokens, maps = attention_of(self, trunk.embed(pixels), trunk.blocks)
        return self.towers.visual.head.proj(trunk.norm(tokens)[:, 0]), maps


def load_open_clip(
    folder: Path, *, name: str | None = None, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> OpenClipBackbone:
    """Load a directory in open_clip layout.

    Args:
        folder: holds the configuration, the weights and the tokenizer.
        name: name of the backbone; the folder's name by default.
        device: where the towers run.
        dtype: precision of the text tower; the image tower computes in float32.

    Raises:
        UserError: a file is missing or unreadable, tensors are missing, unexpected, misshapen or not finite.
    """
    described = read_description(folder)
    state = read_weights(folder)
    towers = build_towers(described, state, folder)
    tokenizer = Tokenizer.from_directory(folder, described.context_length)
    tokenizer.check_fits(towers.text.transformer.config.vocab_size, folder)
    facts = [
        dataclasses.asdict(towers.visual.trunk.config),
        dataclasses.asdict(towers.text.transformer.config),
        {"mean": described.mean, "std": described.std},
    ]
    if described.text_mean:
        facts.append({"hf_pooler_type": "mean_pooler"})
    digest = fingerprint(facts, state, tokenizer.signature())
    fill(towers, state, device, dtype)
    return OpenClipBackbone(name or folder.name, towers, tokenizer, described, digest)


def build_towers(described: Description, state: Mapping[str, Tensor], folder: Path) -> Towers:
    """Towers on the meta device whose sizes fit ``state``, after checking every tensor of it."""

    def shape(key: str, dimensions: int) -> torch.Size:
        return shape_of(state, key, dimensions, folder)

    trunk, text = "visual.trunk.", "text.transformer."
    image: ImageConfig
    if described.efficientnet_lite:
        # open_clip's default, as no tensor tells it
        size = described.image_size or 224
        image = read_config(described.efficientnet_lite, size, lambda key, dimensions: shape(trunk + key, dimensions))
    else:
        width, _, _, patch = shape(trunk + "patch_embed.proj.weight", 4)
        image = ViTConfig(
            image_size=round((shape(trunk + "pos_embed", 3)[1] - 1) ** 0.5) * patch,
            patch_size=patch,
            width=width,
            layers=described.image_layers or depth(state, trunk + "blocks."),
            heads=described.image_heads or max(1, width // 64),
            mlp_width=shape(trunk + "blocks.0.mlp.fc1.weight", 2)[0],
        )
    language = read_bert_config(
        lambda key: shape(text + key, 2),
        layers=described.text_layers or depth(state, text + "encoder.layer."),
        heads=described.text_heads,
        norm_eps=described.norm_eps,
    )
    for tower, config in (("image", image), ("text", language)):
        if not isinstance(config, EfficientNetLiteConfig) and config.width % config.heads:
            raise UserError(
                f"{folder}: the {tower} tower's width {config.width} is no multiple of {config.heads} heads"
            )
    if described.context_length > language.positions:
        raise UserError(
            f"{folder}: context_length {described.context_length} exceeds the {language.positions} positions of the weights"
        )
    if described.image_size not in (None, image.image_size):
        raise UserError(f"{folder}: image_size {described.image_size} in {CONFIG}, {image.image_size} in the weights")
    hidden = None if described.text_proj == "linear" else shape("text.proj.0.weight", 2)[0]
    embed_dim = shape("visual.head.proj.weight", 2)[0]
    with torch.device("meta"):
        towers = Towers(
            image, language, hidden, embed_dim, text_mean=described.text_mean, image_bias=described.image_bias
        )
    check_tensors(state, {k: v.shape for k, v in towers.state_dict().items()}, folder)
    return towers
