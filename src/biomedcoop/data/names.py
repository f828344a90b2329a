"""Class names: their form in prompts, and their comparison."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from textwrap import shorten

from biomedcoop.errors import UserError

_JOINERS = "\u200c\u200d"  # zero-width: part of the spelling in Persian, Hindi and other languages
_NUMBER_SIGNS = "\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"  # visible, though of category Cf
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"  # marks and fillers
    "|[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]"  # control characters except white space
)
_KEPT_FORMATS = re.compile(f"[{_JOINERS}{_NUMBER_SIGNS}]")
_DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u207b\u208b\ufe58\ufe63\uff0d", "-"))

_LOOK_ALIKES = str.maketrans(  # Cyrillic and Greek letters that look like Latin ones
    "авекмнорстухіјѕԁԛԝαινορτυχκ",
    "abekmhopctyxijsdqwaivoptuxk",
)


def clean_class_name(name: str) -> str:
    """A class name in its form for prompts: Unicode form NFC, no invisible characters, ``_`` as space, single spaces."""
    visible = (c for c in name if unicodedata.category(c) != "Cf" or _KEPT_FORMATS.match(c))
    # NFC comes last, because an invisible character may stand between a letter and its accent
    return unicodedata.normalize("NFC", " ".join(_INVISIBLE.sub("", "".join(visible)).replace("_", " ").split()))


def list_names(names: Sequence[str]) -> str:
    """Class names in one short line: "3 classes: benign, malignant, normal"; "…" stands for those that do not fit."""
    return f"{len(names)} class{'es' * (len(names) != 1)}: {shorten(', '.join(names), 80, placeholder=' …')}"


def fold(name: str) -> str:
    """The comparison key of a class name: two spellings of one class have the same key.

    Case, Unicode forms, ``_`` and hyphens between words make no difference. A hyphen as a sign counts: "HER2" and "HER2-" are two
    classes, and so are "1" and "-1".
    """
    text = unicodedata.normalize("NFKC", clean_class_name(name).translate(_DASHES)).translate(_DASHES).casefold()
    text = re.sub(f"[{_JOINERS}]", "", text)
    return " ".join(unicodedata.normalize("NFC", re.sub(r"(?<=\w)-(?=\w)", " ", text)).split())


def difference(one: str, other: str) -> str:
    """The difference of two spellings of one name, as part of a message: "they differ only in case"."""
    if one == other:
        return "they are spelled alike"
    if unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other):
        what = "their Unicode form"
    elif clean_class_name(one) == clean_class_name(other):
        what = "blanks or invisible characters"
    elif clean_class_name(one).casefold() == clean_class_name(other).casefold():
        what = "case"
    elif fold(one) != fold(other):
        what = "letters of two alphabets that look alike"
    else:
        what = "case, hyphens, blanks or the form of a character"
    # escapes show the difference of names that look the same
    codes = "" if (one + other).isascii() else f", in ASCII {one!a} and {other!a}"
    return f"they differ only in {what}{codes}"


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8; file names on Linux are bytes and may have another encoding."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_class_names(class_names: Sequence[str], where: object, for_training: bool = True) -> tuple[str, ...]:
    """Check class names and return them in their form for prompts.

    Args:
        where: name of the data in messages.
        for_training: True requires at least two names; False requires one.

    Raises:
        UserError: there are too few names, a name is empty or not UTF-8, or two names are the same by :func:`fold`.
    """
    if not class_names:
        raise UserError(f"{where}: there is no class; name every class")
    if for_training and len(class_names) < 2:
        raise UserError(f"{where}: one class ({class_names[0]!r}) found, but a classifier needs at least two")
    seen: dict[str, str] = {}
    for name in class_names:
        folded = fold(name)
        if not folded:
            shown = f" ({name!a} has no visible character)" if name else ""
            raise UserError(f"{where}: a class name is empty{shown}; name every class")
        if not is_text(name):
            raise UserError(f"{where}: the class name {name!r} is not UTF-8; rename the class")
        appearance = folded.translate(_LOOK_ALIKES)
        if appearance in seen:
            raise same_class(where, seen[appearance], name)
        seen[appearance] = name
    return tuple(map(clean_class_name, class_names))


def same_class(where: object, one: str, other: str) -> UserError:
    """The error for two classes with the same name."""
    return UserError(
        f"{where}: the class names {one!r} and {other!r} are the same; rename one ({difference(one, other)})"
    )
