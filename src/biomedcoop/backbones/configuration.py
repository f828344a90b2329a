"""Values of a configuration in JSON, read and checked.

A value that cannot be used raises a ``ValueError``; within :func:`usable` it becomes the line that names the folder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from biomedcoop.errors import UserError

Supported = Mapping[str, Mapping[str, tuple[Any, ...]]]
"""Section of a configuration -> key -> the values that this code supports."""

# OpenAI's constants are the default of open_clip and of transformers' CLIP, and the values of BiomedCLIP
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@contextmanager
def usable(folder: Path) -> Iterator[None]:
    """Turn a ``ValueError`` about a value into a UserError that names the folder."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{folder}: the configuration cannot be used: {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}); download it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: is a JSON {type(content).__name__}, not a configuration; download it again")
    return content


def check_supported(supported: Supported, sections: Sequence[Mapping[str, Any]]) -> None:
    """Refuse the first value of ``sections``, in the order of ``supported``, that this code does not support."""
    for name, values in zip(supported, sections, strict=True):
        for key, known in supported[name].items():
            if values.get(key) is not None and values[key] not in known:
                choices = " or ".join(f"'{value}'" for value in known if value != "")
                raise ValueError(f"{key} '{values[key]}' is not supported, only {choices}")


def section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object within the configuration; empty if it is missing."""
    value = config.get(name) or {}
    if not isinstance(value, dict):
        raise ValueError(f"'{name}' is not an object")
    return value


def whole(values: Mapping[str, Any], key: str, least: int = 1) -> int | None:
    """A whole number of at least ``least``; None if it is missing."""
    return None if values.get(key) is None else at_least(values[key], key, least)


def at_least(value: object, key: str, least: int = 1) -> int:
    """``value``, if it is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{key} is {value!r}, must be a whole number of at least {least}")
    return value


def truth(values: Mapping[str, Any], key: str) -> bool:
    """True or False; False if it is missing."""
    value = values.get(key) or False
    if not isinstance(value, bool):
        raise ValueError(f"{key} is {value!r}, must be true or false")
    return value


def number(value: object, key: str, above: float = -math.inf) -> float:
    """``value`` as a float, if it is finite and above a limit."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= above:
        raise ValueError(f"{key} holds {value!r}, must be a finite number" + " above 0" * (above == 0))
    return float(value)


def triple(
    values: Mapping[str, Any], key: str, default: tuple[float, float, float], above: float = -math.inf
) -> tuple[float, float, float]:
    """Three finite numbers above a limit, one per channel; ``default`` if they are missing."""
    value = values.get(key)
    if value is None:
        return default
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError(f"{key} is {value!r}, must be a list of three numbers")
    red, green, blue = (number(v, key, above) for v in value)
    return red, green, blue
