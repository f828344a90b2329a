"""Checks of sentences: repeats, near-repeats, length, names of other classes, unequal numbers. No tensors, no model.

Each sentence is checked against those before it, so the same rules serve a file and the answers of a language model as they
arrive (``generation/generate.py``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from biomedcoop.data.names import fold

FEWEST_WORDS, MOST_WORDS = 6, 30
OPENING_WORDS, OPENING_USES = 4, 2
OVERLAP = 0.5
"""Jaccard index of the content words from which two sentences of a class are near-repeats."""

FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        """a an the of in on at to with and or by from as is are be this that these those its it into than which no not without for
        within through over under between there where while very more most often may can seen shows show appears appear image
        picture""",
    )
)


@dataclass(frozen=True)
class Fault:
    """One fault of a sentence.

    Attributes:
        kind: "repeat" (equal to an earlier sentence), "shared" (equal to a sentence of another class), "near-repeat",
            "opening" (begins like two earlier sentences), "characters" (invisible ones), "length" or "other class" (names one).
        text: the fault in words that follow the sentence.
    """

    kind: str
    class_name: str
    sentence: str
    text: str

    @property
    def serious(self) -> bool:
        """Whether the fault makes training wrong, whatever the words mean."""
        return self.kind in ("repeat", "shared")


def words(text: str) -> list[str]:
    """Lower-case words; punctuation is dropped, ``_`` too."""
    return re.findall(r"[^\W_]+", text.casefold())


def same_words(text: str) -> str:
    """The words by which two sentences are equal, with a sign that belongs to a word ("HER2-", "-1")."""
    return " ".join(re.findall(r"(?:(?<!\w)[+-](?=\d))?[^\W_]+(?:[+-]+(?!\w))?", fold(text)))


class Collection:
    """Sentences of the classes of one task, each checked against those that were added before it.

    Args:
        class_names: C names. No sentence may name another class than its own; of nested names ("tumor" in "benign tumor") the
            longest counts.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.sentences: dict[str, list[str]] = {name: [] for name in class_names}
        self._content: dict[str, list[set[str]]] = {name: [] for name in class_names}
        self._openings: dict[str, Counter[str]] = {name: Counter() for name in class_names}
        self._owner: dict[str, str] = {}
        self._called: dict[str, list[str]] = {}  # "her2+" and "her2-" are one text: it names neither for the other
        for name in class_names:
            self._called.setdefault(" ".join(words(name)), []).append(name)
        longest_first = sorted(filter(None, self._called), key=len, reverse=True)
        self._names = re.compile(rf"\b({'|'.join(map(re.escape, longest_first)) or '(?!)'})(?:s|es)?\b")

    def faults(self, class_name: str, sentence: str) -> list[Fault]:
        """Faults of a further sentence of a class; the sentence is not added."""
        said = words(sentence)

        def fault(kind: str, text: str) -> Fault:
            return Fault(kind, class_name, sentence, text)

        faults = self.repeats(class_name, sentence)
        if not faults:
            content = set(said) - FUNCTION_WORDS
            for other, before in zip(self._content[class_name], self.sentences[class_name], strict=True):
                if len(content & other) >= OVERLAP * len(content | other):
                    faults.append(fault("near-repeat", f"says nearly what '{before}' says"))
                    break
            if self._openings[class_name][opening(said)] >= OPENING_USES:
                faults.append(fault("opening", f"is one more that begins with '{opening(said)}'"))
        if not " ".join(sentence.split()).isprintable():
            faults.append(fault("characters", "holds control characters, which are invisible"))
        count = len(sentence.split())
        if not FEWEST_WORDS <= count <= MOST_WORDS:
            faults.append(
                fault("length", f"has {count} words; {FEWEST_WORDS} to {MOST_WORDS} say enough and are not cut")
            )
        called = [self._called[match] for match in self._names.findall(" ".join(said))]
        if named := [names[0] for names in called if class_name not in names]:
            faults.append(fault("other class", f"names the class '{named[0]}'"))
        return faults

    def repeats(self, class_name: str, sentence: str) -> list[Fault]:
        """The fault of a sentence whose words are those of an earlier sentence, of this or another class."""
        owner = self._owner.get(same_words(sentence))
        if owner is None:
            return []
        if owner == class_name:
            return [Fault("repeat", class_name, sentence, "is there twice")]
        return [Fault("shared", class_name, sentence, f"is also a sentence of '{owner}'")]

    def add(self, class_name: str, sentence: str) -> None:
        """Add a sentence, with or without faults."""
        said = words(sentence)
        self.sentences[class_name].append(sentence)
        self._content[class_name].append(set(said) - FUNCTION_WORDS)
        self._openings[class_name][opening(said)] += 1
        self._owner.setdefault(same_words(sentence), class_name)


def opening(said: Sequence[str]) -> str:
    """The first words of a sentence; many sentences with equal ones come from one pattern."""
    return " ".join(said[:OPENING_WORDS])


def check_sentences(
    by_class: Mapping[str, Sequence[str]], class_names: Sequence[str] = (), *, serious_only: bool = False
) -> list[Fault]:
    """Faults of all sentences of a task, class by class, in order.

    Args:
        by_class: name of each class and its sentences.
        class_names: further classes of the task, which have no sentences but must not be named either.
        serious_only: report repeats alone, which is fast.
    """
    collection = Collection(list(dict.fromkeys((*by_class, *class_names))))
    judge = collection.repeats if serious_only else collection.faults
    faults = []
    for name, sentences in by_class.items():
        for sentence in sentences:
            faults += judge(name, sentence)
            collection.add(name, sentence)
    return faults


def uneven(by_class: Mapping[str, Sequence[str]]) -> str | None:
    """A note on classes that have different numbers of sentences; None if all have as many."""
    fewest = min(by_class, key=lambda name: len(by_class[name]), default=None)
    if fewest is None or len({len(sentences) for sentences in by_class.values()}) == 1:
        return None
    return (
        f"classes have different numbers of sentences; only the first {len(by_class[fewest])} of each are used, as many as "
        f"'{fewest}' has"
    )


def too_long(
    by_class: Mapping[str, Sequence[str]], counts: Mapping[str, Sequence[int]], most: int
) -> list[tuple[str, str, int]]:
    """Sentences that have more than ``most`` tokens.

    Args:
        counts: number of tokens of each sentence, by class.

    Returns:
        (class, sentence, tokens) of each of them.
    """
    return [
        (name, sentence, tokens)
        for name, sentences in by_class.items()
        for sentence, tokens in zip(sentences, counts[name], strict=True)
        if tokens > most
    ]
