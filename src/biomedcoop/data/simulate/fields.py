"""Random fields and outlines that both simulators draw with: Gaussian fields by FFT, star-shaped organs and lesions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

SIZE = 224
"""Height and width of every simulated image, px."""

ANGLES = 360
"""Entries of an outline's radius table, one per degree."""


@cache
def grid() -> tuple[Array, Array]:
    """Pixel coordinates (rows [SIZE, 1], columns [1, SIZE]), ready to broadcast."""
    axis = np.arange(SIZE, dtype=np.float32)
    return axis[:, None], axis[None, :]


@cache
def frequencies() -> tuple[Array, Array]:
    """Cycles per pixel of a real 2-D FFT: rows [SIZE, 1], columns [1, SIZE // 2 + 1]."""
    return np.fft.fftfreq(SIZE).astype(np.float32)[:, None], np.fft.rfftfreq(SIZE).astype(np.float32)[None, :]


def gaussian_response(frequency: Array, sigma: float) -> Array:
    """Frequency response of a unit-area Gaussian of width ``sigma`` px."""
    response: Array = np.exp(np.float32(-2 * np.pi**2 * sigma**2) * frequency**2)
    return response


def filter_image(image: Array, response: Array) -> Array:
    """``image`` [SIZE, SIZE] filtered by a real response [SIZE, SIZE // 2 + 1] (periodic borders)."""
    return np.fft.irfft2(np.fft.rfft2(image) * response, s=(SIZE, SIZE)).astype(np.float32)


def blur(image: Array, sigma_rows: float, sigma_columns: float) -> Array:
    """Gaussian blur, widths in px."""
    rows, columns = frequencies()
    return filter_image(image, gaussian_response(rows, sigma_rows) * gaussian_response(columns, sigma_columns))


def smooth_field(rng: np.random.Generator, sigma_rows: float, sigma_columns: float) -> Array:
    """Gaussian random field [SIZE, SIZE] of mean 0 and variance 1 with the given correlation widths in px."""
    # Beyond 0.6 / sigma the Gaussian's response is below 0.001, so only lower frequencies are drawn.
    height, width = (min(SIZE // 2, int(np.ceil(0.6 * SIZE / sigma))) for sigma in (sigma_rows, sigma_columns))
    rows, columns = frequencies()
    response = gaussian_response(rows, sigma_rows) * gaussian_response(columns, sigma_columns)
    kept = np.r_[0:height, SIZE - height : SIZE]
    noise = rng.standard_normal((2, 2 * height, width), dtype=np.float32)
    spectrum = np.zeros(response.shape, dtype=np.complex64)
    spectrum[kept, :width] = (noise[0] + 1j * noise[1]) * response[kept, :width]
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(SIZE, SIZE)).astype(np.float32)
    field /= field.std()
    return field


def gaussian_taps(sigma: Array | float, reach: int) -> Array:
    """Weights [..., 2 · reach + 1] of Gaussians of width ``sigma`` px (scalar or [...]), scaled to unit energy."""
    offset = np.arange(-reach, reach + 1, dtype=np.float32)
    taps = np.exp(-0.5 * (offset / np.asarray(sigma, dtype=np.float32)[..., None]) ** 2)
    return np.asarray(taps / np.sqrt((taps**2).sum(axis=-1, keepdims=True)), dtype=np.float32)


def smooth_curve(rng: np.random.Generator, length: float, waves: int = 7) -> Array:
    """Smooth random curve [SIZE] of about unit variance whose shortest wave is ``length`` px."""
    frequency = rng.uniform(0.15, 1.0, waves) / length
    phase = rng.uniform(0, 2 * np.pi, waves)
    angle = 2 * np.pi * np.arange(SIZE)[:, None] * frequency + phase  # [SIZE, waves]
    return np.asarray(np.sin(angle).sum(axis=1) * np.sqrt(2 / waves), dtype=np.float32)


def soft_step(distance: Array, width: float) -> Array:
    """0 → 1 over ``width`` px around distance 0: the share of a pixel that lies on the positive side."""
    share: Array = np.clip(np.float32(0.5) + distance / np.float32(max(width, 1e-3)), 0, 1)
    return share


@dataclass(frozen=True)
class Outline:
    """A star-shaped outline: centre and a table of the radius over the angle.

    Attributes:
        x: centre, column direction.
        y: centre, row direction.
        radii: float32 [360], radius at angle 2π·i/360, measured from +x towards +y.
    """

    x: float
    y: float
    radii: Array

    @property
    def reach(self) -> float:
        """Largest radius."""
        return float(self.radii.max())

    def scaled(self, factor: float, grow: float = 0.0) -> Outline:
        """Same centre, radius · ``factor`` + ``grow``."""
        return Outline(self.x, self.y, (self.radii * factor + grow).astype(np.float32))

    def locate(self, x: Array, y: Array) -> tuple[Array, Array, npt.NDArray[np.int32]]:
        """Where the points (x, y) lie.

        Returns:
            Relative radius (below 1 inside), signed distance to the outline (negative inside), and the index into
            ``radii``, -180..180.
        """
        dx, dy = x - np.float32(self.x), y - np.float32(self.y)
        index = (np.arctan2(dy, dx) * np.float32(ANGLES / (2 * np.pi))).astype(np.int32)  # -180..180
        radius = np.sqrt(dx * dx + dy * dy)
        # The radial gap is longer than the true distance if the outline runs obliquely.
        slope = np.empty_like(self.radii)
        slope[1:-1] = self.radii[2:] - self.radii[:-2]
        slope[0], slope[-1] = self.radii[1] - self.radii[-1], self.radii[0] - self.radii[-2]
        slope *= np.float32(ANGLES / (4 * np.pi)) / self.radii
        edge = self.radii[index]  # a negative index counts from the end, as angles from -π to 0 need
        return radius / edge, (radius - edge) / np.sqrt(1 + slope * slope)[index], index


@cache
def outline_angles() -> Array:
    """The angles of an outline's radius table: float32 [360], radians."""
    return (np.arange(ANGLES) * (2 * np.pi / ANGLES)).astype(np.float32)


def ellipse(half_width: float, half_height: float, tilt: float = 0.0, exponent: float = 2.0) -> Array:
    """Radius table of a (super-)ellipse tilted by ``tilt`` radians."""
    angle = outline_angles() - tilt
    sides = np.abs(np.cos(angle) / half_width) ** exponent + np.abs(np.sin(angle) / half_height) ** exponent
    return np.asarray(sides ** (-1 / exponent), dtype=np.float32)


def lobes(rng: np.random.Generator, orders: tuple[int, int], strength: float) -> Array:
    """Factor around 1 that bulges a radius table: waves of the orders ``orders``, standard deviation ``strength``."""
    order = np.arange(orders[0], orders[1] + 1)
    weight = strength * np.sqrt(2 / len(order)) * rng.standard_normal(len(order))
    phase = rng.uniform(0, 2 * np.pi, len(order))
    wave = np.cos(outline_angles() * order[:, None] + phase[:, None]) * weight[:, None]
    return np.asarray(np.maximum(0.4, 1 + wave.sum(axis=0)), dtype=np.float32)


def spikes(rng: np.random.Generator, count: int, length: float, width: float) -> Array:
    """Factor of 1 or more with ``count`` narrow spikes, up to ``length`` high and about ``width`` radians wide."""
    angle = outline_angles()[:, None]
    centre = rng.uniform(0, 2 * np.pi, count)
    gap = np.abs((angle - centre + np.pi) % (2 * np.pi) - np.pi)
    height = length * rng.uniform(0.4, 1.0, count)
    spike = height * np.exp(-gap / (width * rng.uniform(0.6, 1.4, count)))
    return np.asarray(1 + spike.max(axis=1, initial=0), dtype=np.float32)
