"""Reasons not to trust a saliency map; some come from the study of ``docs/results/saliency.md``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from biomedcoop.explain.maps import MAPS

CHECKED = "checked.json"
"""Maps that failed a check: {map: {kind of image tower: reason, a sentence}}."""


@cache
def failed_checks() -> dict[str, dict[str, str]]:
    """The content of :data:`CHECKED`."""
    file = files("biomedcoop.explain") / CHECKED
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def doubtful_maps() -> str:
    """The maps that failed a check, or had none, with the kinds of image towers, for a help text; empty if there are none."""
    return "; ".join(f"{name} ({', '.join(towers)})" for name, towers in failed_checks().items())


FLAT = 0.5
"""Lowest value of a map, as a share of its highest, from which its differences say little."""


def doubts(map: str, tower_kind: str, values: npt.NDArray[np.float32], *, unlike: bool = False) -> Iterator[str]:
    """Reasons not to trust a map, a sentence each.

    Args:
        map: name of the map.
        tower_kind: kind of the image tower.
        values: the map of the crop, [S, S].
        unlike: the image is unlike the training images.

    Example:
        >>> list(doubts("grad-cam", "vit", np.zeros((4, 4), dtype=np.float32)))[-1]
        'The map is empty: no place in the image speaks for the class.'
    """
    lowest, highest = float(values.min()), float(values.max())
    if not MAPS[map].class_specific:
        yield "The map is the same for every class."
    if reason := failed_checks().get(map, {}).get(tower_kind):
        yield reason
    if not highest:
        yield "The map is empty: no place in the image speaks for the class."
    elif lowest > FLAT * highest:
        yield "The map is nearly flat: its lowest value is more than half of its highest."
    if unlike:
        yield "The image is unlike the training images; do not rely on the answer."
