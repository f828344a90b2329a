"""A tiny EfficientNet-Lite with random weights, beside the text tower of the tiny BiomedCLIP, as a folder in open_clip layout.

Run as a script where ``timm`` is installed (it is no dependency of this package), it renews ``lite_golden.json``: names and shapes
of timm's models, and what timm computes with the tiny one's tensors. The file was made with timm 1.0.31. With that timm and
open_clip 3.3.0, pairs of the real weights of lite0, 1 and 2 with MiniLM (``pretraining.pair``) loaded strictly in open_clip, and
image and text features were equal to the last bit.

    python tests/backbones/tiny_lite.py
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from biomedcoop.backbones.efficientnet_lite import STAGES, BlockConfig, EfficientNetLite, EfficientNetLiteConfig

GOLDEN = Path(__file__).parent / "lite_golden.json"
PARITY = Path(__file__).parent.parent / "parity_a" / "model"
NAME, SIZE, EMBED = "tf_efficientnet_lite0", 50, 24  # 50 px: strides meet maps of 50, 25, 13, 7 and 4
WIDTHS = (8, 8, 8, 8, 16, 24, 32)
"""Of the stages: what timm makes of a tenth of the channels."""

State = dict[str, torch.Tensor]


def tower_config() -> EfficientNetLiteConfig:
    stages, channels = [], 32
    for width, (blocks, kernel, stride) in zip(WIDTHS, STAGES, strict=True):
        stage = []
        for number in range(blocks):
            hidden = 6 * channels if stages else channels
            stage.append(BlockConfig(channels, hidden, width, kernel, 1 if number else stride))
            channels = width
        stages.append(tuple(stage))
    return EfficientNetLiteConfig(SIZE, 32, tuple(stages), 1280)


def trunk_state() -> State:
    """Random tensors by timm's names; maps neither vanish nor reach the limit of ReLU6 everywhere."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, value in sorted(EfficientNetLite(tower_config()).state_dict().items()):
        normal = torch.randn(value.shape, generator=generator)
        if value.ndim == 4:
            state[key] = normal * 1.5 / math.sqrt(value[0].numel())
        elif key.endswith(("weight", "running_var")):
            state[key] = (normal * 0.3).exp()
        else:
            state[key] = normal * 0.3
    return state


def pixels() -> torch.Tensor:
    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def pair_state(text_proj: str = "linear") -> State:
    text = {
        k: v for k, v in load_file(PARITY / "open_clip_model.safetensors").items() if k.startswith("text.transform")
    }
    width, generator = text["text.transformer.embeddings.LayerNorm.weight"].numel(), torch.Generator().manual_seed(2)

    def dense(outputs: int, inputs: int) -> torch.Tensor:
        return torch.randn(outputs, inputs, generator=generator) / math.sqrt(inputs)

    trunk = {f"visual.trunk.{key}": value for key, value in trunk_state().items()}
    counters = {
        key.replace("running_mean", "num_batches_tracked"): torch.tensor(7) for key in trunk if key.endswith("mean")
    }
    if text_proj == "linear":
        proj = {"text.proj.weight": dense(EMBED, width)}
    else:
        hidden = (EMBED + width) // 2
        proj = {"text.proj.0.weight": dense(hidden, width), "text.proj.2.weight": dense(EMBED, hidden)}
    head = {"visual.head.proj.weight": dense(EMBED, 1280), "logit_scale": torch.tensor(math.log(20))}
    return trunk | counters | text | proj | head


def write_lite(folder: Path, *, text_proj: str = "linear", pooler: str = "mean_pooler") -> Path:
    """The folder, written."""
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(PARITY / name, folder / name)
    save_file(pair_state(text_proj), folder / "open_clip_model.safetensors")
    vision = {"timm_model_name": NAME, "timm_pool": "avg", "timm_proj": "linear", "image_size": SIZE}
    text = {"hf_model_name": ".", "hf_proj_type": text_proj, "hf_pooler_type": pooler, "context_length": 64}
    config = {
        "model_cfg": {"embed_dim": EMBED, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def renew_golden() -> None:
    from timm.models import create_model
    from timm.models.efficientnet import _gen_efficientnet_lite

    golden: dict = {}
    for n in range(5):
        state = create_model(f"tf_efficientnet_lite{n}", num_classes=0).state_dict()
        shapes = {k: "x".join(map(str, v.shape)) for k, v in state.items() if k.endswith(".weight")}
        golden[f"tf_efficientnet_lite{n}"] = shapes
    tiny = _gen_efficientnet_lite(NAME, 0.1, 1.0, bn_eps=1e-3, pad_type="same", num_classes=0).eval()
    missing, unexpected = tiny.load_state_dict(trunk_state(), strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    with torch.no_grad():
        x, golden["maps"] = tiny.bn1(tiny.conv_stem(pixels())), []
        for stage in tiny.blocks:
            x = stage(x)
            golden["maps"].append([round(float(mean), 6) for mean in x.mean((0, 2, 3))])
        golden["features"] = [[round(float(v), 6) for v in row[::40]] for row in tiny(pixels())]
    GOLDEN.write_text(json.dumps(golden, separators=(",", ":")).replace('},"', '},\n"').replace("],[", "],\n[") + "\n")


if __name__ == "__main__":
    renew_golden()
