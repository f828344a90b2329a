"""An axial slice of the upper abdomen in Hounsfield units: wall, spine, organs, bowel, vessels, two kidneys.

Sizes are those of adults in mm, Hounsfield units those of the textbooks for a slice without contrast agent and for the
arterial and the nephrographic phase; the phase, the patient's build and the level of the slice are drawn for every image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from biomedcoop.data.simulate.ct import Slice
from biomedcoop.data.simulate.fields import (
    ANGLES,
    Array,
    Outline,
    ellipse,
    lobes,
    outline_angles,
    smooth_field,
    soft_step,
)

FAT, WATER, BONE_RIM, MARROW = -100.0, 8.0, 480.0, 190.0

# Hounsfield units: without contrast agent, arterial phase, nephrographic phase.
_PHASES = {
    "cortex": (34, 185, 165),
    "medulla": (31, 80, 158),
    "vessel": (40, 260, 150),
    "vein": (38, 100, 150),
    "liver": (58, 75, 112),
    "spleen": (48, 120, 118),
    "muscle": (52, 58, 64),
    "bowel": (36, 88, 80),
    "tumor": (38, 105, 88),
}


@dataclass
class Abdomen:
    """A slice without lesions, and what is needed to draw one into it.

    Attributes:
        scan: the slice.
        body: share of each pixel inside the skin, [SIZE, SIZE].
        cavity: share of each pixel inside the abdominal wall, [SIZE, SIZE].
        kidneys: outlines of the two kidneys.
        hilum: per kidney, the direction of its hilum, radians.
        contrast: HU of each tissue in this patient and phase.
        dense: dense objects, which cause streaks.
    """

    scan: Slice
    body: Array
    cavity: Array
    kidneys: list[Outline]
    hilum: list[float]
    contrast: dict[str, float]
    dense: list[Outline]


def draw_abdomen(rng: np.random.Generator, difficulty: float) -> Abdomen:
    """An abdomen with two normal kidneys and distractors outside the kidneys."""
    half_width = rng.uniform(140, 185)
    half_depth = half_width * rng.uniform(0.68, 0.84)
    scan = Slice(rng, field_of_view=2 * half_width * rng.uniform(0.84, 1.06))
    level = rng.uniform(0, 1)  # 0: a slice through liver and spleen; 1: below them
    phase, strength = rng.choice(3, p=[0.25, 0.3, 0.45]), rng.uniform(0.75, 1.15)
    contrast = {
        name: values[0] + (values[int(phase)] - values[0]) * strength + rng.normal(0, 3)
        for name, values in _PHASES.items()
    }

    outline = Outline(0, 0, ellipse(half_width, half_depth, 0, 2.3) * lobes(rng, (2, 5), 0.012))
    full = (slice(None), slice(None))
    _, distance, index = scan.locate(outline, full)
    # Thickness in mm of the fat under the skin and of the muscle of the wall, in each direction.
    fat: Array = (
        np.float32(rng.uniform(6, 32)) * (1 + 0.3 * np.abs(np.cos(outline_angles()))) * lobes(rng, (1, 4), 0.12)
    )
    wall = rng.uniform(9, 15) * lobes(rng, (2, 6), 0.15)
    to_muscle = distance + fat[index]
    to_cavity = to_muscle + wall[index]
    body, cavity = soft_step(-distance, scan.pixel), soft_step(-to_cavity, scan.pixel)
    haze = smooth_field(rng, 3, 3)
    scan.hu += body * 1040  # skin, 40 HU
    scan.hu += soft_step(-distance - 2.2, scan.pixel) * (FAT - 40 + 5 * haze)
    scan.hu += soft_step(-to_muscle, scan.pixel) * (contrast["muscle"] - FAT + 7 * haze)
    scan.hu += cavity * (FAT - contrast["muscle"])

    abdomen = Abdomen(scan, body, cavity, [], [], contrast, [])
    spine_y = rng.uniform(0.24, 0.32) * half_depth
    _draw_organs(rng, abdomen, level, half_width, half_depth)
    _draw_bowel(rng, abdomen, level, half_width, half_depth, difficulty)
    _draw_spine(rng, abdomen, spine_y)
    _draw_ribs(rng, abdomen, outline, fat)
    _draw_great_vessels(rng, abdomen, spine_y, difficulty)
    for side in (-1, 1):
        _draw_kidney(rng, abdomen, side, spine_y, half_width)
    _draw_table(rng, scan, half_depth)
    return abdomen


def blob(
    rng: np.random.Generator, x: float, y: float, width: float, height: float, tilt: float = 0.0, rough: float = 0.04
) -> Outline:
    """An organ-like outline: an ellipse of half axes ``width`` and ``height`` mm with gentle bulges."""
    return Outline(x, y, ellipse(width, height, tilt) * lobes(rng, (2, 5), rough))


def _draw_organs(
    rng: np.random.Generator, abdomen: Abdomen, level: float, half_width: float, half_depth: float
) -> None:
    scan, contrast, cavity = abdomen.scan, abdomen.contrast, abdomen.cavity
    texture = smooth_field(rng, 2, 2)
    if level < 0.7:  # liver, at the picture's left; smaller further down
        size = 1.08 - 0.5 * level
        shape = ellipse(0.62 * half_width * size, 0.72 * half_depth * size, -0.5, 2.2) * lobes(rng, (2, 4), 0.08)
        liver = Outline(-0.55 * half_width, -0.10 * half_depth, shape)
        scan.fill(liver, contrast["liver"] + 4 * texture, cavity)
        for _ in range(rng.integers(3, 9)):  # portal and hepatic veins
            angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.65) * half_width * 0.5 * size
            x, y = liver.x + reach * np.cos(angle), liver.y + reach * np.sin(angle)
            vein = blob(rng, x, y, rng.uniform(2, 9), rng.uniform(1.5, 3.5), rng.uniform(0, np.pi))
            scan.fill(vein, contrast["vein"] + 5, cavity)
        if rng.random() < 0.4:  # gallbladder, sometimes with a stone
            bladder = blob(rng, -0.38 * half_width, -0.42 * half_depth, rng.uniform(9, 15), rng.uniform(12, 20))
            scan.fill(bladder, WATER + 4, cavity)
            if rng.random() < 0.5:
                stone = blob(rng, bladder.x, bladder.y + 0.5 * bladder.reach, rng.uniform(2, 5), rng.uniform(2, 4))
                scan.fill(stone, rng.uniform(150, 700), cavity)
    if level < 0.6:  # spleen
        spleen = blob(rng, 0.70 * half_width, 0.02 * half_depth, 17 + 14 * (0.6 - level), rng.uniform(38, 52), -0.35)
        scan.fill(spleen, contrast["spleen"] + 4 * texture, cavity)
    if level < 0.75:  # pancreas
        pancreas = blob(
            rng, rng.uniform(-10, 25), -0.18 * half_depth, rng.uniform(30, 50), rng.uniform(8, 13), -0.3, 0.1
        )
        scan.fill(pancreas, contrast["bowel"] + 8 + 12 * texture, cavity, edge=2)


def _draw_bowel(
    rng: np.random.Generator, abdomen: Abdomen, level: float, half_width: float, half_depth: float, difficulty: float
) -> None:
    scan, contrast = abdomen.scan, abdomen.contrast
    mottle = smooth_field(rng, 1.2, 1.2)
    oral = rng.uniform(150, 420) if rng.random() < 0.25 else None  # HU of oral contrast agent
    places: list[tuple[float, float, float]] = []
    if level < 0.6:  # stomach
        places.append((rng.uniform(0.15, 0.45) * half_width, -0.50 * half_depth, rng.uniform(26, 38)))
    else:  # descending colon, below the spleen
        places.append((0.70 * half_width, rng.uniform(-0.1, 0.1) * half_depth, 15.0))
    if level > 0.7:  # ascending colon, below the liver
        places.append((-0.68 * half_width, rng.uniform(-0.1, 0.1) * half_depth, 20.0))
    for _ in range(rng.integers(8, 16) + round(6 * level)):
        place = rng.uniform(-0.45 if level > 0.7 else -0.05, 0.58) * half_width, rng.uniform(-0.68, 0.08) * half_depth
        places.append((*place, rng.uniform(7, 15)))
    for x, y, radius in places:
        shape = ellipse(radius * rng.uniform(0.9, 1.4), radius * rng.uniform(0.7, 1.05), rng.uniform(0, np.pi))
        loop = Outline(x, y, shape * lobes(rng, (2, 6), 0.07))
        scan.fill(loop, contrast["bowel"], abdomen.cavity)
        kind = rng.random()
        lumen = loop.scaled(1, -rng.uniform(1.6, 3.0)) if loop.radii.min() > 5 else loop.scaled(0.5)
        if kind < 0.30:
            continue  # collapsed
        content = oral if oral is not None and kind < 0.75 else (rng.uniform(5, 30) if kind < 0.72 else 0.0)
        scan.fill(lumen, content + (25 * mottle if kind > 0.85 else 3 * mottle), abdomen.cavity)
        if kind > 0.72:  # gas rises to the front, above a fluid level
            part = scan.window(lumen)
            surface = lumen.y + rng.uniform(-0.5, 1.0) * lumen.radii.min()
            gas = soft_step(surface - scan.y[part], scan.pixel)
            gas = gas * soft_step(-scan.locate(lumen, part)[1], scan.pixel) * abdomen.cavity[part]
            scan.hu[part] += gas * (-900 - scan.hu[part])
    for _ in range(rng.integers(15, 35)):  # mesenteric vessels
        x, y = rng.uniform(-0.5, 0.6) * half_width, rng.uniform(-0.6, 0.1) * half_depth
        vessel = Outline(x, y, ellipse(rng.uniform(1.2, 4), rng.uniform(1.0, 2.0), rng.uniform(0, np.pi)))
        scan.fill(vessel, contrast["vein"], abdomen.cavity)


def _draw_spine(rng: np.random.Generator, abdomen: Abdomen, y: float) -> None:
    scan, muscle = abdomen.scan, abdomen.contrast["muscle"]
    streaky = smooth_field(rng, 1.5, 2.5)
    psoas = rng.uniform(11, 19)
    for side in (-1, 1):
        scan.fill(blob(rng, side * (24 + 0.75 * psoas), y + 6, psoas, psoas * 1.2, side * 0.4), muscle + 5 * streaky)
        scan.fill(blob(rng, side * 33, y + 46, 27, 20, side * -0.15), muscle - 4 + 16 * streaky, abdomen.body)
        scan.fill(blob(rng, side * 58, y + 36, 15, 9, side * -0.6), muscle + 5 * streaky, abdomen.body)
    marrow = MARROW * rng.uniform(0.7, 1.2)
    width, height = rng.uniform(20, 25), rng.uniform(15, 18)
    for side in (-1, 1):  # pedicle, lamina and transverse process
        for dx, dy, a, b, tilt in ((14, 20, 4, 8, 0.0), (11, 32, 4, 10, side * 0.7), (29, 24, 15, 3.5, side * 0.15)):
            scan.fill(blob(rng, side * dx, y + dy, a, b, tilt), 0.75 * BONE_RIM)
    scan.fill(blob(rng, 0, y + 46, 3.5, 14), 0.7 * BONE_RIM)
    vertebra = Outline(0, y, ellipse(width, height, 0, 2.5) * lobes(rng, (2, 4), 0.02))
    scan.fill(vertebra, BONE_RIM * rng.uniform(0.8, 1.1))
    scan.fill(vertebra.scaled(1, -2.0), marrow + 35 * streaky)
    scan.fill(blob(rng, 0, y + height + 8, 10, 8), 25.0)


def _draw_ribs(rng: np.random.Generator, abdomen: Abdomen, body: Outline, fat: Array) -> None:
    for _ in range(rng.integers(2, 7)):
        angle = rng.uniform(-0.35, np.pi + 0.35)  # flanks and back
        index = int(angle / (2 * np.pi) * ANGLES) % ANGLES
        reach = float(body.radii[index] - fat[index]) - 6
        x, y = reach * np.cos(angle), reach * np.sin(angle)
        if abs(x) < 60:
            continue  # no rib across the muscles of the back
        rib = blob(rng, x, y, rng.uniform(6, 11), 4.2, angle + np.pi / 2)
        abdomen.scan.fill(rib, BONE_RIM)
        abdomen.scan.fill(rib.scaled(1, -1.6), MARROW)


def _draw_great_vessels(rng: np.random.Generator, abdomen: Abdomen, spine_y: float, difficulty: float) -> None:
    scan, contrast = abdomen.scan, abdomen.contrast
    aorta = blob(
        rng, rng.uniform(4, 12), spine_y - rng.uniform(27, 31), rng.uniform(8, 12), rng.uniform(8, 12), 0, 0.02
    )
    scan.fill(aorta, contrast["vessel"])
    scan.fill(blob(rng, rng.uniform(-26, -17), spine_y - rng.uniform(24, 28), 11, rng.uniform(6, 10)), contrast["vein"])
    if rng.random() < 0.35 + 0.3 * difficulty:  # calcified plaques
        for _ in range(rng.integers(1, 4)):
            angle = rng.uniform(0, 2 * np.pi)
            x, y = aorta.x + 0.95 * aorta.reach * np.cos(angle), aorta.y + 0.95 * aorta.reach * np.sin(angle)
            plaque = blob(rng, x, y, rng.uniform(1.5, 4), rng.uniform(1, 1.8), angle + np.pi / 2)
            scan.fill(plaque, rng.uniform(350, 900))


def _draw_kidney(rng: np.random.Generator, abdomen: Abdomen, side: int, spine_y: float, half_width: float) -> None:
    scan, contrast = abdomen.scan, abdomen.contrast
    # The hilum faces the great vessels: inwards and somewhat to the front.
    hilum = (np.pi if side > 0 else 0.0) + side * rng.uniform(0.25, 0.8)
    shape = ellipse(rng.uniform(24, 30), rng.uniform(20, 25), hilum) * lobes(rng, (2, 4), 0.025)
    notch = rng.uniform(0.0, 0.38)  # a slice near a pole has no hilum
    gap = np.abs((outline_angles() - hilum + np.pi) % (2 * np.pi) - np.pi)
    shape = shape * (1 - notch * np.exp(-((gap / 0.32) ** 2)))
    x = side * rng.uniform(0.36, 0.42) * half_width
    kidney = Outline(x, spine_y + rng.uniform(-8, 6), shape.astype(np.float32))

    scan.fill(kidney.scaled(1.12, rng.uniform(2, 9)), FAT, abdomen.cavity, edge=2)
    part = scan.window(kidney)
    relative, distance, index = scan.locate(kidney, part)
    rays = np.cos(outline_angles() * rng.integers(7, 11) + rng.uniform(0, 6))  # pyramids between columns
    pyramid = soft_step(0.74 + 0.06 * rays[index].astype(np.float32) - relative, 0.08)
    pyramid *= soft_step(rays[index].astype(np.float32) + 0.55, 0.5)
    tissue = contrast["cortex"] + pyramid * (contrast["medulla"] - contrast["cortex"])
    scan.hu[part] += soft_step(-distance, scan.pixel) * abdomen.body[part] * (tissue - scan.hu[part])

    # Sinus: fat that opens to the hilum, with the renal pelvis and vessels in it.
    depth = 5 + 26 * notch
    centre = rng.uniform(4, 8) + 10 * notch
    sx, sy = kidney.x + centre * np.cos(hilum), kidney.y + centre * np.sin(hilum)
    scan.fill(Outline(sx, sy, ellipse(depth, 0.62 * depth, hilum) * lobes(rng, (2, 6), 0.13)), -70.0, edge=2.5)
    if notch > 0.1:
        scan.fill(blob(rng, sx, sy, 0.75 * depth, rng.uniform(1.5, 4.5), hilum + rng.uniform(-0.3, 0.3)), WATER, edge=2)
        vx, vy = kidney.x + 30 * np.cos(hilum), kidney.y + 30 * np.sin(hilum)
        vessel = blob(rng, vx, vy, rng.uniform(10, 18), rng.uniform(2, 3.5), hilum + rng.uniform(-0.2, 0.2))
        scan.fill(vessel, contrast["vein"], abdomen.cavity)
    abdomen.kidneys.append(kidney)
    abdomen.hilum.append(float(hilum))


def _draw_table(rng: np.random.Generator, scan: Slice, half_depth: float) -> None:
    top = half_depth + rng.uniform(1, 8) - (scan.x / rng.uniform(26, 40)) ** 2 * 0.8 + 2
    below = scan.y - top
    for offset, thickness, hu in ((0.0, 2.0, -250.0), (14.0, 1.6, -350.0)):
        shell = np.exp(-(((below - offset) / thickness) ** 2)) * (scan.hu < -500)
        scan.hu += shell * (hu - scan.hu)
