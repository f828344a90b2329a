"""Images to features without the store: any number of them, in order, with bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing

import numpy as np

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.images.crop_reader import Crop, CropReader
from biomedcoop.data.images.facts import ImageFacts, Tally
from biomedcoop.data.images.sources import ImageSource, named_file
from biomedcoop.errors import ImageError
from biomedcoop.features.parallel import run_ahead
from biomedcoop.features.passes import Floats, image_passes


def stream_features(
    backbone: Backbone,
    sources: Iterable[ImageSource],
    max_ahead: int = 16,
    tally: Tally | None = None,
    size: int | None = None,
) -> Iterator[tuple[ImageSource, Floats | ImageError]]:
    """Features of images as they come.

    Args:
        max_ahead: number of images that are read in advance.
        tally: counts the facts of each image when its feature is given.
        size: images of a full pass; see :func:`biomedcoop.features.passes.image_passes`.

    Yields:
        The source and its raw feature [E], or the error that says why it has none.
    """
    blank = np.zeros((backbone.image_size, backbone.image_size, 3), dtype=np.uint8)

    def crop_or_error(
        named: tuple[ImageSource, str],
    ) -> tuple[Crop, tuple[ImageSource, str, bytes, ImageFacts | ImageError]]:
        source, name = named
        try:
            (crop,), content, facts = read(source, name)
            return crop, (source, name, content, facts)
        except ImageError as error:
            return blank, (source, name, b"", error)  # encoded with the others, which keeps the order

    named = ((source, _name(source, number)) for number, source in enumerate(sources))
    with (
        CropReader(backbone.image_size, resize=backbone.resize) as read,
        closing(run_ahead(crop_or_error, named, max_ahead, read.threads)) as ahead,
        closing(image_passes(backbone, ahead, size)) as passes,
    ):
        for tags, rows in passes:
            for (source, name, content, facts), feature in zip(tags, rows.cpu().numpy(), strict=True):
                if isinstance(facts, ImageError):
                    yield source, facts
                    continue
                if tally is not None:
                    tally.add(name, facts, content)
                yield source, feature


def _name(source: ImageSource, number: int) -> str:
    """An image's name in messages: its path, or its place among the images given."""
    return named_file(source) or f"images[{number}]"
