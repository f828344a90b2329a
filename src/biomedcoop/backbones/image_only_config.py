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
from biomedcoop.errors import UserError, notify

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

VIT_NAME = re.compile(r"vit_(?P<size>tiny|small|base|large|huge)_patch\d+_(?:\d+|dinov2)(?:\..*)?")
RESNET_NAME = re.compile(r"(?:resnet(?:18|34|50|101|152)|wide_resnet(?:50|101)_2)(?:\..*)?")
"""timm's names of the models that this package computes itself, with or without a tag of the weights."""

VIT_ARGUMENTS = {
    *("img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "init_values", "num_classes"),
    *("dynamic_img_size", "qkv_bias", "global_pool", "class_token", "in_chans"),
}
RESNET_ARGUMENTS = {"num_classes", "global_pool", "in_chans"}
"""Arguments of these models that are read here, or that the tensors tell."""

AS_PUBLISHED = {"qkv_bias": True, "class_token": True, "in_chans": 3}
"""Arguments that have one value in all these models."""

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


def timm_family(config: Mapping[str, Any]) -> str:
    """The family of a model of timm: a plain "resnet" or "vit-timm", which need no other package, else "timm".

    Raises:
        ValueError: the configuration makes no sense.
    """
    name, arguments = str(config.get("architecture")), section(config, "model_args")
    plain = all(arguments.get(key) in (None, value) for key, value in AS_PUBLISHED.items())
    for family, known, own, pool in (
        ("resnet", RESNET_NAME, RESNET_ARGUMENTS, "avg"),
        ("vit-timm", VIT_NAME, VIT_ARGUMENTS, "token"),
    ):
        pooled = all(values.get("global_pool") in (None, pool) for values in (config, arguments))
        if known.fullmatch(name) and plain and pooled and arguments.keys() <= own:
            return family
    return "timm"


def _of_timm(config: Mapping[str, Any]) -> ImageDescription:
    arguments, known = section(config, "model_args"), VIT_NAME.fullmatch(str(config.get("architecture")))
    assert known is not None, "the family was found by it"
    layers, heads = SIZES[known["size"]]
    prepared = timm_preparation(config)
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
        return timm_preparation(config)


def made_for(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What timm says about the weights and their images: a section, or in older files the configuration itself."""
    return section(config, "pretrained_cfg") or config


def timm_preparation(config: Mapping[str, Any]) -> Preparation:
    """How the pixels of a model of timm are prepared.

    Raises:
        ValueError: values are missing or make no sense, or the input is not square or not RGB.
    """
    values = made_for(config)
    input_size = values.get("input_size")
    if not isinstance(input_size, list) or len(input_size) != 3 or input_size[0] != 3 or len(set(input_size[1:])) != 1:
        raise ValueError(f"input_size is {input_size!r}, must be [3, side, side]")
    other = []
    if (part := values.get("crop_pct")) not in (None, 1):
        other.append(f"crop_pct {part} (the whole height or width is seen)")
    if (way := values.get("interpolation")) not in (None, "bicubic"):
        other.append(f"interpolation '{way}' (bicubic is used)")
    if other:
        notify(
            [
                f"{CONFIG} of '{config.get('architecture')}' asks for {' and '.join(other)}: not followed, so features differ a "
                "little from timm's own."
            ]
        )
    return Preparation(
        image_size=at_least(input_size[1], "input_size"),
        mean=_channels(values, "mean", CONFIG),
        std=_channels(values, "std", CONFIG, above=0),
    )


def _channels(values: Mapping[str, Any], key: str, file: str, **limit: float) -> tuple[float, float, float]:
    if values.get(key) is None:
        raise ValueError(f"{file} does not tell {key}")
    return triple(values, key, (0.0, 0.0, 0.0), **limit)
