"""The project's docstrings as Markdown, for the pages of the Python reference.

A docstring may name several arguments in one line of ``Args`` (``window, frame: see ...``), titles one example ``Example``, and
points at other names by the roles of Sphinx (``:func:`fit```). mkdocstrings expects a line for each argument, ``Examples``, and
links.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

from website.chapters import PLACES

SECTION = re.compile(r"^(?P<indent> *)(?:Args|Attributes|Raises):$")
SHARED = re.compile(r"^(?P<names>\*{0,2}\w+(?:,\s+\*{0,2}\w+)+):(?P<words>.*)", re.DOTALL)
ROLE = re.compile(r":(?P<kind>func|class|data|meth|mod|attr|exc):`~?(?P<target>[\w.]+)`")


class Docstrings(griffe.Extension):
    """Rewrites each docstring once its module has been read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value, obj.parent.path if obj.parent else "")


def markdown(docstring: str, parent: str = "") -> str:
    """A docstring in the form that mkdocstrings reads.

    Args:
        docstring: text without the indentation of the code.
        parent: path of the class or module around it, in which a short name is looked up first.
    """
    lines: list[str] = []
    section: str | None = None
    for line in docstring.split("\n"):
        indent = len(line) - len(line.lstrip())
        if found := SECTION.match(line):
            section = found["indent"]
        elif section is not None and line.strip() and indent <= len(section):
            section = None
        if section is not None and indent > len(section) + 4:
            lines[-1] += f"\n{line}"
        else:
            lines.append(line)
    text = "\n".join(_one_by_one(line) for line in lines)
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    return ROLE.sub(lambda found: _link(found["target"], parent if found["kind"] == "meth" else ""), text)


def _one_by_one(item: str) -> str:
    """An item of a section for each of the names that it begins with."""
    body = item.lstrip()
    found = SHARED.match(body)
    if not found or not item.startswith("    "):
        return item
    indent = item[: len(item) - len(body)]
    return "\n".join(f"{indent}{name.strip()}:{found['words']}" for name in found["names"].split(","))


def _link(target: str, parent: str) -> str:
    *owner, name = target.split(".")
    holder = PLACES.get(owner[-1]) if owner else PLACES.get(parent.split(".")[-1])
    place = PLACES.get(name) or (holder and f"{holder}.{name}")
    return f"[`{name}`][{place}]" if place else f"`{name}`"
