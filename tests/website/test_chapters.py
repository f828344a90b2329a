"""Every public name stands in the Python reference, and its docstring says what goes in and what comes out."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

import biomedcoop as bc
from website.chapters import CHAPTERS, PLACES

ELSEWHERE = re.compile(r"(Args|Arguments|Parameters)\b[^.]*\b(those of|see)\s|[Ss]ee :|[Tt]he inverse of :")
"""Words by which a docstring hands over to another one."""

SAYS_WHAT = re.compile(r"^(Returns|Yields):|^[^\n]*\[[A-Z]", re.MULTILINE)
"""A section about the value, or its shape in the text. Classes of the reference speak for themselves."""


def public() -> Iterator[tuple[str, Any]]:
    """The public functions and classes, and the public methods of these classes, by name."""
    for name in bc.__all__:
        value = getattr(bc, name)
        if name == "__version__":
            continue
        yield name, value
        if inspect.isclass(value):
            for part, inside in vars(value).items():
                function = inside.fget if isinstance(inside, property) else getattr(inside, "__func__", inside)
                if not part.startswith("_") and inspect.isfunction(function):
                    yield f"{name}.{part}", inside if isinstance(inside, property) else function


def lacks(value: Any) -> list[str]:
    """What the docstring of a function, property or class leaves out."""
    text = inspect.getdoc(value) or ""
    if not text:
        return ["a docstring"]
    if inspect.isclass(value):
        fields = [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []
        own = inspect.signature(value.__init__).parameters if "__init__" in vars(value) else {}
        names = fields or [name for name in own if name != "self"]
        return [] if issubclass(value, Exception) else [name for name in names if not named(name, text)]
    if isinstance(value, property) or ELSEWHERE.search(text):
        return []
    signature = inspect.signature(value)
    missing = [
        name for name in signature.parameters if name not in ("self", "cls", "options") and not named(name, text)
    ]
    returned = set(re.findall(r"[A-Za-z_.]+", str(signature.return_annotation)))
    if returned - {"None", "inspect._empty"} and not returned & PLACES.keys() and not SAYS_WHAT.search(text):
        missing.append("Returns")
    return missing


def named(name: str, text: str) -> bool:
    """Whether a line of ``Args`` or ``Attributes``, or the prose in code letters, says what a name means."""
    return bool(re.search(rf"^\s+(\w+,\s+)*\*{{0,2}}{name}(,\s+\w+)*:", text, re.MULTILINE) or f"``{name}``" in text)


def test_every_public_name_is_in_one_chapter() -> None:
    names = [name.split(".")[-1] for names in CHAPTERS.values() for name in names]
    assert set(bc.__all__) - {"__version__"} <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("name", "value"), list(public()), ids=[name for name, _ in public()])
def test_a_public_name_is_documented(name: str, value: Any) -> None:
    assert lacks(value) == []
