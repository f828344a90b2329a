"""SigLIPs with random weights from ``transformers``, written as folders in its layout with a hand-made SentencePiece model."""

from __future__ import annotations

import json
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
        "max_position_embeddings": 16,
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


def model_of(config: Mapping[str, Any]) -> Any:
    """A SiglipModel of transformers with random weights, biases and norms among them."""
    from transformers import SiglipConfig, SiglipModel

    model = SiglipModel(SiglipConfig(**json.loads(json.dumps(config)))).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.dim() > 1:
                # initial weights of transformers hardly tell inputs apart
                value.copy_(torch.randn(value.shape, generator=draw) * 1.5 / value[0].numel() ** 0.5)
            else:
                value.copy_(torch.randn(value.shape, generator=draw) * 0.1 + ("norm" in name and "weight" in name))
        model.logit_scale.fill_(4.7)
        model.logit_bias.fill_(-12.9)
    return model


def write_siglip(folder: Path, config: Mapping[str, Any], model: Any) -> Path:
    """The folder of a model, with the names of files and tensors as on the hub."""
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
    save_file(model.state_dict(), folder / "model.safetensors")
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
