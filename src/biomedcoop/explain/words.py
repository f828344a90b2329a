"""What the learned text of a classifier says: near words, near sentences, shifts of the classes, and the sentence selection."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.classifier.domain import unit
from biomedcoop.errors import whole_number
from biomedcoop.evaluation.metrics import plain
from biomedcoop.explain.neighbours import Listed, near_sentences
from biomedcoop.explain.selection import SentenceUse, sentence_selection
from biomedcoop.explain.sentences import Floats, sentences_of, unit_features
from biomedcoop.explain.shift import ClassShift, class_shifts, similarities, still
from biomedcoop.explain.tables import Table, html_of
from biomedcoop.explain.vocabulary import ContextVector, Vocabulary, context_vectors
from biomedcoop.threads import torch_threads

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from biomedcoop.methods import Method


@dataclass(frozen=True, eq=False, repr=False)
class Words:
    """What the learned text of a classifier says.

    Attributes:
        title: name of the method in its paper.
        class_names: C names.
        vectors: learned vectors of the context; empty for a method without one.
        spacing: median distance between a word of the vocabulary and the nearest other word; None without learned vectors.
        template: text that the class embeddings are compared with, with {} for the class name.
        near_sentences: for each class the nearest sentences, of any class; empty for a method without class embeddings.
        telling_sentences: for each class the sentences with the largest ``difference``, which set it apart from the other classes.
        shifts: how far each class moved from its template; empty as above.
        common_shift: share of the squared shifts that is the same for all classes, 0 to 1.
        before, after: cosines [C, C] of the class embeddings of the template and of the classifier; None as above.
        selection: what the sentence selection did, by index; empty for a method without one.
        threshold: τ of the selection; None without one.
        sentences: where the sentences come from.
        notes: what a reader must know, and what does not apply to this method.
    """

    title: str
    class_names: tuple[str, ...]
    vectors: tuple[ContextVector, ...]
    spacing: float | None
    template: str
    near_sentences: Listed
    telling_sentences: Listed
    shifts: tuple[ClassShift, ...]
    common_shift: float
    before: Floats | None
    after: Floats | None
    selection: tuple[SentenceUse, ...]
    threshold: float | None
    sentences: str
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return (
            f"Words({self.title}, {len(self.vectors)} learned vectors, {len(self.shifts)} class embeddings, "
            f"{len(self.selection)} sentence indices in the selection)"
        )

    def tables(self) -> list[Table]:
        """The tables that apply to the method."""
        from biomedcoop.explain.words_tables import tables_of

        return tables_of(self)

    def figure(self) -> Figure:
        """Heat maps of the class similarities before and after the training.

        Raises:
            UserError: the method has no class embeddings.
        """
        from biomedcoop.explain.figures import similarity_figure

        return similarity_figure(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, floats rounded to 6 digits."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["vectors"] = [
            {**asdict(one), "nearest": [near._asdict() for near in one.nearest]} for one in self.vectors
        ]
        for key in ("near_sentences", "telling_sentences"):
            listed = zip(self.class_names, values[key], strict=False)  # of a method without class embeddings, none
            values[key] = {name: [near._asdict() for near in of_class] for name, of_class in listed}
        values["shifts"] = [asdict(shift) for shift in self.shifts]
        values["selection"] = [use._asdict() for use in self.selection]
        for name in ("before", "after"):
            values[name] = None if values[name] is None else values[name].tolist()
        plain_values: dict[str, Any] = plain(values)
        return plain_values

    def _repr_html_(self) -> str:
        return html_of(f"Words of {self.title}", self.tables(), self.notes)


def words(classifier: Classifier, top: int = 5, prompts: str | os.PathLike[str] | None = None) -> Words:
    """Explain the learned text of a classifier.

    Args:
        top: number of near words and near sentences to list.
        prompts: sentences to compare with, see :func:`biomedcoop.prompts.sentences_for`; by default those that the classifier
            was trained with, else those that training would choose for its classes.

    Raises:
        UserError: ``top`` is below 1, or the sentences cannot be used.

    Example:
        >>> import biomedcoop as bc
        >>> data = bc.load_dataset("simulated:breast-ultrasound?train=2&val=0&test=1")
        >>> classifier = bc.fit(data, method="coop", shots=2, settings={"epochs": 1})
        >>> found = bc.words(classifier)
        >>> [vector.nearest[0].text for vector in found.vectors]
        ['a', 'photo', 'of', 'a']
        >>> found.after.shape
        (3, 3)
    """
    from biomedcoop.methods import get_method
    from biomedcoop.methods.biomedcoop import BiomedCoOpSettings

    top = whole_number("top", top, 5, 1)
    method, state, names = get_method(classifier.method), classifier.state, classifier.class_names
    settings = method.settings(classifier.settings)
    chosen = sentences_of(classifier, prompts)
    with torch_threads(1):
        vectors, spacing = _vectors(classifier, settings, top)
    found: dict[str, Any] = dict.fromkeys(("near_sentences", "telling_sentences", "shifts"), ())
    found |= {"common_shift": 0.0, "before": None, "after": None}
    template = _template(settings)
    notes = []
    embeddings = state.get("class_embeddings")
    if embeddings is None or embeddings.shape != (len(names), classifier.backbone.original.embed_dim):
        notes.append(_no_embeddings(method))
    else:
        found |= _classes(classifier, template, chosen.by_class, top)
        if still(found["shifts"]):
            why = "The training did not move the classes" if vectors else f"{method.title} learns no text"
            notes.append(f"{why}: the class embeddings are those of the template '{template}'.")
        if chosen.note:
            notes.append(chosen.note)
    own = chosen if prompts is None else sentences_of(classifier)
    selection = sentence_selection(classifier, own.by_class) if own.own else ()
    if not selection and isinstance(settings, BiomedCoOpSettings):
        notes.append(
            "This classifier does not hold what the sentence selection kept (other classes, kdsp_weight=0, or an "
            "earlier version); train again to see it."
        )
    threshold = settings.threshold if selection else None
    return Words(
        method.title,
        names,
        vectors,
        spacing,
        template,
        **found,
        selection=selection,
        threshold=threshold,
        sentences=chosen.origin,
        notes=tuple(notes),
    )


def _vectors(classifier: Classifier, settings: Any, top: int) -> tuple[tuple[ContextVector, ...], float | None]:
    from biomedcoop.methods.context import ClassPrompts, ContextSettings, word_ids

    context = classifier.state.get("context")
    if context is None or not isinstance(settings, ContextSettings):
        return (), None
    backbone, names = classifier.backbone.original, classifier.class_names
    initial = ClassPrompts(backbone, names, settings).initial_context([classifier.facts.get("seed", 1)])[0].cpu()
    vocabulary = Vocabulary(backbone)
    texts = {token.id: token.text for token in vocabulary.tokens}
    started = word_ids(backbone, settings.context_words) if settings.context_init == "words" else []
    starts = [texts.get(number, "") for number in started]
    return context_vectors(vocabulary, context, initial, starts, names, top), vocabulary.spacing()


def _template(settings: Any) -> str:
    """The text that a class embedding is compared with: the method's template, the start of its context, or zero-shot's."""
    from biomedcoop.methods import get_method
    from biomedcoop.methods.context import endings

    if hasattr(settings, "template"):
        return str(settings.template)
    if getattr(settings, "context_init", None) == "words":
        return endings([f"{settings.context_words} {{}}"], settings)[0]
    return str(get_method("zero-shot").settings({}).template)


def _no_embeddings(method: Method) -> str:
    if method.abilities.prompts_per_image:
        return f"{method.title} makes class embeddings for each image, so it has none to compare with sentences."
    if not method.abilities.needs_text_tower and not method.abilities.uses_sentences:
        return f"{method.title} uses no text: it classifies by what it learned from images ({method.parameters})."
    return (
        f"{method.title} has no class embeddings that could be compared with sentences; 'biomedcoop methods show {method.name}' "
        "says how it answers."
    )


def _classes(classifier: Classifier, template: str, by_class: tuple[tuple[str, ...], ...], top: int) -> dict[str, Any]:
    """The attributes of :class:`Words` that follow from the class embeddings."""
    from biomedcoop.methods.class_embeddings import template_embeddings

    names, backbone = classifier.class_names, classifier.backbone.original
    with torch_threads(1):
        before = unit(template_embeddings(backbone, names, template).cpu().numpy())
    after = unit(classifier.state["class_embeddings"].numpy())
    features = unit_features(backbone, by_class)
    means = unit(np.stack([rows.mean(0) for rows in features]))
    nearest, telling = near_sentences(after, features, names, by_class, top)
    shifts, common = class_shifts(names, before, after, means)
    return {
        "near_sentences": nearest,
        "telling_sentences": telling,
        "shifts": shifts,
        "common_shift": common,
        "before": similarities(before),
        "after": similarities(after),
    }
