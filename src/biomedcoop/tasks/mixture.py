"""What is said of the methods that a mixture tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def candidates(tried: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The methods that were tried, without the mixture itself, which has no weight."""
    return [one for one in tried if one["weight"] is not None]


def was_compared(tried: Sequence[Mapping[str, Any]]) -> bool:
    """Whether images were held out, so that the methods could be compared on them."""
    return any(one["accuracy"] is not None for one in tried)


def mixture_line(tried: Sequence[Mapping[str, Any]]) -> str:
    """A sentence on the methods that were tried and their shares, the largest first; see :meth:`Method.tried`."""
    tried = candidates(tried)
    if not was_compared(tried):
        (alone,) = (one["method"] for one in tried if one["weight"])
        return (
            f"No training image could be held out, so no method was compared with another on these images. {alone} answers alone: "
            "it was most often right on other datasets with about as many images per class."
        )
    chosen = [f"{one['method']} {100 * one['weight']:.0f} %" for one in tried if one["weight"]]
    parts = [f"The answer is a mixture of {', '.join(chosen)}"]
    if out := [one["method"] for one in tried if not one["weight"] and one["temperature"]]:
        parts.append(f"left out, with less than 2 %: {', '.join(out)}")
    return " ".join([f"{'; '.join(parts)}.", *dear_notes(tried)])


def dear_notes(tried: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence on the methods that the budget left out; none if it left out none."""
    dear = [one["method"] for one in candidates(tried) if not one["temperature"]]
    rule = "it limits the methods that train through the text encoder, by their estimated time"
    return [f"Not tried, because the budget does not allow it: {', '.join(dear)} ({rule})."] if dear else []
