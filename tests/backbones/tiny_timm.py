"""Folders of timm's models with random weights, as timm writes them to the hub; ``timm`` is the real package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from backbones.real_timm import import_timm

timm = import_timm()


def write_model(folder: Path, architecture: str, size: int, *, tag: str = ".ours", **arguments: Any) -> nn.Module:
    """Write a model with five classes and statistics of many colours; returns it."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = timm.create_model(architecture, num_classes=5, **arguments)
        for layer in model.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.momentum = None  # the mean over all passes
        model.train()
        with torch.no_grad():
            model(0.7 * torch.randn(8, 3, size, size) + torch.randn(8, 3, 1, 1))
    model.eval()
    made_for = {key: list(value) if isinstance(value, tuple) else value for key, value in model.pretrained_cfg.items()}
    made_for |= {"input_size": [3, size, size], "num_classes": 5}
    config = {"architecture": architecture + tag, "num_classes": 5, "num_features": model.num_features}
    config |= {"pretrained_cfg": made_for, **({"model_args": arguments} if arguments else {})}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    return model
