"""Which family of models a folder holds, and what loads it.

A new family is one entry of ``LOADERS`` and one rule of :func:`family`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from biomedcoop.backbones.configuration import read_object
from biomedcoop.backbones.open_clip_config import CONFIG, open_clip_family
from biomedcoop.errors import UserError

if TYPE_CHECKING:
    import torch

    from biomedcoop.backbones.base import Backbone

LOADERS: Mapping[str, str] = {
    "bert": "biomedcoop.backbones.open_clip:load_open_clip",
    "clip": "biomedcoop.backbones.clip:load_clip",
    "siglip": "biomedcoop.backbones.siglip:load_siglip",
}
"""Family -> module and function that loads a folder: (folder, name=, device=, dtype=) -> Backbone."""


def family(folder: Path) -> str:
    """The family of the model in a folder, a key of :data:`LOADERS`.

    Raises:
        UserError: the folder holds no model of a known family, or its configuration cannot be read.
    """
    if (folder / CONFIG).exists():
        return open_clip_family(folder)
    if (folder / "config.json").is_file() and read_object(folder / "config.json").get("model_type") == "siglip":
        return "siglip"
    raise UserError(
        f"{folder} is not a backbone: it has no {CONFIG}, nor a config.json of a SigLIP; "
        "give a folder in open_clip or transformers layout"
    )


def load_folder(folder: Path, name: str, device: torch.device, dtype: torch.dtype) -> Backbone:
    """Load the model in a folder with both towers in float32, the text tower in ``dtype``."""
    module, _, function = LOADERS[family(folder)].partition(":")
    load: Callable[..., Backbone] = getattr(import_module(module), function)
    return load(folder, name=name, device=device, dtype=dtype)
