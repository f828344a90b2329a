"""Simulated breast tissue for ultrasound: layers, ligaments, distractors, and the two kinds of mass.

Signs follow the BI-RADS ultrasound lexicon. A benign mass is oval, parallel to the skin, circumscribed, even inside and
often enhanced behind. A malignant mass is irregular, not parallel, spiculated or indistinct, and uneven, with an echogenic
halo, a shadow behind and sometimes calcifications. A sign can be missing, more often at higher difficulty, but the outline
is always drawn.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from biomedcoop.data.simulate.fields import (
    ANGLES,
    SIZE,
    Array,
    Outline,
    ellipse,
    grid,
    lobes,
    smooth_curve,
    smooth_field,
    soft_step,
    spikes,
)
from biomedcoop.data.simulate.ultrasound import Tissue, acquire

CLASS_NAMES = ("benign tumor", "malignant tumor", "normal scan")


def draw_breast_scan(
    rng: np.random.Generator, label: int, difficulty: float
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """One simulated breast ultrasound picture.

    Args:
        rng: source of all random choices.
        label: 0 benign, 1 malignant, 2 normal.
        difficulty: 0..1.

    Returns:
        Picture uint8 [SIZE, SIZE] and the mass's mask bool [SIZE, SIZE].
    """
    tissue = _normal_breast(rng, difficulty)
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    if label < 2:
        mask = (_benign_mass, _malignant_mass)[label](rng, tissue, difficulty)
    return acquire(rng, tissue, difficulty), mask


def _normal_breast(rng: np.random.Generator, difficulty: float) -> Tissue:
    depth, lateral = grid()
    tilt = rng.uniform(-0.08, 0.08) * (lateral - SIZE / 2)

    def below(level: float, waviness: float, length: float, width: float) -> Array:
        """Share of each pixel that lies below a wavy interface."""
        return soft_step(depth - level - tilt - waviness * smooth_curve(rng, length), width)

    skin = rng.uniform(5, 11)
    gland_top = skin + rng.uniform(0.06, 0.24) * SIZE
    gland_end = rng.uniform(0.52, 0.80) * SIZE
    muscle_end = gland_end + rng.uniform(0.14, 0.28) * SIZE
    fat_echo = rng.uniform(-11, -6)
    gland_echo = fat_echo + rng.uniform(5, 11)

    in_fat = below(skin, 0.6, 90, 1.5)
    # Cooper's ligaments pull the gland up into crests, so the interface is pointed.
    crest: Array = -np.abs(smooth_curve(rng, rng.uniform(60, 110))) * np.float32(rng.uniform(5, 14))
    in_gland = soft_step(depth - gland_top - tilt - crest, rng.uniform(2, 6))
    in_deep_fat = below(gland_end, rng.uniform(3, 7), 90, 3)
    in_muscle = below(gland_end + rng.uniform(4, 16), rng.uniform(2, 5), 110, 2)
    behind = below(muscle_end, rng.uniform(2, 6), 120, 3)

    # Random textures are shifted with the layers, so that strands run along them.
    fold = (tilt[0] + rng.uniform(4, 12) * smooth_curve(rng, 80)).astype(np.int64)
    rows = (np.arange(SIZE)[:, None] - fold) % SIZE
    strand = _folded(smooth_field(rng, rng.uniform(1.6, 2.6), rng.uniform(9, 20)), rows)
    fibre = _folded(smooth_field(rng, 1.3, 34), rows)
    patch = smooth_field(rng, 12, 22)
    wisp = np.clip(0.35 + 0.6 * smooth_field(rng, 5, 11), 0, 2)
    septa = _septa(_folded(smooth_field(rng, rng.uniform(8, 13), rng.uniform(16, 28)), rows))
    fine = _septa(_folded(smooth_field(rng, rng.uniform(2.6, 4.5), rng.uniform(8, 16)), rows))

    echo = np.full((SIZE, SIZE), 6, dtype=np.float32)  # skin
    for share, level in (
        (in_fat, fat_echo + 0.8 * strand),
        (in_gland, gland_echo + 3.2 * strand + 3.0 * patch),
        (in_deep_fat, fat_echo + strand),
        (in_muscle, fat_echo + rng.uniform(-3, 2) + 4.0 * fibre),
        (behind, fat_echo - rng.uniform(3, 8) + 2 * fibre),
    ):
        echo = echo + share * (level - echo)
    superficial = in_fat * (1 - 0.6 * in_gland)
    glandular = in_gland * (1 - in_deep_fat)
    echo += wisp * (11 * septa * superficial + 9 * fine * glandular)
    mirror = wisp * (0.5 * septa * superficial + 0.7 * fine * glandular)
    mirror = mirror + 0.8 * np.clip(fibre - 1.2, 0, 2) * wisp * in_muscle
    for edge in (in_fat, in_muscle, behind):  # skin line and fasciae
        mirror = mirror + 3.5 * edge * (1 - edge) * wisp
    loss = np.full((SIZE, SIZE), 0.0, dtype=np.float32)
    loss += 0.03 * in_gland * patch + 0.10 * septa * np.clip(patch, 0, 2)  # steep ligaments cast shadows
    tissue = Tissue(echo.astype(np.float32), mirror.astype(np.float32), loss.astype(np.float32))
    _add_distractors(rng, tissue, fat_echo, gland_top, muscle_end, difficulty)
    return tissue


def _folded(field: Array, rows: npt.NDArray[np.int64]) -> Array:
    """``field`` with shifted columns; ``rows`` [SIZE, SIZE] holds the source row of each pixel."""
    shifted: Array = np.take_along_axis(field, rows, axis=0)
    return shifted


def _septa(field: Array) -> Array:
    """Thin curved sheets, 0..1 [SIZE, SIZE]: the zero lines of a random field, brightest if they face the probe."""
    along, across = np.gradient(field)
    steep2 = along * along + across * across + np.float32(1e-6)
    line = np.exp(field * field / steep2 * np.float32(-0.8))
    sheet: Array = line * (np.float32(0.25) + np.float32(0.75) * along * along / steep2)
    return sheet


def _add_distractors(
    rng: np.random.Generator, tissue: Tissue, fat_echo: float, gland_top: float, muscle_end: float, difficulty: float
) -> None:
    """Add dark or shadowing structures that are not masses, with the same distribution for every class."""
    depth, lateral = grid()
    for _ in range(rng.integers(0, 3 + round(2 * difficulty))):  # fat lobules: dark ovals that keep their septa
        radius = rng.uniform(9, 24)
        aspect = rng.uniform(1.2, 2.4)
        shape = ellipse(radius * aspect**0.5, radius / aspect**0.5, rng.uniform(-0.5, 0.5)) * lobes(rng, (2, 4), 0.08)
        spot = Outline(rng.uniform(0, SIZE), rng.uniform(gland_top, 0.75 * SIZE), shape)
        _, distance, _ = spot.locate(lateral, depth)
        tissue.cover(0.75 * soft_step(-distance, rng.uniform(3, 8)), fat_echo + rng.uniform(-7, 1))
        tissue.mirror += 0.35 * np.exp(-((distance / 1.3) ** 2)) * (rng.random() < 0.5)
    for _ in range(rng.integers(0, 3)):  # ducts: thin dark tubes
        path = rng.uniform(gland_top, 0.7 * SIZE) + rng.uniform(5, 14) * smooth_curve(rng, 80)
        width = rng.uniform(1.5, 3.5)
        begin = rng.uniform(0, 0.8) * SIZE
        extent = soft_step(lateral - begin, 8) * soft_step(begin + rng.uniform(25, 80) - lateral, 8)
        tissue.cover(0.8 * extent * np.exp(-(((depth - path) / width) ** 2)), fat_echo - 8)
    if rng.random() < 0.3:  # a rib: bright cap, black behind it
        cap = muscle_end - rng.uniform(0, 14) + ((lateral - rng.uniform(0, SIZE)) / rng.uniform(9, 14)) ** 2
        near = np.clip(1.3 - np.abs(cap - cap.min()) / 16, 0, 1)
        tissue.mirror += 2.5 * near * np.exp(-(((depth - cap) / 1.6) ** 2))
        tissue.loss += 1.2 * near * soft_step(depth - cap, 4) * soft_step(cap + 22 - depth, 4)
    if rng.random() < 0.6:  # a steep ligament: a narrow shadow that starts in mid-tissue
        column, start = rng.uniform(0, SIZE), rng.uniform(gland_top - 10, 0.6 * SIZE)
        line = np.exp(-(((lateral - column - 0.15 * (depth - start)) / rng.uniform(3, 9)) ** 2))
        tissue.loss += rng.uniform(0.1, 0.45) * line * np.exp(-(((depth - start) / 12) ** 2))


def _place(rng: np.random.Generator, radii: Array, difficulty: float) -> Outline:
    """A mass of random size and position; their distributions are the same for both kinds, so they do not reveal the class."""
    radius = rng.uniform(20, 42) * (1.15 - 0.3 * difficulty)
    mean = float(np.sqrt(np.mean(radii**2)))
    reach = min(radius, 70)
    return Outline(
        rng.uniform(0.55 * reach, SIZE - 0.55 * reach),
        rng.uniform(0.16 * SIZE + 0.55 * reach, 0.66 * SIZE),
        (radii * (radius / mean)).astype(np.float32),
    )


def _sign(rng: np.random.Generator, difficulty: float) -> Callable[[], bool]:
    """A function that draws whether a typical sign is present."""
    return lambda: bool(rng.random() >= 0.1 + 0.3 * difficulty)


def _benign_mass(rng: np.random.Generator, tissue: Tissue, difficulty: float) -> npt.NDArray[np.bool_]:
    depth, lateral = grid()
    present = _sign(rng, difficulty)
    aspect = rng.uniform(1.35, 2.2) if present() else rng.uniform(1.0, 1.35)
    radii = ellipse(aspect**0.5, aspect**-0.5, rng.uniform(-0.3, 0.3), rng.uniform(2.0, 2.4)) * lobes(rng, (2, 4), 0.03)
    outline = _place(rng, radii, difficulty)
    _, distance, index = outline.locate(lateral, depth)
    inside = soft_step(-distance, rng.uniform(1.5, 2.5))
    tissue.cover(inside, _interior_level(rng, tissue, inside, difficulty) + 0.7 * smooth_field(rng, 4, 6))
    facing = np.abs(np.sin(index * np.float32(2 * np.pi / ANGLES)))  # the capsule mirrors where it faces the probe
    capsule = np.exp(-(((distance - 1.5) / 1.1) ** 2))
    tissue.mirror += (1.6 - 0.9 * difficulty) * rng.uniform(0.3, 1) * capsule * (0.15 + facing * facing * facing)
    if present():  # fluid-rich tissue attenuates less than the compensation expects
        tissue.loss -= inside * rng.uniform(5, 11) / (2 * outline.radii[ANGLES // 4])
    # Refraction where the beam touches the outline causes thin edge shadows.
    tissue.loss += rng.uniform(0.1, 0.3) * np.exp(-((distance / 1.5) ** 2)) * (1 - facing) ** 2
    mask: npt.NDArray[np.bool_] = distance < 0
    return mask


def _malignant_mass(rng: np.random.Generator, tissue: Tissue, difficulty: float) -> npt.NDArray[np.bool_]:
    depth, lateral = grid()
    present = _sign(rng, difficulty)
    aspect = rng.uniform(0.6, 0.95) if present() else rng.uniform(0.95, 1.5)
    rough = 1.15 - 0.35 * difficulty
    radii = ellipse(aspect**0.5, aspect**-0.5, rng.uniform(-0.4, 0.4)) * lobes(rng, (3, 8), 0.13 * rough)
    if rng.random() < 0.7:
        radii = radii * spikes(rng, int(rng.integers(6, 14)), 0.55 * rough, 0.10)
    outline = _place(rng, radii.astype(np.float32), difficulty)
    _, distance, _ = outline.locate(lateral, depth)
    inside = soft_step(-distance, rng.uniform(3, 9))
    blotches = smooth_field(rng, rng.uniform(3, 6), rng.uniform(4, 8))
    halo = np.exp(-((np.clip(distance - 3, 0, None) / rng.uniform(5, 9)) ** 2)) * (1 - inside)
    if present():
        tissue.echo += (6.5 - 3.5 * difficulty) * halo * np.clip(1 + 0.4 * blotches, 0, 2)
    level = _interior_level(rng, tissue, inside, difficulty)
    tissue.cover(0.95 * inside, level + (3.6 - 1.2 * difficulty) * blotches)
    if present():
        tissue.loss += (
            inside * rng.uniform(9, 22) / (2 * outline.radii[ANGLES // 4]) * np.clip(1 + 0.4 * blotches, 0, 2)
        )
    if rng.random() < 0.4:  # microcalcifications: points too small to shadow
        for _ in range(rng.integers(4, 12)):
            angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.6) * float(outline.radii.min())
            row, column = round(outline.y + reach * np.sin(angle)), round(outline.x + reach * np.cos(angle))
            if 0 <= row < SIZE and 0 <= column < SIZE:
                tissue.mirror[row, column] += rng.uniform(6, 14)
    mask: npt.NDArray[np.bool_] = distance < 0
    return mask


def _interior_level(rng: np.random.Generator, tissue: Tissue, inside: Array, difficulty: float) -> float:
    """Echogenicity of a mass, dB: below that of the tissue that it replaces, with the same distribution for both kinds."""
    around = float((tissue.echo * inside).sum() / inside.sum())
    return around - rng.uniform(11, 19) + 6 * difficulty
