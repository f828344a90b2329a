"""Test a classifier on labelled images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.classifier.domain import unlike_note
from biomedcoop.data.dataset import Dataset, check_dataset
from biomedcoop.data.images.facts import Tally
from biomedcoop.display import shown
from biomedcoop.errors import UserError, notify
from biomedcoop.evaluation.alarms import image_alarms
from biomedcoop.evaluation.bootstrap import check_bootstrap
from biomedcoop.evaluation.grades import grade_notes
from biomedcoop.evaluation.images import EvaluatedImages, images_to_evaluate
from biomedcoop.evaluation.metrics import Metrics, score
from biomedcoop.progress import Progress, ProgressOption, counting


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


def own_features(
    classifier: Classifier, data: Dataset, features: npt.NDArray[np.float32], progress: Progress | None = None
) -> npt.NDArray[np.float32]:
    """Features [N, E] of images for a classifier: ``features`` of the frozen backbone, unless it has towers of its own."""
    from biomedcoop.features.images import encode_images

    if classifier.backbone.frozen is None:
        return features
    return encode_images(
        classifier.backbone, data, progress=counting(progress, f"encoding images with {classifier.method}")
    )


@dataclass(frozen=True)
class Encoded:
    """Features of evaluated images.

    Attributes:
        features: raw features float32 [N, E].
        unlike: whether each image is unlike the classifier's training images, bool [N]; None if the classifier cannot tell.
        notes: notes on unusual images that name no image, a sentence each.
        unlike_note: a sentence on the images unlike the training images, or an empty text.
    """

    features: npt.NDArray[np.float32]
    unlike: npt.NDArray[np.bool_] | None
    notes: tuple[str, ...]
    unlike_note: str


def encode_for(classifier: Classifier, evaluated: EvaluatedImages, progress: Progress | None = None) -> Encoded:
    """Encode the images that a classifier is evaluated on; warnings tell of leaks, assumptions and unusual images."""
    from biomedcoop.features.images import encode_images

    notify([*evaluated.notes, *map(str, evaluated.leaks)])
    tally, count = Tally.after(classifier.facts), counting(progress, "encoding test images")
    features = encode_images(classifier.backbone, evaluated.data, progress=count, tally=tally)
    unlike = None if classifier.domain is None else classifier.domain.unlike(features)
    note = "" if unlike is None else unlike_note(int(unlike.sum()), len(unlike), classifier.facts)
    notify([*tally.notes(), *([note] if note else [])])
    return Encoded(features, unlike, tuple(tally.notes(named=False)), note)


def check_classifier(classifier: object) -> None:
    """Raise UserError unless ``classifier`` is a fitted classifier."""
    if not isinstance(classifier, Classifier):
        raise UserError(f"the classifier must come from fit or load, not {type(classifier).__name__}")


def evaluate(
    classifier: Classifier,
    data: Dataset,
    split: str | None = None,
    *,
    rename: Mapping[str, str] | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
    progress: ProgressOption = None,
) -> Metrics:
    """Compute the metrics of a classifier on labelled images, each with a 95 % bootstrap interval.

    Classes are matched by name, without regard to case. The classifier must know only the classes of the evaluated images; one
    class is enough. A metric that these images cannot give is None. Warnings tell of reasons for too good results: images that
    trained the classifier, and groups with images on both sides of the split. They also tell of intervals from few groups, and
    of images unlike the training images.

    Args:
        split: "train", "val", "test" or "all". By default the test split that the source of the data gives, else all images. If the
            classifier learned from images of this dataset, the default is the test split that :func:`biomedcoop.load_dataset` drew.
        rename: class of ``data`` -> class of the classifier, for classes with other names; several may become one.
        n_bootstrap, seed: number of resamples and random seed of the bootstrap.
        progress: see :func:`biomedcoop.fit`.

    Raises:
        UserError: the split is empty, or an image has a class that the classifier does not know, or ``rename`` has a name
            that the data or the classifier lacks.

    Example:
        >>> import biomedcoop as bc
        >>> data = bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=1")
        >>> classifier = bc.fit(data, method="zero-shot")
        >>> metrics = bc.evaluate(classifier, data, split="test", n_bootstrap=100)
        >>> metrics.n_images, 0 <= metrics.accuracy.value <= 1
        (3, True)
    """
    check_classifier(classifier)
    check_dataset(data)
    check_bootstrap(n_bootstrap, seed)
    tested = images_to_evaluate(classifier, data, split, rename)
    with shown(progress) as tell:
        features = encode_for(classifier, tested, tell).features
    metrics = score(
        classifier.probabilities(features),
        tested.labels,
        classifier.class_names,
        n_bootstrap=n_bootstrap,
        seed=seed,
        groups=tested.data.groups,
    )
    notify([*(alarm.text for alarm in image_alarms(metrics)), *grade_notes(metrics.grades)])
    return metrics
