"""The few-shot classifier, as a classifier of scikit-learn."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.registry import has_text_tower
from biomedcoop.classifier.classifier import Classifier
from biomedcoop.classifier.domain import closing_notes
from biomedcoop.classifier.fit import fit_notes, fit_plan
from biomedcoop.classifier.read_artefact import load
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.facts import Tally
from biomedcoop.data.images.stacks import ALL, Reading
from biomedcoop.data.images.windows import AUTO
from biomedcoop.display import shown
from biomedcoop.errors import notify
from biomedcoop.estimators.encoder import takes_images
from biomedcoop.estimators.images import features_of, images_of, images_to_fit, known_shape, loaded
from biomedcoop.estimators.labels import labels_of, names_of
from biomedcoop.methods import get_method
from biomedcoop.tasks import options
from biomedcoop.tasks.plan import plan_fit
from biomedcoop.tasks.request import PATHS, FitRequest

FACT = "estimator"
"""The fact of an artefact that holds what only the estimator knows."""


class FewShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Few-shot classification of images on a frozen vision-language model; the classifier for scikit-learn.

    It does what :func:`biomedcoop.fit` does with images and labels in place of a dataset. ``fit`` learns from all images that it
    gets. Features of training images and of predicted ones go through the feature store, so folds and searches encode each image
    once; ``classifier_`` predicts without it.

    Args:
        method: name of an adaptation method.
        backbone: the name or folder of a backbone, or a loaded one, which ``clone`` copies.
        shots: "all", or a number of images of each class to draw from those given.
        class_names: words for labels that are no words: a dict {label: name}, or a list in which label c stands for name c. Texts
            as labels are their own names. A method that reads no words needs none.
        random_state: seed of the draw and of the order of batches, as ``seed`` of :func:`biomedcoop.fit`; a ``RandomState`` or None
            draws it.
        recipe, settings, prompts, modality, organ, views, unlabelled, sampling, repeat_shots, calibrate, alpha, by_class, plugins,
            device, precision: see :class:`biomedcoop.tasks.request.FitRequest`.
        window, frame: see :func:`biomedcoop.load_dataset`; one image is taken of each file. They also
            decide how later predictions read images.
        set_score: score of the prediction sets, ``score`` there.

    Attributes:
        classes_: the sorted labels [C], of the type of ``y``.
        classifier_: the fitted :class:`biomedcoop.Classifier`; ``classifier_.class_names[c]`` stands for ``classes_[c]``, and with
            ``alpha``, ``classifier_.predict_sets`` gives sets of classes.
        image_shape_: shape [H, W] of the images of a batch [N, H, W]; None where the images were given in another form.

    Example:
        >>> import biomedcoop as bc
        >>> from sklearn.model_selection import cross_val_score
        >>> data = bc.load_dataset("simulated:breast-ultrasound?train=4&val=0&test=1").part("train")
        >>> estimator = bc.FewShotClassifier(method="simpleshot")
        >>> cross_val_score(estimator, data.images, data.labels, cv=2).shape
        (2,)
        >>> labels = [data.class_names[label] for label in data.labels]
        >>> estimator.fit(data.images, labels).predict(data.images[:1]).shape
        (1,)
    """

    def __init__(
        self,
        method: str = "auto",
        backbone: Backbone | str | os.PathLike[str] = "mini",
        *,
        shots: int | str = "all",
        class_names: Mapping[Any, str] | Sequence[str] | None = None,
        random_state: int | np.random.RandomState | None = 1,
        recipe: str = "general",
        settings: Mapping[str, Any] | None = None,
        prompts: str | os.PathLike[str] = "auto",
        modality: str | None = None,
        organ: str | None = None,
        views: int | str = 1,
        unlabelled: str | os.PathLike[str] | None = None,
        sampling: str = "equal",
        repeat_shots: bool = False,
        calibrate: str = "auto",
        alpha: float | None = None,
        set_score: str = "lac",
        by_class: bool = False,
        plugins: Sequence[str | os.PathLike[str]] | None = None,
        window: str = AUTO,
        frame: str | int = ALL,
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        self.method = method
        self.backbone = backbone
        self.shots = shots
        self.class_names = class_names
        self.random_state = random_state
        self.recipe = recipe
        self.settings = settings
        self.prompts = prompts
        self.modality = modality
        self.organ = organ
        self.views = views
        self.unlabelled = unlabelled
        self.sampling = sampling
        self.repeat_shots = repeat_shots
        self.calibrate = calibrate
        self.alpha = alpha
        self.set_score = set_score
        self.by_class = by_class
        self.plugins = plugins
        self.window = window
        self.frame = frame
        self.device = device
        self.precision = precision

    def fit(self, X: Any, y: Any, groups: Any = None) -> FewShotClassifier:
        """Learn from images and their labels.

        Args:
            X: N images; see :meth:`biomedcoop.Classifier.predict_proba`.
            y: N labels: texts, whole numbers, or truth values.
            groups: group of each image, such as the patient, or None. Images of one group stay together where the method divides
                its training images.

        Raises:
            UserError: a parameter, an image or a label cannot be used; before long work starts.
            ImageError: an image cannot be read.
        """
        classes, positions = labels_of(y)
        reading = Reading(self.window, str(self.frame))
        images = images_to_fit(X, reading, len(positions))
        names = names_of(classes, self.class_names, self._reader())
        n = len(images)
        keys, splits = [f"X[{i}]" for i in range(n)], ["train"] * n
        data = Dataset("X", names, images, keys, positions, splits, groups, reading=reading)  # type: ignore[arg-type]
        given = self.get_params(deep=False)
        shared = {name: given[name] for name in FitRequest.names() if name in given}
        request = FitRequest.of({"data": data, "seed": self._seed(), "score": self.set_score, **shared})
        plan = plan_fit(request, data)
        backbone = loaded(request.backbone, request.device, request.precision)
        notify(fit_notes(plan, backbone))
        with shown(None) as tell:
            (classifier,) = fit_plan(plan, backbone, tell, say=True)
        self.classifier_ = classifier.read_with(reading.window, reading.frame)
        self.classes_ = classes
        self.image_shape_ = known_shape(X, images)
        return self

    def predict_proba(self, X: Any) -> npt.NDArray[np.float32]:
        """Predict the probabilities of images, float32 [N, C], columns in the order of ``classes_``; one image gives one row.

        Warnings tell of unusual images, such as those unlike the training images.

        Raises:
            ImageError: an image cannot be read.
            UserError: ``X`` holds something else than images, or a file holds several and ``frame`` chooses none.
        """
        check_is_fitted(self)
        classifier = self._classifier()
        tally = Tally.after(classifier.facts)
        features = features_of(classifier.backbone, images_of(X, classifier.reading, known=self.image_shape_), tally)
        if classifier.domain is not None:
            tally.unlike = int(classifier.domain.unlike(features).sum())
        notify(closing_notes(tally, classifier.facts))
        return classifier.probabilities(features)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Predict the label of each image [N], of the type of ``classes_``. Arguments and errors are those of
        :meth:`predict_proba`.
        """
        best = self.predict_proba(X).argmax(1)
        found: npt.NDArray[Any] = self.classes_[best]
        return found

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the artefact of ``classifier_``, without pickle, with labels and parameters; of files, it holds only the names.

        :func:`biomedcoop.load` and the commands read it too, by class names in place of labels.

        Raises:
            UserError: see :func:`biomedcoop.classifier.artefact.save`.
        """
        check_is_fitted(self)
        own: dict[str, Any] = {
            "labels": self.classes_.tolist(),
            "type": self.classes_.dtype.str,
            "image_shape": self.image_shape_,
            "parameters": {name: _public(name, value) for name, value in self._described().items()},
        }
        classifier = self._classifier()
        replace(classifier, facts={**classifier.facts, FACT: own}).save(folder, overwrite=overwrite)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        backbone: Backbone | str | os.PathLike[str] | None = None,
        *,
        device: str = "cpu",
        precision: str = "float32",
    ) -> FewShotClassifier:
        """Read a fitted estimator that :meth:`save` wrote, or the model of :func:`biomedcoop.train`, whose labels are class names.

        Args and errors are those of :func:`biomedcoop.load`.
        """
        classifier = load(folder, backbone, device=device, precision=precision)
        own = classifier.facts.get(FACT, {})
        parameters = own.get("parameters", {"method": classifier.method, "settings": dict(classifier.settings)})
        labels = np.array(own.get("labels", classifier.class_names), dtype=own.get("type"))
        named = (
            dict(zip(labels.tolist(), classifier.class_names, strict=True)) if parameters.get("class_names") else None
        )
        here = {
            "class_names": named,
            "backbone": backbone or classifier.backbone.original.name,
            **vars(classifier.reading),
        }
        estimator = cls(**{**parameters, **here, "device": device, "precision": precision})
        estimator.classifier_ = classifier
        estimator.classes_ = labels
        estimator.image_shape_ = tuple(own["image_shape"]) if own.get("image_shape") else None
        return estimator

    def _classifier(self) -> Classifier:
        """The fitted classifier, which reads images with the window and frame of the parameters."""
        fitted: Classifier = self.classifier_
        return fitted.read_with(self.window, str(self.frame))

    def _described(self) -> dict[str, Any]:
        """The parameters; of those that are objects, what they stood for in the fit."""
        seed, name = self.classifier_.facts.get("seed"), self.classifier_.backbone.original.name
        kept = {
            name: value for name, value in self.get_params(deep=False).items() if name not in ("device", "precision")
        }
        return {**kept, "random_state": seed, "backbone": name}

    def _reader(self) -> str:
        """Name of the method if it reads the names of the classes; else empty."""
        options.plugins("plugins", self.plugins)  # before the method, which one of them may hold
        able = get_method(options.method("method", self.method)).abilities
        sentences = able.uses_sentences and has_text_tower(options.backbone("backbone", self.backbone))
        return self.method if able.needs_text_tower or sentences else ""

    def _seed(self) -> int:
        """The seed of a fit: the whole number itself, or one drawn from numpy's generator."""
        if self.random_state is None or isinstance(self.random_state, np.random.RandomState):
            return int(check_random_state(self.random_state).randint(2**31 - 1))
        return options.seed("random_state", self.random_state)

    def __sklearn_tags__(self) -> Any:
        return takes_images(super().__sklearn_tags__())


def _public(name: str, value: Any) -> Any:
    """A parameter as a JSON value, without folders of this machine."""
    if name == "class_names":
        return value is not None  # the names stand in the artefact
    if name == "plugins":
        return value and [Path(file).name for file in value]
    if name in PATHS and value is not None and Path(value).exists():
        return Path(value).name
    if name == "settings":
        return value and options.settings(name, value)
    return value.item() if isinstance(value, np.generic) else value
