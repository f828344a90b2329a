"""OpenAI's CLIP (Radford et al. 2021, arXiv 2103.00020) from a directory in the layout of Hugging Face transformers.

OpenAI's models on the hub, PubMedCLIP and what transformers saves come in this layout: ``config.json``, ``model.safetensors`` or
``pytorch_model.bin``, the tokenizer's files, and ``preprocessor_config.json``. The tensors get OpenAI's names; the towers are those
of :mod:`biomedcoop.backbones.clip`, so the same weights have the same fingerprint in every layout.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from biomedcoop.backbones.catalogue import lone_weights
from biomedcoop.backbones.checkpoint import check_names, joined, read_weights, shape_of
from biomedcoop.backbones.clip import ClipBackbone, build_clip
from biomedcoop.backbones.tokenizer import CLIP_ENDS
from biomedcoop.backbones.transformers_clip_config import CONFIG, read_transformers_clip
from biomedcoop.errors import UserError

WEIGHTS = ("model.safetensors", "pytorch_model.bin")

PUBMEDCLIP = "PubMedCLIP*"
"""Beginning of the name of the original PubMedCLIP. In a folder of ViT-B/32 it replaces the weights, as in its authors' code."""

QKV = "{q,k,v}"
"""Stands in a name for three tensors: queries, keys and values, which OpenAI's checkpoints hold in one."""

PLAIN = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
}
TRANSPOSED = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
NORMS = {
    "ln_final.": "text_model.final_layer_norm.",
    "visual.ln_pre.": "vision_model.pre_layrnorm.",  # spelt so in every checkpoint
    "visual.ln_post.": "vision_model.post_layernorm.",
}
BLOCK = {
    "ln_1.": "layer_norm1.",
    "ln_2.": "layer_norm2.",
    "attn.in_proj_": f"self_attn.{QKV}_proj.",
    "attn.out_proj.": "self_attn.out_proj.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
}
"""Each maps OpenAI's name to that of transformers: PLAIN of a tensor, TRANSPOSED of a transposed matrix, NORMS of a pair of weight
and bias, BLOCK of such a pair within a block."""


def load_transformers_clip(
    folder: Path, *, name: str | None = None, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> ClipBackbone:
    """Load a CLIP from a directory in the layout of transformers.

    Args:
        folder: holds the configuration, the weights, the tokenizer and the preprocessing.
        name: name of the backbone; the folder's name by default.
        device: where the towers run.
        dtype: precision of the text tower; the image tower computes in float32.

    Raises:
        UserError: a file is missing or unreadable, the model differs from OpenAI's design, tensors are missing, unexpected,
            misshapen or not finite, or the configuration disagrees with them.
    """
    described, end = read_transformers_clip(folder)
    assert isinstance(described.image_layers, int)
    names = tensor_names(described.image_layers, described.text_layers)
    if (laid_over := lone_weights(folder, PUBMEDCLIP)) is not None:
        state = read_weights(folder, (laid_over.name,))  # by OpenAI's names
    else:
        described = dataclasses.replace(described, names={**described.names, **names})
        state = openai_tensors(read_weights(folder, WEIGHTS), names, folder)
    backbone = build_clip(folder, described, state, name, device, dtype)
    own_end = backbone.tokenizer.rust.token_to_id(CLIP_ENDS[1])
    # OpenAI's own configurations say 2, for which transformers takes the token of the highest number, as OpenAI does
    if end not in (2, own_end):
        raise UserError(
            f"{folder}: eos_token_id is {end} in {CONFIG}, {own_end} in the tokenizer; the files are of two models"
        )
    return backbone


def tensor_names(image_layers: int, text_layers: int) -> dict[str, str]:
    """OpenAI's name of every tensor -> that of transformers; :data:`QKV` stands for three."""
    pairs = dict(NORMS)
    for ours, theirs, layers in (("visual.", "vision_model", image_layers), ("", "text_model", text_layers)):
        for n in range(layers):
            block, layer = f"{ours}transformer.resblocks.{n}.", f"{theirs}.encoder.layers.{n}."
            pairs |= {block + a: layer + b for a, b in BLOCK.items()}
    return PLAIN | TRANSPOSED | {a + kind: b + kind for a, b in pairs.items() for kind in ("weight", "bias")}


def openai_tensors(state: Mapping[str, Tensor], names: Mapping[str, str], folder: Path) -> dict[str, Tensor]:
    """The tensors by OpenAI's names: queries, keys and values joined, projections transposed.

    Raises:
        UserError: tensors are missing or unexpected, or those to be joined differ in shape or type.
    """
    parts = {
        ours: [theirs.replace(QKV, part) for part in "qkv"] if QKV in theirs else [theirs]
        for ours, theirs in names.items()
    }
    check_names(state.keys(), {theirs for group in parts.values() for theirs in group}, folder)

    def tensor(ours: str, group: list[str]) -> Tensor:
        if ours in TRANSPOSED:
            shape_of(state, group[0], 2, folder)
            return state[group[0]].T.contiguous()
        return joined(state, group, folder)

    return {ours: tensor(ours, group) for ours, group in parts.items()}
