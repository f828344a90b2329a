"""Files with windows and frames in the estimators: read as the Python API reads them, and as the artefact says."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.data.images.windows import CT_SOFT
from dicom_files import ct, write

WINDOW = "100,300"

LABELS = ["dark", "bright"] * 4


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(700, 1500, shape).astype(np.int16)


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Eight CT slices without a window, in two class folders that alternate."""
    folder = tmp_path_factory.mktemp("slices")
    return [
        str(write(folder / LABELS[i] / f"{i}.dcm", ct(pixels(i, 32, 32) + np.int16(200 * (i % 2))))) for i in range(8)
    ]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of five frames."""
    return str(write(tmp_path_factory.mktemp("film") / "film.dcm", ct(pixels(9, 5, 32, 32))))


def probe(backbone: Any, **parameters: Any) -> bc.FewShotClassifier:
    return bc.FewShotClassifier("simpleshot", backbone, calibrate="no", **parameters)


def same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-6)  # the number of rows of a product can change its last bits


def test_a_model_of_train_reads_with_its_window(slices: list[str], tiny: Backbone, tmp_path: Path) -> None:
    data = bc.load_dataset(Path(slices[0]).parents[1], window=WINDOW)
    bc.fit(data, "simpleshot", tiny, shots="all").save(tmp_path / "model")
    estimator, classifier = bc.FewShotClassifier.load(tmp_path / "model", tiny), bc.load(tmp_path / "model", tiny)
    assert (estimator.window, estimator.frame) == (WINDOW, "all")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "grey values became pictures")
        same(estimator.predict_proba(slices), classifier.predict_proba(slices))
    soft = classifier.read_with(window="soft").predict_proba(slices)
    assert np.abs(soft - classifier.predict_proba(slices)).max() > 1e-3
    same(estimator.set_params(window="soft").predict_proba(slices), soft)


def test_the_parameters_are_those_of_a_dataset(slices: list[str], tiny: Backbone, tmp_path: Path) -> None:
    estimator = clone(probe(tiny, window=WINDOW)).fit(slices, LABELS)
    data = bc.load_dataset(Path(slices[0]).parents[1], window=WINDOW)
    expected = bc.fit(data, "simpleshot", tiny, shots="all", calibrate="no")
    order = [expected.class_names.index(name) for name in estimator.classes_]
    same(estimator.predict_proba(slices), expected.predict_proba(slices)[:, order])
    facts = estimator.classifier_.facts
    assert {name: facts[name] for name in ("reading", "windows")} == {
        name: expected.facts[name] for name in ("reading", "windows")
    }
    estimator.save(tmp_path / "model")
    again = bc.FewShotClassifier.load(tmp_path / "model", tiny)
    assert (again.window, clone(again).window) == (WINDOW, WINDOW)
    same(again.predict_proba(slices), estimator.predict_proba(slices))
    same(bc.load(tmp_path / "model", tiny).predict_proba(slices), estimator.predict_proba(slices))
    encoder = bc.ImageEncoder(tiny, window=WINDOW)
    np.testing.assert_array_equal(encoder.fit_transform(slices), bc.embed(slices, tiny, window=WINDOW).features)
    assert not np.allclose(encoder.transform(slices), bc.ImageEncoder(tiny).fit_transform(slices))


def test_a_window_outlives_a_fit_on_pictures(slices: list[str], tiny: Backbone, tmp_path: Path) -> None:
    pictures = [np.tile(np.uint8(20 * i), (32, 32, 3)) for i in range(8)]
    estimator = probe(tiny, window=WINDOW, frame=2).fit(pictures, LABELS)
    estimator.save(tmp_path / "model")
    for read in (bc.load(tmp_path / "model", tiny), bc.FewShotClassifier.load(tmp_path / "model", tiny)):
        same(read.predict_proba(slices), estimator.predict_proba(slices))
    assert bc.load(tmp_path / "model", tiny).reading.frame == "2"


def test_a_fit_knows_where_its_windows_came_from(slices: list[str], tiny: Backbone) -> None:
    estimator = probe(tiny).fit(slices, LABELS)
    assert estimator.classifier_.facts["windows"] == [CT_SOFT]
    estimator.set_params(window="brain")
    with pytest.warns(bc.errors.Note, match=r"by the window that was asked for; in training by the CT window soft"):
        estimator.predict(slices)


def test_a_film_is_several_images(slices: list[str], film: str, tiny: Backbone) -> None:
    words = (
        r"film\.dcm: it holds 5 images; name one, e\.g\. 'film\.dcm#2', or give frame='middle' to the estimator, "
        r"or to read_with of the classifier$"
    )
    estimator, encoder = probe(tiny).fit(slices, LABELS), bc.ImageEncoder(tiny).fit(slices)
    ways = (
        lambda X: estimator.predict_proba(X),
        lambda X: encoder.transform(X),
        lambda X: bc.ImageEncoder(tiny).fit(X),
        lambda X: estimator.classifier_.predict_proba(X),
        lambda X: clone(estimator).fit([*slices[:-1], *X], LABELS),
    )
    for way in ways:
        with pytest.raises(bc.UserError, match=words):
            way([film])
        with pytest.raises(bc.UserError, match=r"image in memory: it holds 5 images; give frame='middle' to"):
            way([Path(film).read_bytes()])
    expected = estimator.classifier_.predict_proba([f"{film}#2", f"{film}#0"])
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    same(estimator.predict_proba([f"{film}#2", f"{film}#0"]), expected)
    same(estimator.set_params(frame="middle").predict_proba([film, f"{film}#0"]), expected)
    same(estimator.set_params(frame=0).predict_proba(Path(film).read_bytes()), expected[1:])
    frames = bc.ImageEncoder(tiny, frame="middle").fit_transform([film])
    np.testing.assert_array_equal(frames, encoder.transform(f"{film}#2"))
    with pytest.raises(bc.ImageError, match=r"film\.dcm#9: frame 9 was requested, but the file has 5"):
        clone(estimator).fit([*slices[:-1], f"{film}#9"], LABELS)


def test_a_window_or_frame_that_does_not_exist_is_refused(slices: list[str], tiny: Backbone) -> None:
    for wrong, words in (({"window": "brian"}, "did you mean brain"), ({"frame": None}, "frame='None' must be all")):
        for estimator in (probe(tiny, **wrong), bc.ImageEncoder(tiny, **wrong)):
            with pytest.raises(bc.UserError, match=words):
                estimator.fit(slices, LABELS)
