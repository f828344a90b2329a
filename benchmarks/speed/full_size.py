"""A checkpoint of BiomedCLIP's true layout and size with random weights, for what needs its size and not its knowledge."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

SCALE = 4.4454  # of the published checkpoint, by order of magnitude

BERT = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
CONFIG = {
    "model_cfg": {
        "embed_dim": 512,
        "vision_cfg": {
            "timm_model_name": "vit_base_patch16_224",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 224,
        },
        "text_cfg": {
            "hf_model_name": BERT,
            "hf_tokenizer_name": BERT,
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "context_length": 256,
        },
    },
    "preprocess_cfg": {
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
    },
}


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published checkpoint: ViT-B/16 at 224 px, BERT base, two projections."""

    def layer(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

    def norm(name: str) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (768,), f"{name}.bias": (768,)}

    trunk, text = "visual.trunk.", "text.transformer."
    found: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        trunk + "cls_token": (1, 1, 768),
        trunk + "pos_embed": (1, 197, 768),
        trunk + "patch_embed.proj.weight": (768, 3, 16, 16),
        trunk + "patch_embed.proj.bias": (768,),
        **norm(trunk + "norm"),
        "visual.head.proj.weight": (512, 768),
        text + "embeddings.word_embeddings.weight": (30522, 768),
        text + "embeddings.position_embeddings.weight": (512, 768),
        text + "embeddings.token_type_embeddings.weight": (2, 768),
        **norm(text + "embeddings.LayerNorm"),
        "text.proj.0.weight": (640, 768),
        "text.proj.2.weight": (512, 640),
    }
    for n in range(12):
        block = f"{trunk}blocks.{n}."
        found |= norm(block + "norm1") | norm(block + "norm2")
        found |= layer(block + "attn.qkv", 2304, 768) | layer(block + "attn.proj", 768, 768)
        found |= layer(block + "mlp.fc1", 3072, 768) | layer(block + "mlp.fc2", 768, 3072)
        block = f"{text}encoder.layer.{n}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            found |= layer(block + name, 768, 768)
        found |= layer(block + "intermediate.dense", 3072, 768) | layer(block + "output.dense", 768, 3072)
        found |= norm(block + "attention.output.LayerNorm") | norm(block + "output.LayerNorm")
    return found


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """Small normal weights, LayerNorms near one; 195.9 million numbers."""
    generator = torch.Generator().manual_seed(seed)
    state = {name: 0.02 * torch.randn(shape, generator=generator) for name, shape in shapes().items()}
    for name, tensor in state.items():
        if "norm" in name.lower() and name.endswith("weight"):
            tensor += 1
    state["logit_scale"] = torch.tensor(SCALE)
    return state


def write_description(folder: Path) -> None:
    """Configuration and tokenizer; the vocabulary holds the letters, a few words, and word0, word1, … of one token each."""
    special = {0: "[PAD]", 1: "[UNK]", 2: "[CLS]", 3: "[SEP]", 4: "[MASK]"}
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    words = [*letters, *(f"##{letter}" for letter in letters), "photo", "of", "scan", "cyst", "kidney", "normal"]
    words += [f"word{n}" for n in range(30522 - len(special) - len(words))]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    (folder / "vocab.txt").write_text("\n".join([*special.values(), *words]) + "\n")


def write_bin(folder: Path, state: dict[str, Tensor] | None = None) -> Path:
    """The whole folder as BiomedCLIP is published, 784 MB, with the old ``position_ids``."""
    write_description(folder)
    positions = {"text.transformer.embeddings.position_ids": torch.arange(512)[None]}
    torch.save({**(state or random_weights()), **positions}, folder / "open_clip_pytorch_model.bin")
    return folder
