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
from biomedcoop.classifier.read_artefact import load, load_again
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.stacks import Reading
from biomedcoop.data.readers.load import read_dataset
from biomedcoop.errors import UserError
from biomedcoop.explain.training_images import TrainingImages, training_images
from biomedcoop.report.inputs import INPUTS, EvaluationInputs, read_inputs
from biomedcoop.report.reading import read_json
from biomedcoop.tasks.request import PATHS, REQUEST

HASHED = ("model/model.safetensors", "model/classifier.json", "split.json", "few_shot.json", "metrics.json", "run.json")
"""Files of a run folder whose SHA-256 a page states; predictions and figures follow from them."""


@dataclass(frozen=True)
class Sources:
    """What a page needs beside the report.

    Attributes:
        classifier: the saved classifier, or None.
        data: the dataset of the test, or None.
        tested: position in ``data`` of each test image of the report, -1 for one that is gone, int64 [N]; None without ``data``.
        drawn: positions in ``data`` of the training images, int64; None where they are not known.
        request: content of ``run.json``; empty for an evaluation.
        training: the training images with their features, or None.
        hashes: file name -> SHA-256, as hexadecimal digits.
        missing: what is left out of the page, a sentence each that names no folder of this machine -> the error behind it, or an
            empty text.
        visible: whether the run or the evaluation was asked to show images; None where the folder does not say.
    """

    classifier: Classifier | None = None
    data: Dataset | None = None
    tested: npt.NDArray[np.int64] | None = None
    drawn: npt.NDArray[np.int64] | None = None
    request: Mapping[str, Any] = field(default_factory=dict)
    training: TrainingImages | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    visible: bool | None = None

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
    folder: Path,
    keys: tuple[str, ...],
    class_names: tuple[str, ...],
    classifier: Classifier | None = None,
    data: Dataset | None = None,
) -> Sources:
    """Find what belongs to a folder of a run or an evaluation.

    Args:
        folder: the folder.
        keys: names of the test images.
        class_names: names of the classes of the report.
        classifier, data: those of the run if they are loaded; else they are read from where the folder says.
    """
    missing: dict[str, str] = {}
    request = _request(folder / REQUEST)
    inputs = None if request else read_inputs(folder)
    visible = bool(request.get("images", True)) if request else None if inputs is None else inputs.images
    if classifier is None:
        classifier = _classifier(folder, request, inputs, class_names, missing)
    if data is None:
        reading = classifier.reading if classifier is not None and not request else Reading.of(request)
        data = _data(request, inputs, reading, missing)
    known: dict[str, Any] = {"request": request, "hashes": _hashes(folder), "missing": missing, "visible": visible}
    if data is None:
        return Sources(classifier, **known)
    place = {key: position for position, key in enumerate(data.keys)}
    gone = sum(key not in place for key in keys)
    if gone == len(keys):
        missing["There are no images, because the test images are no longer in the data."] = ""
        return Sources(classifier, **known)
    if gone:
        is_left, are_left = "is no longer in the data and is", "are no longer in the data and are"
        sentence = f"{gone} of the {len(keys)} test images {is_left if gone == 1 else are_left} not shown"
        missing[f"{sentence}. A learning curve is tested on the others only."] = ""
    tested = np.array([place.get(key, -1) for key in keys], dtype=np.int64)
    drawn, training = _drawn(folder / "few_shot.json", place), None
    if classifier is not None and drawn is not None:
        try:
            training = training_images(classifier, data.select(np.unique(drawn)))
        except UserError as error:
            missing["There are no similar training images, because those of the training cannot be read any more."] = (
                str(error)
            )
            drawn = None
    return Sources(classifier, data, tested, drawn, training=training, **known)


def _classifier(
    folder: Path,
    request: Mapping[str, Any],
    inputs: EvaluationInputs | None,
    class_names: tuple[str, ...],
    missing: dict[str, str],
) -> Classifier | None:
    """The classifier of a folder; else None, and a sentence in ``missing`` that says why."""
    try:
        if request:
            return load(folder / "model", _backbone(request))
        if inputs is not None and inputs.model is not None:
            return load_again(inputs.model, class_names)
    except UserError as error:
        left_out = "no maps, no words and no learning curve" if request else "no maps and no words"
        missing[f"There are {left_out}, because the model cannot be loaded."] = str(error)
        return None
    if inputs is not None:
        missing["There are no maps and no words: the classifier of the evaluation was not read from a folder."] = ""
    return None


def _data(
    request: Mapping[str, Any], inputs: EvaluationInputs | None, reading: Reading, missing: dict[str, str]
) -> Dataset | None:
    """The data of a folder; else None, and a sentence in ``missing`` that says why."""
    if not request and inputs is None:
        missing[f"There are no images, maps and words: {INPUTS}, which says where they are, is not in the folder."] = ""
        return None
    source = request["data"] if inputs is None else inputs.data
    if source is None:
        missing["There are no images: the evaluation was given a loaded dataset, not the path of one."] = ""
        return None
    try:
        split_file = request.get("split_file") if inputs is None else inputs.split_file
        split_path = None if split_file is None else Path(split_file)
        return read_dataset(source, split_path, for_training=bool(request), reading=reading)
    except (UserError, OSError) as error:
        missing["There are no images, because the data cannot be read any more."] = str(error)
        return None


def _request(file: Path) -> Mapping[str, Any]:
    """The content of ``run.json``; empty where there is none, as in an evaluation."""
    content = read_json(file) if file.is_file() else {}
    if not isinstance(content, dict) or (content and not isinstance(content.get("data"), str)):
        raise UserError(f"{file}: not the request of a run; train again")
    return content


def _backbone(request: Mapping[str, Any]) -> str | None:
    """The backbone that a request names, if it is a folder; the artefact itself knows a name."""
    named = request.get("backbone")
    return named if isinstance(named, str) and Path(named).is_dir() else None


def _drawn(file: Path, place: Mapping[str, int]) -> npt.NDArray[np.int64] | None:
    if not file.is_file():
        return None
    try:
        keys = [entry[0] for entry in read_json(file)["train"]]
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"{file}: not the draw of a run; train again") from error
    return np.array([place[key] for key in keys], dtype=np.int64) if all(key in place for key in keys) else None


def _hashes(folder: Path) -> dict[str, str]:
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in HASHED if (folder / name).is_file()
    }
