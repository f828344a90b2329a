"""Images to features, as a transformer of scikit-learn."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import _num_samples, check_is_fitted

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.images.facts import Tally
from biomedcoop.data.images.stacks import ALL, Reading
from biomedcoop.data.images.windows import AUTO
from biomedcoop.errors import notify
from biomedcoop.estimators.images import features_of, images_of, images_to_fit, known_shape, loaded
from biomedcoop.tasks import options


class ImageEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Features of the centre crop of images, by the image tower of a frozen backbone; the transformer for scikit-learn.

    ``transform`` reads features from the feature store where it has them, so folds and searches encode each image once. ``fit``
    learns nothing from the images.

    Args:
        backbone: a loaded backbone, or the name or folder of one.
        unit_norm: divide each feature by its Euclidean norm, as ``linear-probe`` does.
        window, frame: see :func:`biomedcoop.load_dataset`; one image is taken of each file.
        device, precision: see :func:`biomedcoop.load_backbone`; not for a loaded backbone.

    Attributes:
        backbone_: the loaded backbone.
        image_shape_: shape [H, W] of the images of a batch [N, H, W]; None where the images were given in another form.

    Example:
        >>> import biomedcoop as bc
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> data = bc.load_dataset("simulated:breast-ultrasound?train=3&val=0&test=1").part("train")
        >>> probe = make_pipeline(bc.ImageEncoder(unit_norm=True), LogisticRegression(C=10))
        >>> probe.fit(data.images, data.labels).predict_proba(data.images[:2]).shape
        (2, 3)
    """

    def __init__(
        self,
        backbone: Backbone | str | os.PathLike[str] = "mini",
        *,
        unit_norm: bool = False,
        window: str = AUTO,
        frame: str | int = ALL,
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        self.backbone = backbone
        self.unit_norm = unit_norm
        self.window = window
        self.frame = frame
        self.device = device
        self.precision = precision

    def fit(self, X: Any, y: Any = None) -> ImageEncoder:
        """Check the parameters and the form of the images, and load the backbone.

        Args:
            X: images; see :meth:`biomedcoop.Classifier.predict_proba`.
            y: not read; there must be one for each image.

        Raises:
            UserError: a parameter cannot be used, or ``X`` holds something else than images.
        """
        options.yes_or_no("unit_norm", self.unit_norm)
        images = images_to_fit(X, self._reading(), None if y is None else _num_samples(y))
        self.backbone_ = loaded(self.backbone, self.device, self.precision)
        self.image_shape_ = known_shape(X, images)
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """Encode images to features float32 [N, E]; one image gives one row.

        Raises:
            ImageError: an image cannot be read.
            UserError: ``X`` holds something else than images, or a file holds several and ``frame`` chooses none.
        """
        check_is_fitted(self)
        tally = Tally()
        features = features_of(self.backbone_, images_of(X, self._reading(), known=self.image_shape_), tally)
        notify(tally.notes())
        if self.unit_norm:
            features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        return features

    def _reading(self) -> Reading:
        return Reading(self.window, str(self.frame))

    @property
    def _n_features_out(self) -> int:
        return self.backbone_.embed_dim

    def __sklearn_tags__(self) -> Any:
        tags = takes_images(super().__sklearn_tags__())
        tags.transformer_tags.preserves_dtype = []  # features are float32, whatever the type of pixels
        return tags


def takes_images(tags: Any) -> Any:
    """The tags of an estimator of images, which are no rows of numbers."""
    tags.input_tags.two_d_array = False
    tags.input_tags.one_d_array = tags.input_tags.three_d_array = tags.input_tags.string = True
    tags.no_validation = True  # of numbers
    return tags
