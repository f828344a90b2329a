"""How a CT scanner turns Hounsfield units into a picture: blur, correlated noise, streaks, display window."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from biomedcoop.data.simulate.fields import (
    SIZE,
    Array,
    Outline,
    filter_image,
    frequencies,
    gaussian_response,
    soft_step,
)


class Slice:
    """An axial slice being drawn, in Hounsfield units, with coordinates fixed to the patient.

    Attributes:
        hu: float32 [SIZE, SIZE].
        x: mm from the spine's axis towards the picture's right (the patient's left): float32 [SIZE, SIZE].
        y: mm from the body's centre towards the back: float32 [SIZE, SIZE].
        pixel: mm per px.
    """

    def __init__(self, rng: np.random.Generator, field_of_view: float) -> None:
        self.pixel = field_of_view / SIZE
        self._turn = rng.normal(0, 0.06)  # the patient lies turned by a few degrees
        self._shift = rng.normal(0, 6, 2)
        axis = (np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2) * self.pixel
        across, down = axis[None, :] - self._shift[0], axis[:, None] - self._shift[1]
        self.x = (np.cos(self._turn) * across + np.sin(self._turn) * down).astype(np.float32)
        self.y = (np.cos(self._turn) * down - np.sin(self._turn) * across).astype(np.float32)
        self.hu = np.full((SIZE, SIZE), -1000, dtype=np.float32)

    def window(self, outline: Outline, margin: float = 4.0) -> tuple[slice, slice]:
        """The part of the picture that holds ``outline`` and ``margin`` mm around it."""
        cos, sin = np.cos(self._turn), np.sin(self._turn)
        column = (cos * outline.x - sin * outline.y + self._shift[0]) / self.pixel + (SIZE - 1) / 2
        row = (cos * outline.y + sin * outline.x + self._shift[1]) / self.pixel + (SIZE - 1) / 2
        reach = (outline.reach + margin) / self.pixel
        rows, columns = (
            slice(min(max(int(middle - reach), 0), SIZE), min(max(int(middle + reach) + 2, 0), SIZE))
            for middle in (row, column)
        )
        return rows, columns

    def locate(self, outline: Outline, part: tuple[slice, slice]) -> tuple[Array, Array, npt.NDArray[np.int32]]:
        """`Outline.locate` for the pixels of ``part``."""
        return outline.locate(self.x[part], self.y[part])

    def fill(self, outline: Outline, hu: Array | float, within: Array | None = None, edge: float = 1.0) -> None:
        """Fill ``outline`` with ``hu`` (a number or [SIZE, SIZE]); border pixels are shared (partial volume).

        Args:
            outline: in mm.
            hu: Hounsfield units.
            within: share of each pixel that may be filled, [SIZE, SIZE].
            edge: width of the border in pixels; larger for surfaces that cross the slice obliquely.
        """
        part = self.window(outline)
        share = soft_step(-self.locate(outline, part)[1], edge * self.pixel)
        if within is not None:
            share = share * within[part]
        value = hu[part] if isinstance(hu, np.ndarray) else np.float32(hu)
        self.hu[part] += share * (value - self.hu[part])


def acquire(
    rng: np.random.Generator, scan: Slice, body: Array, dense: list[Outline], difficulty: float
) -> npt.NDArray[np.uint8]:
    """The displayed picture of a slice.

    Args:
        rng: source of all random choices.
        scan: the slice.
        body: share of each pixel inside the body, [SIZE, SIZE].
        dense: very dense objects, which cause streaks.
        difficulty: 0..1; a higher value means less dose.

    Returns:
        uint8 [SIZE, SIZE].
    """
    hu = scan.hu.copy()
    for source in dense:
        hu += _streaks(rng, scan, source)
    rows, columns = frequencies()
    sigma = rng.uniform(0.55, 0.85)  # px
    response = gaussian_response(rows, sigma) * gaussian_response(columns, sigma)
    # Noise of filtered back-projection grows with the frequency (the ramp) until the kernel cuts it off.
    radius = np.sqrt(rows**2 + columns**2)
    ramp = np.sqrt(radius) * np.exp(-((radius / rng.uniform(0.22, 0.34)) ** 2))
    noise = filter_image(rng.standard_normal((SIZE, SIZE), dtype=np.float32), ramp)
    level = (7 + 16 * difficulty) * rng.uniform(0.8, 1.25)  # HU
    # Rays through the middle lose most photons, so noise is highest there.
    noise *= (level / noise.std()) * (0.55 + 0.6 * np.exp(-((scan.x / 110) ** 2) - (scan.y / 80) ** 2))
    hu = filter_image(hu, response) + noise * (0.35 + 0.65 * body)

    centre, width = rng.uniform(25, 65), rng.uniform(300, 460)
    grey = (hu - centre) / width + 0.5
    return np.asarray(255 * np.clip(grey, 0, 1) ** rng.uniform(0.85, 1.15) + 0.5, dtype=np.uint8)


def _streaks(rng: np.random.Generator, scan: Slice, source: Outline) -> Array:
    """HU error [SIZE, SIZE] of rays through a dense object: dark and bright lines that fade with distance."""
    dx, dy = scan.x - np.float32(source.x), scan.y - np.float32(source.y)
    distance = np.sqrt(dx * dx + dy * dy)
    bins = 360
    profile = rng.standard_normal(bins).astype(np.float32)
    profile = profile + np.roll(profile, 1) + np.roll(profile, -1)
    profile += np.roll(profile, bins // 2)  # a streak runs in both directions
    index = (np.arctan2(dy, dx) * np.float32(bins / (2 * np.pi))).astype(np.int32) % bins
    fade = np.exp(-distance / 45) * soft_step(distance - source.reach, 4 * scan.pixel)
    streak: Array = np.float32(rng.uniform(3, 9)) * profile[index] * fade
    return streak
