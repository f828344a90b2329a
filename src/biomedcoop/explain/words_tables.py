"""The tables of :class:`biomedcoop.explain.words.Words`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from biomedcoop.explain.shift import still
from biomedcoop.explain.tables import Table

if TYPE_CHECKING:
    from biomedcoop.explain.neighbours import Listed
    from biomedcoop.explain.vocabulary import NearWord
    from biomedcoop.explain.words import Words

MOST_USES = 10
"""Number of sentence indices in the table of the selection; all stand in the JSON form."""


def tables_of(words: Words) -> list[Table]:
    """The tables that apply, in reading order."""
    made: list[tuple[Callable[[Words], Table], object]] = [
        (_vectors, words.vectors),
        (_shifts, not still(words.shifts)),
        (_near, words.near_sentences),
        (_telling, words.telling_sentences),
        (_selection, words.selection),
    ]
    return [make(words) for make, content in made if content]


def _vectors(words: Words) -> Table:
    specific = words.vectors[0].class_name is not None
    rows = []
    for vector in words.vectors:
        nearest = " · ".join(f"{_shown(word)} {word.distance:.2f}" for word in vector.nearest)
        owner = (str(vector.class_name),) * specific
        rows.append((*owner, str(vector.number), vector.start or "random", nearest, f"{vector.moved:.2f}"))
    columns = (*("class",) * specific, "vector", "started as", "nearest words and their distances", "moved by")
    count, spacing = len(words.vectors), words.spacing or 0.0
    near = sum(vector.nearest[0].distance < spacing for vector in words.vectors)
    same = sum(vector.nearest[0].text == vector.start for vector in words.vectors)
    notes = [
        f"For scale: half of the words of the vocabulary have another word within {spacing:.2f}.",
        f"{near} of {count} vectors lie within that distance of a word; a vector farther away stands for no word.",
    ]
    if same:
        start = f"The nearest word is still the one of the start for {same} of {count} vectors"
        notes.append(f"{start}; it does not tell what they learned.")
    notes.append(
        "CoOp's authors found such words hard to interpret; take them as a hint, not as what the classifier looks at."
    )
    if any(not word.whole for vector in words.vectors for word in vector.nearest):
        notes.append("* a piece of longer words")
    return Table(
        "Learned context vectors and their nearest words (Euclidean distance)", columns, tuple(rows), 1, tuple(notes)
    )


def _shown(word: NearWord) -> str:
    """The word; a piece of longer words with one mark, whatever the tokenizer's own is."""
    return word.text if word.whole else f"{word.text.removeprefix('##')}*"


def _shifts(words: Words) -> Table:
    rows = tuple(
        (
            shift.class_name,
            "away from all" if shift.towards is None else shift.towards,
            f"{shift.gain:+.3f}",
            f"{shift.mean_before:.3f}",
            f"{shift.mean_after:.3f}",
            f"{shift.angle:.1f}°",
        )
        for shift in words.shifts
    )
    columns = (
        "class",
        "moved towards",
        "change of cosine",
        "sentence mean before",
        "sentence mean after",
        "angle to template",
    )
    notes = (
        "Sentence mean: cosine with the mean of the class's sentences.",
        f"{100 * words.common_shift:.0f} % of the (squared) shift is the same for all classes and hardly changes a decision.",
    )
    return Table(f"Shift of each class from its template '{words.template}'", columns, rows, 5, notes)


def _near(words: Words) -> Table:
    own = _of_own_class(words, words.near_sentences)
    note = f"The nearest sentence is one of the class itself for {own} of {len(words.class_names)} classes."
    return _sentences(words, f"Sentences nearest to each class ({words.sentences})", words.near_sentences, (note,))


def _telling(words: Words) -> Table:
    own = _of_own_class(words, words.telling_sentences)
    notes = (
        "Difference: the cosine less the sentence's mean cosine with the other classes. What all classes share cancels out.",
        f"The sentence that sets a class apart most is one of the class itself for {own} of {len(words.class_names)} classes.",
    )
    return _sentences(words, "Sentences that set each class apart from the others", words.telling_sentences, notes)


def _sentences(words: Words, title: str, listed: Listed, notes: tuple[str, ...]) -> Table:
    rows = tuple(
        (name, one.text, one.class_name, f"{one.cosine:.3f}", f"{one.difference:+.3f}")
        for name, near in zip(words.class_names, listed, strict=True)
        for one in near
    )
    return Table(title, ("class", "sentence", "sentence is about", "cosine", "difference"), rows, 2, notes)


def _of_own_class(words: Words, listed: Listed) -> int:
    return sum(near[0].class_name == name for name, near in zip(words.class_names, listed, strict=True))


def _selection(words: Words) -> Table:
    uses = sorted(words.selection, key=lambda use: (use.kept, -abs(use.z), use.number))
    rows = tuple(
        (
            str(use.number),
            f"{words.class_names[0]}: {use.texts[0]}",
            f"{use.score:.2f}",
            f"{use.z:+.2f}",
            f"{100 * use.kept:.0f} %",
        )
        for use in uses[:MOST_USES]
    )
    always = sum(use.kept == 1 for use in uses)
    never = sum(use.kept == 0 for use in uses)
    notes = (
        f"Of {len(uses)} sentence indices, {always} were kept in every training step and {never} in none.",
        "An index holds one sentence of every class; the first class's is shown. Score: mean logit of the best class.",
        f"A step drops an index whose score deviates by more than {words.threshold:g} standard deviations.",
    )
    columns = ("index", "sentence", "score", "deviation", "kept")
    return Table("Sentence selection: the indices kept least", columns, rows, 3, notes)
