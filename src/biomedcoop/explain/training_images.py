"""The training images of a classifier, found again in a run folder or a dataset, with their features."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.classifier.domain import unit
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.sources import ImageSource
from biomedcoop.data.sampling.leakage import digest
from biomedcoop.errors import UserError

DRAW = "few_shot.json"


@dataclass(frozen=True, eq=False, repr=False)
class TrainingImages:
    """Images that a classifier learned from.

    Attributes:
        data: the images with their keys and labels.
        features: unit-norm features [N, E].
        digests: digest of each image's content.
    """

    data: Dataset
    features: npt.NDArray[np.float64]
    digests: tuple[str, ...]

    def __repr__(self) -> str:
        return f"TrainingImages({len(self.data)} images of {self.data.name})"

    def without(self, own: str) -> TrainingImages:
        """The images whose digest is not ``own``."""
        kept = [i for i, one in enumerate(self.digests) if one != own]
        return TrainingImages(self.data.select(kept), self.features[kept], tuple(self.digests[i] for i in kept))

    def most_similar(self, feature: npt.NDArray[np.float64], top: int) -> list[tuple[str, str, float, ImageSource]]:
        """Key, class name, cosine and source of the ``top`` images most similar to a unit-norm feature [E], most similar first."""
        cosines = self.features @ feature
        data = self.data
        return [
            (data.keys[i], data.class_names[data.labels[i]], float(cosines[i]), data.images[i])
            for i in np.argsort(-cosines, kind="stable")[:top]
        ]


def training_images(classifier: Classifier, source: Dataset | str | os.PathLike[str]) -> TrainingImages:
    """Find the images that a classifier learned from, by their content.

    Args:
        source: the dataset it was trained on, or its run folder (``run.json`` names the data, ``few_shot.json`` the images).

    Raises:
        UserError: the classifier learned from no image, the run folder or its data are gone, or no training image is found.
    """
    from biomedcoop.features.images import encode_images

    known = set(classifier.facts.get("training_images", ()))
    if not known:
        raise UserError("no training images to compare with: the classifier learned from none, or does not name them")
    data = source if isinstance(source, Dataset) else _drawn(Path(source))
    candidates = {i: digest(data.images[i]) for i in np.flatnonzero(data.splits != "test").tolist()}
    found = {i: own for i, own in candidates.items() if own in known}
    if not found:
        where = data.name if isinstance(source, Dataset) else source
        raise UserError(
            f"{where}: none of its images is a training image of this classifier; give the data of its training"
        )
    chosen = data.select(list(found))
    return TrainingImages(chosen, unit(encode_images(classifier.backbone, chosen)), tuple(found.values()))


def _drawn(folder: Path) -> Dataset:
    """The training images that a run folder names."""
    from biomedcoop.data.readers.load import read_dataset
    from biomedcoop.tasks.request import REQUEST, TrainRequest

    if not (folder / DRAW).is_file():
        raise UserError(f"{folder} has no {DRAW}; give the run folder of a method that learns from images")
    try:
        drawn = {key for key, *_ in json.loads((folder / DRAW).read_text(encoding="utf-8"))["train"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / DRAW}: damaged ({type(error).__name__}); train again") from error
    request = TrainRequest.read(folder / REQUEST)
    assert isinstance(request.data, str)  # as every saved request
    data = read_dataset(request.data, split_file=request.split_file, reading=request.reading)
    return data.select([i for i, key in enumerate(data.keys) if key in drawn])
