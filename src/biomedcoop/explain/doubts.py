"""Reasons not to trust a saliency map; some come from the study of ``docs/results/saliency.md``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from biomedcoop.explain.kinds import MAPS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CHECKED = "checked.json"
"""Maps that failed a check, or have none: {map: {kind of image tower: reason, one sentence or more}}. The study writes it."""

NOT_CHECKED = "The map is not checked with trained weights of this kind of image tower."


@cache
def failed_checks() -> dict[str, dict[str, str]]:
    """The content of :data:`CHECKED`."""
    file = files("biomedcoop.explain") / CHECKED
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def doubtful_maps() -> str:
    """The maps that failed a check, or had none, with the kinds of image towers, for a help text; empty if there are none."""
    return "; ".join(f"{name} ({', '.join(towers)})" for name, towers in failed_checks().items())


UNLIKE = "The image is unlike the training images; do not rely on the answer."
EMPTY = "The map is empty: no place in the image speaks for the class."
NEARLY_FLAT = "The map is nearly flat: its lowest value is more than half of its highest."

_COUNTED = {
    UNLIKE: (
        "image",
        "is unlike the training images; do not rely on its answer",
        "are unlike the training images; do not rely on their answers",
    ),
    EMPTY: (
        "map",
        "is empty, so no place in the image speaks for the class",
        "are empty, so no place in these images speaks for the class",
    ),
    NEARLY_FLAT: (
        "map",
        "is nearly flat, with a lowest value of more than half of its highest",
        "are nearly flat, with a lowest value of more than half of their highest",
    ),
}
"""Reasons that hold for some images only: what is counted, and the words for one and for several."""

MOST_NAMES = 5
"""Images that :func:`counted` names for each reason."""

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
        >>> import numpy as np
        >>> list(doubts("grad-cam", "vit", np.zeros((4, 4), dtype=np.float32)))[-1]
        'The map is empty: no place in the image speaks for the class.'
    """
    lowest, highest = float(values.min()), float(values.max())
    if not MAPS[map].class_specific:
        yield "The map is the same for every class."
    if reason := failed_checks().get(map, {}).get(tower_kind):
        yield reason
    if not highest:
        yield EMPTY
    elif lowest > FLAT * highest:
        yield NEARLY_FLAT
    if unlike:
        yield UNLIKE


def counted(doubtful: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Reasons for doubt of many maps, each said once, with the number and the first names of the images that it holds for.

    Args:
        doubtful: for each map the name of its image, and its reasons for doubt.

    Example:
        >>> counted([("a.png", [UNLIKE]), ("b.png", []), ("c.png", [UNLIKE])])
        ['2 of 3 images are unlike the training images; do not rely on their answers: a.png, c.png']
    """
    found = []
    for text in dict.fromkeys(text for _, texts in doubtful for text in texts):
        if text not in _COUNTED or len(doubtful) == 1:
            found.append(text)
            continue
        what, one, many = _COUNTED[text]
        named = [name for name, texts in doubtful if text in texts]
        names = list(dict.fromkeys(named))  # an image has as many maps as there are methods
        count, total = len(named), len(doubtful)
        if what == "image":
            count, total = len(names), len({name for name, _ in doubtful})
        first = ", ".join(names[:MOST_NAMES]) + (", …" if len(names) > MOST_NAMES else "")
        of = f"{count} of {total} {what}{'' if total == 1 else 's'}"
        found.append(f"{of} {one if count == 1 else many}: {first}")
    return found
