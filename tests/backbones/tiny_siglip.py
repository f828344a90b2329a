"""SigLIPs with random weights, written as folders in the layout of ``transformers`` with a hand-made SentencePiece model."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

PIECES = [
    "<pad>",
    "</s>",
    "<unk>",
    "▁",
    "s",
    "a",
    "e",
    "▁a",
    "▁the",
    "▁photo",
    "▁of",
    "▁scan",
    "▁cyst",
    "▁stone",
    "▁benign",
]
PIECES += [
    "▁tumor",
    "▁normal",
    "▁x",
    "ray",
    "▁grade",
    "c",
    "o",
    "n",
    "t",
    "i",
    "r",
    "d",
    "g",
    "m",
    "l",
    "u",
    "p",
    "h",
    "y",
    "k",
]
UNKNOWN, CONTROL, NORMAL = 2, 3, 1

TINY: Mapping[str, Any] = {
    "model_type": "siglip",
    "architectures": ["SiglipModel"],
    "text_config": {
        "model_type": "siglip_text_model",
        "hidden_size": 48,
        "intermediate_size": 83,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "vocab_size": 40,
        "projection_size": 32,
    },
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 61,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 34,  # no multiple of the patches' side, as in siglip-so400m-patch14-384
        "patch_size": 8,
    },
}
BASE: Mapping[str, Any] = {
    "model_type": "siglip",
    "architectures": ["SiglipModel"],
    "initializer_factor": 1.0,
    "text_config": {"model_type": "siglip_text_model"},
    "vision_config": {"model_type": "siglip_vision_model"},
}
"""``config.json`` of google/siglip-base-patch16-224."""

SO400M: Mapping[str, Any] = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
}
MEDSIGLIP: Mapping[str, Any] = {
    "model_type": "siglip",
    "architectures": ["SiglipModel"],
    "initializer_factor": 1.0,
    "text_config": {"model_type": "siglip_text_model", **SO400M, "projection_size": 1152},
    "vision_config": {"model_type": "siglip_vision_model", **SO400M, "image_size": 448, "patch_size": 14},
}
"""``config.json`` of google/medsiglip-448."""


State = dict[str, torch.Tensor]


def siglip_state(config: Mapping[str, Any]) -> State:
    """Random weights by the names of transformers; every text and image comes out differently."""
    draw = torch.Generator().manual_seed(0)
    state: State = {}

    def matrix(name: str, *shape: int) -> None:
        state[f"{name}.weight"] = torch.randn(shape, generator=draw) * 1.5 / math.prod(shape[1:]) ** 0.5
        state[f"{name}.bias"] = torch.randn(shape[0], generator=draw) * 0.1

    def norm(name: str, width: int) -> None:
        state[f"{name}.weight"] = 1 + torch.randn(width, generator=draw) * 0.1
        state[f"{name}.bias"] = torch.randn(width, generator=draw) * 0.1

    def tower(prefix: str, stated: Mapping[str, Any]) -> tuple[int, int]:
        width, hidden = stated.get("hidden_size", 768), stated.get("intermediate_size", 3072)
        for number in range(stated.get("num_hidden_layers", 12)):
            layer = f"{prefix}.encoder.layers.{number}"
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                matrix(f"{layer}.self_attn.{part}", width, width)
            norm(f"{layer}.layer_norm1", width)
            norm(f"{layer}.layer_norm2", width)
            matrix(f"{layer}.mlp.fc1", hidden, width)
            matrix(f"{layer}.mlp.fc2", width, hidden)
        return width, hidden

    def embedding(name: str, rows: int, width: int) -> None:
        state[f"{name}.weight"] = torch.randn(rows, width, generator=draw) * 0.5

    text, vision = config["text_config"], config["vision_config"]
    width, _ = tower("text_model", text)
    embed_dim, hidden = tower("vision_model", vision)
    embedding("text_model.embeddings.token_embedding", text.get("vocab_size", 32000), width)
    embedding("text_model.embeddings.position_embedding", text.get("max_position_embeddings", 64), width)
    norm("text_model.final_layer_norm", width)
    matrix("text_model.head", embed_dim, width)
    patch = vision.get("patch_size", 16)
    matrix("vision_model.embeddings.patch_embedding", embed_dim, 3, patch, patch)
    patches = (vision.get("image_size", 224) // patch) ** 2
    embedding("vision_model.embeddings.position_embedding", patches, embed_dim)
    norm("vision_model.post_layernorm", embed_dim)
    state["vision_model.head.probe"] = torch.randn(1, 1, embed_dim, generator=draw)
    state["vision_model.head.attention.in_proj_weight"] = torch.randn(3 * embed_dim, embed_dim, generator=draw) * 0.1
    state["vision_model.head.attention.in_proj_bias"] = torch.randn(3 * embed_dim, generator=draw) * 0.1
    matrix("vision_model.head.attention.out_proj", embed_dim, embed_dim)
    norm("vision_model.head.layernorm", embed_dim)
    matrix("vision_model.head.mlp.fc1", hidden, embed_dim)
    matrix("vision_model.head.mlp.fc2", embed_dim, hidden)
    state |= {"logit_scale": torch.tensor([4.7]), "logit_bias": torch.tensor([-12.9])}
    return state


def write_siglip(folder: Path, config: Mapping[str, Any] = TINY) -> Path:
    """The folder of a model with random weights, with the names of files and tensors as on the hub."""
    folder.mkdir(parents=True)
    size = config["vision_config"].get("image_size", 224)
    preprocess = {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "SiglipImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "SiglipProcessor",
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": size, "width": size},
    }
    settings = {"do_lower_case": True, "eos_token": "</s>", "pad_token": "</s>", "tokenizer_class": "SiglipTokenizer"}
    for name, content in (
        ("config.json", config),
        ("preprocessor_config.json", preprocess),
        ("tokenizer_config.json", settings),
    ):
        (folder / name).write_text(json.dumps(content))
    (folder / "spiece.model").write_bytes(sentencepiece())
    save_file(siglip_state(config), folder / "model.safetensors")
    return folder


def sentencepiece() -> bytes:
    """A SentencePiece model of :data:`PIECES`; longer pieces score higher."""
    kinds = {"<pad>": CONTROL, "</s>": CONTROL, "<unk>": UNKNOWN}
    pieces = b"".join(
        _field(1, _field(1, piece.encode()) + _float(2, 0.3 * len(piece) - 5) + _number(3, kinds.get(piece, NORMAL)))
        for piece in PIECES
    )
    return pieces + _field(2, _number(3, 1) + _number(40, 2)) + _field(3, _field(1, b"identity"))


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content
