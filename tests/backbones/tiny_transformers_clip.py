"""The tiny ViT of ``tiny_clip.py`` in the layout of transformers: the same tensors by other names, split and transposed."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from backbones.tiny_clip import (
    CONTEXT,
    EMBED,
    END,
    TEXT_HEADS,
    TEXT_WIDTH,
    State,
    vit_state,
    vocabulary,
    write_tokenizer,
)

WEIGHTS, BIN, CONFIG, PREPROCESSING = (
    "model.safetensors",
    "pytorch_model.bin",
    "config.json",
    "preprocessor_config.json",
)


def transformers_state(state: State, layers: int = 2) -> State:
    """OpenAI's tensors as ``CLIPModel`` names and stores them."""
    names = {
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "logit_scale": "logit_scale",
    }
    renamed = {theirs: state[ours] for ours, theirs in names.items()}
    renamed["text_projection.weight"] = state["text_projection"].T.contiguous()
    renamed["visual_projection.weight"] = state["visual.proj"].T.contiguous()
    for ours, theirs in (("ln_final", "text_model.final_layer_norm"), ("visual.ln_pre", "vision_model.pre_layrnorm")):
        renamed |= {f"{theirs}.{kind}": state[f"{ours}.{kind}"] for kind in ("weight", "bias")}
    renamed |= {f"vision_model.post_layernorm.{kind}": state[f"visual.ln_post.{kind}"] for kind in ("weight", "bias")}
    inside = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for prefix, model in (("", "text_model."), ("visual.", "vision_model.")):
        for n in range(layers):
            ours, theirs = f"{prefix}transformer.resblocks.{n}.", f"{model}encoder.layers.{n}."
            for kind in ("weight", "bias"):
                renamed |= {f"{theirs}{b}.{kind}": state[f"{ours}{a}.{kind}"] for a, b in inside.items()}
                renamed[f"{theirs}self_attn.out_proj.{kind}"] = state[f"{ours}attn.out_proj.{kind}"]
                for part, value in zip("qkv", state[f"{ours}attn.in_proj_{kind}"].chunk(3), strict=True):
                    renamed[f"{theirs}self_attn.{part}_proj.{kind}"] = value.clone()
    return renamed


def position_ids() -> State:
    """What transformers stored beside the weights until its version 4.31."""
    return {
        "text_model.embeddings.position_ids": torch.arange(CONTEXT)[None],
        "vision_model.embeddings.position_ids": torch.arange(17)[None],
    }


def config(hidden_act: str = "quick_gelu") -> dict:
    """``config.json`` with the keys that decide something, and some that do not, as transformers writes them."""
    ids = vocabulary()[0]
    common = {"hidden_act": hidden_act, "num_hidden_layers": 2, "layer_norm_eps": 1e-05, "attention_dropout": 0.0}
    text = {"hidden_size": TEXT_WIDTH, "intermediate_size": 2 * TEXT_WIDTH, "num_attention_heads": TEXT_HEADS}
    text |= {"vocab_size": len(ids), "max_position_embeddings": CONTEXT, "eos_token_id": ids[END]}
    image = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": EMBED,
        "text_config": {"model_type": "clip_text_model", **text, **common},
        "vision_config": {"model_type": "clip_vision_model", **image, **common},
    }


def preprocessing(size: int = 32) -> dict:
    """``preprocessor_config.json`` as OpenAI's models have it on the hub."""
    return {
        "crop_size": size,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": size,
    }


def write_transformers(folder: Path, hidden_act: str = "quick_gelu") -> Path:
    """The whole folder, the weights as safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config(hidden_act)))
    (folder / PREPROCESSING).write_text(json.dumps(preprocessing()))
    save_file(transformers_state(vit_state()), folder / WEIGHTS)
    write_tokenizer(folder)
    return folder
