"""Options of a request: how a field is declared, and the check of each kind of value.

A check is called with the option's name and the value that was given. It returns the value in its final type, or raises a
:class:`UserError` that says what to give.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from numbers import Integral
from typing import Any

from biomedcoop.errors import UserError, nearest
from biomedcoop.errors import whole_number as checked_whole_number

ALL = "all"
"""The number of shots that takes all training images, however many each class has."""

MAX_VIEWS = 10_000
"""Maximum number of random crops of one training image."""

SCORES = ("lac", "aps", "raps")
"""Scores of prediction sets; see :mod:`biomedcoop.classifier.conformal`."""

EQUAL, REALISTIC = "equal", "realistic"
"""Ways to draw training images: as many of each class, or whatever their class; see :mod:`biomedcoop.data.sampling.few_shot`."""

CALIBRATE = ("auto", "yes", "no")

DEVICES = ("cpu", "cuda", "mps", "xpu")

MIN_RESAMPLES = 40
"""Minimum number of bootstrap resamples: of fewer, less than one lies beyond each end of a 95 % interval."""

MAX_RESAMPLES = 1_000_000
"""Maximum number of bootstrap resamples."""


def option(
    default: Any, help: str, check: Callable[[str, Any], Any], *, flag: str = "", shown: bool = False, kind: Any = str
) -> Any:
    """A field of a request.

    Args:
        default: ``dataclasses.MISSING`` for a field that must be given.
        help: one line for the command line.
        check: called with the name and the value; returns the value in its final type, or raises a :class:`UserError`.
        flag: name on the command line, if it differs from the field's name.
        shown: write the option into every reproduced command, even at its default.
        kind: type of the value on the command line.
    """
    return dataclasses.field(
        default=default, metadata={"help": help, "check": check, "flag": flag, "shown": shown, "kind": kind}
    )


def text(example: str) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise UserError(f"{name}={value!r} must be a name, e.g. {name}='{example}'")
        return value

    return check


def words(example: str) -> Callable[[str, Any], str | None]:
    def check(name: str, value: Any) -> str | None:
        if value is not None and (not isinstance(value, str) or not value.strip() or not value.isprintable()):
            raise UserError(f"{name}={value!r} must be one or more words, e.g. {name}='{example}'")
        return value

    return check


def whole_number(example: int, least: int, most: int | None = None) -> Callable[[str, Any], int]:
    return lambda name, value: checked_whole_number(name, value, example, least, most)


def shots(name: str, value: Any) -> int | str | None:
    if value is None:
        return None
    if value == ALL:
        return ALL
    digits = isinstance(value, str) and value.removeprefix("-").isdecimal()
    try:
        return whole_number(16, 1)(name, int(value) if digits else value)
    except UserError as error:
        raise UserError(f"{error}, or {name}='{ALL}' for all training images") from None


seed = whole_number(1, 0, 2**63 - 1)

resamples = whole_number(1000, MIN_RESAMPLES, MAX_RESAMPLES)


def yes_or_no(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{name}={value!r} must be True or False")
    return value


def alpha(name: str, value: Any) -> float | None:
    """The share of prediction sets that may miss the true class."""
    if value is None:
        return None
    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 < number < 1:
        raise UserError(f"{name}={value!r} must be a number between 0 and 1, both excluded, e.g. {name}=0.1")
    return number


def score(name: str, value: Any) -> str:
    if text("lac")(name, value) not in SCORES:
        raise UserError(f"no score '{value}' of prediction sets; {nearest(value, SCORES)}")
    return str(value)


def sampling(name: str, value: Any) -> str:
    if value not in (EQUAL, REALISTIC):
        raise UserError(f"{name}={value!r} must be {EQUAL} or {REALISTIC}")
    return str(value)


def calibrate(name: str, value: Any) -> str:
    """One of :data:`CALIBRATE`; true and false stand for yes and no."""
    found = {"true": "yes", "false": "no"}.get(str(value).lower(), value)
    if found not in CALIBRATE:
        raise UserError(f"{name}={value!r} must be one of {', '.join(CALIBRATE)}")
    return str(found)


def seeds(_: str, value: Any) -> tuple[int, ...]:
    if isinstance(value, (str, bytes, Set)) or not isinstance(value, Collection):
        raise UserError(f"seeds={value!r} must be a list of whole numbers, e.g. seeds=[1, 2, 3]")
    listed = _listed(value)
    whole = all(isinstance(seed, Integral) and not isinstance(seed, bool) for seed in listed)
    if not listed or not whole or not all(0 <= seed < 2**63 for seed in listed):
        raise UserError(f"seeds={listed}: give at least one, each a whole number from 0 to 2^63 - 1")
    return tuple(int(seed) for seed in listed)


def _listed(value: Iterable[Any]) -> list[Any]:
    """The elements; none of an array without dimensions, which is iterable by its type alone."""
    try:
        return list(value)
    except TypeError:
        return []


UNITS = {"": 1, "s": 1, "min": 60, "h": 3600}
"""Seconds of each unit of a time."""


def seconds(name: str, value: Any) -> float:
    """A time in seconds: 60, "60s", "1.5min", "1h"."""
    text = str(value).strip()
    unit = text.lstrip("0123456789.").strip()
    try:
        number = float(text.removesuffix(unit)) * UNITS[unit]
    except (ValueError, KeyError):
        number = 0.0
    if isinstance(value, bool) or not number > 0:
        raise UserError(f"{name}={value!r} must be a time above 0 in s, min or h, e.g. {name}='60s'")
    return number


def settings(_: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise UserError(f"settings={value!r} must be a dict, e.g. settings={{'epochs': 50}}")
    found = {
        key: one.item() if hasattr(one, "item") and not getattr(one, "shape", ()) else one for key, one in value.items()
    }
    for key, one in found.items():
        if not isinstance(one, (str, int, float)):
            raise UserError(f"settings: {key}={one!r} must be a number, a text, True or False")
    return found


def methods(name: str, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise UserError(f"{name}={value!r} must be a list of methods, e.g. {name}=['zero-shot']")
    return tuple(method(name, one) for one in _listed(value))


def plugins(name: str, value: Any) -> tuple[str, ...]:
    from biomedcoop.methods import load_plugin

    if value is not None and (isinstance(value, (str, os.PathLike)) or not isinstance(value, Iterable)):
        raise UserError(f"{name}={value!r} must be a list of Python files, e.g. {name}=['my_method.py']")
    files = tuple(str(path(name, one)) for one in _listed(value or ()))
    for file in files:
        load_plugin(file)
    return files


def method(name: str, value: Any) -> str:
    from biomedcoop.methods import get_method

    return get_method(text("biomedcoop")(name, value)).name


def recipe(name: str, value: Any) -> str:
    from biomedcoop.methods.recipes import check_recipe

    check_recipe(text("general")(name, value))
    return str(value)


def window(name: str, value: Any) -> str:
    from biomedcoop.data.images.windows import check_window

    return check_window(name, value)


def frame(name: str, value: Any) -> str:
    from biomedcoop.data.images.stacks import check_frame_choice

    return check_frame_choice(name, value)


def precision(name: str, value: Any) -> str:
    from biomedcoop.backbones.registry import check_precision

    check_precision(text("float32")(name, value))
    return str(value)


def prompts(_: str, value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise UserError(
            f"prompts must be a name or a path, not {type(value).__name__}; write sentences to a JSON file and give its path"
        )
    return _path_text("prompts", value)


def views(_: str, value: Any) -> int | str:
    if isinstance(value, str) and value == "per-epoch":
        return value
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    digits = isinstance(value, str) and value.isdecimal()
    number = int(value) if whole or digits else 0
    if not 1 <= number <= MAX_VIEWS:
        raise UserError(f"views={value!r} must be a whole number from 1 to {MAX_VIEWS}, or per-epoch")
    return number


def path(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, (str, os.PathLike)):
        raise UserError(f"{name}={value!r} must be a path")
    return None if value is None else _path_text(name, value)


def _path_text(name: str, value: str | os.PathLike[str]) -> str:
    text = os.fspath(value)
    if "\0" in text:
        raise UserError(f"{name}={text!r} holds a null character, which no path can hold; give another path")
    return text


def backbone(_: str, value: Any) -> Any:
    from biomedcoop.backbones.base import Backbone
    from biomedcoop.backbones.registry import check_backbone

    if isinstance(value, Backbone):
        if value.frozen is not None:
            raise UserError(
                f"the towers of this {value.name} were changed by training; give the frozen one, backbone.original"
            )
        return value
    if not isinstance(value, (str, os.PathLike)):
        raise UserError(f"backbone={value!r} must be a name, a folder or a backbone from load_backbone")
    text = _path_text("backbone", value)
    check_backbone(text)
    return text


def device(_: str, value: Any) -> str:
    if not isinstance(value, str) and type(value).__name__ != "device":  # torch's type, without torch
        raise UserError(f"device={value!r} must be a name, e.g. device='cpu'")
    from biomedcoop.backbones.registry import AUTO

    kind, _, number = str(value).partition(":")
    if value != AUTO and (kind not in DEVICES or not (number.isdecimal() or str(value) == kind)):
        raise UserError(f"device '{value}' is not known; choose cpu, cuda, cuda:1, mps or auto")
    return str(value)


def data(_: str, value: Any) -> Any:
    from biomedcoop.data.dataset import Dataset

    if isinstance(value, Dataset):
        return value
    if not isinstance(value, (str, os.PathLike)):
        raise UserError(f"data must be a dataset from load_dataset, not {type(value).__name__}")
    return _path_text("data", value)


def images_needed(alpha: float) -> int:
    """Smallest number n of calibration images for which a set can leave a class out: ⌈(n + 1)(1 − α)⌉ ≤ n.

    Example:
        >>> images_needed(0.1), images_needed(0.05)
        (9, 19)
    """
    return math.ceil((1 - alpha) / alpha - 1e-9)  # (1 − 0.1) / 0.1 is 9, also in floating point
