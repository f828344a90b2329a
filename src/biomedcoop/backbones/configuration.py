"""Reading the JSON that describes a checkpoint: values of the right type and range, or one line that says which is not."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from biomedcoop.errors import UserError

Supported = Mapping[str, Mapping[str, tuple[Any, ...]]]
"""Section of a configuration -> its settings -> the values that the code supports."""


@contextmanager
def usable(folder: Path) -> Iterator[None]:
    """Turn a ValueError of the functions below into a UserError that names the folder."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{folder}: the configuration cannot be used: {error}") from error


def check_supported(supported: Supported, sections: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a setting of the sections, given in the order of ``supported``, with another value; one that is not stated passes."""
    for name, section in zip(supported, sections, strict=True):
        for key, values in supported[name].items():
            if section.get(key) is not None and section[key] not in values:
                known = " or ".join(f"'{value}'" for value in values if value != "")
                raise ValueError(f"{key} '{section[key]}' is not supported, only {known}")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; a UserError where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}); download it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: is a JSON {type(content).__name__}, not a configuration; download it again")
    return content


def section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section of a configuration; empty where it is not stated."""
    value = config.get(name) or {}
    if not isinstance(value, dict):
        raise ValueError(f"'{name}' is not an object")
    return value


def whole(section: Mapping[str, Any], key: str, least: int = 1) -> int | None:
    """A whole number; None where it is not stated."""
    return None if section.get(key) is None else at_least(section[key], key, least)


def truth(section: Mapping[str, Any], key: str) -> bool:
    """A truth value; False where it is not stated."""
    value = section.get(key) or False
    if not isinstance(value, bool):
        raise ValueError(f"{key} is {value!r}, must be true or false")
    return value


def at_least(value: object, key: str, least: int = 1) -> int:
    """The value as a whole number of at least ``least``; ``key`` names it in messages."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{key} is {value!r}, must be a whole number of at least {least}")
    return value


def number(value: object, key: str, above: float = -math.inf) -> float:
    """The value as a finite number above a limit; ``key`` names it in messages."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= above:
        raise ValueError(f"{key} holds {value!r}, must be a finite number" + " above 0" * (above == 0))
    return float(value)


def triple(
    section: Mapping[str, Any], key: str, default: tuple[float, float, float], above: float = -math.inf
) -> tuple[float, float, float]:
    """Three finite numbers above a limit; ``default`` where they are not stated."""
    value = section.get(key)
    if value is None:
        return default
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError(f"{key} is {value!r}, must be a list of three numbers")
    red, green, blue = (number(v, key, above) for v in value)
    return red, green, blue
