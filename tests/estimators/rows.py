"""The estimators for tables of numbers, which are all that scikit-learn's own checks make: each row becomes a picture of stripes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_array

from biomedcoop.estimators.encoder import ImageEncoder
from biomedcoop.estimators.few_shot import FewShotClassifier


def pictures(X: Any) -> list[np.ndarray]:
    """Rows [N, F] as grey pictures [F, F], a stripe of each feature; −3 is black, 3 is white."""
    table = check_array(X)
    grey = np.clip(127.5 + 42.5 * table.astype(np.float64), 0, 255).round().astype(np.uint8)
    return [np.tile(row, (len(row), 1)) for row in grey]


def takes_rows(tags: Any) -> Any:
    tags.input_tags.two_d_array = True
    tags.input_tags.one_d_array = tags.input_tags.three_d_array = tags.input_tags.string = False
    return tags


class RowClassifier(FewShotClassifier):
    def fit(self, X: Any, y: Any, groups: Any = None) -> RowClassifier:
        return super().fit(pictures(X), y, groups)

    def predict_proba(self, X: Any) -> Any:
        return super().predict_proba(pictures(X))

    def __sklearn_tags__(self) -> Any:
        return takes_rows(super().__sklearn_tags__())


class RowEncoder(ImageEncoder):
    def fit(self, X: Any, y: Any = None) -> RowEncoder:
        return super().fit(pictures(X), y)

    def transform(self, X: Any) -> Any:
        return super().transform(pictures(X))

    def __sklearn_tags__(self) -> Any:
        return takes_rows(super().__sklearn_tags__())
