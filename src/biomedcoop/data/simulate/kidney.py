"""Kidney CT: a cyst, a stone, a tumour or nothing, put into one of the two kidneys of a simulated abdomen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from biomedcoop.data.simulate.abdomen import Abdomen, draw_abdomen
from biomedcoop.data.simulate.ct import acquire
from biomedcoop.data.simulate.fields import ANGLES, SIZE, Array, Outline, ellipse, lobes, smooth_field, soft_step

CLASS_NAMES = ("cyst kidney", "kidney stone", "kidney tumor", "normal kidney")


def draw_kidney_scan(
    rng: np.random.Generator, label: int, difficulty: float
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """One simulated axial CT slice.

    Args:
        rng: source of all random choices.
        label: 0 cyst, 1 stone, 2 tumour, 3 normal.
        difficulty: 0..1.

    Returns:
        Picture uint8 [SIZE, SIZE] and the lesion's mask bool [SIZE, SIZE].
    """
    abdomen = draw_abdomen(rng, difficulty)
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    if label < 3:
        draw_lesion = (_cyst, _stone, _tumor)[label]
        which = int(rng.integers(0, 2))
        mask = draw_lesion(rng, abdomen, which, difficulty)
        if label < 2 and rng.random() < 0.3:  # often there are several cysts or stones, also on the other side
            mask |= draw_lesion(rng, abdomen, int(rng.integers(0, 2)), difficulty)
    return acquire(rng, abdomen.scan, abdomen.body, abdomen.dense, difficulty), mask


def _on_border(rng: np.random.Generator, abdomen: Abdomen, which: int, outward: float) -> tuple[float, float]:
    """A point near the border of kidney ``which``, away from its hilum; it lies on the border if ``outward`` is 1."""
    kidney = abdomen.kidneys[which]
    angle = abdomen.hilum[which] + rng.uniform(0.28, 1.72) * np.pi
    reach = outward * float(kidney.radii[int(angle / (2 * np.pi) * ANGLES) % ANGLES])
    return kidney.x + reach * np.cos(angle), kidney.y + reach * np.sin(angle)


def _fill_mass(abdomen: Abdomen, outline: Outline, hu: Array | float, edge: float = 1.0) -> npt.NDArray[np.bool_]:
    """Fill a mass and return its mask; the mass ends at the abdominal wall."""
    scan = abdomen.scan
    scan.fill(outline, hu, abdomen.cavity, edge)
    part = scan.window(outline)
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[part] = (scan.locate(outline, part)[1] < 0) & (abdomen.cavity[part] > 0.5)
    return mask


def _cyst(rng: np.random.Generator, abdomen: Abdomen, which: int, difficulty: float) -> npt.NDArray[np.bool_]:
    """A cyst: round, thin-walled, filled with water, sharply bordered and without enhancement."""
    radius = rng.uniform(12, 32) * (1.15 - 0.4 * difficulty)  # mm
    x, y = _on_border(rng, abdomen, which, rng.uniform(0.55, 1.1))
    shape = ellipse(radius, radius * rng.uniform(0.9, 1.0), rng.uniform(0, np.pi)) * lobes(rng, (2, 3), 0.012)
    cyst = Outline(x, y, shape)
    abdomen.scan.fill(cyst.scaled(1, 1.2), 32.0, abdomen.cavity)  # wall
    return _fill_mass(abdomen, cyst, rng.uniform(0, 12) + 8 * difficulty)


def _stone(rng: np.random.Generator, abdomen: Abdomen, which: int, difficulty: float) -> npt.NDArray[np.bool_]:
    """A stone: small and very dense, in a calyx or the renal pelvis."""
    kidney, hilum = abdomen.kidneys[which], abdomen.hilum[which]
    size = rng.uniform(2.5, 8) * (1.3 - 0.6 * difficulty)  # half the length, mm
    angle = hilum + rng.normal(0, 1.3)
    reach = rng.uniform(0.15, 0.5) * float(kidney.radii.min())
    x = kidney.x + 5 * np.cos(hilum) + reach * np.cos(angle)
    y = kidney.y + 5 * np.sin(hilum) + reach * np.sin(angle)
    radii = ellipse(size, size * rng.uniform(0.55, 0.95), rng.uniform(0, np.pi)) * lobes(rng, (2, 6), 0.08)
    stone = Outline(x, y, np.maximum(radii, 0.8 * abdomen.scan.pixel))
    if rng.random() < 0.4:  # retained urine around the stone
        swollen = Outline(x, y, ellipse(size + 4, size + 2.5, hilum) * lobes(rng, (2, 4), 0.08))
        abdomen.scan.fill(swollen, 6.0, abdomen.cavity, edge=1.5)
    density = rng.uniform(750, 1500) - 300 * difficulty
    if density * size > 3500:
        abdomen.dense.append(stone)
    return _fill_mass(abdomen, stone, density)


def _tumor(rng: np.random.Generator, abdomen: Abdomen, which: int, difficulty: float) -> npt.NDArray[np.bool_]:
    """A tumour: lobulated, growing out of the kidney, with enhancing rim, necrotic centre and indistinct border."""
    radius = rng.uniform(17, 38) * (1.15 - 0.4 * difficulty)  # mm
    x, y = _on_border(rng, abdomen, which, rng.uniform(0.75, 1.15))
    shape = ellipse(radius * rng.uniform(1.0, 1.2), radius * rng.uniform(0.8, 1.0), rng.uniform(0, np.pi))
    tumor = Outline(x, y, shape * lobes(rng, (2, 6), 0.10))
    scan = abdomen.scan
    part = scan.window(tumor)
    relative, _, _ = scan.locate(tumor, part)
    uneven = smooth_field(rng, *rng.uniform(1.8, 3.5, 2))
    hu = np.zeros((SIZE, SIZE), dtype=np.float32)
    hu[part] = abdomen.contrast["tumor"] + (24 - 8 * difficulty) * uneven[part]
    if rng.random() < 0.75:  # necrosis
        core = rng.uniform(0.35, 0.7)
        dead = soft_step(core + 0.18 * uneven[part] - relative, 0.2)
        hu[part] += dead * (rng.uniform(12, 28) - hu[part])
    return _fill_mass(abdomen, tumor, hu, edge=2.0 + difficulty)
