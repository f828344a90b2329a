"""The files of a directory in open_clip layout, read and checked: what the configuration says, and the checkpoint's tensors.

Sizes are read off the tensors themselves; the configuration is asked only for what tensors cannot tell (heads, preprocessing), for
the depth (a checkpoint whose last blocks are gone looks like a smaller model), and for a design that would need other code.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from biomedcoop.errors import UserError

CONFIG, BERT_CONFIG = "open_clip_config.json", "config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")

SUPPORTED: dict[str, dict[str, tuple[str, ...]]] = {
    "vision_cfg": {"timm_pool": ("", "tok", "token"), "timm_proj": ("linear",)},
    "text_cfg": {"hf_proj_type": ("mlp",), "hf_pooler_type": ("cls_last_hidden_state_pooler",)},
    "preprocess_cfg": {"interpolation": ("bicubic",), "resize_mode": ("shortest",)},
    BERT_CONFIG: {"hidden_act": ("gelu",)},
}
"""The only values that this code computes; a setting that is not there has one of them."""

LAYERS = {"base": 12, "large": 24}
"""Depth of ViT and BERT models that say only which one they are."""


@dataclass(frozen=True)
class Description:
    """What the configuration says; None where it says nothing.

    Attributes:
        image_size: side of the input, px.
        image_heads, image_layers, text_heads, text_layers: of the two transformers.
        norm_eps: of the text tower's LayerNorm.
        context_length: most tokens of a text.
        mean, std: per-channel normalisation of pixels in [0, 1].
    """

    image_size: int | None
    image_heads: int | None
    image_layers: int | None
    text_heads: int | None
    text_layers: int | None
    norm_eps: float
    context_length: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def read_description(folder: Path) -> Description:
    """Read ``open_clip_config.json`` and, where there is one, the text tower's ``config.json``.

    Raises:
        UserError: missing, not JSON, values that make no sense, or a model of another kind.
    """
    if not (folder / CONFIG).exists():
        raise UserError(f"{folder} is no backbone: {CONFIG} is missing; give a folder in open_clip layout")
    config = _read_object(folder / CONFIG)
    bert = _read_object(folder / BERT_CONFIG) if (folder / BERT_CONFIG).exists() else {}
    try:
        model, preprocess = _section(config, "model_cfg"), _section(config, "preprocess_cfg")
        vision, text = _section(model, "vision_cfg"), _section(model, "text_cfg")
        kwargs = _section(vision, "timm_model_kwargs")
        if not ("timm_model_name" in vision and "hf_model_name" in text):
            raise ValueError("only a timm ViT with a BERT text tower, BiomedCLIP's kind, can be loaded this way")
        for name, section in zip(SUPPORTED, (vision, text, preprocess, bert), strict=True):
            for key, values in SUPPORTED[name].items():
                if section.get(key) is not None and section[key] not in values:
                    raise ValueError(f"{key} '{section[key]}' is not supported, only '{values[-1]}'")
        return Description(
            image_size=_whole(vision, "image_size"),
            image_heads=_whole(kwargs, "num_heads"),
            image_layers=_whole(kwargs, "depth") or _named_depth(str(vision["timm_model_name"])),
            text_heads=_whole(bert, "num_attention_heads"),
            text_layers=_whole(bert, "num_hidden_layers") or _named_depth(str(text["hf_model_name"])),
            norm_eps=_number(bert.get("layer_norm_eps", 1e-12), "layer_norm_eps", above=0),
            context_length=_whole(text, "context_length", least=3) or 256,  # [CLS], a word, [SEP]
            # OpenAI's constants are open_clip's default and the values of BiomedCLIP
            mean=_triple(preprocess, "mean", (0.48145466, 0.4578275, 0.40821073)),
            std=_triple(preprocess, "std", (0.26862954, 0.26130258, 0.27577711), above=0),
        )
    except ValueError as error:
        raise UserError(f"{folder}: configuration not usable: {error}") from error


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a configuration but a JSON {type(content).__name__}; fetch it again")
    return content


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = config.get(name) or {}
    if not isinstance(value, dict):
        raise ValueError(f"'{name}' is no object")
    return value


def _whole(section: Mapping[str, Any], key: str, least: int = 1) -> int | None:
    value = section.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise ValueError(f"{key} is {value!r}, must be a whole number of at least {least}")
    return value


def _number(value: object, key: str, above: float = -math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= above:
        raise ValueError(f"{key} holds {value!r}, must be a finite number" + " above 0" * (above == 0))
    return float(value)


def _triple(
    section: Mapping[str, Any], key: str, default: tuple[float, float, float], above: float = -math.inf
) -> tuple[float, float, float]:
    value = section.get(key)
    if value is None:
        return default
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError(f"{key} is {value!r}, must be a list of three numbers")
    red, green, blue = (_number(v, key, above) for v in value)
    return red, green, blue


def _named_depth(name: str) -> int | None:
    found = re.search(r"(?:^|[-_])(base|large)(?:[-_]|$)", name)
    return LAYERS[found[1]] if found else None


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The checkpoint's tensors, memory-mapped, read without unpickling objects; ``position_ids`` left out.

    Raises:
        UserError: no weights, damaged, or more than tensors in them.
    """
    from safetensors.torch import load_file

    path = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    if path is None:
        raise UserError(f"{folder}: neither {WEIGHTS[0]} nor {WEIGHTS[1]} is there; copy the weights into it")
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            with path.open("rb") as file:
                archive = file.read(2) == b"PK"  # before torch 1.6 it was a bare pickle, which cannot be mapped
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except UnpicklingError as error:
        raise UserError(
            f"{path}: refused, it holds more than tensors or is damaged; fetch it again or convert it to {WEIGHTS[0]}"
        ) from error
    except Exception as error:  # flipped bytes make the two libraries raise a dozen types, some bare
        reason = (str(error).splitlines() or [""])[0][:120] or type(error).__name__
        raise UserError(f"{path}: the weights cannot be read ({reason}); fetch the file again") from error
    if isinstance(state, dict):
        state = state.get("state_dict", state)
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) and value.layout == torch.strided
        for key, value in state.items()
    ):
        raise UserError(f"{path}: not a checkpoint, which would be tensors by name; fetch the file again")
    # transformers once stored the positions 0, 1, 2, …; they carry nothing
    return {k.removeprefix("module."): v for k, v in state.items() if not k.endswith("position_ids")}


def check_tensors(state: Mapping[str, Tensor], expected: Mapping[str, torch.Size], folder: Path) -> None:
    """Refuse missing, unexpected, misshapen and non-finite tensors, by name."""
    for what, keys in (("lacks", expected.keys() - state.keys()), ("has unexpected", state.keys() - expected.keys())):
        if keys:
            names = ", ".join(f"'{k}'" for k in sorted(keys)[:3]) + (
                f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            )
            raise UserError(f"{folder}: the checkpoint {what} {names}; it is damaged or of another architecture")
    for key, want in expected.items():
        if state[key].shape != want:
            raise UserError(f"{folder}: '{key}' has shape {list(state[key].shape)}, expected {list(want)}")
        if not state[key].is_floating_point():
            raise UserError(f"{folder}: '{key}' holds {state[key].dtype} values, expected floating point")
        if not bool(torch.isfinite(state[key]).all()):
            raise UserError(f"{folder}: '{key}' holds values that are not finite; fetch the weights again")
