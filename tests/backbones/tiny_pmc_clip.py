"""PMC-CLIPs with random weights, written as the files that its authors publish, of any size; and their text tower a second time."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F

from backbones.tiny_clip import Normal, State, linear, norm, normal, resnet_state

IMAGE, TEXT, PROJECTION = "image_encoder(resnet50).pth", "text_encoder.pth", "text_projection_layer.pth"
EMBED = 48

TINY = {
    "model_type": "bert",
    "vocab_size": 128,
    "hidden_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 72,
    "hidden_act": "gelu",
    "max_position_embeddings": 80,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}
"""Sizes of the tiny text tower, by the names of ``config.json``."""

FULL = TINY | {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
}
"""Those of BiomedBERT."""

TEXTS = ["a photo of a cyst.", "Normal KIDNEY, no mass", "", "cyst " * 100]


def image_state(width: int = 4, size: int = 64, embed: int = EMBED, images: int = 64) -> State:
    """The image tower by the names of CLIP's ResNet; a stage of it has four positions at 64 px."""
    state = resnet_state(width, (3, 4, 6, 3), size, embed, images)
    return {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}


def text_state(config: dict) -> State:
    """The text tower by the names of transformers' ``BertModel``."""
    draw: Normal = normal(5)
    width, inner = config["hidden_size"], config["intermediate_size"]
    tables = {
        "word": config["vocab_size"],
        "position": config["max_position_embeddings"],
        "token_type": config["type_vocab_size"],
    }
    state = {f"embeddings.{name}_embeddings.weight": draw(rows, width, std=0.5) for name, rows in tables.items()}
    state |= norm(draw, "embeddings.LayerNorm", width)
    for n in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{n}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            state |= linear(draw, layer + name, width, width)
        state |= linear(draw, layer + "intermediate.dense", inner, width)
        state |= linear(draw, layer + "output.dense", width, inner)
        state |= norm(draw, layer + "attention.output.LayerNorm", width) | norm(draw, layer + "output.LayerNorm", width)
    return state | linear(draw, "pooler.dense", width, width)


def projection(width: int = TINY["hidden_size"], embed: int = EMBED) -> torch.Tensor:
    return normal(6)(width, embed, std=width**-0.5)


def bert_features(state: State, matrix: torch.Tensor, config: dict, ids: torch.Tensor) -> torch.Tensor:
    """Text features written down a second time, straight from the names of the tensors and the formulas of the papers.

    Args:
        ids: [B, L], padded with 0.
    """

    def dense(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def layer_norm(name: str, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + config["layer_norm_eps"]).sqrt()
        return centred / scale * state[f"{name}.weight"] + state[f"{name}.bias"]

    heads = config["num_attention_heads"]
    tables = {name: state[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")}
    x = tables["word"][ids] + tables["position"][: ids.shape[1]] + tables["token_type"][0]
    x = layer_norm("embeddings.LayerNorm", x)
    hidden = torch.where(ids != 0, 0.0, float("-inf"))[:, None, None]  # [B, 1, 1, L]
    for n in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{n}."
        q, k, v = (
            dense(f"{layer}attention.self.{name}", x).unflatten(2, (heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5 + hidden
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = layer_norm(f"{layer}attention.output.LayerNorm", dense(f"{layer}attention.output.dense", mixed) + x)
        inner = F.gelu(dense(f"{layer}intermediate.dense", x))
        x = layer_norm(f"{layer}output.LayerNorm", dense(f"{layer}output.dense", inner) + x)
    return dense("pooler.dense", x[:, 0]).tanh() @ matrix


def write_bert_files(folder: Path, config: dict) -> None:
    """``config.json`` and the tokenizer's files; the vocabulary holds letters, a few words, and words of one token each."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    words = ["a", "photo", "of", "scan", "cyst", "kidney", "normal", "no", "mass"]
    known = list(dict.fromkeys([*special, *letters, *words, *(f"##{letter}" for letter in "abcdefgh")]))
    known += [f"word{n}" for n in range(config["vocab_size"] - len(known))]
    (folder / "vocab.txt").write_text("\n".join(known) + "\n")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')


def write_pmc_clip(folder: Path) -> Path:
    """A tiny one; its joint space is wider than its text tower."""
    folder.mkdir(parents=True)
    torch.save(image_state(), folder / IMAGE)
    torch.save(text_state(TINY), folder / TEXT)
    torch.save(projection(), folder / PROJECTION)
    write_bert_files(folder, TINY)
    return folder


def write_full_pmc_clip(folder: Path) -> Path:
    """One of the published sizes, 591 MB, with the old ``position_ids``."""
    folder.mkdir(parents=True)
    torch.save(image_state(64, 224, 768, images=4), folder / IMAGE)
    torch.save(text_state(FULL) | {"embeddings.position_ids": torch.arange(512)[None]}, folder / TEXT)
    torch.save(projection(768, 768), folder / PROJECTION)
    write_bert_files(folder, FULL)
    return folder
