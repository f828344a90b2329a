"""The configuration of a tower without a text tower, in the layout of transformers or of timm, read and checked.

Sizes are read off the tensors of the checkpoint. The configuration is asked for what tensors cannot tell (heads, depth, input size,
normalisation), and a value that asks for another design is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomedcoop.backbones.configuration import (
    Supported,
    at_least,
    check_supported,
    number,
    read_object,
    section,
    triple,
    usable,
)
from biomedcoop.errors import UserError

CONFIG, PREPROCESSING = "config.json", "preprocessor_config.json"

SUPPORTED: Supported = {
    "config": {
        "hidden_act": ("gelu",),
        "qkv_bias": (True,),
        "num_channels": (3,),
        "use_swiglu_ffn": (False,),
    },
    "preprocessing": {key: (True,) for key in ("do_resize", "do_rescale", "do_normalize")},
}
"""The values of transformers that this code supports."""

TIMM_SUPPORTED: Supported = {
    "config": {"global_pool": ("token",)},
    "model_args": {"qkv_bias": (True,), "global_pool": ("token",), "class_token": (True,), "in_chans": (3,)},
    "pretrained_cfg": {},
}
"""The values of timm that this code supports."""

TIMM_ARGUMENTS = {
    *("img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "init_values", "num_classes"),
    *("dynamic_img_size", *TIMM_SUPPORTED["model_args"]),
}
"""Arguments of a timm model that are read here, or that the tensors tell."""

TIMM_RESNET_SUPPORTED: Supported = {
    "config": {"global_pool": ("avg",)},
    "model_args": {"global_pool": ("avg",), "in_chans": (3,)},
    "pretrained_cfg": {},
}
"""The same for a ResNet."""

TIMM_NAME = re.compile(r"vit_(?P<size>tiny|small|base|large|huge)_patch\d+_(?:\d+|dinov2)(?:\..*)?")

SIZES = {"tiny": (12, 3), "small": (12, 6), "base": (12, 12), "large": (24, 16), "huge": (32, 16)}
"""Blocks and heads of timm's models, by the size in their name."""

NORM_EPS = {"dinov2": 1e-6, "dinov2_with_registers": 1e-6, "vit": 1e-12, "timm": 1e-6}


@dataclass(frozen=True)
class Preparation:
    """How pixels become the input of a tower.

    Attributes:
        image_size: side of the input, px.
        mean, std: per-channel normalisation of pixels in [0, 1].
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class ImageDescription(Preparation):
    """The configuration of a ViT.

    Attributes:
        layout: "dinov2", "vit" or "timm", which names the tensors.
        layers, heads: blocks, and heads of each.
        norm_eps: what each LayerNorm adds to the variance.
    """

    layout: str
    layers: int
    heads: int
    norm_eps: float


def read_image_description(folder: Path) -> ImageDescription:
    """Read ``config.json`` and, beside a model of transformers, ``preprocessor_config.json``.

    Raises:
        UserError: a file is missing or not JSON, values make no sense, or they ask for another design.
    """
    config = read_object(folder / CONFIG)
    if "model_type" in config:
        if not (folder / PREPROCESSING).exists():
            raise UserError(f"{folder}: has no {PREPROCESSING}; copy that of the model into it")
        preprocessing = read_object(folder / PREPROCESSING)
        with usable(folder):
            return _of_transformers(config, preprocessing)
    with usable(folder):
        return _of_timm(config)


def _of_transformers(config: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> ImageDescription:
    check_supported(SUPPORTED, (config, preprocessing))
    layout = str(config["model_type"])
    return ImageDescription(
        layout=layout,
        layers=at_least(config.get("num_hidden_layers", 12), "num_hidden_layers"),
        heads=at_least(config.get("num_attention_heads", 12), "num_attention_heads"),
        norm_eps=number(config.get("layer_norm_eps", NORM_EPS[layout]), "layer_norm_eps", above=0),
        image_size=_input_side(preprocessing),
        mean=_channels(preprocessing, "image_mean", PREPROCESSING),
        std=_channels(preprocessing, "image_std", PREPROCESSING, above=0),
    )


def _input_side(preprocessing: Mapping[str, Any]) -> int:
    """Side of the input, px: that of the crop, else of the resized image."""
    cropped = preprocessing.get("crop_size") is not None and preprocessing.get("do_center_crop", True)
    key = "crop_size" if cropped else "size"
    size = preprocessing.get(key)
    sides = list(size.values()) if isinstance(size, dict) else [size]
    if len(set(map(str, sides))) != 1:
        raise ValueError(f"{key} {size} in {PREPROCESSING} is not a square")
    return at_least(sides[0], f"{key} in {PREPROCESSING}")


def _of_timm(config: Mapping[str, Any]) -> ImageDescription:
    name, arguments = str(config.get("architecture")), section(config, "model_args")
    made_for = section(config, "pretrained_cfg") or config  # older files have no such section
    check_supported(TIMM_SUPPORTED, (config, arguments, made_for))
    known = TIMM_NAME.fullmatch(name)
    if known is None:
        raise ValueError(
            f"architecture '{name}' is not supported, only a plain ViT such as 'vit_base_patch16_224' or ResNet such as 'resnet50'"
        )
    if unknown := sorted(arguments.keys() - TIMM_ARGUMENTS):
        raise ValueError(f"model_args has '{unknown[0]}', which is not supported")
    layers, heads = SIZES[known["size"]]
    prepared = _timm_preparation(made_for)
    return ImageDescription(
        layout="timm",
        layers=at_least(arguments.get("depth", layers), "depth"),
        heads=at_least(arguments.get("num_heads", heads), "num_heads"),
        norm_eps=NORM_EPS["timm"],
        image_size=prepared.image_size,
        mean=prepared.mean,
        std=prepared.std,
    )


def read_resnet_preparation(folder: Path) -> Preparation:
    """How the pixels of a ResNet of timm are prepared, from ``config.json``.

    Raises:
        UserError: the file is missing or not JSON, values make no sense, or they ask for another design.
    """
    config = read_object(folder / CONFIG)
    with usable(folder):
        arguments, made_for = section(config, "model_args"), section(config, "pretrained_cfg") or config
        check_supported(TIMM_RESNET_SUPPORTED, (config, arguments, made_for))
        if unknown := sorted(arguments.keys() - {"num_classes", *TIMM_RESNET_SUPPORTED["model_args"]}):
            raise ValueError(f"model_args has '{unknown[0]}', which is not supported")
        return _timm_preparation(made_for)


def _timm_preparation(made_for: Mapping[str, Any]) -> Preparation:
    input_size = made_for.get("input_size")
    if not isinstance(input_size, list) or len(input_size) != 3 or input_size[0] != 3 or len(set(input_size[1:])) != 1:
        raise ValueError(f"input_size is {input_size!r}, must be [3, side, side]")
    return Preparation(
        image_size=at_least(input_size[1], "input_size"),
        mean=_channels(made_for, "mean", CONFIG),
        std=_channels(made_for, "std", CONFIG, above=0),
    )


def _channels(values: Mapping[str, Any], key: str, file: str, **limit: float) -> tuple[float, float, float]:
    if values.get(key) is None:
        raise ValueError(f"{file} does not tell {key}")
    return triple(values, key, (0.0, 0.0, 0.0), **limit)
