"""The tables of :class:`biomedcoop.explain.words.Words`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from biomedcoop.explain.tables import Table

if TYPE_CHECKING:
    from biomedcoop.explain.words import Words

MOST_USES = 10
"""Number of sentence indices in the table of the selection; all stand in the JSON form."""


def tables_of(words: Words) -> list[Table]:
    """The tables that apply, in reading order."""
    applies = {_vectors: words.vectors, _shifts: words.shifts, _sentences: words.near_sentences}
    applies[_selection] = words.selection
    return [make(words) for make, content in applies.items() if content]


def _vectors(words: Words) -> Table:
    specific = words.vectors[0].class_name is not None
    rows = []
    for vector in words.vectors:
        near = ", ".join(f"{word.text}{'' if word.whole else '*'} {word.distance:.2f}" for word in vector.nearest)
        owner = (str(vector.class_name),) * specific
        rows.append((*owner, str(vector.number), vector.start or "random", near, f"{vector.moved:.2f}"))
    columns = (*("class",) * specific, "vector", "started as", "nearest words and their distances", "moved by")
    closer = sum(vector.nearest[0].distance < (words.spacing or 0) for vector in words.vectors)
    notes = [
        f"Half of the words of the vocabulary have another word within {words.spacing:.2f}. Only a learned vector much nearer to a "
        f"word than that can be read as this word: here {closer} of {len(words.vectors)} are nearer.",
        "The authors of CoOp found nearest words hard to interpret; take them as a hint, not as what the classifier looks at.",
    ]
    if any(not word.whole for vector in words.vectors for word in vector.nearest):
        notes.append("* a piece of longer words")
    return Table(
        "Learned context vectors and their nearest words (Euclidean distance)", columns, tuple(rows), 1, tuple(notes)
    )


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


def _sentences(words: Words) -> Table:
    rows, strange = [], 0
    for name, near in zip(words.class_names, words.near_sentences, strict=True):
        strange += near[0].class_name != name
        rows += [(name, one.text, one.class_name, f"{one.cosine:.3f}") for one in near]
    count = len(words.class_names)
    note = (
        f"The nearest sentence is one of the class itself for {count - strange} of {count} classes."
        if strange
        else "The nearest sentence of every class is one of its own."
    )
    columns = ("class", "nearest sentences", "sentence is about", "cosine")
    return Table(f"Sentences nearest to each learned class ({words.sentences})", columns, tuple(rows), 1, (note,))


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
