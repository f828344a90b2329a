"""Images as an estimator of scikit-learn gets them, the backbone of its parameters, and features by way of the store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.registry import find_backbone, load_backbone
from biomedcoop.data.images.facts import Tally
from biomedcoop.data.images.sources import CHANNELS, ImageSource, as_sources, named_file
from biomedcoop.data.images.stacks import Reading
from biomedcoop.display import shown
from biomedcoop.errors import UserError
from biomedcoop.progress import counting
from biomedcoop.tasks import options

Shape = tuple[int, ...]


def images_of(X: Any, reading: Reading, labels: int | None = None, known: Shape | None = None) -> list[ImageSource]:
    """The images of an estimator's ``X``: what :func:`biomedcoop.data.images.sources.as_sources` takes, one image or several.

    An array with three axes does not say whether three rows are three grey images or the channels of one. Here, the labels or the
    images of the fit tell: a fold of three images is a batch, as is the batch that it was cut from.

    Args:
        reading: window and frame of the files that have them.
        labels: number of labels given with the images; None without labels.
        known: shape of one image in the batch of grey images [N, H, W] of the fit; None where it was no such batch.

    Raises:
        UserError: an element is not an image, a file holds several and none is chosen, the shape of an array is ambiguous, or there
            is not one image for each label.
    """
    if isinstance(X, Iterator) and not hasattr(X, "read"):
        raise UserError("X is an iterator, which can be read once only; give list(X)")
    shape = batch_shape(X)
    if shape and (shape[1:] == known or (shape[0] == labels and shape[-1] not in CHANNELS)):
        X = list(X)
    images = [reading.source(image) for image in as_sources(X, "X")]
    if labels is not None and len(images) != labels:
        if shape and len(images) == 1:
            raise UserError(
                f"X is an array {list(shape)}, which is one image with {shape[-1]} channels, and there are {labels} labels; give "
                f"grey images of width {shape[-1]} as a list of arrays [H, W]"
            )
        raise UserError(f"X holds {len(images)} images and y {labels} labels; give one label for each image")
    return images


def images_to_fit(X: Any, reading: Reading, labels: int | None) -> list[ImageSource]:
    """:func:`images_of` for a fit.

    Raises:
        UserError: see there, and there is no image.
    """
    images = images_of(X, reading, labels)
    if not images:
        raise UserError("X holds no images; fit needs at least one")
    return images


def batch_shape(X: Any) -> Shape:
    """The shape of an array or tensor with three axes, which may be a batch of grey images; empty for all else."""
    shape = tuple(getattr(X, "shape", ()))
    return shape if len(shape) == 3 else ()


def known_shape(X: Any, images: Sequence[ImageSource]) -> Shape | None:
    """Shape of one image of a batch [N, H, W], by which parts of the batch are known again; None for all else."""
    shape = batch_shape(X)
    # an image of one row is no batch of one image
    return shape[1:] if shape and len(images) == shape[0] and shape[-1] not in CHANNELS else None


def loaded(backbone: Any, device: str, precision: str) -> Backbone:
    """The backbone of an estimator's parameters.

    The last one is kept, because a search over parameters fits many estimators one after another.

    Raises:
        UserError: see :func:`biomedcoop.load_backbone`.
    """
    given = options.backbone("backbone", backbone)
    if isinstance(given, Backbone):
        return given
    files = tuple((file.name, file.stat().st_mtime_ns) for file in sorted(find_backbone(given).iterdir()))
    return _kept(os.path.abspath(given) if Path(given).is_dir() else given, given, device, precision, files)  # noqa: PTH100


@lru_cache(maxsize=1)
def _kept(place: str, given: str, device: str, precision: str, files: tuple[tuple[str, int], ...]) -> Backbone:
    """A backbone by all that decides what is loaded: a folder with other files is loaded anew."""
    return load_backbone(
        given, device=options.device("device", device), precision=options.precision("precision", precision)
    )


def features_of(backbone: Backbone, images: Sequence[ImageSource], tally: Tally) -> npt.NDArray[np.float32]:
    """Raw features [N, E] from the feature store, where each image is encoded once.

    Args:
        tally: counts unusual images.

    Raises:
        ImageError: an image cannot be read.
    """
    from biomedcoop.features.images import encode_readable

    named = [(image, named_file(image) or f"X[{i}]") for i, image in enumerate(images)]
    with shown(None) as tell:
        count = counting(tell, "encoding images")
        features, _ = encode_readable(backbone, named, skip_bad=False, progress=count, tally=tally)
    return features
