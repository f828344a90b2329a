"""How a linear-array ultrasound scanner turns tissue into a picture: speckle, attenuation, log compression.

The model is the usual one for fully developed speckle (Wagner et al. 1983, "Statistics of speckle in ultrasound
B-scans"): circular complex Gaussian scatterers, weighted by the tissue's echogenicity, convolved with the point spread
function; the picture is the logarithm of the envelope. Shadows and enhancement are not painted: they follow from adding
up attenuation along the beam.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from biomedcoop.data.simulate.fields import SIZE, Array, blur, gaussian_response, grid, smooth_curve


@dataclass
class Tissue:
    """What the beam meets, all float32 [SIZE, SIZE]; rows are depth.

    Attributes:
        echo: diffuse backscatter, dB.
        mirror: amplitude of specular reflectors (capsules, fascia, ligaments): coherent, so without speckle.
        loss: attenuation beyond what the time-gain compensation expects, dB per px, one way and back together.
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
        difficulty: 0..1; more of it means coarser speckle and more electronic noise.

    Returns:
        uint8 [SIZE, SIZE].
    """
    depth, lateral = grid()
    power = _speckle(rng, tissue, coarse=1 + 0.35 * difficulty)
    # The aperture looks round small obstacles, so a shadow widens and softens with depth.
    total = blur(np.cumsum(tissue.loss, axis=0, dtype=np.float32), 0.7, rng.uniform(1.5, 3.0))
    total += _coupling_loss(rng) + _gain_error(rng)
    floor = 10 ** (-(5.2 - 1.0 * difficulty)) * 10 ** (1.5 * depth / SIZE)  # noise is amplified with depth
    decibel = 10 * np.log10(power * 10 ** (-total / 10) + floor * rng.standard_exponential((SIZE, SIZE), np.float32))

    # The operator sets the gain by the look of the whole picture: brightness then tells nothing about the class.
    dynamic_range = rng.uniform(48, 66)
    grey = (decibel - np.percentile(decibel, 60)) / dynamic_range + rng.uniform(0.30, 0.50)
    grey = 255 * np.clip(grey, 0, 1) ** rng.uniform(0.9, 1.25)
    if rng.random() < 0.3:  # a trapezoidal or turned field of view leaves black corners
        side, slope = rng.integers(0, 2), rng.uniform(0.08, 0.35)
        edge = lateral if side == 0 else SIZE - 1 - lateral
        grey = np.where(edge < slope * (depth - rng.uniform(0, 160)), 0, grey)
    return (grey + 0.5).astype(np.uint8)


def _speckle(rng: np.random.Generator, tissue: Tissue, coarse: float, looks: int = 2) -> Array:
    """Echo power [SIZE, SIZE], averaged over ``looks`` independent views (spatial compounding)."""
    depth, _ = grid()
    amplitude = 10 ** (tissue.echo / 20)
    rows, columns = (np.fft.fftfreq(SIZE).astype(np.float32) for _ in range(2))
    axial = gaussian_response(rows, coarse * rng.uniform(0.75, 1.0))[:, None]
    lateral = coarse * rng.uniform(1.1, 1.6)
    narrow = gaussian_response(columns, lateral)[None]
    wide = gaussian_response(columns, 1.7 * lateral)[None]
    # The beam is narrow at the focus and wide away from it; we mix two widths instead of one filter per row.
    defocus = np.clip(np.abs(depth - rng.uniform(0.25, 0.55) * SIZE) / (0.6 * SIZE), 0, 1)
    power = np.zeros((SIZE, SIZE), dtype=np.float32)
    for _ in range(looks):
        scatter = rng.standard_normal((2, SIZE, SIZE), dtype=np.float32)
        spectrum = np.fft.fft2(amplitude * (scatter[0] + 1j * scatter[1]) + tissue.mirror).astype(np.complex64) * axial
        # Unit power at unit amplitude whatever the width, so that the focus is not a bright band.
        focused = np.fft.ifft2(spectrum * narrow).astype(np.complex64)
        spread = np.fft.ifft2(spectrum * wide).astype(np.complex64) * np.float32(np.sqrt(1.7))
        echo = focused + defocus * (spread - focused)
        power += echo.real**2 + echo.imag**2
    return power / looks


def _coupling_loss(rng: np.random.Generator) -> Array:
    """Loss in dB [SIZE, SIZE]: columns where the probe touches badly, usually near the ends."""
    _, lateral = grid()
    loss = np.zeros((1, SIZE), dtype=np.float32)
    for _ in range(rng.integers(0, 4)):
        centre = rng.uniform(0, SIZE) if rng.random() < 0.6 else rng.choice([0.0, SIZE - 1.0])
        loss = loss + rng.uniform(2, 9) * np.exp(-(((lateral - centre) / rng.uniform(6, 26)) ** 2))
    return (loss * np.ones((SIZE, 1))).astype(np.float32)


def _gain_error(rng: np.random.Generator) -> Array:
    """Depth-dependent loss in dB [SIZE, 1] left over by the time-gain compensation."""
    depth, _ = grid()
    relative = depth / SIZE
    slope = rng.uniform(0, 12) * relative + rng.uniform(0, 14) * relative**3
    return (slope + 0.8 * smooth_curve(rng, 60)[:, None]).astype(np.float32)
