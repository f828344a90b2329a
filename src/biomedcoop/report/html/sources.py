"""What a page shows beside the numbers: classifier, images and request of a run folder, where they are still at hand."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.classifier.read_artefact import load
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.readers.load import read_dataset
from biomedcoop.errors import UserError
from biomedcoop.explain.training_images import TrainingImages, training_images
from biomedcoop.report.reading import read_json
from biomedcoop.tasks.request import PATHS

HASHED = ("model/model.safetensors", "model/classifier.json", "split.json", "few_shot.json", "metrics.json", "run.json")
"""Files of a run folder whose SHA-256 a page states; predictions and figures follow from them."""


@dataclass(frozen=True)
class Sources:
    """What a page needs beside the report.

    Attributes:
        classifier: the saved classifier, or None.
        data: the dataset of the test, or None.
        tested: position in ``data`` of each test image of the report, int64 [N]; None without ``data``.
        drawn: positions in ``data`` of the training images, int64; None where they are not known.
        request: content of ``run.json``; empty for an evaluation.
        training: the training images with their features, or None.
        hashes: file name -> SHA-256, as hexadecimal digits.
        missing: what is left out of the page, a sentence each, without a folder of this machine.
        reasons: why, a sentence each, for the user.
    """

    classifier: Classifier | None = None
    data: Dataset | None = None
    tested: npt.NDArray[np.int64] | None = None
    drawn: npt.NDArray[np.int64] | None = None
    request: Mapping[str, Any] = field(default_factory=dict)
    training: TrainingImages | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def public_request(self) -> dict[str, Any]:
        """The request with the last names of its paths, as a report holds no folder of this machine."""
        values = dict(self.request)
        for name in PATHS:
            if isinstance(values.get(name), str):
                values[name] = Path(values[name]).name
        values["plugins"] = [Path(file).name for file in values.get("plugins", ())]
        return values


def find_sources(
    folder: Path, keys: tuple[str, ...], classifier: Classifier | None = None, data: Dataset | None = None
) -> Sources:
    """Find what belongs to a folder of a run or an evaluation.

    Args:
        folder: the folder.
        keys: names of the test images.
        classifier, data: those of the run if they are loaded; else they are read from where the folder says.
    """
    missing, reasons = [], []
    request = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    if classifier is None and (folder / "model").is_dir():
        try:
            classifier = load(folder / "model", _backbone(request))
        except UserError as error:
            missing.append("There are no maps, no words and no learning curve, because the model cannot be loaded.")
            reasons.append(f"{missing[-1]} {error}")
    if data is None and request:
        try:
            split_file = request.get("split_file")
            data = read_dataset(request["data"], None if split_file is None else Path(split_file))
        except (UserError, OSError) as error:
            missing.append("There are no images, because the data cannot be read any more.")
            reasons.append(f"{missing[-1]} {error}")
    elif data is None:
        missing.append("There are no images: the folder of an evaluation does not say where its images are.")
    tested = drawn = None
    if data is not None:
        place = {key: position for position, key in enumerate(data.keys)}
        gone = [key for key in keys if key not in place]
        if gone:
            missing.append(
                f"There are no images, because {len(gone)} of the {len(keys)} test images are no longer in the data."
            )
            data = None
        else:
            tested = np.array([place[key] for key in keys], dtype=np.int64)
            drawn = _drawn(folder / "few_shot.json", place)
    training = None
    if classifier is not None and data is not None and drawn is not None:
        training = training_images(classifier, data.select(np.unique(drawn)))
    return Sources(classifier, data, tested, drawn, request, training, _hashes(folder), tuple(missing), tuple(reasons))


def _backbone(request: Mapping[str, Any]) -> str | None:
    """The backbone that a request names, if it is a folder; the artefact itself knows a name."""
    named = request.get("backbone")
    return named if isinstance(named, str) and Path(named).is_dir() else None


def _drawn(file: Path, place: Mapping[str, int]) -> npt.NDArray[np.int64] | None:
    if not file.is_file():
        return None
    keys = [entry[0] for entry in read_json(file)["train"]]
    return np.array([place[key] for key in keys], dtype=np.int64) if all(key in place for key in keys) else None


def _hashes(folder: Path) -> dict[str, str]:
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in HASHED if (folder / name).is_file()
    }
