"""How a linear-array ultrasound scanner turns tissue into a picture: speckle, attenuation, log compression.

The model is the usual one for fully developed speckle (Wagner et al. 1983, "Statistics of speckle in ultrasound
B-scans"): circular complex Gaussian scatterers, weighted by the tissue's echogenicity, convolved with the point spread
function; the picture is the logarithm of the envelope. Shadows and enhancement are not painted: they follow from the sum
of attenuation along the beam.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from biomedcoop.data.simulate.fields import SIZE, Array, blur, gaussian_taps, grid, smooth_curve


@dataclass
class Tissue:
    """Acoustic properties of the tissue, all float32 [SIZE, SIZE]; rows are depth.

    Attributes:
        echo: diffuse backscatter, dB.
        mirror: amplitude of specular reflectors (capsules, fascia, ligaments): coherent, and so without speckle.
        loss: attenuation beyond what the time-gain compensation expects, dB per px, for the way there and back.
    """

    echo: Array
    mirror: Array
    loss: Array

    def cover(self, share: Array, echo: Array | float) -> None:
        """Replace the share of each pixel (0..1) by tissue of echogenicity ``echo`` without reflectors."""
        self.echo += share * (np.asarray(echo, dtype=np.float32) - self.echo)
        self.mirror *= 1 - share


def acquire(rng: np.random.Generator, tissue: Tissue, difficulty: float) -> npt.NDArray[np.uint8]:
    """The B-mode picture of ``tissue``.

    Args:
        rng: source of all random choices.
        tissue: see `Tissue`.
        difficulty: 0..1; a higher value means coarser speckle and more electronic noise.

    Returns:
        uint8 [SIZE, SIZE].
    """
    depth, lateral = grid()
    power = _speckle(rng, tissue, coarse=1 + 0.35 * difficulty)
    # The aperture sees around small obstacles, so a shadow widens and softens with depth.
    total = blur(np.cumsum(tissue.loss, axis=0, dtype=np.float32), 0.7, rng.uniform(1.5, 3.0))
    total += _coupling_loss(rng) + _gain_error(rng)
    floor = 10 ** (-(5.2 - 1.0 * difficulty)) * 10 ** (1.5 * depth / SIZE)  # noise is amplified with depth
    decibel = 10 * np.log10(
        power * np.exp(np.float32(-np.log(10) / 10) * total)
        + floor * rng.standard_exponential((SIZE, SIZE), np.float32)
    )

    # The operator sets the gain by the whole picture, so brightness does not reveal the class.
    dynamic_range = rng.uniform(48, 66)
    grey = (decibel - np.median(decibel[::2, ::2])) / dynamic_range + rng.uniform(0.30, 0.50)
    grey = 255 * np.clip(_scan_convert(grey), 0, 1) ** rng.uniform(0.9, 1.25)
    if rng.random() < 0.3:  # a trapezoidal or turned field of view leaves black corners
        side, slope = rng.integers(0, 2), rng.uniform(0.08, 0.35)
        edge = lateral if side == 0 else SIZE - 1 - lateral
        grey = np.where(edge < slope * (depth - rng.uniform(0, 160)), 0, grey)
    return np.asarray(grey + 0.5, dtype=np.uint8)


def _speckle(rng: np.random.Generator, tissue: Tissue, coarse: float, looks: int = 2) -> Array:
    """Echo power [SIZE, SIZE], averaged over ``looks`` independent views (spatial compounding)."""
    depth, _ = grid()
    amplitude = np.exp(np.float32(np.log(10) / 20) * tissue.echo)
    # The point spread function is a few pixels wide, so plain taps beat an FFT. The beam widens away from its focus.
    axial = gaussian_taps(coarse * rng.uniform(0.75, 1.0), 3)[:, None, None]  # [7, 1, 1]
    focus = rng.uniform(0.25, 0.55) * SIZE
    width = coarse * rng.uniform(1.1, 1.6) * np.sqrt(1 + ((depth[:, 0] - focus) / (0.55 * SIZE)) ** 2)
    lateral = gaussian_taps(width, 5).T[:, :, None]  # [11, SIZE, 1]
    power: Array = np.zeros((SIZE, SIZE), dtype=np.float32)
    for look in range(2 * looks):  # real and imaginary part of each view; reflectors are in phase, so real
        echo = rng.standard_normal((SIZE, SIZE), dtype=np.float32) * amplitude
        if look % 2 == 0:
            echo += tissue.mirror
        echo = _weigh(np.pad(echo, ((3, 3), (0, 0)), mode="edge"), axial, rows=True)
        echo = _weigh(np.pad(echo, ((0, 0), (5, 5)), mode="edge"), lateral, rows=False)
        echo *= echo
        power += echo
    power /= 2 * looks
    return power


def _weigh(padded: Array, taps: Array, rows: bool) -> Array:
    """Sum of shifted copies of ``padded``, each multiplied by its tap (a number, or one per row)."""
    total = np.zeros((SIZE, SIZE), dtype=np.float32)
    product = np.empty_like(total)
    for shift, tap in enumerate(taps):
        part = padded[shift : shift + SIZE] if rows else padded[:, shift : shift + SIZE]
        total += np.multiply(part, tap, out=product)
    return total


def _scan_convert(grey: Array) -> Array:
    """Interpolation from beams to pixels: a [1, 2, 1] / 4 average both ways."""
    taps = np.array([0.25, 0.5, 0.25], dtype=np.float32)[:, None, None]
    grey = _weigh(np.pad(grey, ((1, 1), (0, 0)), mode="edge"), taps, rows=True)
    return _weigh(np.pad(grey, ((0, 0), (1, 1)), mode="edge"), taps, rows=False)


def _coupling_loss(rng: np.random.Generator) -> Array:
    """Loss in dB [SIZE, SIZE]: columns with poor contact of the probe, usually near the ends."""
    _, lateral = grid()
    loss: Array = np.zeros((SIZE, SIZE), dtype=np.float32)
    for _ in range(rng.integers(0, 4)):
        centre = rng.uniform(0, SIZE) if rng.random() < 0.6 else rng.choice([0.0, SIZE - 1.0])
        loss += rng.uniform(2, 9) * np.exp(-(((lateral - centre) / rng.uniform(6, 26)) ** 2))
    return loss


def _gain_error(rng: np.random.Generator) -> Array:
    """Depth-dependent loss in dB [SIZE, 1] that the time-gain compensation leaves."""
    depth, _ = grid()
    relative = depth / SIZE
    slope = rng.uniform(0, 12) * relative + rng.uniform(0, 14) * relative**3
    return (slope + 0.8 * smooth_curve(rng, 60)[:, None]).astype(np.float32)
