"""Any other image model of timm without a text tower, computed by the package timm itself (extra ``timm``).

DenseNet, EfficientNet, ConvNeXt, MobileNet, Swin and hundreds more: timm builds the model that ``config.json`` names and brings the
tensors of older files under its present names. The feature of an image is what timm gives to the classifier, which was trained for
another task and is left out.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from biomedcoop.backbones.checkpoint import check_tensors, fingerprint, read_weights
from biomedcoop.backbones.configuration import read_object, section, usable
from biomedcoop.backbones.extras import imported
from biomedcoop.backbones.image_only import WEIGHTS, ImageBackbone
from biomedcoop.backbones.image_only_config import CONFIG, Preparation, made_for, timm_preparation
from biomedcoop.data.images.crops import Resize
from biomedcoop.errors import UserError

OF_WEIGHTS = ("input_size", "fixed_input_size", "num_classes", "label_offset", "pool_size", "first_conv", "classifier")
"""What timm has to know about the weights, by its names."""

OLDEST = (1, 0, 31)
"""Version of timm; 1.0.20 sets the pooling of some models back to a mean when their classifier is taken off."""

LATE = 32
"""A map of a convolution serves saliency if each of its places stands for at least as many px a side: earlier ones show edges."""


class Towers(nn.Module):
    """The image tower under the prefix that all backbones give it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.visual = model


class TimmBackbone(ImageBackbone):
    """A loaded model of timm. Use :func:`load_timm`.

    Image layers have timm's names. ``map_layer`` is the last that gives a map, and empty for a model without one.
    """

    precisions = ("float32",)

    def __init__(
        self, name: str, towers: Towers, prepared: Preparation, digest: str, dtype: torch.dtype, architecture: str
    ) -> None:
        super().__init__(name, towers, prepared, digest, dtype)
        self.tower_kind = architecture
        self.registers = max(prefix_tokens(towers.visual) - 1, 0)

    def attention_maps(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        raise UserError(f"{self.name}: timm's '{self.tower_kind}' gives no attention maps; use a plain ViT or DINOv2")


def load_timm(
    folder: Path, *, name: str | None = None, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> TimmBackbone:
    """Load a model in the layout of timm with the package timm.

    Args:
        folder: holds ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin``.
        name: name of the backbone; the folder's name by default.
        device: where the tower runs.
        dtype: unused: there is no text tower.

    Raises:
        UserError: timm cannot be imported or does not know the model, a file is missing or unreadable, the configuration asks for
            inputs that are not square and RGB, or tensors are missing, unexpected, misshapen or not finite.
    """
    config = read_object(folder / CONFIG)
    architecture = str(config.get("architecture")).partition(".")[0]
    with usable(folder):
        prepared, arguments = timm_preparation(config), section(config, "model_args")
        resize = resize_of(made_for(config))
    stored = read_weights(folder, WEIGHTS)
    timm = imported("timm", "timm", "timm", f"{folder}: a model of the kind '{architecture}'")
    if tuple(map(int, re.findall(r"\d+", timm.__version__)[:3])) < OLDEST:
        raise UserError(f"{folder}: timm {timm.__version__} is too old; pip install -U 'biomedcoop[timm]'")
    if not timm.is_model(architecture):
        raise UserError(
            f"{folder}: timm {timm.__version__} has no model '{architecture}'; a newer one may: pip install -U timm"
        )
    with one_line_errors(f"{folder}: timm {timm.__version__} cannot load it as '{architecture}'"):
        model = built(timm, architecture, config, arguments, stored)
        features, map_layer = tried(model, prepared.image_size)
    if features.dim() != 2:
        raise UserError(
            f"{folder}: '{architecture}' gives {list(features.shape[1:])} numbers for an image and not one list of features; "
            f"set its global_pool in {CONFIG}"
        )
    kept = {key: value for key, value in model.state_dict().items() if value.is_floating_point()}
    check_tensors(kept, {key: value.shape for key, value in kept.items()}, folder)
    towers = Towers(model).to(device)
    towers.requires_grad_(False).eval()
    facts = [{"architecture": architecture, **arguments}, {**dataclasses.asdict(prepared), "resize": resize}]
    digest = fingerprint(facts, stored, "")
    backbone = TimmBackbone(name or folder.name, towers, prepared, digest, dtype, architecture)
    backbone.resize, backbone.map_layer, backbone.embed_dim = resize, map_layer, features.shape[1]
    return backbone


@contextmanager
def one_line_errors(what: str) -> Iterator[None]:
    """Turn whatever timm's hundreds of models make of arguments and tensors that are not theirs into one line."""
    try:
        yield
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise UserError(
            f"{what} ({' '.join(lines)[:200]}); the weights are damaged or of another architecture, or {CONFIG} is not theirs"
        ) from error


def resize_of(values: Mapping[str, Any]) -> Resize:
    """How an image becomes a square, by timm's ``crop_mode``."""
    mode = values.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        raise ValueError(f"crop_mode '{mode}' is not supported, only 'center' or 'squash'")
    return "squash" if mode == "squash" else "shortest"


def built(
    timm: Any, architecture: str, config: Mapping[str, Any], arguments: Mapping[str, Any], stored: Mapping[str, Tensor]
) -> nn.Module:
    """The model with the tensors of the file, without its classifier."""
    weights = made_for(config)
    known = {key: weights[key] for key in OF_WEIGHTS if weights.get(key) is not None}
    classes = [of["num_classes"] for of in (arguments, config, weights) if of.get("num_classes") is not None]
    known |= {"architecture": architecture, **({"num_classes": classes[0]} if classes else {})}
    with torch.random.fork_rng(devices=[]):  # timm draws first values for all tensors
        model: nn.Module = timm.create_model(
            architecture,
            pretrained=True,
            pretrained_cfg=known,
            pretrained_cfg_overlay={"state_dict": dict(stored)},
            checkpoint_path=None,
            cache_dir=None,
            **arguments,
        )
    model.reset_classifier(0)  # type: ignore[operator]
    model.pretrained_cfg = model.default_cfg = {}  # type: ignore[assignment]  # it holds a copy of all tensors
    for layer in model.modules():
        if getattr(layer, "inplace", False) is True:  # it would overwrite maps that a gradient needs
            layer.inplace = False  # type: ignore[assignment]
    return model.eval()


def tried(model: nn.Module, size: int) -> tuple[Tensor, str]:
    """The features of an image of ``size`` px, and the name of the last layer whose output has places in it; "" if none has."""
    names, prefix = [""], prefix_tokens(model)

    def has_places(name: str, output: Tensor) -> bool:
        if output.dim() == 4:
            return 1 < output.shape[-1] == output.shape[-2] <= size // LATE
        # of a transformer only what goes into a block: behind the last one places may have no effect on the features
        places = output.shape[1] - prefix if output.dim() == 3 and name.endswith(".norm1") else 0
        return places > 1 and math.isqrt(places) ** 2 == places

    def watch(name: str) -> Any:
        def keep(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and has_places(name, output):
                names.append(name)

        return keep

    layers = [(n, layer) for n, layer in model.named_modules() if n and not isinstance(layer, nn.Identity)]
    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers]
    try:
        with torch.inference_mode():
            features: Tensor = model(torch.zeros(1, 3, size, size))
    finally:
        for handle in handles:
            handle.remove()
    return features, names[-1]


def prefix_tokens(model: nn.Module) -> int:
    """Number of a transformer's tokens that have no place in the image."""
    count = getattr(model, "num_prefix_tokens", 0)
    return count if isinstance(count, int) else 0
