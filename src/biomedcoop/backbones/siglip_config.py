"""The configuration of a SigLIP in transformers layout, read and checked: ``config.json`` and ``preprocessor_config.json``.

Sizes are read off the tensors of the checkpoint. The configuration is asked for what tensors cannot tell, and a size that it states
must agree with them. What it leaves out has the value of SigLIP-base, as in transformers.
"""

from __future__ import annotations

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

CONFIG, PREPROCESSOR, TOKENIZER = "config.json", "preprocessor_config.json", "tokenizer_config.json"

SIGLIP2 = (
    "is a SigLIP 2, whose tokenizer (Gemma's) and preprocessing are not supported; take a SigLIP, such as "
    "hub:google/siglip-base-patch16-224 or medsiglip"
)
"""What is said of a SigLIP 2, of fixed or of flexible input size."""

_TOWER = {"hidden_act": ("gelu_pytorch_tanh",)}
SUPPORTED: Supported = {
    "vision_config": {**_TOWER, "num_channels": (3,), "vision_use_head": (True,)},
    "text_config": _TOWER,
    PREPROCESSOR: {
        "resample": (3,),  # bicubic, in Pillow's numbers
        "do_resize": (True,),
        "do_rescale": (True,),
        "do_normalize": (True,),
        "do_center_crop": (False,),
    },
}
"""The values that this code supports."""


@dataclass(frozen=True)
class TowerDescription:
    """Numbers of a tower that its tensors do not tell, and stated sizes by the name of the setting."""

    layers: int
    heads: int
    norm_eps: float
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class SiglipDescription:
    """The configuration of a SigLIP.

    Attributes:
        image_size: side of the input, px.
        mean, std: per-channel normalisation of pixels in [0, 1].
    """

    image: TowerDescription
    text: TowerDescription
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def read_siglip_description(folder: Path) -> SiglipDescription:
    """Read both files.

    Raises:
        UserError: missing, not JSON, values that make no sense, or a design that would need other code.
    """
    config = read_object(folder / CONFIG)
    check_first_generation(folder)
    if not (folder / PREPROCESSOR).is_file():
        raise UserError(
            f"{folder}: it has no {PREPROCESSOR}, which tells the pixels' scale; copy that of the model into it"
        )
    preprocess = read_object(folder / PREPROCESSOR)
    with usable(folder):
        vision, text = section(config, "vision_config"), section(config, "text_config")
        check_supported(SUPPORTED, (vision, text, preprocess))
        image_size = at_least(vision.get("image_size", 224), "image_size")
        if (size := preprocess.get("size")) not in (None, {"height": image_size, "width": image_size}):
            raise ValueError(f"size in {PREPROCESSOR} is {size!r}, image_size in {CONFIG} {image_size}")
        if abs(number(preprocess.get("rescale_factor", 1 / 255), "rescale_factor", above=0) * 255 - 1) > 1e-6:
            raise ValueError(f"rescale_factor {preprocess['rescale_factor']} is not supported, only 1/255")
        half = (0.5, 0.5, 0.5)
        return SiglipDescription(
            image=_tower(vision, ("hidden_size", "intermediate_size", "patch_size")),
            text=_tower(text, ("hidden_size", "intermediate_size", "vocab_size", "max_position_embeddings")),
            image_size=image_size,
            mean=triple(preprocess, "image_mean", half),
            std=triple(preprocess, "image_std", half, above=0),
        )


def check_first_generation(folder: Path) -> None:
    """Refuse a SigLIP 2 of fixed input size: its ``config.json`` is that of a SigLIP, its tokenizer is Gemma's.

    Raises:
        UserError: it is one.
    """
    settings = folder / TOKENIZER
    if settings.is_file() and "Gemma" in str(read_object(settings).get("tokenizer_class")):
        raise UserError(f"{folder}: {SIGLIP2}")


def _tower(stated: Mapping[str, Any], sizes: tuple[str, ...]) -> TowerDescription:
    return TowerDescription(
        layers=at_least(stated.get("num_hidden_layers", 12), "num_hidden_layers"),
        heads=at_least(stated.get("num_attention_heads", 12), "num_attention_heads"),
        norm_eps=number(stated.get("layer_norm_eps", 1e-6), "layer_norm_eps", above=0),
        sizes={key: at_least(stated[key], key) for key in sizes if stated.get(key) is not None},
    )
