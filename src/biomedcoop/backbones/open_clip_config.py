"""The configuration of a directory in open_clip layout, read and checked.

Two kinds of model come in this layout: an image tower of timm (a ViT as BiomedCLIP's, or an EfficientNet-Lite) with a BERT, and
OpenAI's CLIP. Sizes are read off the tensors of the checkpoint. The configuration is asked for what tensors cannot tell (heads,
preprocessing), for the depth (a checkpoint without its last blocks looks like a smaller model), and for designs that would need
other code. A pooling that it leaves out is open_clip's default, the mean.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from biomedcoop.backbones.configuration import (
    MEAN,
    STD,
    Supported,
    at_least,
    check_supported,
    number,
    read_object,
    section,
    triple,
    truth,
    usable,
    whole,
)
from biomedcoop.backbones.efficientnet_lite import is_efficientnet_lite
from biomedcoop.errors import UserError

CONFIG, BERT_CONFIG = "open_clip_config.json", "config.json"

PREPROCESSING: Mapping[str, tuple[Any, ...]] = {"interpolation": ("bicubic",), "resize_mode": ("shortest",)}
SUPPORTED: Supported = {
    "vision_cfg": {"timm_pool": ("", "tok", "token"), "timm_proj": ("linear",)},
    "text_cfg": {"hf_proj_type": ("linear", "mlp"), "hf_pooler_type": ("mean_pooler", "cls_last_hidden_state_pooler")},
    "preprocess_cfg": PREPROCESSING,
    BERT_CONFIG: {"hidden_act": ("gelu",)},
}
"""The values that this code supports."""

LITE_SUPPORTED: Supported = {
    **SUPPORTED,
    "vision_cfg": {"timm_pool": ("", "avg"), "timm_proj": ("linear",), "timm_model_kwargs": ({},)},
}
"""The same where the image tower is an EfficientNet-Lite."""

CLIP_SUPPORTED: Supported = {
    "vision_cfg": {"pool_type": ("tok",), "act_kwargs": ({},), "norm_kwargs": ({},)},
    "text_cfg": {
        "pool_type": ("argmax",),
        "no_causal_mask": (False,),
        "act_kwargs": ({},),
        "norm_kwargs": ({},),
        "tokenizer_kwargs": ({},),
    },
    "preprocess_cfg": PREPROCESSING,
}
"""The same for OpenAI's CLIP. Designs with further tensors (layer scale, attentional pooling, …) are refused by their tensors."""

LAYERS = {"base": 12, "large": 24}
"""Depth of ViT and BERT models by the size in their name."""


@dataclass(frozen=True)
class Description:
    """The configuration of an image tower of timm with a BERT; None where it states nothing.

    Attributes:
        efficientnet_lite: timm's name of an EfficientNet-Lite; None for a ViT.
        image_size: side of the input, px.
        image_bias: the projection of the image tower has a bias.
        image_heads, image_layers, text_heads, text_layers: of the two transformers.
        norm_eps: of the text tower's LayerNorm.
        text_mean: the text tower's output is the mean of all tokens, not CLS.
        text_proj: "linear" or "mlp", the projection of the text tower.
        context_length: largest number of tokens of a text.
        mean, std: per-channel normalisation of pixels in [0, 1].
    """

    efficientnet_lite: str | None
    image_size: int | None
    image_bias: bool
    image_heads: int | None
    image_layers: int | None
    text_heads: int | None
    text_layers: int | None
    norm_eps: float
    text_mean: bool
    text_proj: str
    context_length: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class ClipDescription:
    """The configuration of a CLIP.

    Attributes:
        quick_gelu: x * sigmoid(1.702 x) in place of the exact GELU.
        image_layers: blocks of a ViT, or of each of the four stages of a ResNet.
        head_width: of the image tower.
        text_layers, text_heads: of the text tower.
        context_length: largest number of tokens of a text.
        mean, std: per-channel normalisation of pixels in [0, 1].
        sizes: stated sizes by open_clip's name of the setting; they must agree with the shapes of the tensors.
        file: name of the file that states them.
        names: what the files call a tensor or a setting, by OpenAI's or open_clip's name, where they differ.
    """

    quick_gelu: bool
    image_layers: int | tuple[int, int, int, int]
    head_width: int
    text_layers: int
    text_heads: int
    context_length: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    sizes: Mapping[str, float]
    file: str = CONFIG
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BertDescription:
    """What the ``config.json`` of a BERT tells and no tensor does; ``norm_eps`` is that of LayerNorm."""

    layers: int
    heads: int
    norm_eps: float


Family = Literal["bert", "clip"]


def open_clip_family(folder: Path) -> Family:
    """The kind of model that a directory holds: "bert" for an image tower of timm with a BERT, "clip" for OpenAI's CLIP.

    Raises:
        UserError: no configuration, not JSON, or a model of neither kind.
    """
    config = _read_config(folder)
    with usable(folder):
        return kind_of(section(config, "model_cfg"))


def read_bert_description(folder: Path) -> BertDescription:
    """Read the ``config.json`` of a BERT.

    Raises:
        UserError: missing, not JSON, or values that make no sense.
    """
    config = read_object(folder / BERT_CONFIG)
    with usable(folder):
        check_supported({BERT_CONFIG: SUPPORTED[BERT_CONFIG]}, (config,))
        return BertDescription(
            layers=at_least(config.get("num_hidden_layers"), "num_hidden_layers"),
            heads=at_least(config.get("num_attention_heads"), "num_attention_heads"),
            norm_eps=number(config.get("layer_norm_eps", 1e-12), "layer_norm_eps", above=0),
        )


def kind_of(model: Mapping[str, Any]) -> Family:
    """The kind of model that a ``model_cfg`` of open_clip describes; a ValueError where it is neither."""
    vision, text = section(model, "vision_cfg"), section(model, "text_cfg")
    timm, bert = vision.get("timm_model_name"), text.get("hf_model_name")
    if timm and bert:
        return "bert"
    if "layers" in vision and not (timm or bert):
        return "clip"
    raise ValueError(
        "only a timm ViT or EfficientNet-Lite with a BERT text tower (BiomedCLIP's kind) or OpenAI's CLIP (a ViT or ResNet with "
        "its own text tower) can be loaded this way"
    )


def read_description(folder: Path) -> Description:
    """Read ``open_clip_config.json`` and, where there is one, the text tower's ``config.json``; of the "bert" kind.

    Raises:
        UserError: missing, not JSON, values that make no sense, or a model of another kind.
    """
    config = _read_config(folder)
    bert = read_object(folder / BERT_CONFIG) if (folder / BERT_CONFIG).exists() else {}
    with usable(folder):
        model, preprocess = section(config, "model_cfg"), section(config, "preprocess_cfg")
        if kind_of(model) != "bert":
            raise ValueError("it describes OpenAI's CLIP; load_backbone loads both kinds")
        vision = {"timm_pool": "avg", **section(model, "vision_cfg")}
        text = {"hf_pooler_type": "mean_pooler", **section(model, "text_cfg")}
        kwargs = section(vision, "timm_model_kwargs")
        lite = _efficientnet_lite(str(vision["timm_model_name"]))
        check_supported(LITE_SUPPORTED if lite else SUPPORTED, (vision, text, preprocess, bert))
        text_heads, text_name = whole(bert, "num_attention_heads"), str(text["hf_model_name"])
        if text_heads is None and "minilm" in text_name.lower():  # its heads are narrower than those of other BERTs
            raise ValueError(
                f"the number of heads of '{text_name}' is not told; copy its {BERT_CONFIG} into the folder"
            )
        return Description(
            efficientnet_lite=lite,
            image_size=whole(vision, "image_size"),
            image_bias=truth(vision, "timm_proj_bias"),
            image_heads=whole(kwargs, "num_heads"),
            image_layers=whole(kwargs, "depth") or _named_depth(str(vision["timm_model_name"])),
            text_heads=text_heads,
            text_layers=whole(bert, "num_hidden_layers") or _named_depth(text_name),
            norm_eps=number(bert.get("layer_norm_eps", 1e-12), "layer_norm_eps", above=0),
            text_mean=text["hf_pooler_type"] == "mean_pooler",
            text_proj=text.get("hf_proj_type") or "mlp",
            context_length=whole(text, "context_length", least=3) or 256,  # [CLS], a word, [SEP]
            mean=triple(preprocess, "mean", MEAN),
            std=triple(preprocess, "std", STD, above=0),
        )


def read_clip_description(folder: Path) -> ClipDescription:
    """Read ``open_clip_config.json`` of the "clip" kind.

    Raises:
        UserError: missing, not JSON, values that make no sense, or a model of another kind.
    """
    config = _read_config(folder)
    with usable(folder):
        model, preprocess = section(config, "model_cfg"), section(config, "preprocess_cfg")
        if kind_of(model) != "clip":
            raise ValueError("it describes an image tower of timm with a BERT; load_backbone loads both kinds")
        vision, text = section(model, "vision_cfg"), section(model, "text_cfg")
        check_supported(CLIP_SUPPORTED, (vision, text, preprocess))
        stated = {
            "embed_dim": whole(model, "embed_dim"),
            **{f"vision_cfg {key}": whole(vision, key) for key in ("image_size", "width", "patch_size")},
            **{f"text_cfg {key}": whole(text, key) for key in ("width", "vocab_size")},
        }
        ratios = {
            f"{name} mlp_ratio": part.get("mlp_ratio") for name, part in (("vision_cfg", vision), ("text_cfg", text))
        }
        return ClipDescription(
            quick_gelu=truth(model, "quick_gelu"),
            image_layers=_stages(vision["layers"]),
            head_width=whole(vision, "head_width") or 64,
            text_layers=whole(text, "layers") or 12,
            text_heads=whole(text, "heads") or 8,
            context_length=whole(text, "context_length", least=3) or 77,  # start, a word, end
            mean=triple(preprocess, "mean", MEAN),
            std=triple(preprocess, "std", STD, above=0),
            sizes={key: value for key, value in stated.items() if value is not None}
            | {key: number(value, key, above=0) for key, value in ratios.items() if value is not None},
        )


def _stages(value: object) -> int | tuple[int, int, int, int]:
    """``layers`` of an image tower: a number of blocks (ViT), or one for each of four stages (ResNet)."""
    if not isinstance(value, list):
        return at_least(value, "layers")
    if len(value) != 4:
        raise ValueError(f"layers is {value!r}, must be a whole number or a list of four")
    first, second, third, fourth = (at_least(v, "layers") for v in value)
    return first, second, third, fourth


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).exists():
        raise UserError(f"{folder} is not a backbone: it has no {CONFIG}; give a folder in open_clip layout")
    return read_object(folder / CONFIG)


def _efficientnet_lite(name: str) -> str | None:
    """timm's name without the tag of its weights; None for another family."""
    model = name.partition(".")[0]
    if is_efficientnet_lite(model):
        return model
    if "efficientnet" in model:
        raise ValueError(
            f"timm_model_name '{name}' is not supported; of the EfficientNets, only efficientnet_lite0 to 4, with or without 'tf_'"
        )
    return None


def _named_depth(name: str) -> int | None:
    size = re.search(r"(?:^|[-_])(base|large)(?:[-_]|$)", name)
    return LAYERS[size[1]] if size else None
