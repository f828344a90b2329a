"""From the square that the image tower sees back to the original pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from biomedcoop.data.images.crops import Resize, centre_box

Floats = npt.NDArray[np.float32]


def onto_image(values: Floats, width: int, height: int, resize: Resize = "shortest") -> Floats:
    """A map of the square that the image tower sees at the original pixels: the inverse of resize and crop.

    Args:
        values: map of the crop, float32 [S, S].
        width, height: size of the original image, px.
        resize: how the image became the square.

    Returns:
        float32 [height, width], bilinear between the crop's pixels; nan where the centre of a pixel lies outside of the crop.

    Example:
        >>> onto_image(np.float32([[0, 1], [0, 1]]), width=4, height=2)
        array([[nan,  0.,  1., nan],
               [nan,  0.,  1., nan]], dtype=float32)
    """
    size = len(values)
    left, top, right, bottom = centre_box(width, height, size, resize)
    rows = _stretched(values, _places(height, top, bottom, size))
    return np.ascontiguousarray(_stretched(rows.T, _places(width, left, right, size)).T)


def _places(pixels: int, start: float, end: float, size: int) -> npt.NDArray[np.float64]:
    """Coordinates in the crop [0, size] of the centres of an image's pixels along one side."""
    return (np.arange(pixels, dtype=np.float64) + (0.5 - start)) * (size / (end - start))


def _stretched(values: Floats, places: npt.NDArray[np.float64]) -> Floats:
    """Rows of a map at coordinates along its first side, linear between the centres of the rows; nan outside."""
    size = len(values)
    inside = (places >= 0) & (places <= size)
    between = np.clip(places - 0.5, 0, size - 1)
    below = np.floor(between).astype(np.int64)
    above, share = np.minimum(below + 1, size - 1), (between - below).astype(np.float32)[:, None]
    stretched = (1 - share) * values[below] + share * values[above]
    stretched[~inside] = np.nan
    return stretched
