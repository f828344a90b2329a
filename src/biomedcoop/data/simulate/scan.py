"""The simulated tasks, and the drawing of one image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from biomedcoop.data.simulate import breast, kidney
from biomedcoop.errors import UserError, nearest

Scan = tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class SimulatedTask:
    """A classification task whose images a program draws.

    Attributes:
        name: as in "simulated:<name>".
        class_names: label ``c`` means ``class_names[c]``.
        modality: e.g. "ultrasound".
        organ: e.g. "breast".
    """

    name: str
    class_names: tuple[str, ...]
    modality: str
    organ: str


TASKS: dict[str, SimulatedTask] = {
    task.name: task
    for task in (
        SimulatedTask("breast-ultrasound", breast.CLASS_NAMES, "ultrasound", "breast"),
        SimulatedTask("kidney-ct", kidney.CLASS_NAMES, "CT", "kidney"),
    )
}

_DRAW: dict[str, Callable[[np.random.Generator, int, float], Scan]] = {
    "breast-ultrasound": breast.draw_breast_scan,
    "kidney-ct": kidney.draw_kidney_scan,
}


def find_task(name: str) -> SimulatedTask:
    """The task called ``name``.

    Raises:
        UserError: there is no such task; the message lists all tasks.
    """
    if name not in TASKS:
        raise UserError(f"unknown simulated task {name!r}; {nearest(name, TASKS)}")
    return TASKS[name]


def draw_scan(task: str, label: int, seed: int, index: int, difficulty: float = 0.5) -> Scan:
    """One simulated image and the mask of its lesion.

    Each image has its own random generator, so it does not depend on which others are drawn.

    Args:
        task: a key of `TASKS`.
        label: class, 0..C-1.
        seed: 0 or more.
        index: number of the image in its class, 0 or more.
        difficulty: 0 (large, plain lesions, little noise) to 1.

    Returns:
        Image uint8 [224, 224] and mask bool [224, 224], all False if the class has no lesion.

    Raises:
        UserError: one of the arguments is out of range.
    """
    class_names = find_task(task).class_names
    if not 0 <= label < len(class_names):
        raise UserError(
            f"label {label} is not one of the {len(class_names)} classes of {task} (0..{len(class_names) - 1})"
        )
    if seed < 0 or index < 0:
        raise UserError(f"seed {seed} and index {index} must be 0 or more")
    if not 0 <= difficulty <= 1:
        raise UserError(f"difficulty {difficulty} must be between 0 and 1")
    rng = np.random.default_rng([seed, list(TASKS).index(task), label, index])
    return _DRAW[task](rng, label, difficulty)
