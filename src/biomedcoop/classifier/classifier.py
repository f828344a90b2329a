"""A fitted classifier: class names, the method's tensors, and the frozen backbone they belong to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from biomedcoop.data.dataset import ImageSource
from biomedcoop.errors import ImageError

if TYPE_CHECKING:
    from biomedcoop.backbones.base import Backbone
    from biomedcoop.methods.base import State

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Classifier:
    """What :func:`biomedcoop.fit` returns and :func:`biomedcoop.load` reads.

    Attributes:
        class_names: C names; column c of every probability belongs to ``class_names[c]``.
        method: name of the adaptation method.
        state: its tensors; for text-based methods the class embeddings [C, E], so that no text tower runs.
        backbone: the frozen model the tensors belong to.
        settings: the method's settings, JSON values.
        facts: what it was trained on, JSON values (dataset, shots, seed, notes, digests of the training images, metrics).
    """

    class_names: tuple[str, ...]
    method: str
    state: State
    backbone: Backbone
    settings: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def probabilities(self, features: Floats) -> Floats:
        """Raw image features [N, E] -> probabilities float32 [N, C]."""
        import torch

        from biomedcoop.methods import get_method

        with torch.inference_mode():
            logits = get_method(self.method).logits(self.state, torch.from_numpy(features), self.backbone)
            return logits.softmax(-1).numpy()

    def predict_stream(self, sources: Iterable[ImageSource]) -> Iterator[tuple[ImageSource, Floats | ImageError]]:
        """Predict any number of images in order; memory does not grow with their number.

        Yields:
            The source and its probabilities [C], or the error that says why the image cannot be used.
        """
        from biomedcoop.features.encode import stream_features

        for source, feature in stream_features(self.backbone, sources):
            yield source, feature if isinstance(feature, ImageError) else self.probabilities(feature[None])[0]

    def predict_proba(self, images: Sequence[str | os.PathLike[str] | npt.NDArray[np.uint8]]) -> Floats:
        """Probabilities of images, float32 [N, C], columns in the order of ``class_names``.

        Args:
            images: files, or uint8 arrays [H, W] or [H, W, 3].

        Raises:
            ImageError: an image cannot be read.
        """
        if isinstance(images, (str, os.PathLike)):
            images = [images]
        rows = []
        sources = (image if isinstance(image, np.ndarray) else Path(image) for image in images)
        for _, row in self.predict_stream(sources):
            if isinstance(row, ImageError):
                raise row
            rows.append(row)
        return np.stack(rows) if rows else np.zeros((0, len(self.class_names)), dtype=np.float32)

    def predict(self, images: Sequence[str | os.PathLike[str] | npt.NDArray[np.uint8]]) -> list[str]:
        """Most probable class name of each image (the first of equals)."""
        return [self.class_names[i] for i in self.predict_proba(images).argmax(1)]

    def for_classes(self, class_names: Sequence[str], prompts: str | os.PathLike[str] = "auto") -> Classifier:
        """The same classifier for other classes, of which no image is needed: what it learned is put before their names.

        Args:
            class_names: all classes that the new classifier tells apart, known or new.
            prompts: sentences of the classes, for a method that is made of nothing else; see
                :func:`biomedcoop.prompts.sentences_for`.

        Raises:
            UserError: the method learned its classes from images (the line names methods that can do it), fewer than two
                names, one twice, or one that does not fit into the backbone's context.
        """
        from biomedcoop.classifier.new_classes import for_classes

        return for_classes(self, class_names, prompts)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the artefact; see :func:`biomedcoop.classifier.artefact.save`."""
        from biomedcoop.classifier.artefact import save

        save(self, Path(folder), overwrite=overwrite)
