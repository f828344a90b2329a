"""The configuration of a CLIP in the layout of transformers, read and checked.

What a file leaves out has the value that transformers gives it. A value that asks for another design is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL.Image import Resampling

from biomedcoop.backbones.configuration import (
    MEAN,
    STD,
    Supported,
    at_least,
    check_supported,
    read_object,
    section,
    triple,
    usable,
)
from biomedcoop.backbones.open_clip_config import ClipDescription
from biomedcoop.errors import UserError

CONFIG = "config.json"
PREPROCESSING = ("preprocessor_config.json", "processor_config.json")
"""Names of the file of the preprocessing; transformers writes the second since its version 5."""

Settings = Mapping[str, Any]

BOTH: Settings = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
TEXT: Settings = {
    **BOTH,
    **{"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8},
    **{"vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 49407},
}
VISION: Settings = {
    **BOTH,
    **{"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "image_size": 224, "patch_size": 32},
}
IMAGES: Settings = {"size": 224, "crop_size": 224, "resample": Resampling.BICUBIC}
"""These are the values of what ``text_config``, ``vision_config`` and the preprocessing leave out."""

TOWER: Settings = {"hidden_act": ("quick_gelu", "gelu"), "layer_norm_eps": (1e-5,)}
SUPPORTED: Supported = {
    "text_config": TOWER,
    "vision_config": TOWER,
    "preprocessing": {
        **{key: (True,) for key in ("do_resize", "do_center_crop", "do_rescale", "do_normalize")},
        **{"resample": ("BICUBIC",), "rescale_factor": (1 / 255,)},
    },
}
"""The values that this code supports."""

SIZES = {
    "embed_dim": "projection_dim",
    "text_cfg positions": "text_config max_position_embeddings",
    "text_cfg vocab_size": "text_config vocab_size",
    "text_cfg width": "text_config hidden_size",
    "text_cfg mlp_width": "text_config intermediate_size",
    "vision_cfg image_size": "vision_config image_size",
    "vision_cfg patch_size": "vision_config patch_size",
    "vision_cfg width": "vision_config hidden_size",
    "vision_cfg mlp_width": "vision_config intermediate_size",
}
"""Name of a size in :class:`ClipDescription` -> that of the setting here."""


def read_transformers_clip(folder: Path) -> tuple[ClipDescription, int]:
    """Read ``config.json`` and the preprocessing.

    Returns:
        The description, and ``eos_token_id``, the token that ends a text.

    Raises:
        UserError: a file is missing or not JSON, values make no sense, or they ask for another design.
    """
    config, preprocessing = read_object(folder / CONFIG), read_preprocessing(folder)
    with usable(folder):
        # older files hold a second section beside each, which replaces it
        text, vision = (
            section(config, f"{key}_dict") or section(config, key) for key in ("text_config", "vision_config")
        )
        text, vision, images = filled(TEXT, text), filled(VISION, vision), filled(IMAGES, preprocessing)
        images["resample"] = Resampling(images["resample"]).name
        described = describe(config, text, vision, images)
        return described, at_least(text["eos_token_id"], "text_config eos_token_id", least=0)


def read_preprocessing(folder: Path) -> Settings:
    """The preprocessing of images.

    Raises:
        UserError: the file is missing or not JSON.
    """
    path = next((folder / name for name in PREPROCESSING if (folder / name).exists()), None)
    if path is None:
        raise UserError(f"{folder}: has no {PREPROCESSING[0]}; copy that of the model into it")
    found = read_object(path)
    with usable(folder):
        return section(found, "image_processor") if path.name == PREPROCESSING[1] else found


def filled(defaults: Settings, stated: Settings) -> dict[str, Any]:
    """The stated settings, and the defaults of what is missing or null."""
    return {**defaults, **{key: value for key, value in stated.items() if value is not None}}


def describe(config: Settings, text: Settings, vision: Settings, images: Settings) -> ClipDescription:
    """The description of a CLIP from the settings of transformers.

    Raises:
        ValueError: a value makes no sense, or asks for another design.
    """
    check_supported(SUPPORTED, (text, vision, images))
    if text["hidden_act"] != vision["hidden_act"]:
        raise ValueError(
            f"hidden_act is '{text['hidden_act']}' in text_config, '{vision['hidden_act']}' in vision_config; both must be equal"
        )
    stated = {"projection_dim": config.get("projection_dim", 512)}
    stated |= {f"text_config {key}": value for key, value in text.items()}
    stated |= {f"vision_config {key}": value for key, value in vision.items()}

    def whole(key: str, least: int = 1) -> int:
        return at_least(stated[key], key, least)

    width, heads, image_size = (
        whole(f"vision_config {key}") for key in ("hidden_size", "num_attention_heads", "image_size")
    )
    if width % heads:
        raise ValueError(f"vision_config hidden_size {width} is no multiple of num_attention_heads {heads}")
    for key, edge in (("size", short_edge(images["size"])), ("crop_size", crop_side(images["crop_size"]))):
        if edge != image_size:
            raise ValueError(f"{key} of the preprocessing is {edge}, vision_config image_size is {image_size}")
    return ClipDescription(
        quick_gelu=text["hidden_act"] == "quick_gelu",
        image_layers=whole("vision_config num_hidden_layers"),
        head_width=width // heads,
        text_layers=whole("text_config num_hidden_layers"),
        text_heads=whole("text_config num_attention_heads"),
        context_length=whole("text_config max_position_embeddings", least=3),  # start, a word, end
        mean=triple(images, "image_mean", MEAN),
        std=triple(images, "image_std", STD, above=0),
        sizes={ours: whole(theirs) for ours, theirs in SIZES.items()},
        file=CONFIG,
        names=SIZES,
    )


def short_edge(size: object) -> int:
    """Pixels of the short edge of a resized image, from ``size``: a number or {"shortest_edge": number}."""
    if isinstance(size, dict):
        if set(size) != {"shortest_edge"}:
            raise ValueError(f"size {size} is not supported, only a shortest_edge")
        size = size["shortest_edge"]
    return at_least(size, "size")


def crop_side(crop_size: object) -> int:
    """Side of the crop, px, from ``crop_size``: a number, or a height and an equal width."""
    if isinstance(crop_size, dict):
        if set(crop_size) != {"height", "width"} or crop_size["height"] != crop_size["width"]:
            raise ValueError(f"crop_size {crop_size} is not supported, only a square")
        crop_size = crop_size["height"]
    return at_least(crop_size, "crop_size")
