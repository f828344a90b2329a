"""Convert samples of a file or an array to 8-bit RGB, by one set of rules for grey, colour and alpha.

The stated properties of the samples decide: smallest and largest value, inversion, kind of alpha. Without a stated range, whole
numbers from 0 to 65535 are scaled by the smallest usual depth that holds the largest value, and other numbers by the image's own
smallest and largest value. The facts of the image say so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from biomedcoop.data.images.windows import overflows

DEPTHS = (8, 10, 12, 14, 16)
"""Usual numbers of bits in a sample."""

Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Samples:
    """Samples of one image.

    Attributes:
        values: whole or floating numbers, grey [H, W], RGB [H, W, 3] or CMYK [H, W, 4].
        alpha: [H, W] of the same kind, or None.
        low, high: smallest and largest possible value as the source states them; ``high`` is None if it states none.
        inverted: the smallest value is white.
        premultiplied: colours are already multiplied by alpha.
    """

    values: Values
    alpha: Values | None = None
    low: float = 0
    high: float | None = None
    inverted: bool = False
    premultiplied: bool = False

    @property
    def mode(self) -> str:
        """The mode as Pillow names it, with the bits of a sample: "I;16", "RGB;16", "RGBA;16", "F;32", …."""
        kind, bits = self.values.dtype.kind, self.values.dtype.itemsize * 8
        grey = {"f": "F", "i": "S"}.get(kind, "I")
        name = {2: grey}.get(self.values.ndim) or {3: "RGB", 4: "CMYK"}[self.values.shape[2]]
        return f"{name}{'A' * (self.alpha is not None)};{bits}"


@dataclass(frozen=True)
class Rendered:
    """Samples as an 8-bit image.

    Attributes:
        image: mode RGB.
        depth: bits of the value that became white; 0 if the image's own range was used.
        guessed: the depth or range is not stated by the source.
        transparent: every pixel is fully transparent.
    """

    image: Image.Image
    depth: int
    guessed: bool
    transparent: bool


def depth_of(largest: int) -> int:
    """The smallest usual depth that holds a value from 0 to 65535."""
    return next(depth for depth in DEPTHS if largest < 2**depth)


def render(samples: Samples) -> Rendered:
    """8-bit RGB in front of black.

    Raises:
        ValueError: a value is outside the stated range, or no value is finite.
    """
    values, low, high = samples.values, samples.low, samples.high
    if high is not None:
        _check_range(values, low, high)
    whole = values.dtype.kind in "ui"
    if whole and high is not None and low == 0 and high <= 0xFFFF:
        top, depth, guessed = int(high), int(high).bit_length(), False
    elif values.dtype.kind == "u" and high is None and values.max() <= 0xFFFF:
        depth, guessed = depth_of(int(values.max())), values.dtype.itemsize > 1
        top = 2**depth - 1
    elif samples.alpha is not None:
        raise ValueError("alpha beside signed, float or 32-bit samples has no known scale")
    else:
        pixels = _scale_linearly(values, *((None, None) if high is None else (low, high)))
        return _to_image(samples, pixels, 0 if high is None else 8, high is None, None)
    alpha = None
    if samples.alpha is not None:
        # alpha may use all bits of the container although the colours use only a few
        alpha_top = top if samples.alpha.max() <= top else 2 ** depth_of(int(samples.alpha.max())) - 1
        alpha = _scale_whole(samples.alpha, alpha_top)
    return _to_image(samples, _scale_whole(values, top), depth, guessed, alpha)


def _check_range(values: Values, low: float, high: float) -> None:
    smallest, largest = values.min(), values.max()
    if smallest < low or largest > high:
        raise ValueError(f"it states values from {low:g} to {high:g} but holds values from {smallest:g} to {largest:g}")


def _to_image(
    samples: Samples, pixels: npt.NDArray[np.uint8], depth: int, guessed: bool, alpha: npt.NDArray[np.uint8] | None
) -> Rendered:
    if samples.inverted:
        pixels = 255 - pixels
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = np.asarray(Image.fromarray(pixels, "CMYK").convert("RGB"))
    if alpha is not None and not samples.premultiplied:
        layer = alpha[..., None] if pixels.ndim == 3 else alpha
        pixels = ((pixels.astype(np.uint16) * layer + 127) // 255).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
    return Rendered(image, depth, guessed, alpha is not None and not alpha.any())


def _scale_whole(values: Values, top: int) -> npt.NDArray[np.uint8]:
    """Scale 0..top to 0..255, rounded."""
    scaled: npt.NDArray[np.uint8] = ((values.astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8)
    return scaled


def _scale_linearly(values: Values, low: float | None = None, high: float | None = None) -> npt.NDArray[np.uint8]:
    """Scale low..high to 0..255, rounded; -inf and NaN become 0, inf becomes 255.

    By default ``low`` and ``high`` are the smallest and largest finite value.
    """
    exact = values.astype(np.float64)
    if overflows(exact) or overflows(np.array([low or 0, high or 0], dtype=np.float64)):
        raise ValueError("it holds or states values above 3.4e38")
    finite = exact[np.isfinite(exact)]
    if not finite.size:
        raise ValueError("no pixel has a finite value")
    low = float(finite.min()) if low is None else low
    high = float(finite.max()) if high is None else high
    unit = (np.nan_to_num(exact, nan=low, posinf=high, neginf=low) - low) / ((high - low) or 1.0)
    scaled: npt.NDArray[np.uint8] = np.rint(unit * 255).astype(np.uint8)
    return scaled
