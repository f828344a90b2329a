"""Reasons not to trust a saliency map; some come from the study of ``docs/results/saliency.md``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

from biomedcoop.explain.maps import MAPS

CHECKED = "checked.json"
"""Maps that failed a check: {map: {kind of image tower: reason, a sentence}}."""


@cache
def failed_checks() -> dict[str, dict[str, str]]:
    """The content of :data:`CHECKED`."""
    file = files("biomedcoop.explain") / CHECKED
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def doubts(map: str, tower_kind: str, *, empty: bool = False, unlike: bool = False) -> Iterator[str]:
    """Reasons not to trust a map, a sentence each.

    Args:
        map: name of the map.
        tower_kind: kind of the image tower.
        empty: the map is 0 everywhere.
        unlike: the image is unlike the training images.

    Example:
        >>> list(doubts("attention-rollout", "vit"))[0]
        'The map is the same for every class.'
    """
    if not MAPS[map].class_specific:
        yield "The map is the same for every class."
    if reason := failed_checks().get(map, {}).get(tower_kind):
        yield reason
    if empty:
        yield "The map is empty: no place in the image speaks for the class."
    if unlike:
        yield "The image is unlike the training images; do not rely on the answer."
