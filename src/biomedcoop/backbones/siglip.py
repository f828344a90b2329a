"""SigLIP (Zhai et al. 2023, arXiv 2303.15343) in transformers layout, as Google publishes it; MedSigLIP is one.

Its sigmoid loss has a scale and a bias. The bias is the same for every class, so it changes no softmax over classes; the scale is
used as a CLIP's is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from biomedcoop.backbones.activations import activations_of, attention_of
from biomedcoop.backbones.base import Backbone, Drop
from biomedcoop.backbones.checkpoint import check_tensors, fill, fingerprint, read_weights, shape_of
from biomedcoop.backbones.clip_towers import TextConfig, ViTConfig
from biomedcoop.backbones.clip_transformer import TransformerConfig
from biomedcoop.backbones.sentencepiece import SentencePieceTokenizer
from biomedcoop.backbones.siglip_config import CONFIG, SiglipDescription, TowerDescription, read_siglip_description
from biomedcoop.backbones.siglip_towers import Towers
from biomedcoop.errors import UserError

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights in transformers layout; the first that is there counts."""

NAMES = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.encoder.layers.": "transformer.resblocks.",
    "text_model.final_layer_norm.": "ln_final.",
    "text_model.head.": "head.",
    "vision_model.embeddings.patch_embedding.": "visual.conv1.",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
    "vision_model.post_layernorm.": "visual.ln_post.",
    "vision_model.head.": "visual.head.",
}
"""Beginnings of transformers' names -> beginnings of ours."""

PARTS = {".layer_norm1.": ".ln_1.", ".layer_norm2.": ".ln_2.", ".self_attn.": ".attn."}
PARTS |= {".mlp.fc1.": ".mlp.c_fc.", ".mlp.fc2.": ".mlp.c_proj."}
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
    state = our_names(read_weights(folder, WEIGHTS))
    image, text = configurations(described, state, folder)
    tokenizer = SentencePieceTokenizer.from_directory(folder, text.positions)
    tokenizer.check_fits(text.vocab_size, folder)
    with torch.device("meta"):
        towers = Towers(image, text, tokenizer.trained_pad_id)
    check_tensors(state, {k: v.shape for k, v in towers.state_dict().items()}, folder)
    facts = [
        dataclasses.asdict(image),
        dataclasses.asdict(text),
        {"mean": described.mean, "std": described.std, "resize": SiglipBackbone.resize},
    ]
    digest = fingerprint(facts, state, tokenizer.signature())
    fill(towers, state, device, dtype)
    return SiglipBackbone(name or folder.name, towers, tokenizer, described, digest)


def our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the names of the towers, with the projections of queries, keys and values in one; unknown names are kept."""
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        start = next((start for start in NAMES if key.startswith(start)), "")
        key = NAMES.get(start, "") + key.removeprefix(start)
        for part, ours in PARTS.items():
            key = key.replace(part, ours)
        renamed[key] = value
    for key in [key for key in renamed if ".attn.q_proj." in key]:
        names = [key.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
        parts = [renamed[name] for name in names if name in renamed]
        # a missing or misshapen projection stays apart, so that it is refused by its name
        if len(parts) == 3 and len({(part.shape, part.dtype) for part in parts}) == 1:
            renamed[key.replace(".q_proj.", ".in_proj_")] = torch.cat([renamed.pop(name) for name in names])
    return renamed


def configurations(
    described: SiglipDescription, state: Mapping[str, Tensor], folder: Path
) -> tuple[ViTConfig, TextConfig]:
    """The sizes of both towers, from the tensors, after checking what the configuration says about them."""

    def shape(key: str, dimensions: int) -> torch.Size:
        return shape_of(state, key, dimensions, folder)

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
