"""Classes that are grades of one disease: their order, read from their names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from biomedcoop.data.names import fold

_GRADE_WORD = re.compile(
    r"\b(grades?|graded|stages?|levels?|scores?|kl|kellgren lawrence|gleason|isup|mayo|(bi|pi|li|ti) ?rads|[gft])\b"
)
"""Words that make a number a grade; the letters are those of tumour grade (G2), fibrosis (F3) and tumour stage (T1)."""

_SEVERITY = (  # from the least to the most severe
    ("no", "non", "not", "none", "normal", "healthy", "absent", "negative", "without"),
    ("doubtful", "questionable", "trace"),
    ("minimal", "minimally", "verymild"),
    ("mild", "mildly", "slight", "low", "early", "well"),
    ("moderate", "moderately", "medium", "intermediate"),
    ("severe", "severely", "marked", "high", "advanced", "poorly"),
    ("verysevere", "proliferative", "pdr"),
)
_RANK = {word: rank for rank, words in enumerate(_SEVERITY) for word in words}
_LAST = len(_SEVERITY) - 1
_JOINED = (("very mild", "verymild"), ("very severe", "verysevere"), ("non proliferative", "nonproliferative"))
_NUMBER = re.compile(r"\d+(?:\.\d+)?[a-d+]?")
_ROMAN = re.compile(r"(ix|iv|v?i{0,3}|x)([a-d]?)")
_ROMAN_VALUES = {
    roman: value for value, roman in enumerate(["i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x"], 1)
}
_TOKEN = re.compile(rf"{_NUMBER.pattern}(?![a-z])|[^\W\d_]+")


def grade_order(class_names: Sequence[str]) -> tuple[int, ...] | None:
    """The labels of classes that are grades, from the lowest grade to the highest; None if the classes are no grades.

    At least three classes are grades if their names differ only in

    - a number after a word such as "grade", "stage" or "KL" ("KL 0", "stage IV"); one class may be "normal" in place of it,
    - the whole name, which is a number: all numbers from 0 or 1 without gaps,
    - or a word of severity ("no", "mild", "moderate", "severe", "proliferative"). The lowest and the highest class may have other
      words beside it: "healthy knee", "doubtful osteoarthritis", …

    Names that readers make of plain numbers ("class 0") are no grades, because nobody said so.

    Args:
        class_names: C names in label order.

    Example:
        >>> grade_order(["severe acne", "mild acne", "clear skin"])
        >>> grade_order(["severe acne", "mild acne", "normal skin"])
        (2, 1, 0)
        >>> grade_order(["grade 10", "grade 9", "grade 11"])
        (1, 0, 2)
    """
    tokens = [_tokens(name) for name in class_names]
    if len(tokens) < 3:
        return None
    return _by_number(tokens) or _by_severity(tokens)


def grade_notes(grades: Sequence[str]) -> Iterator[str]:
    """A sentence on the order in which classes were read as grades, if they were.

    Args:
        grades: class names from the lowest grade to the highest, or nothing.
    """
    if grades:
        yield (
            f"The classes are read as grades in this order: {' < '.join(grades)}. Quadratic weighted kappa counts an error by the "
            "square of its distance in grades: 100 is perfect agreement, 0 is chance."
        )


def _tokens(name: str) -> list[str]:
    text = fold(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))
    for words, joined in _JOINED:
        text = text.replace(words, joined)
    return _TOKEN.findall(text)


def _by_number(names: Sequence[Sequence[str]]) -> tuple[int, ...] | None:
    degrees: list[tuple[float, str]] = []
    beside = set()  # the words beside the numbers
    zeros = 0
    for tokens in names:
        places = [place for place, token in enumerate(tokens) if _NUMBER.fullmatch(token)]
        places = places or [place for place, token in enumerate(tokens) if _roman(token)]
        if len(places) == 1:
            degrees.append(_degree(tokens[places[0]]))
            beside.add(" ".join([*tokens[: places[0]], *tokens[places[0] + 1 :]]))
        elif not places and any(_RANK.get(token) == 0 for token in tokens):
            degrees.append((-1.0, ""))
            zeros += 1
        else:
            return None
    if len(beside) != 1 or len(set(degrees)) < len(degrees) or zeros > 1:
        return None
    (words,) = beside
    if words:
        return _sorted(degrees) if _GRADE_WORD.search(words) else None
    first = min(degrees)[0]
    without_gaps = sorted(degrees) == [(first + step, "") for step in range(len(degrees))]
    return _sorted(degrees) if not zeros and first in (0, 1) and without_gaps else None


def _by_severity(names: Sequence[Sequence[str]]) -> tuple[int, ...] | None:
    ranks = []
    beside = []  # the words beside those of severity, for ranks between the lowest and the highest
    for tokens in names:
        found = [token for token in tokens if token in _RANK]
        if len(found) != 1:
            return None
        ranks.append(_RANK[found[0]])
        if 0 < ranks[-1] < _LAST:
            beside.append([token for token in tokens if token != found[0] and not _NUMBER.fullmatch(token)])
    if len(set(ranks)) < len(ranks) or len(beside) < 2 or any(words != beside[0] for words in beside):
        return None
    return _sorted(ranks)


def _roman(token: str) -> bool:
    match = _ROMAN.fullmatch(token)
    return bool(match and match[1])


def _degree(token: str) -> tuple[float, str]:
    """The value of a number and the letter or sign behind it: "4a" is (4, "a"), "iv" is (4, "")."""
    if match := _ROMAN.fullmatch(token):
        return float(_ROMAN_VALUES[match[1]]), match[2]
    return float(token.rstrip("abcd+")), token.lstrip("0123456789.")


def _sorted(keys: Sequence[float] | Sequence[tuple[float, str]]) -> tuple[int, ...]:
    return tuple(sorted(range(len(keys)), key=keys.__getitem__))
