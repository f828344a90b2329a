"""Which family of models a folder holds, and what loads it.

A new family is one entry of ``LOADERS`` and one rule of :func:`family`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from biomedcoop.backbones.catalogue import ANY_WEIGHTS, PMC_CLIP_WEIGHTS, WEIGHTS_ENDINGS, lone_weights
from biomedcoop.backbones.configuration import read_object, usable
from biomedcoop.backbones.image_only_config import timm_family
from biomedcoop.backbones.open_clip_config import CONFIG, open_clip_family
from biomedcoop.backbones.siglip_config import SIGLIP2
from biomedcoop.errors import UserError

if TYPE_CHECKING:
    import torch

    from biomedcoop.backbones.base import Backbone

LOADERS: Mapping[str, str] = {
    "bert": "biomedcoop.backbones.open_clip:load_open_clip",
    "clip": "biomedcoop.backbones.clip:load_clip",
    "pmc-clip": "biomedcoop.backbones.pmc_clip:load_pmc_clip",
    "clip-openai": "biomedcoop.backbones.openai_clip:load_openai_clip",
    "clip-transformers": "biomedcoop.backbones.transformers_clip:load_transformers_clip",
    "siglip": "biomedcoop.backbones.siglip:load_siglip",
    "resnet": "biomedcoop.backbones.image_only_resnet:load_resnet",
    "timm": "biomedcoop.backbones.image_only_timm:load_timm",
    "vit-timm": "biomedcoop.backbones.image_only:load_image_only",
    "vit-transformers": "biomedcoop.backbones.image_only:load_image_only",
}
"""Family -> module and function that loads a folder: (folder, name=, device=, dtype=) -> Backbone."""

IMAGE_ONLY = ("resnet", "timm", "vit-timm", "vit-transformers")
"""The families without a text tower."""

RESNET_FILE = re.compile(r"(?:wide_)?resnet\d+")
"""How torchvision's names of a ResNet's file begin, such as ``resnet50-0676ba61.pth``."""

HUB_CONFIG = "config.json"
"""The configuration of a model in the layout of transformers or timm."""

MODEL_TYPES: Mapping[str, str] = {
    "clip": "clip-transformers",
    "siglip": "siglip",
    "dinov2": "vit-transformers",
    "dinov2_with_registers": "vit-transformers",
    "vit": "vit-transformers",
}
"""``model_type`` in transformers' ``config.json`` -> family."""


def family(folder: Path) -> str:
    """The family of the model in a folder, a key of :data:`LOADERS`.

    Raises:
        UserError: the folder holds no model of a known family, or its configuration cannot be read.
    """
    if (folder / CONFIG).exists():
        return open_clip_family(folder)
    if any((folder / f"{weights}{ending}").is_file() for weights in PMC_CLIP_WEIGHTS for ending in WEIGHTS_ENDINGS):
        return "pmc-clip"
    if (folder / HUB_CONFIG).exists():
        return hub_family(folder)
    if (weights := lone_weights(folder)) is not None:
        return "resnet" if RESNET_FILE.match(weights.name) else "clip-openai"
    raise UserError(
        f"{folder} is not a backbone: it has no {CONFIG} or {HUB_CONFIG}; "
        "give a folder in the layout of open_clip, transformers or timm, or one with a single .pth of OpenAI's CLIP or of a ResNet"
    )


def hub_family(folder: Path) -> str:
    """The family that a ``config.json`` names, of transformers (``model_type``) or timm (``architecture``).

    Raises:
        UserError: it names none that can be loaded.
    """
    config = read_object(folder / HUB_CONFIG)
    model_type = config.get("model_type")
    if model_type is None and isinstance(config.get("architecture"), str):
        with usable(folder):
            return timm_family(config)
    if model_type == "siglip2":
        raise UserError(f"{folder}: {SIGLIP2}")
    if model_type == "bert" or any((folder / weights).is_file() for weights in ANY_WEIGHTS[:2]):
        raise UserError(
            f"{folder}: {CONFIG} is missing: {HUB_CONFIG} is that of a text tower ({model_type}), beside which the layout of "
            f"open_clip has {CONFIG}; put it there from where the other files are"
        )
    if not isinstance(model_type, str) or model_type not in MODEL_TYPES:
        known = ", ".join(f"'{name}'" for name in MODEL_TYPES)
        raise UserError(
            f"{folder}: model_type in {HUB_CONFIG} is {model_type!r}; only models of type {known} can be loaded"
        )
    return MODEL_TYPES[model_type]


def load_folder(folder: Path, name: str, device: torch.device, dtype: torch.dtype) -> Backbone:
    """Load the model in a folder with both towers in float32, the text tower in ``dtype``."""
    module, _, function = LOADERS[family(folder)].partition(":")
    load: Callable[..., Backbone] = getattr(import_module(module), function)
    return load(folder, name=name, device=device, dtype=dtype)
