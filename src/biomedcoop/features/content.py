"""The images of a dataset by their names in messages and by the hashes of their content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.content import content_hash
from biomedcoop.data.images.sources import ImageSource, named_file
from biomedcoop.errors import ImageError
from biomedcoop.features.parallel import batched, run_ahead

NamedImage = tuple[ImageSource, str]
"""An image and its name in messages."""


def named_images(data: Dataset) -> list[NamedImage]:
    """Each image and its name in messages: a file's path, an array's key in the dataset."""
    return [(image, named_file(image) or key) for image, key in zip(data.images, data.keys, strict=True)]


def content_hashes(images: Sequence[NamedImage], threads: int) -> Iterator[bytes]:
    """Content hash of each image, in order.

    Raises:
        ImageError: an image cannot be read.
    """
    for found in hashes_or_errors(images, threads):
        if isinstance(found, ImageError):
            raise found
        yield found


def hashes_or_errors(images: Sequence[NamedImage], threads: int) -> Iterator[bytes | ImageError]:
    """Content hash of each image, in order, or the error that says why its bytes cannot be read."""

    def hashed(image: NamedImage) -> bytes | ImageError:
        try:
            return content_hash(*image)
        except ImageError as error:
            return error

    # several images to a thread's turn: handing over a turn takes about as long as one hash
    parts = run_ahead(lambda part: list(map(hashed, part)), batched(images, 16), threads=threads)
    with closing(parts):
        for part in parts:
            yield from part
