"""Both towers as a folder in open_clip layout, half precision."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from biomedcoop.backbones.bert import Bert
from biomedcoop.backbones.efficientnet_lite import EfficientNetLite
from biomedcoop.output import write_atomically
from pretraining.parents import MEAN, STD, TIMM_NAME

CARD = Path(__file__).parent / "card"
CONTEXT = 128
"""Tokens of a text at most, as the text parent was trained."""


def export(
    tower: EfficientNetLite, text_tower: Bert, parts: dict[str, Tensor], vocabulary: bytes, images: int, folder: Path
) -> None:
    """Write the backbone.

    open_clip's projection of the text tower has no bias: what centres its features goes into the bias of its last LayerNorm,
    which the mean over tokens passes on as it is.

    Args:
        parts: ``projection.weight`` and ``.bias`` of the image tower; ``text.mean``, ``text.deviation``,
            ``text.linear.weight`` and ``text.scale`` of the text map.
        vocabulary: content of ``tokenizer.json``.
        images: number of images that it was trained on, for the card.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"visual.trunk.{k}": v for k, v in tower.state_dict().items()}
    tensors |= {f"visual.head.proj.{k}": parts[f"projection.{k}"] for k in ("weight", "bias")}
    tensors |= {f"text.transformer.{k}": v for k, v in text_tower.state_dict().items()}
    sizes = text_tower.config
    last = f"text.transformer.encoder.layer.{sizes.layers - 1}.output.LayerNorm.bias"
    tensors[last] = tensors[last] - parts["text.mean"]
    # features are normalised after it, so its size is free: half precision is exact enough from 1e-4 on
    projection = parts["text.linear.weight"] / parts["text.deviation"]
    tensors["text.proj.weight"] = projection / projection.std() * projection.shape[1] ** -0.5
    tensors["logit_scale"] = parts["text.scale"]
    size, embed = tower.config.image_size, len(projection)
    config = {
        "model_cfg": {
            "embed_dim": embed,
            "vision_cfg": {
                "timm_model_name": TIMM_NAME,
                "timm_model_pretrained": False,
                "timm_pool": "avg",
                "timm_proj": "linear",
                "timm_proj_bias": True,
                "image_size": size,
            },
            "text_cfg": {
                "hf_model_name": ".",
                "hf_tokenizer_name": ".",
                "hf_proj_type": "linear",
                "hf_pooler_type": "mean_pooler",
                "context_length": CONTEXT,
            },
        },
        "preprocess_cfg": {"mean": list(MEAN), "std": list(STD)},
    }
    bert = {
        "model_type": "bert",
        "vocab_size": sizes.vocab_size,
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.mlp_width,
        "hidden_act": "gelu",
        "max_position_embeddings": sizes.positions,
        "type_vocab_size": sizes.token_types,
        "layer_norm_eps": sizes.norm_eps,
        "pad_token_id": 0,
    }
    half = {k: v.detach().to(torch.float16).contiguous() for k, v in tensors.items()}
    if strange := [k for k, v in half.items() if not bool(v.isfinite().all())]:
        raise ValueError(f"{strange[0]} leaves the range of half precision")
    write_atomically(folder / "open_clip_model.safetensors", to_bytes(half))
    write_atomically(folder / "tokenizer.json", vocabulary)
    for name, content in (("open_clip_config.json", config), ("config.json", bert)):
        write_atomically(folder / name, (json.dumps(content, indent=1) + "\n").encode())
    card = (CARD / "README.md").read_text(encoding="utf-8").format(size=size, embed=embed, images=images)
    write_atomically(folder / "README.md", card.encode())
    write_atomically(folder / "LICENSE.md", (CARD / "LICENSE.md").read_bytes())
