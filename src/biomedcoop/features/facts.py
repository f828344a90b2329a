"""Facts about images, kept in the feature store beside their features: a run on encoded images tells what the first one told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np

from biomedcoop.data.images.facts import ImageFacts
from biomedcoop.errors import UserError
from biomedcoop.features.store import FeatureStore

SPACE: dict[str, str | int] = {"view": "facts of images, 1", "width": len(ImageFacts._fields)}
"""Facts belong to an image's content alone, whichever backbone sees it; a change of what is read needs a new version."""


class FactsStore:
    """Facts by content hash. ``add`` may be called by several threads, all else by one.

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
        """Positions of images whose facts are not held; of equal ones the first only."""
        return self._store.missing(digests)

    def get(self, digests: Sequence[bytes], names: Sequence[str]) -> list[ImageFacts]:
        """The facts of each image.

        Raises:
            UserError: those of an image are not there; it is named.
        """
        rows, found = self._store.get(digests)
        if not found.all():
            raise UserError(
                f"{names[int(np.flatnonzero(~found)[0])]!r} or the feature store {self._store.folder} changed meanwhile; "
                "start again when nothing writes to it"
            )
        return [ImageFacts(int(row[0]), *(bool(value) for value in row[1:])) for row in rows]
