"""The one value that every reader returns: images, integer labels, class names, split, optional group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

SPLITS = ("train", "val", "test")

ImageSource = Path | bytes | Image.Image | npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""One image: a file, a file's bytes, a Pillow image, or an array [H, W], [H, W, 3] (red, green, blue) or [H, W, 4] (with alpha)."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images of one classification task.

    Attributes:
        name: short name, e.g. the folder's; looked up in the catalogue of benchmark datasets.
        class_names: C distinct names; label ``c`` means ``class_names[c]``.
        images: N images: paths, or one array [N, H, W] or [N, H, W, 3].
        keys: N unique names, relative to ``root`` ("train/cyst/1.png"), or "train[7]" for arrays; written to JSON.
        labels: int64 [N], values 0..C-1.
        splits: str [N], each "train", "val" or "test". File order within a split is kept (few-shot sampling needs it).
        groups: str [N] (patient, lesion, …; images of one group belong on one side of a split), or None.
        root: folder that ``keys`` are relative to, or None for arrays.
        simulated: True if the images were drawn by a program.
        notes: what a user should be told about how the data were read, a sentence each.
    """

    name: str
    class_names: tuple[str, ...]
    images: Sequence[Path] | npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    keys: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    splits: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_] | None = None
    root: Path | None = None
    simulated: bool = False
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.labels)

    def indices(self, split: str) -> npt.NDArray[np.int64]:
        """Positions of the images of ``split`` in file order."""
        return np.flatnonzero(self.splits == split).astype(np.int64)

    def select(self, indices: npt.NDArray[np.int64] | Sequence[int]) -> Dataset:
        """The same task with only the images at ``indices``, in that order (repeats allowed)."""
        index = np.asarray(indices, dtype=np.int64)
        images = self.images[index] if isinstance(self.images, np.ndarray) else [self.images[i] for i in index]
        return replace(
            self,
            images=images,
            keys=tuple(self.keys[i] for i in index),
            labels=self.labels[index],
            splits=self.splits[index],
            groups=None if self.groups is None else self.groups[index],
        )

    def part(self, split: str) -> Dataset:
        """Only the images of ``split``."""
        return self.select(self.indices(split))

    def counts(self, split: str) -> npt.NDArray[np.int64]:
        """Images per class in ``split``: int64 [C]."""
        return np.bincount(self.labels[self.splits == split], minlength=len(self.class_names)).astype(np.int64)
