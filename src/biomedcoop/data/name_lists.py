"""Lists of class names or columns as comma-separated text, the form of command-line options."""

from __future__ import annotations

from collections.abc import Sequence

from biomedcoop.data.names import clean_class_name
from biomedcoop.data.tables.csv_text import split_line


def split_names(text: str) -> list[str]:
    """Split comma-separated names; quotes enclose a name with a comma: 'cyst, "stone, large"' -> ["cyst", "stone, large"]."""
    return [name for word in split_line(" ".join(text.split())) if (name := clean_class_name(word))]


def join_names(names: Sequence[str]) -> str:
    """Join names into a text that `split_names` splits into the same names."""
    quoted = ('"' + name.replace('"', '""') + '"' if "," in name or '"' in name else name for name in names)
    return ", ".join(quoted)
