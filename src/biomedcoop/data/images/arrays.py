"""Arrays as images: the required shape and type, and the conversion to samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from biomedcoop.data.images.content import unmasked
from biomedcoop.data.images.decoders.base import Decoded
from biomedcoop.data.images.samples import Samples
from biomedcoop.errors import ImageError

_WANTED = "give uint8 or uint16 of shape [H, W], [H, W, 3] (red, green, blue) or [H, W, 4] (with alpha); "


def decode_array(pixels: npt.NDArray[Any], name: str) -> Decoded:
    """An array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] as a decoded image.

    Args:
        name: name of the image in messages.

    Raises:
        ImageError: the array has another shape or type.
    """
    described = f"an array of {pixels.dtype} {list(pixels.shape)}; "
    pixels = unmasked(pixels, name)
    channels = pixels.shape[-1] if pixels.ndim == 3 else 1
    if pixels.ndim not in (2, 3) or channels not in (1, 3, 4) or pixels.size == 0:
        channels_first = pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4)
        remedy = "channels come last: numpy.moveaxis(array, 0, -1)" if channels_first else ""
        raise ImageError(name, (described + _WANTED + remedy).rstrip("; "))
    if pixels.dtype.type not in (np.uint8, np.uint16):
        raise ImageError(name, described + _WANTED + _how_to_convert(pixels.dtype))
    if pixels.ndim == 3 and channels == 1:
        pixels = pixels[..., 0]
    if pixels.dtype.itemsize == 1:
        image = Image.fromarray(np.ascontiguousarray(pixels))
        return Decoded(image, image.mode)
    samples = Samples(pixels[..., :3], pixels[..., 3]) if channels == 4 else Samples(pixels)
    return Decoded(samples, samples.mode)


def _how_to_convert(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "f":
        return "convert values from 0 to 1 by (255 * array).round().astype('uint8')"
    if dtype.kind == "b":
        return "convert truth values by array.astype('uint8') * 255"
    return "convert values from 0 to 255 by array.astype('uint8')"
