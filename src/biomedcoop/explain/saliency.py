"""Saliency maps of images at their own resolution, with the class, its probability and reasons for doubt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.data.images.crops import Resize, centre_box, resize_and_crop
from biomedcoop.data.images.reading import read_image
from biomedcoop.data.images.sources import ImageSource, named_file
from biomedcoop.display import shown
from biomedcoop.errors import ImageError, UserError, nearest
from biomedcoop.evaluation.evaluate import check_classifier
from biomedcoop.explain.doubts import doubts
from biomedcoop.explain.kinds import DEFAULT_MAP, MAPS
from biomedcoop.explain.maps import crop_maps, layer_for
from biomedcoop.explain.pictures import html_of, in_range, map_figure, overlay
from biomedcoop.explain.placement import onto_image
from biomedcoop.progress import ProgressOption

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    from biomedcoop.explain.case import Case

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False, repr=False)
class SaliencyMap:
    """Where in one image the score of one class comes from.

    Attributes:
        values: float32 [H, W] at the image's own pixels, 0 to 1; nan where the model does not see the image.
        image: uint8 [H, W, 3], upright, as the reader decodes it.
        class_name: class that the map explains.
        probability: probability of this class.
        map: name of the map, see :data:`biomedcoop.explain.kinds.MAPS`.
        layer: layer of the image tower that the map is made from; None for a map of all blocks.
        method: adaptation method of the classifier.
        crop_size: side S of the square that the image tower sees, px.
        resize: how the image becomes that square.
        name: name of the image for pictures and messages: its file name, or its place among the images given.
        warnings: reasons not to trust the map, a sentence each.
    """

    values: Floats
    image: npt.NDArray[np.uint8]
    class_name: str
    probability: float
    map: str
    layer: str | None
    method: str
    crop_size: int
    resize: Resize = "shortest"
    name: str = ""
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        height, width = self.values.shape
        facts = [f"{self.class_name!r}", f"probability={self.probability:.3f}", f"map={self.map!r}"]
        facts += [f"layer={self.layer!r}"] if self.layer else []
        return f"SaliencyMap({', '.join(facts)}, {width} × {height} px)"

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, upper, right and lower edge of the part of the image that the model sees, px."""
        height, width = self.values.shape
        return centre_box(width, height, self.crop_size, self.resize)

    def overlay(self) -> npt.NDArray[np.uint8]:
        """The image with the map over it, uint8 [H, W, 3]; what the model does not see is grey."""
        return overlay(self.image, self.values)

    def figure(self, case: Case | None = None) -> Figure:
        """The image beside its overlay, with colour bar, probability and reasons for doubt, as a matplotlib figure.

        Args:
            case: the image's :func:`biomedcoop.case`, to show below: two sentences of each class, and the similar training images.
        """
        return map_figure(self, case)

    def to_dict(self) -> dict[str, Any]:
        """Facts about the map as JSON values: what it explains, and where it is large.

        ``peak`` and ``centre`` (of mass) are x and y in px of the image, None for an empty map; ``box`` is the part that the model
        sees; ``area_above_half`` is the share of that part where the map is above the middle of its range.
        """
        height, width = self.values.shape
        seen = np.nan_to_num(self.values)
        total = float(seen.sum())
        peak = centre = None
        if total > 0:
            peak = [int(place) for place in np.unravel_index(int(seen.argmax()), seen.shape)[::-1]]
            centre = [
                round(float(seen.sum(axis) @ np.arange(length)) / total, 1)
                for axis, length in ((0, width), (1, height))
            ]
        return {
            "class": self.class_name,
            "probability": round(self.probability, 6),
            "method": self.method,
            "map": self.map,
            "layer": self.layer,
            "width": width,
            "height": height,
            "box": [round(edge, 1) for edge in self.box],
            "peak": peak,
            "centre": centre,
            "area_above_half": round(float((in_range(self.values) > 0.5).sum() / np.isfinite(self.values).sum()), 4),
            "warnings": list(self.warnings),
        }

    def html(self) -> str:
        """The overlay as an HTML element that needs no file."""
        return html_of(
            self.overlay(), f"{MAPS[self.map].title} of {self.class_name}, probability {self.probability:.2f}"
        )

    def _repr_html_(self) -> str:
        words = "".join(f"<br>{escape(text)}" for text in self.warnings)
        return f"<figure>{self.html()}<figcaption>{escape(repr(self))}{words}</figcaption></figure>"


def saliency(
    classifier: Classifier,
    images: Any,
    class_name: str | None = None,
    map: str = DEFAULT_MAP,
    layer: str | None = None,
    *,
    progress: ProgressOption = None,
) -> list[SaliencyMap]:
    """Show where in images the score of a class comes from.

    A map explains the classifier's logit of the class less the mean of all logits, so learned text, adapters and linear heads all
    count. It does not say that the answer is right, nor that a bright place is a lesion.

    Args:
        images: one image or several, in any form that :meth:`Classifier.predict_proba` accepts.
        class_name: class to explain, without regard to case; by default the predicted class of each image.
        map: a name in :data:`biomedcoop.explain.kinds.MAPS`.
        layer: layer of the image tower; by default the backbone's ``map_layer``.
        progress: see :func:`biomedcoop.fit`.

    Raises:
        ImageError: an image cannot be read.
        UserError: there is no such class, map or layer, or the backbone cannot give the map.

    Example:
        >>> import biomedcoop as bc
        >>> data = bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=1")
        >>> classifier = bc.fit(data, method="zero-shot")
        >>> (found,) = bc.saliency(classifier, data.images[0], "malignant tumor", map="grad-cam")
        >>> found.class_name, found.values.shape == found.image.shape[:2]
        ('malignant tumor', True)
    """
    check_classifier(classifier)
    sources = list(classifier.reading.sources(images))
    found: list[SaliencyMap] = []
    with shown(progress) as tell:
        tell("explaining", 0, len(sources))
        for _, one in saliency_stream(classifier, sources, class_name, map, layer):
            if isinstance(one, ImageError):
                raise one
            found.append(one)
            tell("explaining", len(found), len(sources))
    return found


def saliency_stream(
    classifier: Classifier,
    sources: Iterable[ImageSource],
    class_name: str | None = None,
    map: str = DEFAULT_MAP,
    layer: str | None = None,
) -> Iterator[tuple[ImageSource, SaliencyMap | ImageError]]:
    """Maps of images one by one, in order; memory does not grow with the number of images. Arguments as for :func:`saliency`.

    Yields:
        The image, and its map or the error that says why it cannot be read.
    """
    chosen, number = layer_for(classifier, map, layer), class_number(classifier, class_name)
    for position, source in enumerate(sources):
        try:
            seen = look(classifier, source, named_file(source) or f"images[{position}]")
        except ImageError as error:
            yield source, error
            continue
        of_class = seen.predicted if number is None else number
        (values,) = crop_maps(classifier, seen.crop[None], np.array([of_class]), map, layer)
        doubtful = doubts(map, classifier.backbone.tower_kind, values, unlike=seen.unlike_training)
        yield (
            source,
            SaliencyMap(
                values=onto_image(values, *seen.image.size, classifier.backbone.resize),
                image=np.asarray(seen.image),
                class_name=classifier.class_names[of_class],
                probability=float(seen.probabilities[of_class]),
                map=map,
                layer=chosen,
                method=classifier.method,
                crop_size=len(seen.crop),
                resize=classifier.backbone.resize,
                name=Path(named_file(source) or f"images[{position}]").name,
                warnings=tuple(doubtful),
            ),
        )


class Seen(NamedTuple):
    """An image as a classifier sees it: mode RGB, the crop uint8 [S, S, 3], the probabilities float32 [C], and whether it is
    unlike the training images."""

    image: Image.Image
    crop: npt.NDArray[np.uint8]
    probabilities: Floats
    unlike_training: bool

    @property
    def predicted(self) -> int:
        """Number of the predicted class."""
        return int(self.probabilities.argmax())


def look(classifier: Classifier, source: ImageSource, where: str | None = None) -> Seen:
    """Read an image and predict it.

    Args:
        where: name of the image in messages; by default its path.

    Raises:
        ImageError: the image cannot be read.
    """
    from biomedcoop.features.passes import encode_crops

    image = read_image(source, where)
    crop = resize_and_crop(image, classifier.backbone.image_size, classifier.backbone.resize)
    features = encode_crops(classifier.backbone, [crop])
    unlike = classifier.domain is not None and bool(classifier.domain.unlike(features)[0])
    return Seen(image, crop, classifier.probabilities(features)[0], unlike)


def class_number(classifier: Classifier, class_name: str | None) -> int | None:
    """The number of a class by its name, without regard to case; None for no name.

    Raises:
        UserError: the classifier has no such class; the message names the nearest.
    """
    if class_name is None:
        return None
    if not isinstance(class_name, str):
        raise UserError(f"class_name={class_name!r} must be the name of a class, e.g. '{classifier.class_names[0]}'")
    names = {name.casefold(): number for number, name in enumerate(classifier.class_names)}
    if class_name.casefold() not in names:
        raise UserError(f"the classifier has no class '{class_name}'; {nearest(class_name, classifier.class_names)}")
    return names[class_name.casefold()]
