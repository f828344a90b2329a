"""Test a classifier on labelled images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.data.dataset import Dataset, check_dataset
from biomedcoop.data.images.facts import Tally
from biomedcoop.data.sampling.leakage import digest, group_leaks
from biomedcoop.display import shown
from biomedcoop.errors import UserError, notify
from biomedcoop.evaluation.alarms import image_alarms
from biomedcoop.evaluation.bootstrap import check_bootstrap
from biomedcoop.evaluation.grades import grade_notes
from biomedcoop.evaluation.matching import labels_of
from biomedcoop.evaluation.metrics import Metrics, score
from biomedcoop.progress import ProgressOption, counting


def predict_dataset(
    classifier: Classifier, data: Dataset, progress: ProgressOption = None, tally: Tally | None = None
) -> npt.NDArray[np.float32]:
    """Predict probabilities float32 [N, C] of a dataset's images; known features come from the feature store.

    Args:
        progress: see :func:`biomedcoop.fit`.
        tally: counts unusual images, such as those of one colour.
    """
    from biomedcoop.features.images import encode_images

    with shown(progress) as tell:
        count = counting(tell, "encoding test images")
        return classifier.probabilities(encode_images(classifier.backbone, data, progress=count, tally=tally))


def evaluate(
    classifier: Classifier,
    data: Dataset,
    split: str = "test",
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
    progress: ProgressOption = None,
) -> Metrics:
    """Compute the metrics of a classifier on labelled images, each with a 95 % bootstrap interval.

    Classes are matched by name. The classifier must know only the classes of the evaluated images; one class is enough. A metric
    that these images cannot give is None. Warnings tell of reasons for too good results: images that trained the classifier, and
    groups with images on both sides of the split. They also tell of intervals from few groups.

    Args:
        split: "train", "val", "test" or "all".
        n_bootstrap, seed: number of resamples and random seed of the bootstrap.
        progress: see :func:`biomedcoop.fit`.

    Raises:
        UserError: the split is empty, or an image has a class that the classifier does not know.

    Example:
        >>> import biomedcoop as bc
        >>> data = bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=1")
        >>> classifier = bc.fit(data, method="zero-shot")
        >>> metrics = bc.evaluate(classifier, data, split="test", n_bootstrap=100)
        >>> metrics.n_images, 0 <= metrics.accuracy.value <= 1
        (3, True)
    """
    if not isinstance(classifier, Classifier):
        raise UserError(f"the classifier must come from fit or load, not {type(classifier).__name__}")
    check_dataset(data)
    check_bootstrap(n_bootstrap, seed)
    part, labels, notes = _test_part(classifier, data, split)
    notify([*notes, *_seen_before(classifier, data, part, split)])
    tally = Tally(tuple(classifier.facts.get("depths", ())))
    probabilities = predict_dataset(classifier, part, progress, tally)
    notify(tally.notes())
    metrics = score(
        probabilities, labels, classifier.class_names, n_bootstrap=n_bootstrap, seed=seed, groups=part.groups
    )
    notify([*(alarm.text for alarm in image_alarms(metrics)), *grade_notes(metrics.grades)])
    return metrics


def _test_part(classifier: Classifier, data: Dataset, split: str) -> tuple[Dataset, npt.NDArray[np.int64], list[str]]:
    """The images of a split, their labels as positions in the classifier's classes, and notes on assumptions."""
    if split not in ("train", "val", "test", "all"):
        raise UserError(f"no split '{split}'; choose train, val, test or all")
    part = data if split == "all" else data.part(split)
    if not len(part):
        raise UserError(f"{data.name} has no images in its {split} split; choose another --split")
    return part, *labels_of(part, classifier.class_names)


def _seen_before(classifier: Classifier, data: Dataset, part: Dataset, split: str) -> list[str]:
    """Notes on test images and groups that the classifier saw in training."""
    known = set(classifier.facts.get("training_images", ()))
    if not known:
        return []
    notes = []
    if seen := sum(digest(image) in known for image in part.images):
        notes.append(
            f"{seen} of the {len(part)} evaluated images were used to train this classifier; the results look better than they are."
        )
    if split in ("val", "test") and classifier.facts.get("dataset") == data.name:
        notes += map(str, group_leaks(data, split, ["train", "val"] if split == "test" else ["train"]))
    return notes
