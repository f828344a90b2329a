"""Does a map lie on the lesion? The pointing game, the overlap with a mask, and the map's energy inside of the mask.

Maps are compared with masks at the image's own resolution; pixels outside the centre crop, where a map is nan, do not count.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

TOLERANCE = 7
"""Default tolerance of the pointing game, px: the 15 px of Zhang et al. on images of about 500 px, for 224 px."""


class Localisation(NamedTuple):
    """How well a map lies on a mask, each 0..1; 1 is best.

    Attributes:
        pointing: 1 if the map's maximum lies on the mask or at most the tolerance beside it (Zhang et al. 2016, "Top-down Neural
            Attention by Excitation Backprop"); where several pixels share the maximum, the share of them that does.
        iou: area common to the mask and the map's largest values, as many pixels as the mask has, divided by the area of either.
        dice: the same area, divided by the mean of both areas.
        energy: share of the sum of the map that lies on the mask (Wang et al. 2020, "Score-CAM", section 4.3).
        area: share of the pixels that the mask covers: what ``energy`` and ``dice`` are for a map that knows nothing.
    """

    pointing: float
    iou: float
    dice: float
    energy: float
    area: float


def localise(values: Floats, mask: Mask, tolerance: float = TOLERANCE) -> Localisation | None:
    """Compare a map with the mask of a lesion.

    Args:
        values: map [H, W], 0 or more, nan outside the crop that the classifier saw.
        mask: bool [H, W], True on the lesion.
        tolerance: of the pointing game, px of the image.

    Returns:
        None if no pixel of the lesion lies inside the crop.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import numpy as np
        >>> from biomedcoop.explain.localisation import localise
        >>> mask = np.zeros((8, 8), dtype=bool)
        >>> mask[2:4, 2:4] = True
        >>> localise(mask.astype(np.float32), mask)
        Localisation(pointing=1.0, iou=1.0, dice=1.0, energy=1.0, area=0.0625)
    """
    if values.shape != mask.shape:
        raise ValueError(f"a map {list(values.shape)} and a mask {list(mask.shape)}; both must have the image's size")
    from scipy.ndimage import distance_transform_edt

    seen = np.isfinite(values)
    seen_mask = mask & seen
    if not seen_mask.any():
        return None
    near = distance_transform_edt(~seen_mask) <= tolerance
    inside, flat = seen_mask[seen], values[seen]
    size = int(inside.sum())
    common = _common(flat, inside, size)
    total = float(flat.sum(dtype=np.float64))
    return Localisation(
        pointing=float(near[seen][flat == flat.max()].mean()),
        iou=common / (2 * size - common),
        dice=common / size,
        energy=float(flat[inside].sum(dtype=np.float64)) / total if total else size / flat.size,
        area=size / flat.size,
    )


def _common(flat: Floats, inside: Mask, size: int) -> float:
    """Pixels of the mask among the ``size`` largest values; of equal values at the border, each counts in part."""
    border = np.partition(flat, flat.size - size)[flat.size - size]
    above, level = flat > border, flat == border
    share = (size - above.sum()) / level.sum()
    return float((above & inside).sum() + share * (level & inside).sum())


def centre_blob(values: Floats) -> Floats:
    """The baseline that knows nothing of the image: a Gaussian in the middle of the crop, σ a quarter of its side.

    Args:
        values: a map [H, W] whose values that are not nan are the crop.

    Returns:
        [H, W], nan where ``values`` is.
    """
    rows, columns = (np.flatnonzero(np.isfinite(values).any(axis=axis)) for axis in (1, 0))
    y, x = (np.arange(n, dtype=np.float32) for n in values.shape)
    side = max(len(rows), len(columns))
    away = ((y - rows.mean()) ** 2)[:, None] + ((x - columns.mean()) ** 2)[None]
    return np.where(np.isfinite(values), np.exp(-away / (2 * (side / 4) ** 2)), np.nan).astype(np.float32)
