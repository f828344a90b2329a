"""Which method to choose: the recommendation that follows from the measurements in ``docs/results/``.

``recommended.json`` holds it with its evidence; ``python -m benchmarks.pages`` writes that file from the measured tables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

WORDS = {"known": "Classes that the backbone saw in pretraining", "unknown": "Other classes"}
"""Two collections of classes, and what each is called."""


def recommended() -> dict[str, Any]:
    """The measured backbone and recipe, and for "known" and "unknown" classes, by images per class: the method and all accuracies.

    Example:
        >>> from biomedcoop.methods.recommended import recommended
        >>> sorted(recommended()["known"]["recommended"], key=int)
        ['1', '2', '4', '8', '16']
    """
    content: dict[str, Any] = json.loads(files("biomedcoop.methods").joinpath("recommended.json").read_text("utf-8"))
    return content


def describe(content: Mapping[str, Any]) -> list[str]:
    """The recommendation in three lines.

    Args:
        content: as :func:`recommended` returns it.
    """
    lines = []
    for collection, words in WORDS.items():
        part = content[collection]
        chosen, most = part["recommended"], list(part["recommended"])[-1]
        phrases: list[str] = []
        for method in dict.fromkeys(chosen.values()):
            images = [number for number, name in chosen.items() if name == method]
            phrases.append(f"{method} with {_numbers(images, most)}{'' if phrases else ' images per class'}")
        accuracy = part["accuracy"][most]
        lines.append(
            f"{words}: {', '.join(phrases)}. With {most}: {accuracy[chosen[most]]} % right (zero-shot {accuracy['zero-shot']}, "
            f"largest class {part['largest class']})."
        )
    return [*lines, f"Measured with {content['backbone']}, recipe {content['recipe']}; other backbones may differ."]


def _numbers(images: list[str], most: str) -> str:
    """["1", "2", "4"] -> "1 to 4"."""
    if images[-1] == most:
        return f"{images[0]} or more"
    return images[0] if len(images) == 1 else f"{images[0]} {'or' if len(images) == 2 else 'to'} {images[-1]}"
