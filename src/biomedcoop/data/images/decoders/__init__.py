"""Image decoders: each file of this folder defines the decoder of a format. The content of an image file selects the decoder."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from biomedcoop.data.images.decoders.base import Decoder


@cache
def all_decoders() -> tuple[Decoder, ...]:
    """The ``DECODERS`` of every file in this folder."""
    modules = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))
    return tuple(decoder for module in modules for decoder in getattr(module, "DECODERS", ()))


def find_decoder(start: bytes) -> Decoder | None:
    """The decoder that knows a file by its first bytes, whatever its suffix says."""
    return next((decoder for decoder in all_decoders() if decoder.recognizes(start)), None)


@cache
def image_suffixes() -> tuple[str, ...]:
    """Lower-case file name endings of all formats, sorted."""
    return tuple(sorted({suffix for decoder in all_decoders() for suffix in decoder.suffixes}))


@cache
def unread_suffixes() -> dict[str, str]:
    """Lower-case file name endings of formats that no installed library reads -> the package to install."""
    lacking = [decoder for decoder in all_decoders() if getattr(decoder, "missing", "")]
    return {ending: decoder.missing for decoder in lacking for ending in decoder.endings}  # type: ignore[attr-defined]
