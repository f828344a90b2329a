"""Images: accepted forms, content and hash, decoding to RGB, crops, and facts for the user."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biomedcoop.data.images.reading import open_image, read_image

__all__ = ["open_image", "read_image"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # imported on first use, because methods import the crops and need no decoder
        return getattr(import_module("biomedcoop.data.images.reading"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
