"""OpenAI's CLIP ViT-B/16 and ViT-B/32 of full size with random weights, written as their folders on the hub."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from backbones.tiny_clip import END, START, vocabulary
from backbones.tiny_transformers_clip import position_ids, preprocessing

TOKENS = 49408
PARAMETERS = {16: 149_620_737, 32: 151_277_313}  # as OpenAI's repository counts them

TOWER = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-05, "num_hidden_layers": 12, "projection_dim": 512}


def published_config(patch: int) -> dict[str, Any]:
    """What decides something in ``config.json`` of openai/clip-vit-base-patch16 and -patch32."""
    text = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "max_position_embeddings": 77}
    text |= {"vocab_size": TOKENS, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    image = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    image |= {"image_size": 224, "patch_size": patch}
    return {
        **{"architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": 512},
        **{"logit_scale_init_value": 2.6592, "initializer_factor": 1.0},
        **{"text_config": {**text, **TOWER}, "text_config_dict": None},
        **{"vision_config": {**image, **TOWER}, "vision_config_dict": None},
    }


def write_tokenizer(folder: Path) -> None:
    """``vocab.json`` and ``merges.txt`` of CLIP's size: the tiny ones, and merges of signs that no text here holds."""
    ids, merges = vocabulary()
    signs = [token for token in ids if len(token) == 1 and ord(token) > 127]
    pairs = list(itertools.product(signs, signs))
    triples = ((left + right, last) for (left, right), last in itertools.product(pairs, signs))
    merges += [*pairs, *triples][: TOKENS - len(ids)]
    tokens = [token for token in ids if token not in (START, END)]
    tokens += [left + right for left, right in merges if left + right not in ids] + [START, END]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_full_clip(folder: Path, patch: int) -> Any:
    """ViT-B/16 as ``.bin`` with ``position_ids``, ViT-B/32 as safetensors; returns the model of transformers with these weights."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(**published_config(patch))).eval()
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[patch]
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("position_ids")}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(published_config(patch)))
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing(224)))
    write_tokenizer(folder)
    if patch == 16:
        torch.save(state | position_ids(), folder / "pytorch_model.bin")
    else:
        save_file(state, folder / "model.safetensors")
    return model
