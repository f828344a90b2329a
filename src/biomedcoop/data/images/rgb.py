"""A decoded image -> upright 8-bit RGB in front of black, whatever format it had."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from biomedcoop.data.images.decoders.base import Decoded
from biomedcoop.data.images.samples import Rendered, Samples, render

_MOST_STRETCHED = 2**26

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the transposition that makes the image upright."""


def to_rgb(decoded: Decoded) -> tuple[Rendered, str]:
    """The image, and its mode (`Decoded.mode`).

    Raises:
        ValueError: the colour space is not supported, or the samples contradict their stated range.
    """
    pixels, mode = decoded.pixels, decoded.mode
    if isinstance(pixels, Image.Image) and (pixels.mode == "F" or pixels.mode.startswith("I")):
        pixels = _samples_of(pixels)
        mode = pixels.mode
    rendered = render(pixels) if isinstance(pixels, Samples) else _convert(pixels)
    if decoded.pixel_aspect != 1:
        rendered = replace(rendered, image=_with_square_pixels(rendered.image, decoded.pixel_aspect))
    if decoded.orientation in _TURNS:
        rendered = replace(rendered, image=rendered.image.transpose(_TURNS[decoded.orientation]))
    return rendered, mode


def _with_square_pixels(image: Image.Image, aspect: float) -> Image.Image:
    """The image with its coarser direction enlarged, so that nothing seen is lost; of a large image the finer one is reduced."""
    width, height = image.size
    enlarge = width * height * max(aspect, 1 / aspect) <= _MOST_STRETCHED
    tall, narrow = (width, max(1, round(height * aspect))), (max(1, round(width / aspect)), height)
    size = tall if (aspect > 1) == enlarge else narrow
    return image.resize(size, Image.Resampling.BICUBIC)


def _samples_of(image: Image.Image) -> Samples:
    values = np.asarray(image)
    if image.mode == "I" and values.min() >= 0 and values.max() <= 0xFFFF:
        values = values.astype(np.uint16)  # mode I holds whole numbers of any depth
    return Samples(values)


def _convert(image: Image.Image) -> Rendered:
    if image.mode in ("LAB", "HSV"):
        raise ValueError(f"the colour space {image.mode} is not supported")
    transparent = False
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        transparent = layer.getchannel("A").getextrema() == (0, 0)
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer)
    # converting RGB to RGB would copy the image, which is a quarter of the work for large ones
    return Rendered(image if image.mode == "RGB" else image.convert("RGB"), 8, False, transparent)


def is_one_colour(image: Image.Image) -> bool:
    """Whether all pixels are the same; a few pixels are compared first, which mostly suffices."""
    width, height = image.size
    first = image.getpixel((0, 0))
    few = ((width * i // 16, height * (i * 7 % 16) // 16) for i in range(1, 16))
    if any(image.getpixel(place) != first for place in few):
        return False
    return bool(np.all(np.asarray(image) == first))
