"""Maps of the same images by several methods, side by side, as in Figure 3 of the paper."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.classifier.fit import fit_plan
from biomedcoop.data.images.sources import ImageSource
from biomedcoop.data.readers.load import read_dataset
from biomedcoop.errors import ImageError, UserError, notify
from biomedcoop.explain.kinds import DEFAULT_MAP
from biomedcoop.explain.saliency import SaliencyMap, look, saliency_stream
from biomedcoop.progress import Progress
from biomedcoop.tasks.plan import plan_fit
from biomedcoop.tasks.request import REQUEST, TrainRequest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_IMAGES = 24
"""Images of one sheet; more could not be told apart."""


@dataclass(frozen=True, eq=False, repr=False)
class ContactSheet:
    """Maps of images by several methods.

    Attributes:
        rows: for each image the map of every method, all for the same class.
    """

    rows: tuple[tuple[SaliencyMap, ...], ...]

    def __repr__(self) -> str:
        return f"ContactSheet({len(self.rows)} images × {', '.join(found.method for found in self.rows[0])})"

    def figure(self) -> Figure:
        """Rows of images, columns of methods, as a matplotlib figure."""
        from biomedcoop.explain.pictures import sheet_figure

        return sheet_figure(self.rows)

    def to_dict(self) -> list[dict[str, Any]]:
        """A JSON value for each map, image by image."""
        return [found.to_dict() for row in self.rows for found in row]

    def _repr_html_(self) -> str:
        return "<br>".join("".join(found.html() for found in row) for row in self.rows)


def contact_sheet(
    classifiers: Mapping[str, Classifier],
    sources: Sequence[ImageSource],
    class_name: str | None = None,
    map: str = DEFAULT_MAP,
    layer: str | None = None,
    *,
    chooser: Classifier | None = None,
    names: Sequence[str] = (),
    progress: Progress | None = None,
) -> ContactSheet:
    """Maps of images by several classifiers of the same classes.

    Args:
        classifiers: by method, in the order of the columns.
        sources: at most :data:`MOST_IMAGES` images.
        class_name, map, layer: see :func:`biomedcoop.saliency`; every column of a row explains the same class.
        chooser: the classifier whose predicted class is explained if ``class_name`` is None; by default that of the first column.
        names: names of the images in the figure.
        progress: called with the number of maps done.

    Raises:
        ImageError: an image cannot be read.
        UserError: there are too many images; or see :func:`biomedcoop.saliency`.
    """
    if len(sources) > MOST_IMAGES:
        raise UserError(f"a contact sheet holds at most {MOST_IMAGES} images, not {len(sources)}; name fewer images")
    chooser = chooser or next(iter(classifiers.values()))
    rows: list[tuple[SaliencyMap, ...]] = []
    for number, source in enumerate(sources):
        row: list[SaliencyMap] = []
        wanted = class_name or chooser.class_names[look(chooser, source).predicted]
        for classifier in classifiers.values():
            ((_, found),) = saliency_stream(classifier, [source], wanted, map, layer)
            if isinstance(found, ImageError):
                raise found
            row.append(dataclasses.replace(found, name=names[number] if names else found.name))
            if progress is not None:
                progress("explaining", number * len(classifiers) + len(row), len(sources) * len(classifiers))
        rows.append(tuple(row))
    return ContactSheet(tuple(rows))


def retrained(
    run: str | os.PathLike[str],
    classifier: Classifier,
    methods: Sequence[str],
    progress: Progress | None = None,
) -> dict[str, Classifier]:
    """Classifiers of several methods from the request of a training run; the run's own method is not trained again.

    Args:
        run: run folder of ``biomedcoop train``, with ``run.json``.
        classifier: the classifier of the run.
        methods: names of methods, in the order of the result.
        progress: see :func:`biomedcoop.classifier.fit.fit_plan`.

    Raises:
        UserError: the run has no request, its data cannot be found or have other classes, or a method is unknown.
    """
    if not methods:
        raise UserError("no method is named; name some, for instance zero-shot,coop,biomedcoop")
    file = Path(run) / REQUEST
    if not file.is_file():
        raise UserError(
            f"{run} has no {REQUEST}, from which other methods could be trained; give the run folder of 'biomedcoop train'"
        )
    request = TrainRequest.read(file)
    try:
        data = read_dataset(str(request.data), split_file=request.split_file, reading=request.reading)
    except UserError as error:
        raise UserError(f"the data of {run} cannot be read, so no other method can be trained: {error}") from error
    if data.class_names != classifier.class_names:
        raise UserError(
            f"the data of {run} now have the classes {', '.join(data.class_names)}, but its model has "
            f"{', '.join(classifier.class_names)}; restore the data or train again"
        )
    plans = {}
    for name in dict.fromkeys(methods):
        one = dataclasses.replace(request.for_method(name), seeds=request.seeds[:1])
        if name != classifier.method:
            plans[name] = plan_fit(one, data)
    notify(dict.fromkeys(note for plan in plans.values() for note in plan.all_notes(classifier.backbone.original)))
    trained = {name: fit_plan(plan, classifier.backbone.original, progress)[0] for name, plan in plans.items()}
    return {name: trained.get(name, classifier) for name in dict.fromkeys(methods)}
