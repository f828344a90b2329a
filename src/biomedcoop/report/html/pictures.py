"""Pictures of a page: figures as SVG in the page's own colours, images as data of small JPEG or PNG files."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from markupsafe import Markup

from biomedcoop.drawing import drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

INK, LINE = "#010203", "#040506"
"""Colours of letters and of thin lines while a figure is drawn; the page's style then gives them, light or dark."""

EDGE = 224
"""Longest edge of an image in the page, px."""

_INK_RC = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), LINE),
    **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    "svg.fonttype": "none",
    "font.size": 11,
}


def svg(make: Callable[[], Figure], name: str, words: str) -> Markup:
    """A figure as SVG for the page; equal drawings give equal text.

    Args:
        make: function that draws a figure with matplotlib's present settings.
        name: short name, which keeps the figure's references apart from those of others.
        words: description for a reader who does not see it.
    """
    with drawing({**_INK_RC, "svg.hashsalt": name}, note=False):
        content = io.BytesIO()
        make().savefig(content, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    text = content.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(INK, "currentColor").replace(LINE, "var(--line)")
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    referenced = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in referenced else "", text)
    title = Markup('<svg role="img" aria-label="{}" ').format(words)
    # the markup is matplotlib's, which escapes every text in it
    return title + Markup(re.sub(r"^<svg ", "", re.sub(r"(\d+\.\d{2})\d+", r"\1", text), count=1))


def data_uri(image: Image, *, edge: int = EDGE) -> str:
    """An image as the address of its own data: reduced to ``edge`` px, as JPEG."""
    small = image.convert("RGB")
    small.thumbnail((edge, edge))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
