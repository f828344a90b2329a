"""Facts about images, kept in the feature store beside their features.

A run that finds all features in the store decodes nothing; it still tells what the first run told about the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from threading import Lock

import numpy as np

from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.crop_reader import CropReader
from biomedcoop.data.images.crops import Crops
from biomedcoop.data.images.facts import ImageFacts
from biomedcoop.features.content import NamedImage, content_hashes, named_images
from biomedcoop.features.parallel import run_ahead
from biomedcoop.features.store import SHARD_ROWS, FeatureStore, default_root

SPACE: dict[str, str | int] = {"view": "facts of images, 1", "width": len(ImageFacts._fields)}
"""Facts belong to an image's content alone, whichever backbone sees it; a change of what is read needs a new version."""


_PLAIN = ImageFacts()


class FactsStore:
    """Facts by content hash. Several threads may call ``add``; one thread calls all else.

    Args:
        root: as for :class:`biomedcoop.features.store.FeatureStore`.
    """

    def __init__(self, root: Path) -> None:
        self._store = FeatureStore(root, SPACE)
        self._waiting: dict[bytes, ImageFacts] = {}
        self._lock = Lock()

    def add(self, digest: bytes, facts: ImageFacts) -> None:
        """Keep the facts of an image until the next ``flush`` writes them."""
        with self._lock:
            self._waiting[digest] = facts

    def flush(self) -> None:
        """Write what was added."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        if waiting:
            self._store.put(list(waiting), np.array(list(waiting.values()), dtype=np.float32))

    def missing(self, digests: Sequence[bytes]) -> list[int]:
        """Positions of images whose facts are not held; of equal images the first position only."""
        return self._store.missing(digests)

    def get(self, digests: Sequence[bytes], names: Sequence[str]) -> list[ImageFacts]:
        """The facts of each image.

        Raises:
            UserError: the store lacks the facts of an image; the message names it.
        """
        rows = self._store.get_all(digests, names)
        return [ImageFacts._make(type(of)(value) for of, value in zip(_PLAIN, row, strict=True)) for row in rows]


def image_facts(data: Dataset, *, store_root: Path | None = None, workers: int | None = None) -> list[ImageFacts]:
    """Facts of each image of a dataset, from the store where it has them; other images are decoded.

    Args:
        store_root: folder of the store; the user's cache folder by default.
        workers: processes that decode; see :class:`biomedcoop.data.images.crop_reader.CropReader`.

    Raises:
        ImageError: an image cannot be read.
        UserError: the store cannot be written.
    """
    facts, images = FactsStore(store_root or default_root()), named_images(data)
    with CropReader(1, workers) as read:
        return facts_of(images, list(content_hashes(images, read.threads)), facts, read)


def facts_of(
    images: Sequence[NamedImage], digests: Sequence[bytes], facts: FactsStore, read: CropReader
) -> list[ImageFacts]:
    """Facts of images whose content hashes are known; an image whose facts the store lacks is decoded.

    Raises:
        ImageError: an image cannot be read.
        UserError: the store cannot be written.
    """

    def decode(i: int) -> None:
        _, digest, facts_of_image = read(*images[i], Crops(), ())  # without a crop
        facts.add(digest, facts_of_image)

    with closing(run_ahead(decode, facts.missing(digests), threads=read.threads)) as ahead:
        for done, _ in enumerate(ahead, start=1):
            if done % SHARD_ROWS == 0:
                facts.flush()
    facts.flush()
    return facts.get(digests, [name for _, name in images])
