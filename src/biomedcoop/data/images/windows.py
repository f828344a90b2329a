"""Windows: which values of a grey image become black and white (DICOM PS3.3 C.11.2), and what is taken where a file states none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from biomedcoop.errors import UserError, nearest

AUTO = "auto"
"""The file's own window; without one, a choice by the kind of image."""

PRESETS = {"brain": (40.0, 80.0), "lung": (-600.0, 1500.0), "bone": (400.0, 1800.0), "soft": (40.0, 400.0)}
"""Centre and width of the named windows of CT, Hounsfield units."""

BY_NAME = "file:"
"""Begin of a window that is chosen among those of the file by its explanation."""

HELP = (
    "auto (that of the file, else by the kind of image), brain, lung, bone or soft (CT), or centre,width, e.g. 40,400"
)

SOURCES = (
    "",
    "the window of the file",
    "the VOI LUT of the file",
    "the window that was asked for",
    "the CT window soft (40,400), because the file states none",
    "the whole stored range, because the file states no window",
    "the values between percentiles 0.5 and 99.5, because the file states no window",
)
"""Where the window of an image came from; its number is kept with the image's features."""

FROM_FILE, FROM_LUT, ASKED, CT_SOFT, STORED_RANGE, PERCENTILES = range(1, len(SOURCES))

SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
"""Sizes of a number, other than 0, that are computed with: those of 32-bit floats, so that no step of 64 bits overflows."""

Values = npt.NDArray[Any]


def in_range(number: float) -> bool:
    """Whether a number is 0 or of a size that is computed with."""
    return number == 0 or SMALLEST <= abs(number) <= LARGEST


def overflows(values: Values) -> bool:
    """Whether a finite value is too large to be computed with; infinity and NaN are pixels without a value."""
    if values.dtype.kind != "f" or values.dtype.itemsize <= 4:
        return False
    return bool((np.isfinite(values) & (np.abs(values) > LARGEST)).any())


def check_window(name: str, value: object) -> str:
    """A window in its one spelling: "auto", the name of a preset, "40,400", or "file:" with an explanation.

    Raises:
        UserError: it is none of these.
    """
    text = ",".join(map(str, value)) if isinstance(value, (tuple, list)) else value
    if not isinstance(text, str):
        raise UserError(f"{name}={value!r} must be {HELP}")
    text = text.strip()
    if text.lower() in (AUTO, *PRESETS):
        return text.lower()
    if text.startswith(BY_NAME) and text.removeprefix(BY_NAME).strip():
        return BY_NAME + text.removeprefix(BY_NAME).strip()
    parts = text.split(",")
    try:
        centre, width = (float(part) for part in parts)
    except ValueError:
        like = "" if "," in text or any(map(str.isdigit, text)) else f"; {nearest(text, (AUTO, *PRESETS))}"
        raise UserError(f"no window '{text}'{like}; give {HELP}") from None
    if not (in_range(centre) and in_range(width) and width > 0):
        raise UserError(
            f"window '{text}': centre and width must be finite, of at most 3e38, and the width above 0, e.g. 40,400"
        )
    return f"{centre:g},{width:g}"


def asked_window(window: str) -> tuple[float, float] | None:
    """Centre and width of a window that names both; None for a window of the file."""
    if window == AUTO or window.startswith(BY_NAME):
        return None
    if window in PRESETS:
        return PRESETS[window]
    centre, width = window.split(",")
    return float(centre), float(width)


def linear(values: Values, centre: float, width: float) -> Values:
    """LINEAR: values to 0..1; ``width`` is at least 1."""
    if width == 1:
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def linear_exact(values: Values, centre: float, width: float) -> Values:
    """LINEAR_EXACT: values to 0..1; ``width`` is above 0."""
    return np.clip((values - centre) / width + 0.5, 0, 1)


def sigmoid(values: Values, centre: float, width: float) -> Values:
    """SIGMOID: values to 0..1; ``width`` is above 0."""
    return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))


FUNCTIONS = {"LINEAR": (linear, 1.0), "LINEAR_EXACT": (linear_exact, 0.0), "SIGMOID": (sigmoid, 0.0)}
"""VOI LUT Function (0028,1056) -> the function and its least width."""


def between(values: Values, low: float, high: float) -> Values:
    """Values to 0..1, 0 at ``low`` and 1 at ``high``; all 0 if they are equal."""
    return np.clip((values - low) / ((high - low) or 1.0), 0, 1)


def percentiles(values: Values, shares: Sequence[float] = (0.5, 99.5)) -> tuple[float, float]:
    """The values between which most of an image lies.

    Raises:
        ValueError: no value is finite.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("no pixel has a finite value")
    if finite.dtype.kind == "f":
        finite = finite.astype(np.float64, copy=False)
    low, high = np.percentile(finite, shares)
    if low == high:  # a few bright pixels on an even ground
        low, high = finite.min(), finite.max()
    return float(low), float(high)


def to_bytes(shares: Values) -> npt.NDArray[np.uint8]:
    """0..1 to 0..255, rounded; NaN is black."""
    levels: npt.NDArray[np.uint8] = np.rint(np.nan_to_num(shares, nan=0.0) * 255).astype(np.uint8)
    return levels
