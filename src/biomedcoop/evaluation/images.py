"""The images of a dataset that a classifier is evaluated on, and what would make the results too good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.data.dataset import SPLITS, Dataset
from biomedcoop.data.sampling.leakage import Leak, digest, group_leaks
from biomedcoop.errors import UserError
from biomedcoop.evaluation.matching import labels_of


@dataclass(frozen=True)
class EvaluatedImages:
    """The images of an evaluation.

    Attributes:
        data: the dataset with these images only.
        labels: their classes as positions in the classifier's class names, int64 [N].
        split: "train", "val", "test" or "all".
        notes: which images were taken, and how their labels were read; a sentence each.
        leaks: images and groups that the classifier saw in training.
    """

    data: Dataset
    labels: npt.NDArray[np.int64]
    split: str
    notes: tuple[str, ...]
    leaks: tuple[Leak, ...]


def images_to_evaluate(
    classifier: Classifier, data: Dataset, split: str | None = None, rename: Mapping[str, str] | None = None
) -> EvaluatedImages:
    """Choose the images, and match their classes to those of the classifier.

    Args:
        split: "train", "val", "test" or "all"; None takes the test split that the source gives, else all images. If the classifier
            learned from images of ``data``, None takes the test images that were drawn.
        rename: class of ``data`` -> class of the classifier.

    Raises:
        UserError: the split is unknown or empty, or a class is not known.
    """
    notes: list[str] = []
    if split is None:
        split, notes = _usual_split(classifier, data)
    elif split not in (*SPLITS, "all"):
        raise UserError(f"no split '{split}'; choose train, val, test or all")
    part = data if split == "all" else data.part(split)
    if not len(part):
        hint = " ('--split all', or 'train', which cross-validates)" if split == "test" else ""
        raise UserError(f"{data.name} has no images in its {split} split; choose another one{hint}")
    labels, assumed = labels_of(part, classifier.class_names, rename)
    return EvaluatedImages(part, labels, split, (*notes, *assumed), tuple(_leaks(classifier, data, part, split)))


def learned_from(classifier: Classifier, data: Dataset) -> bool:
    """Whether images of ``data`` trained the classifier; of one without training images, whether it was made for this dataset."""
    if classifier.facts.get("training_images"):
        return bool(_seen(classifier, data).any())
    return classifier.facts.get("dataset") == data.name


def _seen(classifier: Classifier, data: Dataset) -> npt.NDArray[np.bool_]:
    """Whether each image trained the classifier, bool [N]."""
    known = set(classifier.facts.get("training_images", ()))
    return np.array([bool(known) and digest(image) in known for image in data.images], dtype=bool)


def _usual_split(classifier: Classifier, data: Dataset) -> tuple[str, list[str]]:
    """The split to test on if the user names none, and a note unless the source gives a test split."""
    drawn = int(data.counts("test").sum())
    if drawn and not data.test_drawn:
        return "test", []
    # the user may have trained on the images that were drawn for testing
    if drawn and learned_from(classifier, data) and not _seen(classifier, data.part("test")).any():
        return "test", [
            f"{data.name} has no test split of its own and the classifier was made from it, so the test takes the {drawn} of "
            f"{len(data)} images that were drawn for testing; --split all takes all"
        ]
    note = f"{data.name} has no test split of its own, so the test takes all {len(data)} images"
    if not drawn and learned_from(classifier, data):
        note += "; bc.train (the command 'train') tests on images that were not trained on, by cross-validation"
    return "all", [note]


def _leaks(classifier: Classifier, data: Dataset, part: Dataset, split: str) -> list[Leak]:
    """Evaluated images and groups that the classifier saw in training."""
    if not classifier.facts.get("training_images"):
        return []
    found = []
    if (seen := _seen(classifier, part)).any():
        text = f"{seen.sum()} of the {len(part)} evaluated images were used to train this classifier"
        found.append(Leak(f"{text}; the results look better than they are.", part.keys[int(seen.argmax())]))
    if split in ("val", "test") and classifier.facts.get("dataset") == data.name:
        found += group_leaks(data, split, ["train", "val"] if split == "test" else ["train"])
    return found
