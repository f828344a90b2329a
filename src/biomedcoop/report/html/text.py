"""Text of a page: names written from right to left stand apart from their surroundings, and a number keeps its percent sign."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

RTL = "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001eeff]"
"""A letter of a script that is written from right to left: Hebrew, Arabic and others."""


def isolated(names: Iterable[str]) -> re.Pattern[str]:
    """What a page isolates: the names that hold letters written from right to left, and all other words of such letters.

    A name is isolated whole, because its own first letter decides its direction.
    """
    whole = sorted({name for name in names if re.search(RTL, name)}, key=len, reverse=True)
    return re.compile("|".join([*map(re.escape, whole), f"{RTL}+(?:[\\s-]+{RTL}+)*"]))


@pass_context
def finished(context: Context, value: Any) -> Any:
    """A value as the page shows it; markup stays as it is, and so does text that a template escapes itself (``| e``)."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", value)
    if not any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in text):
        return text
    parts, end = [], 0
    for found in context["isolated"].finditer(text):
        parts += [escape(text[end : found.start()]), Markup("<bdi>{}</bdi>").format(found[0])]
        end = found.end()
    return Markup("").join([*parts, escape(text[end:])])
