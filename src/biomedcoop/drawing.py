"""Figures that neither read nor change a user's settings of matplotlib, and one note on the letters that their font lacks."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

from biomedcoop.errors import notify

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LETTERS = 10
"""Letters that the note names."""

_MISSING = r"Glyph (\d+) .*missing from"
_UNSHAPED = r"Matplotlib currently does not support \w+ natively"  # follows the line above for letters of some scripts

_letters: ContextVar[dict[str, None] | None] = ContextVar("letters", default=None)


@contextmanager
def drawing(settings: Mapping[str, Any] | None = None, *, note: bool = True) -> Iterator[None]:
    """Matplotlib's default settings, and some others: neither a user's matplotlibrc nor pyplot's state is read or changed.

    Args:
        settings: matplotlib's ``rcParams`` that differ from the defaults.
        note: see :func:`letters_noted`.
    """
    import matplotlib.style

    with letters_noted(note=note), matplotlib.style.context(["default", dict(settings or {})]):
        yield


@contextmanager
def letters_noted(*, note: bool = True) -> Iterator[None]:
    """Give one note on all letters that the figures drawn inside lack, in place of matplotlib's warning for each letter and file.

    Inside another such context, the outer one gives the note.

    Args:
        note: give the note; False for figures whose letters stay text, which another program draws in a font of its own.
    """
    outer = _letters.get() if note else None
    letters = {} if outer is None else outer
    token = _letters.set(letters)
    try:
        with warnings.catch_warnings():
            for message in (_MISSING, _UNSHAPED):
                warnings.filterwarnings("always", message=message)
            shown = warnings.showwarning

            def collect(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
                if found := re.match(_MISSING, str(message)):
                    letters[chr(int(found[1]))] = None
                elif not re.match(_UNSHAPED, str(message)):
                    shown(message, category, *where, **more)

            warnings.showwarning = collect
            yield
    finally:
        _letters.reset(token)
    if letters and note and outer is None:
        notify([_note(list(letters))])


def new_figure(width: float, height: float, layout: Literal["compressed", "constrained"] = "compressed") -> Figure:
    """An empty figure of a size in inches that pyplot does not know; also saved or shown by its user, it gives the note above."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class Canvas(FigureCanvasAgg):
        def print_figure(self, *args: Any, **options: Any) -> Any:
            with letters_noted():
                return super().print_figure(*args, **options)

    figure = Figure(figsize=(width, height), layout=layout)
    Canvas(figure)
    return figure


def _note(letters: list[str]) -> str:
    named = [letter if letter.isprintable() else f"U+{ord(letter):04X}" for letter in letters[:MOST_LETTERS]]
    more = ", …" if len(letters) > MOST_LETTERS else ""
    if len(letters) == 1:
        return f"The font of the figures lacks the letter {named[0]}; figures show a box in its place."
    return f"The font of the figures lacks {len(letters)} letters; figures show boxes in their place: {', '.join(named)}{more}"
