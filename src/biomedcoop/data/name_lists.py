"""Names in one text, separated by commas: class names or columns, as options of the command line give them."""

from __future__ import annotations

from collections.abc import Sequence

from biomedcoop.data.names import clean_class_name
from biomedcoop.data.tables.csv_text import split_line


def split_names(text: str) -> list[str]:
    """'cyst, "stone, large"' -> ["cyst", "stone, large"]: a name with a comma stands in double quotes."""
    return [name for word in split_line(" ".join(text.split())) if (name := clean_class_name(word))]


def join_names(names: Sequence[str]) -> str:
    """What `split_names` takes apart again."""
    quoted = ('"' + name.replace('"', '""') + '"' if "," in name or '"' in name else name for name in names)
    return ", ".join(quoted)
