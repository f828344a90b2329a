"""A tiny EfficientNet-Lite with random weights beside a tiny mean-pooled BERT, written as a folder in open_clip layout.

Run as a script where ``open_clip`` and ``timm`` are installed (they are no dependencies of this package), it renews
``lite_golden.json``: names and shapes of timm's models, and the features that timm and open_clip compute with the tiny one's
tensors. The file was made with timm 1.0.31, open_clip 3.3.0 and transformers 5.24.0.

    python tests/backbones/tiny_lite.py
"""

from __future__ import annotations

import json
import math
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from biomedcoop.backbones.efficientnet_lite import EfficientNetLite, EfficientNetLiteConfig, Norm
from pretraining.parents import lite0_config

GOLDEN = Path(__file__).parent / "lite_golden.json"
PARITY = Path(__file__).parent.parent / "parity_a" / "model"
NAME, EMBED = "tf_efficientnet_lite0", 48
SIZE = 50  # px: strides meet maps of even and odd sides, 50, 25, 13, 7 and 4
STEM, WIDTHS, FEATURES = 32, (8, 8, 8, 8, 16, 24, 32), 1280
"""Channels of the stem, of the stages and of the head: what timm makes of a tenth of the channels."""
BIAS = 1.0
"""Of normalised maps: some meet the limits of ReLU6, most do not."""
TEXTS = ["a cyst.", "a scan with a bright, round, well defined mass beside the left kidney.", ""]

State = dict[str, torch.Tensor]


def tower_config(*, tensorflow: bool = True) -> EfficientNetLiteConfig:
    return lite0_config(SIZE, STEM, WIDTHS, FEATURES, tensorflow=tensorflow)


def many_colours() -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(64, 3, SIZE, SIZE, generator=generator) * 0.7 + torch.randn(64, 3, 1, 1, generator=generator)


@cache
def trunk_state() -> State:
    """Random tensors by timm's names, with the statistics of images of many colours: with arbitrary ones every image would come
    out nearly the same."""
    tower, generator = EfficientNetLite(tower_config()), torch.Generator().manual_seed(0)
    for key, value in sorted(tower.named_parameters()):
        normal = torch.randn(value.shape, generator=generator)
        if value.ndim == 4:
            # kernels that average: 16 blocks of others would turn images into noise
            value.data = (normal + (value.shape[-1] > 1)) / math.sqrt(value[0].numel())
        else:
            value.data = 0.2 * normal + (1 if key.endswith("weight") else BIAS)

    def settle(norm: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        norm.running_mean, norm.running_var = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3))

    for module in tower.modules():
        if isinstance(module, Norm):
            module.register_forward_pre_hook(settle)
    with torch.no_grad():
        tower(many_colours())
    return {key: value.detach() for key, value in tower.state_dict().items()}


def trunk(*, tensorflow: bool = True) -> EfficientNetLite:
    """The image tower without its projection."""
    tower = EfficientNetLite(tower_config(tensorflow=tensorflow))
    tower.load_state_dict(trunk_state())
    return tower.requires_grad_(False).eval()


def pixels() -> torch.Tensor:
    """Three images of noise."""
    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def text_state() -> State:
    """The BERT of the tiny BiomedCLIP with a linear projection."""
    whole = load_file(PARITY / "open_clip_model.safetensors")
    state = {key: value for key, value in whole.items() if key.startswith("text.transformer")}
    width, generator = state["text.transformer.embeddings.LayerNorm.weight"].numel(), torch.Generator().manual_seed(2)
    return {**state, "text.proj.weight": torch.randn(EMBED, width, generator=generator) / math.sqrt(width)}


def pair_state() -> State:
    image = {f"visual.trunk.{key}": value for key, value in trunk_state().items()}
    # timm's normalisation layers count the steps of their training
    counters = {
        key.replace("running_mean", "num_batches_tracked"): torch.tensor(7)
        for key in image
        if key.endswith("running_mean")
    }
    projection = torch.randn(EMBED, FEATURES, generator=torch.Generator().manual_seed(3)) / math.sqrt(FEATURES)
    common = trunk()(many_colours()).mean(0)  # what all images have in common would hide what they differ in
    projection -= torch.outer(projection @ common, common) / common.square().sum()
    head = {"visual.head.proj.weight": projection, "logit_scale": torch.tensor(math.log(20))}
    return image | counters | head | text_state()


def write_lite(folder: Path) -> Path:
    """The folder, written."""
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(PARITY / name, folder / name)
    save_file(pair_state(), folder / "open_clip_model.safetensors")
    vision = {"timm_model_name": NAME, "timm_pool": "avg", "timm_proj": "linear", "image_size": SIZE}
    text = {"hf_model_name": ".", "hf_proj_type": "linear", "hf_pooler_type": "mean_pooler", "context_length": 64}
    config = {
        "model_cfg": {"embed_dim": EMBED, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def rounded(features: torch.Tensor) -> list[list[float]]:
    return [[round(float(value), 6) for value in row] for row in features]


def renew_golden() -> None:
    from open_clip.hf_model import HFTextEncoder
    from timm.models import create_model
    from timm.models.efficientnet import _gen_efficientnet_lite
    from tokenizers import Tokenizer

    golden: dict[str, Any] = {}
    for n in range(5):
        state = create_model(f"tf_efficientnet_lite{n}", num_classes=0).state_dict()
        assert [*state] == [*create_model(f"efficientnet_lite{n}", num_classes=0).state_dict()]
        golden[f"efficientnet_lite{n}"] = {
            key: "x".join(map(str, value.shape)) for key, value in state.items() if key.endswith(".weight")
        }
    for kind, kwargs in (("tensorflow", {"bn_eps": 1e-3, "pad_type": "same"}), ("torch", {})):
        tiny = _gen_efficientnet_lite(NAME, 0.1, 1.0, num_classes=0, **kwargs).eval()
        missing, unexpected = tiny.load_state_dict(trunk_state(), strict=False)
        assert not unexpected
        assert all(key.endswith("num_batches_tracked") for key in missing)
        with torch.no_grad():
            golden[kind] = rounded(tiny(pixels())[:, ::40])
    text = HFTextEncoder(str(PARITY), EMBED, pooler_type="mean_pooler", proj_type="linear", pretrained=False).eval()
    text.load_state_dict({key.removeprefix("text."): value for key, value in text_state().items()})
    tokenizer = Tokenizer.from_file(str(PARITY / "tokenizer.json"))
    tokenizer.enable_padding()
    with torch.no_grad():
        golden["text"] = rounded(text(torch.tensor([row.ids for row in tokenizer.encode_batch(TEXTS)])))
    GOLDEN.write_text(json.dumps(golden, separators=(",", ":")).replace('},"', '},\n"').replace("],[", "],\n[") + "\n")


if __name__ == "__main__":
    renew_golden()
