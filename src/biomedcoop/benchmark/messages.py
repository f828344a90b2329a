"""Messages between the benchmark and the processes that it starts: a line of JSON each.

A message can name classes and functions of this package alone: reading one runs no other code.
"""

from __future__ import annotations

import base64
import dataclasses
import importlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from biomedcoop.errors import UserError

PACKAGES = ("biomedcoop",)
"""Where the classes and functions of a message may come from."""


def send(pipe: IO[bytes], value: Any) -> None:
    """Write one message."""
    pipe.write(json.dumps(packed(value)).encode() + b"\n")
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """Read one message.

    Raises:
        EOFError: the other process has ended, perhaps within a message.
    """
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return unpacked(json.loads(line))


def packed(value: Any) -> Any:
    """A value as JSON: numbers and texts as they are, all else as [kind, content].

    Raises:
        TypeError: a kind of value that no message holds.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, bytes):
        return ["bytes", base64.b64encode(value).decode()]
    if isinstance(value, np.ndarray):
        return ["array", [value.dtype.str, list(value.shape), base64.b64encode(value.tobytes()).decode()]]
    if isinstance(value, Path):
        return ["path", str(value)]
    if isinstance(value, Mapping):
        return ["dict", [[packed(key), packed(content)] for key, content in value.items()]]
    if isinstance(value, partial):
        return ["partial", [packed(value.func), [packed(part) for part in value.args]]]
    if isinstance(value, UserError):
        return ["error", [_name(type(value)), str(value)]]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [packed(getattr(value, field.name)) for field in dataclasses.fields(value)]
        return ["object", [_name(type(value)), fields]]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return ["object", [_name(type(value)), [packed(part) for part in value]]]
    if isinstance(value, tuple | list):
        return ["tuple" if isinstance(value, tuple) else "list", [packed(part) for part in value]]
    if callable(value):
        return ["name", _name(value)]
    raise TypeError(f"a message cannot hold {type(value).__name__}")


def unpacked(content: Any) -> Any:
    """The value that :func:`packed` made JSON of."""
    if not isinstance(content, list):
        return content
    kind, inner = content
    if kind == "bytes":
        return base64.b64decode(inner)
    if kind == "array":
        dtype, shape, data = inner
        return np.frombuffer(base64.b64decode(data), np.dtype(dtype)).reshape(shape).copy()
    if kind == "path":
        return Path(inner)
    if kind == "dict":
        return {unpacked(key): unpacked(value) for key, value in inner}
    if kind == "partial":
        return partial(unpacked(inner[0]), *map(unpacked, inner[1]))
    if kind == "error":
        return _named(inner[0])(inner[1])
    if kind == "object":
        return _named(inner[0])(*map(unpacked, inner[1]))
    if kind == "name":
        return _named(inner)
    parts = [unpacked(part) for part in inner]
    return tuple(parts) if kind == "tuple" else parts


def _name(value: Any) -> str:
    return f"{value.__module__}:{value.__qualname__}"


def _named(name: str) -> Any:
    module, _, path = name.partition(":")
    if module.partition(".")[0] not in PACKAGES:
        raise TypeError(f"a message names {name}, which is not of this package")
    found = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found
