"""Class names: how a prompt says them, and when two of them are the same."""

from __future__ import annotations

import re
import unicodedata

_JOINERS = "\u200c\u200d"  # between letters of Persian, Hindi and others they belong to the spelling
_UNSEEN_MARKS = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0]")
_DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u207b\u208b\ufe58\ufe63\uff0d", "-"))


def clean_class_name(name: str) -> str:
    """A class name as a prompt says it: one Unicode form (NFC), nothing invisible, ``_`` as space, single spaces."""
    seen = (c for c in unicodedata.normalize("NFC", name) if c in _JOINERS or unicodedata.category(c) != "Cf")
    return " ".join(_UNSEEN_MARKS.sub("", "".join(seen)).replace("_", " ").split())


def fold(name: str) -> str:
    """What two spellings of one class have in common: case, Unicode forms, ``_`` and a hyphen between words make no difference.

    A hyphen that is a sign stays: "HER2" and "HER2-" are two classes, "1" and "-1" are too.
    """
    text = unicodedata.normalize("NFKC", clean_class_name(name).translate(_DASHES)).translate(_DASHES).casefold()
    text = re.sub(f"[{_JOINERS}]", "", text)
    return " ".join(unicodedata.normalize("NFC", re.sub(r"(?<=\w)-(?=\w)", " ", text)).split())
