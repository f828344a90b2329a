"""SigLIP (Zhai et al. 2023, arXiv 2303.15343) in transformers layout, as Google publishes it; MedSigLIP is one.

Its sigmoid loss has a scale and a bias. The bias is the same for every class, so it changes no softmax over classes; the scale is
used as a CLIP's is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from biomedcoop.backbones.activations import activations_of, attention_of
from biomedcoop.backbones.base import Backbone, Drop
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
from biomedcoop.backbones.clip_towers import TextConfig, ViTConfig
from biomedcoop.backbones.clip_transformer import TransformerConfig
from biomedcoop.backbones.sentencepiece import SentencePieceTokenizer
from biomedcoop.backbones.siglip_config import CONFIG, SiglipDescription, TowerDescription, read_siglip_description
from biomedcoop.backbones.siglip_towers import Towers
from biomedcoop.errors import UserError

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights in transformers layout; the first that is there counts."""

NAMES = {
    "token_embedding.": "text_model.embeddings.token_embedding.",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "transformer.resblocks.": "text_model.encoder.layers.",
    "ln_final.": "text_model.final_layer_norm.",
    "head.": "text_model.head.",
    "visual.conv1.": "vision_model.embeddings.patch_embedding.",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "visual.ln_post.": "vision_model.post_layernorm.",
    "visual.head.": "vision_model.head.",
}
"""Beginnings of the towers' names -> beginnings of those of transformers."""

PARTS = {".ln_1.": ".layer_norm1.", ".ln_2.": ".layer_norm2.", ".attn.": ".self_attn."}
PARTS |= {".mlp.c_fc.": ".mlp.fc1.", ".mlp.c_proj.": ".mlp.fc2."}
"""The same for what stands inside of a name."""


class SiglipBackbone(Backbone):
    """A loaded SigLIP. Use :func:`load_siglip`.

    Image layers have the names of a CLIP's ViT: for instance ``transformer.resblocks.11.ln_1`` (tokens [B, T, W], without class
    token), and ``ln_post``, the tokens that the attention pooling head reads.
    """

    resize = "squash"
    tower_kind = "vit"
    map_layer = "ln_post"
    towers: Towers
    tokenizer: SentencePieceTokenizer

    def __init__(
        self, name: str, towers: Towers, tokenizer: SentencePieceTokenizer, described: SiglipDescription, digest: str
    ) -> None:
        self.name, self.fingerprint = name, digest
        self.towers, self.tokenizer = towers, tokenizer
        self.device, self.dtype = towers.logit_scale.device, towers.logit_scale.dtype
        self.image_tower = towers.visual
        self.image_size = described.image_size
        self.mean, self.std = described.mean, described.std
        self.context_length = tokenizer.context_length
        self.embed_dim = towers.embed_dim
        self.token_dim = towers.text_config.blocks.width
        self.logit_scale = float(towers.logit_scale.float().exp())

    def mask(self, ids: Tensor) -> Tensor:
        """Token ids [B, L] -> bool [B, L], True up to the first </s>, with which every text ends.

        It only tells where a text ends: the text tower sees the padding behind it, as the token that it was trained with.
        """
        end = ids.eq(self.tokenizer.end_id).to(torch.int64).argmax(1, keepdim=True)
        return torch.arange(ids.shape[1], device=ids.device) <= end

    def pooled_token(self, mask: Tensor) -> Tensor:
        """Mask [B, L] -> position int64 [B], that of the last token of the context, padding included."""
        last = len(self.towers.positional_embedding) - 1
        return torch.full((len(mask),), last, device=mask.device)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        return self.towers.token_embedding(ids)  # type: ignore[no-any-return]

    def encode_text_embeddings(self, embeddings: Tensor, mask: Tensor, drop: Drop | None = None) -> Tensor:
        if drop is not None:
            raise UserError(f"{self.name}: the text tower of a SigLIP has no dropout; use --set text_dropout=0")
        return self.towers.encode_text(embeddings, mask)

    def image_activations(self, pixels: Tensor, layer: str) -> tuple[Tensor, Tensor]:
        return activations_of(self, pixels, self.towers.visual, layer)

    def attention_maps(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        visual = self.towers.visual
        tokens, maps = attention_of(self, visual.embed(pixels), visual.transformer.resblocks)
        features, pooling = visual.head.with_probabilities(visual.ln_post(tokens))
        return features, [*maps, pooling]


def load_siglip(
    folder: Path, *, name: str | None = None, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> SiglipBackbone:
    """Load a SigLIP from a directory in transformers layout.

    Args:
        folder: holds ``config.json``, ``preprocessor_config.json``, the weights (``model.safetensors`` or ``pytorch_model.bin``),
            ``tokenizer_config.json``, and ``tokenizer.json`` or ``spiece.model``.
        name: by default the folder's.
        device, dtype: as for :func:`biomedcoop.backbones.registry.load_backbone`.

    Raises:
        UserError: missing or damaged files, tensors that are missing, unexpected, misshapen or not finite, or a configuration that
            disagrees with them.
    """
    described = read_siglip_description(folder)
    stored = read_weights(folder, WEIGHTS)
    image, text = configurations(
        described, lambda key, dimensions: shape_of(stored, file_names(key)[0], dimensions, folder), folder
    )
    tokenizer = SentencePieceTokenizer.from_directory(folder, text.positions)
    tokenizer.check_fits(text.vocab_size, folder)
    with torch.device("meta"):
        towers = Towers(image, text, tokenizer.trained_pad_id)
    shapes = {key: value.shape for key, value in towers.state_dict().items()}
    files = {key: file_names(key) for key in shapes}
    check_names(stored.keys(), {file for names in files.values() for file in names}, folder)
    state = {key: joined(stored, names, folder) for key, names in files.items()}
    check_tensors(state, shapes, folder, {key: common_name(names) for key, names in files.items()})
    facts = [
        dataclasses.asdict(image),
        dataclasses.asdict(text),
        {"mean": described.mean, "std": described.std, "resize": SiglipBackbone.resize},
    ]
    digest = fingerprint(facts, state, tokenizer.signature())
    fill(towers, state, device, dtype)
    return SiglipBackbone(name or folder.name, towers, tokenizer, described, digest)


def file_names(key: str) -> list[str]:
    """What a checkpoint calls a tensor of the towers: one name, or three for queries, keys and values."""
    start = next((start for start in NAMES if key.startswith(start)), "")
    name = NAMES.get(start, "") + key.removeprefix(start)
    for ours, theirs in PARTS.items():
        name = name.replace(ours, theirs)
    head, joint, kind = name.partition(".self_attn.in_proj_")
    return [f"{head}.self_attn.{part}_proj.{kind}" for part in "qkv"] if joint else [name]


def configurations(
    described: SiglipDescription, shape: Callable[[str, int], torch.Size], folder: Path
) -> tuple[ViTConfig, TextConfig]:
    """The sizes of both towers, from the tensors, after checking what the configuration says about them.

    Args:
        shape: gives the shape of a tensor by its name and number of dimensions.
    """

    def blocks(prefix: str, width: int, tower: TowerDescription) -> TransformerConfig:
        if width % tower.heads:
            raise UserError(
                f"{folder}: the width {width} of a tower is no multiple of its {tower.heads} heads in {CONFIG}"
            )
        mlp_width = shape(f"{prefix}transformer.resblocks.0.mlp.c_fc.weight", 2)[0]
        return TransformerConfig(
            width, tower.layers, tower.heads, mlp_width, False, False, tanh_gelu=True, norm_eps=tower.norm_eps
        )

    def check(section: str, stated: Mapping[str, int], of_weights: Mapping[str, int]) -> None:
        for key, value in stated.items():
            if of_weights[key] != value:
                raise UserError(f"{folder}: {section} {key} {value} in {CONFIG}, {of_weights[key]} in the weights")

    width, _, _, patch = shape("visual.conv1.weight", 4)
    image = ViTConfig(described.image_size, patch, blocks("visual.", width, described.image))
    sizes = {"hidden_size": width, "intermediate_size": image.blocks.mlp_width, "patch_size": patch}
    check("vision_config", described.image.sizes, sizes)
    vocab_size, width = shape("token_embedding.weight", 2)
    positions = shape("positional_embedding", 2)[0]
    text = TextConfig(vocab_size, positions, blocks("", width, described.text))
    sizes = {"hidden_size": width, "intermediate_size": text.blocks.mlp_width}
    check(
        "text_config", described.text.sizes, {**sizes, "vocab_size": vocab_size, "max_position_embeddings": positions}
    )
    return image, text
