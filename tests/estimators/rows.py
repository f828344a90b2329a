"""The estimators for tables of numbers, the only input of scikit-learn's own checks: each row becomes a picture of stripes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from biomedcoop.estimators.encoder import ImageEncoder
from biomedcoop.estimators.few_shot import FewShotClassifier


def pictures(estimator: Any, X: Any, reset: bool = False) -> list[np.ndarray]:
    """Rows [N, F] as grey pictures [F, F], a stripe of each feature; −3 is black, 3 is white.

    What tables have and images have not, a number of columns, is the table's own matter: ``validate_data`` checks and keeps it.
    """
    table = validate_data(estimator, X, reset=reset)
    grey = np.clip(127.5 + 42.5 * table.astype(np.float64), 0, 255).round().astype(np.uint8)
    return [np.tile(row, (len(row), 1)) for row in grey]


def takes_rows(tags: Any) -> Any:
    given = tags.input_tags
    given.two_d_array = True
    given.one_d_array = given.three_d_array = given.string = False
    tags.no_validation = False
    return tags


class RowClassifier(FewShotClassifier):
    def fit(self, X: Any, y: Any, groups: Any = None) -> RowClassifier:
        return super().fit(pictures(self, X, reset=True), y, groups)

    def predict_proba(self, X: Any) -> Any:
        return super().predict_proba(pictures(self, X))

    def __sklearn_tags__(self) -> Any:
        return takes_rows(super().__sklearn_tags__())


class RowEncoder(ImageEncoder):
    def fit(self, X: Any, y: Any = None) -> RowEncoder:
        return super().fit(pictures(self, X, reset=True), y)

    def transform(self, X: Any) -> Any:
        return super().transform(pictures(self, X))

    def __sklearn_tags__(self) -> Any:
        return takes_rows(super().__sklearn_tags__())
