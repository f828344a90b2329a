"""The transformer of scikit-learn: features of the store, as rows of any container, before any classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import _set_output

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from estimators.conftest import Few


def test_rows_are_the_features_of_embed(train: Few, tiny: Backbone) -> None:
    for unit_norm in (False, True):
        encoder = bc.ImageEncoder(tiny, unit_norm=unit_norm)
        rows = encoder.fit_transform(train.paths, train.labels)
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows, bc.embed(train.paths, tiny, unit_norm=unit_norm, labels=False).features)
    assert encoder.transform(train.paths[0]).shape == (1, tiny.embed_dim)
    assert encoder.transform([]).shape == (0, tiny.embed_dim)


def test_a_logistic_regression_on_it_is_the_linear_probe(train: Few, test: Few, tiny: Backbone) -> None:
    probe = bc.FewShotClassifier("linear-probe", tiny, calibrate="no").fit(train.paths, train.labels)
    c = float(probe.classifier_.state["c"])
    pipeline = make_pipeline(bc.ImageEncoder(tiny, unit_norm=True), LogisticRegression(C=c, max_iter=1000))
    pipeline.fit(train.paths, train.labels)
    # the probe keeps its weights in float32
    np.testing.assert_allclose(pipeline.predict_proba(test.paths), probe.predict_proba(test.paths), atol=1e-5)


def test_a_search_encodes_each_image_once_as_the_linear_probe_does(
    train: Few, test: Few, tiny_path: Path, encoded: list[int], empty_store: Path
) -> None:
    pipeline = make_pipeline(bc.ImageEncoder(tiny_path, unit_norm=True), LogisticRegression())
    search = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1]}, cv=3).fit(train.paths, train.labels)
    assert sum(encoded) == len(train.paths)  # six fits with two transforms each, and a fit on all
    search.predict(test.paths)
    assert sum(encoded) == len(train.paths) + len(test.paths)
    probe = bc.FewShotClassifier("linear-probe", tiny_path, calibrate="no").fit(train.paths, train.labels)
    probe.predict(test.paths)
    assert sum(encoded) == len(train.paths) + len(test.paths)


def test_a_change_of_a_parameter_changes_the_features(train: Few, tiny_path: Path, parity: Path) -> None:
    pipeline = make_pipeline(bc.ImageEncoder(tiny_path), LogisticRegression())
    pipeline.set_params(imageencoder__unit_norm=True).fit(train.paths, train.labels)
    assert np.allclose(np.linalg.norm(pipeline[:-1].transform(train.paths), axis=1), 1)


class ArrowTables:
    """Tables of pyarrow as the output of transformers: what pandas and polars are to scikit-learn, for a library of the tests."""

    container_lib = "pyarrow"

    def create_container(self, X_output: Any, X_original: Any, columns: Any, inplace: bool = True) -> pa.Table:
        return pa.table(dict(zip(columns() if callable(columns) else columns, X_output.T, strict=True)))

    def is_supported_container(self, X: Any) -> bool:
        return isinstance(X, pa.Table)

    def rename_columns(self, X: pa.Table, columns: Any) -> pa.Table:
        return X.rename_columns(columns)

    def hstack(self, Xs: Any) -> pa.Table:
        raise NotImplementedError


def test_features_have_names_in_the_container_that_is_asked_for(
    train: Few, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_set_output.ADAPTERS_MANAGER.adapters, "pyarrow", ArrowTables())
    encoder = bc.ImageEncoder(tiny).fit(train.paths)
    names = encoder.get_feature_names_out().tolist()
    assert names == [f"imageencoder{i}" for i in range(tiny.embed_dim)]
    table = encoder.set_output(transform="pyarrow").transform(train.paths)
    assert (table.num_rows, table.column_names) == (len(train.paths), names)
    np.testing.assert_array_equal(table.column(0), encoder.set_output(transform="default").transform(train.paths)[:, 0])


def test_a_grey_batch_and_its_parts(train: Few, tiny: Backbone) -> None:
    grey = np.stack([np.asarray(Image.open(path).convert("L")) for path in train.paths])
    encoder = bc.ImageEncoder(tiny).fit(grey)
    np.testing.assert_array_equal(encoder.transform(grey[:3]), encoder.transform(list(grey))[:3])
    with pytest.raises(bc.UserError, match=r"one image with 3 channels, and there are 24 labels"):
        encoder.fit(grey[:, :, :3], train.labels)
    with pytest.raises(bc.UserError, match=r"channels are not last"):
        bc.ImageEncoder(tiny).fit(grey[:3])  # without labels it could be one image


def test_what_cannot_be_used_is_refused(train: Few, tiny: Backbone, tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        bc.ImageEncoder(tiny).transform(train.paths)
    with pytest.raises(bc.UserError, match="unit_norm='yes' must be True or False"):
        bc.ImageEncoder(tiny, unit_norm="yes").fit(train.paths)  # type: ignore[arg-type]
    with pytest.raises(bc.UserError, match="precision 'half' is not known"):
        bc.ImageEncoder(tmp_path, precision="half").fit(train.paths)
    with pytest.raises(bc.UserError, match="device 'abacus' is not known"):
        bc.ImageEncoder(tmp_path, device="abacus").fit(train.paths)
    with pytest.raises(bc.ImageError, match=r"nowhere\.png: there is no such file"):
        bc.ImageEncoder(tiny).fit_transform(["nowhere.png"])
