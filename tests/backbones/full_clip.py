"""OpenAI's CLIP ViT-B/16 and ViT-B/32 of full size with random weights, written as their folders on the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from backbones.tiny_transformers_clip import position_ids, preprocessing
from benchmarks.speed.full_size import clip_config, write_clip_tokenizer

PARAMETERS = {16: 149_620_737, 32: 151_277_313}  # as OpenAI's repository counts them


def write_full_clip(folder: Path, patch: int) -> Any:
    """ViT-B/16 as ``.bin`` with ``position_ids``, ViT-B/32 as safetensors; returns the model of transformers with these weights."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(**clip_config(patch))).eval()
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[patch]
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("position_ids")}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(clip_config(patch)))
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing(224)))
    write_clip_tokenizer(folder)
    if patch == 16:
        torch.save(state | position_ids(), folder / "pytorch_model.bin")
    else:
        save_file(state, folder / "model.safetensors")
    return model
