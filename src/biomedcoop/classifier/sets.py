"""Prediction sets of a classifier: what its fit keeps for them, and the set of each new image.

Split conformal prediction: the classifier has not learned from the calibration images, and the artefact keeps their scores.
What was chosen on the training images, such as the temperature, was fixed before these were looked at.

Full conformal prediction, for methods with a closed form (Vovk et al. 2005; with foundation models "FCA", Silva-Rodríguez et al.
2025, arXiv 2506.06076): the artefact keeps the features of the training images. For each new image and each candidate class, the
method is fitted to the training images and the new image as one of that class. The class is in the set if the score of the new
image is not above the threshold of the training images' scores under this fit. Settings are fixed beforehand. A method that
chooses a value by leaving out images chooses it again for each candidate; one that chooses by folds takes its default. The
temperature is 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from biomedcoop.classifier.conformal import Doubles, Members, class_thresholds, random_numbers, set_scores, threshold
from biomedcoop.lazy import torch
from biomedcoop.threads import torch_threads

if TYPE_CHECKING:
    from biomedcoop.classifier.classifier import Classifier

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

PREFIX = "sets."


@dataclass(frozen=True, eq=False)
class PredictionSets:
    """What the prediction sets of a classifier need; either ``scores`` or ``features`` are there.

    Attributes:
        alpha: share of the sets that may miss the true class.
        score: name of the score, see :mod:`biomedcoop.classifier.conformal`.
        by_class: whether each class has a threshold of its own.
        labels: int64 [n], classes of the calibration images.
        scores: float64 [n], scores of their true classes (split conformal).
        features: float32 [n, E], their raw features, for a fit for each candidate class (full conformal).
        sentences: float32 [C, P, E], features of the sentences that these fits read, if the method reads any.
        seed: random seed of these fits.
    """

    alpha: float
    score: str
    by_class: bool
    labels: Labels
    scores: Doubles | None = None
    features: Floats | None = None
    sentences: Floats | None = None
    seed: int = 0

    @classmethod
    def split(
        cls, classifier: Classifier, features: Floats, labels: Labels, alpha: float, score: str, by_class: bool
    ) -> PredictionSets:
        """From features [n, E] and classes [n] of calibration images that the classifier has not learned from."""
        scores = set_scores(classifier.probabilities(features), score, random_numbers(features))
        return cls(alpha, score, by_class, labels, scores[np.arange(len(labels)), labels])

    def members(self, classifier: Classifier, features: Floats, probabilities: Floats) -> Members:
        """Whether each class is in the set of each image, bool [N, C].

        Args:
            classifier: the classifier of these sets.
            features: raw features [N, E].
            probabilities: the classifier's probabilities [N, C] of the same images.
        """
        if self.scores is None:
            return self._by_fits(classifier, features)
        limits = self._limits(self.scores, probabilities.shape[1])
        return np.asarray(set_scores(probabilities, self.score, random_numbers(features)) <= limits)

    def _limits(self, scores: Doubles, classes: int) -> Doubles:
        """Threshold of each class [..., C] from scores [..., n]."""
        if self.by_class:
            return class_thresholds(scores, self.labels, classes, self.alpha)
        return np.repeat(threshold(scores, self.alpha)[..., None], classes, axis=-1)

    def _by_fits(self, classifier: Classifier, features: Floats) -> Members:
        from biomedcoop.methods import Task, get_method
        from biomedcoop.methods.base import state_on

        assert self.features is not None
        c, n = len(classifier.class_names), len(self.labels)
        every = np.arange(c)
        method, backbone = get_method(classifier.method), classifier.backbone
        labels = torch.cat([torch.from_numpy(self.labels).expand(c, n), torch.arange(c)[:, None]], dim=1)  # [C, n + 1]
        labels = labels.to(backbone.device)
        sentences = None if self.sentences is None else torch.from_numpy(self.sentences).to(backbone.device)
        settings = method.settings(classifier.settings)
        u = random_numbers(np.concatenate([self.features, features]))
        found = np.zeros((len(features), c), dtype=bool)
        # one image at a time: the last bits of a product can depend on its shape, and a set must not depend on other images
        with torch_threads(1), torch.no_grad():
            for i, feature in enumerate(features):
                images = torch.from_numpy(np.concatenate([self.features, feature[None]])).to(
                    backbone.device
                )  # [n + 1, E]
                task = Task(backbone, classifier.class_names, images.expand(c, -1, -1), labels, sentences)
                states = [state_on(state, images.device) for state in method.fit(task, settings, [self.seed] * c)]
                logits = torch.stack([method.logits(state, images, backbone) for state in states])  # [C, n + 1, C]
                p = logits.cpu().double().softmax(-1).numpy()
                own_u = np.append(u[:n], u[n + i])
                scores = np.stack([set_scores(p[k], self.score, own_u) for k in every])
                limits = self._limits(scores[:, np.arange(n), self.labels], c)[every, every]
                found[i] = scores[every, n, every] <= limits
        return found

    def images(self, classes: int) -> int:
        """Number of calibration images; of the class with the fewest where each of the ``classes`` has its own promise."""
        return int(np.bincount(self.labels, minlength=classes).min()) if self.by_class else len(self.labels)

    def tensors(self) -> dict[str, Any]:
        """The arrays as tensors for the artefact."""
        arrays = {"labels": self.labels, "scores": self.scores, "features": self.features, "sentences": self.sentences}
        return {PREFIX + name: torch.from_numpy(array) for name, array in arrays.items() if array is not None}

    def description(self) -> dict[str, Any]:
        """The rest as JSON values."""
        return {"alpha": self.alpha, "score": self.score, "by_class": self.by_class, "seed": self.seed}

    @classmethod
    def take_from(cls, tensors: dict[str, Any], description: Mapping[str, Any] | None) -> PredictionSets | None:
        """Remove the arrays from the tensors of an artefact; None if its description names no sets.

        Raises:
            KeyError, TypeError: a part is missing or unknown.
        """
        if description is None:
            return None
        arrays = {
            name: tensors.pop(PREFIX + name).numpy()
            for name in ("scores", "features", "sentences")
            if PREFIX + name in tensors
        }
        labels = tensors.pop(PREFIX + "labels").numpy()
        if ("scores" in arrays) == ("features" in arrays):
            raise KeyError(PREFIX + "scores")
        return cls(**description, labels=labels, **arrays)
