"""The classifier of scikit-learn: the answers of `bc.fit`, any labels, folds, searches, and a folder without pickle."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.errors import Note
from biomedcoop.estimators.images import loaded
from biomedcoop.tasks.request import BUDGET, FitOptions
from estimators.conftest import Few

NAMES = {0: "blue cyst", 1: "green tumor", 2: "red stone"}


def probe(backbone: Any, **parameters: Any) -> bc.FewShotClassifier:
    return bc.FewShotClassifier(**{"method": "simpleshot", "backbone": backbone, **parameters})


def refusal(estimator: bc.FewShotClassifier, X: Any, y: Any, **more: Any) -> str:
    with pytest.raises(ValueError, match=r"\w") as caught:
        estimator.fit(X, y, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_it_answers_as_fit_does(discs: Path, tiny: Backbone) -> None:
    data = bc.load_dataset(discs)
    part = data.part("train")
    for method, more in (("tip-adapter", {}), ("biomedcoop", {"settings": {"epochs": 1}, "shots": 2})):
        expected = bc.fit(part, method, tiny, **{"shots": "all", **more}, seed=3)
        y = [data.class_names[label] for label in part.labels]
        estimator = probe(tiny, method=method, random_state=3, **more).fit(part.images, y)
        assert estimator.classifier_.facts["training_images"] == expected.facts["training_images"]
        images = data.part("test").images
        # the number of rows of a product can change its last bits
        np.testing.assert_allclose(estimator.predict_proba(images), expected.predict_proba(images), atol=1e-6)
        assert estimator.predict(images).tolist() == expected.predict(images)


def test_every_option_of_a_fit_is_a_parameter() -> None:
    own = set(inspect.signature(bc.FewShotClassifier).parameters)
    renamed = {"score": "set_score"}  # estimators have a method of that name
    shorthands = {BUDGET}  # for a setting
    options = {renamed.get(name, name) for name in FitOptions.__annotations__ if name not in shorthands}
    reading = {"window", "frame"}  # a dataset has them, in place of which images are given
    assert own == options | reading | {"method", "backbone", "shots", "class_names", "random_state"}


def test_importing_the_package_imports_no_scikit_learn() -> None:
    program = (
        "import sys, biomedcoop as bc; loaded = lambda: [name in sys.modules for name in ('sklearn', 'torch')]\n"
        "before = loaded(); bc.FewShotClassifier; print(before, loaded())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[False, False] [True, False]\n"


# -- labels


@pytest.mark.parametrize("kind", ["int64", "uint8", "float32", "bool", "object", "<U12"])
def test_answers_are_labels_of_the_given_type(train: Few, test: Few, tiny: Backbone, kind: str) -> None:
    words = kind in ("object", "<U12")
    y = np.array(train.labels if words else train.numbers % (2 if kind == "bool" else 3), dtype=kind)
    estimator = probe(tiny).fit(train.paths, y)
    assert estimator.classes_.dtype == y.dtype
    answers = estimator.predict(test.paths)
    assert answers.dtype == y.dtype
    assert estimator.score(train.paths, y) > 0.6
    assert set(answers) <= set(estimator.classes_)


def test_numbers_need_names_where_a_method_reads_words(train: Few, tiny: Backbone, tiny_path: Path) -> None:
    for method in ("zero-shot", "auto", "zero-shot-ensemble"):
        for backbone in (tiny, tiny_path):
            words = refusal(probe(backbone, method=method), train.paths, train.numbers)
            assert words.startswith(f"y holds numbers, and {method} reads the names of the classes; ")
            assert "give class_names={0: '…', 1: '…'}" in words
    by_name = probe(tiny, method="zero-shot").fit(train.paths, train.labels)
    for class_names in (NAMES, list(NAMES.values()), np.array(list(NAMES.values()))):
        estimator = probe(tiny, method="zero-shot", class_names=class_names).fit(train.paths, train.numbers)
        assert estimator.classifier_.class_names == by_name.classifier_.class_names
        assert estimator.classes_.tolist() == [0, 1, 2]
        assert by_name.predict_proba(train.paths[:3]).tobytes() == estimator.predict_proba(train.paths[:3]).tobytes()
    codes = probe(tiny, method="zero-shot", class_names={"b": "blue cyst", "g": "green tumor", "r": "red stone"})
    assert codes.fit(train.paths, [name[0] for name in train.labels]).classifier_.class_names == tuple(NAMES.values())


def test_a_fold_without_a_class_keeps_its_names(train: Few, tiny: Backbone) -> None:
    kept = train.numbers != 1
    paths = [path for path, keep in zip(train.paths, kept, strict=True) if keep]
    for class_names in (NAMES, list(NAMES.values())):
        estimator = probe(tiny, class_names=class_names).fit(paths, train.numbers[kept])
        assert dict(zip(estimator.classes_.tolist(), estimator.classifier_.class_names, strict=True)) == {
            0: "blue cyst",
            2: "red stone",
        }


def test_what_is_no_label_is_refused(train: Few, tiny: Backbone) -> None:
    estimator, n = probe(tiny), len(train.paths)
    assert "the target y is None" in refusal(estimator, train.paths, None)
    assert "holds 24 images and y 23 labels" in refusal(estimator, train.paths, train.labels[1:])
    assert "Unknown label type" in refusal(estimator, train.paths, np.linspace(0, 1, n))
    assert "NaN" in refusal(estimator, train.paths, np.full(n, np.nan))
    assert "y mixes texts with other labels (None)" in refusal(
        estimator, train.paths, np.array([*train.labels[1:], None])
    )
    assert "has one class ('a')" in refusal(estimator, train.paths, ["a"] * n)
    assert "'Cyst' and 'cyst' are the same" in refusal(estimator, train.paths, ["cyst", "Cyst"] * (n // 2))
    names = probe(tiny, class_names={0: "cyst", 1: "stone"})
    assert "class_names has no name for the label 2; name every class" in refusal(names, train.paths, train.numbers)
    named = probe(tiny, class_names=["cyst"])
    assert "no name for the label 'blue cyst' (a list names the labels 0, 1, …" in refusal(
        named, train.paths, train.labels
    )
    assert "class_names='cyst' must be a dict" in refusal(probe(tiny, class_names="cyst"), train.paths, train.numbers)


# -- images


def test_images_come_in_any_form(train: Few, test: Few, tiny: Backbone) -> None:
    arrays = [np.asarray(Image.open(path)) for path in train.paths]
    estimator = probe(tiny).fit(train.paths, train.labels)
    expected = estimator.predict_proba(train.paths)
    forms = {
        "texts": [str(path) for path in train.paths],
        "array of texts": np.array([str(path) for path in train.paths]),
        "tuple": tuple(train.paths),
        "arrays": arrays,
        "one array": np.stack(arrays),
        "Pillow": [Image.fromarray(pixels) for pixels in arrays],
        "bytes": [path.read_bytes() for path in train.paths],
    }
    for name, images in forms.items():
        again = probe(tiny).fit(images, train.labels).predict_proba(images)
        np.testing.assert_allclose(again, expected, atol=1e-6, err_msg=name)
    one = estimator.predict_proba(arrays[0])
    assert one.shape == (1, 3)  # three axes with 3 last are one image
    np.testing.assert_allclose(one[0], expected[0], atol=1e-6)
    assert estimator.predict(str(test.paths[0])).shape == (1,)
    assert estimator.predict_proba([]).shape == (0, 3)


@pytest.fixture
def grey(train: Few) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path).convert("L")) for path in train.paths])  # [24, 40, 40]


def test_folds_of_a_grey_batch_are_batches_however_small(train: Few, tiny: Backbone, grey: np.ndarray) -> None:
    estimator = probe(tiny).fit(grey, train.numbers)
    assert estimator.image_shape_ == (40, 40)
    expected = estimator.predict_proba(list(grey))
    for count in (1, 3, 4):  # shapes that could be an image with channels first
        found = estimator.predict_proba(grey[:count])
        np.testing.assert_allclose(found, expected[:count], atol=1e-6)
    assert cross_val_score(probe(tiny), grey, train.numbers, cv=8).shape == (8,)  # three images in each fold
    three = probe(tiny).fit(grey[:3], [0, 1, 1])  # three labels tell that these are three images
    assert three.predict(grey[:3]).shape == (3,)


def test_one_column_of_paths_is_a_column(train: Few, tiny: Backbone) -> None:
    column = np.array(train.paths, dtype=object)[:, None]
    chosen = ColumnTransformer([("paths", "passthrough", [1])])
    pipeline = make_pipeline(chosen, probe(tiny)).fit(np.hstack([column, column]), train.labels)
    expected = probe(tiny).fit(train.paths, train.labels).predict_proba(train.paths)
    np.testing.assert_array_equal(pipeline.predict_proba(np.hstack([column, column])), expected)
    table = pa.table({"path": list(map(str, train.paths))})
    np.testing.assert_array_equal(pipeline[-1].predict_proba(table), expected)
    assert "array of objects [24, 2]" in refusal(probe(tiny), np.hstack([column, column]), train.labels)


def test_a_fit_without_images_says_so(tiny: Backbone) -> None:
    for empty in ([], np.array([]), np.empty((0, 1), dtype=object), np.zeros((0, 40, 40), np.uint8)):
        assert refusal(probe(tiny), empty, []) == "X holds no images; fit needs at least one"
        with pytest.raises(bc.UserError, match="X holds no images"):
            bc.ImageEncoder(tiny).fit(empty)


def test_a_batch_of_width_3_is_one_image_and_refused(train: Few, tiny: Backbone, grey: np.ndarray) -> None:
    words = refusal(probe(tiny), grey[:, :, :3], train.numbers)
    assert words == (
        "X is an array [24, 40, 3], which is one image with 3 channels, and there are 24 labels; give grey images of width 3 as a "
        "list of arrays [H, W]"
    )
    assert probe(tiny).fit(list(grey[:, :, :3]), train.numbers).predict(list(grey[:2, :, :3])).shape == (2,)


def test_what_is_no_image_is_refused(train: Few, tiny: Backbone, grey: np.ndarray, tmp_path: Path) -> None:
    estimator, n = probe(tiny), len(train.paths)
    assert "X is an iterator, which can be read once only; give list(X)" in refusal(
        estimator, iter(train.paths), train.labels
    )
    assert "X[1] is missing (None)" in refusal(estimator, [train.paths[0], None], ["a", "b"])
    assert "array [24, 3, 40, 40] whose channels are not last" in refusal(
        estimator, np.stack([grey] * 3, axis=1), train.labels
    )
    (tmp_path / "torn.png").write_bytes(train.paths[0].read_bytes()[:200])
    assert "torn.png" in refusal(estimator, [*train.paths[1:], tmp_path / "torn.png"], train.labels)
    fitted = probe(tiny).fit(list(grey), train.labels)
    with pytest.raises(bc.ImageError, match=r"X\[1\]: an array of float64 \[40, 40\]"):
        fitted.predict([grey[0], grey[1] / 255])
    assert "one for each image" in refusal(estimator, train.paths, train.labels, groups=["p"] * (n - 1))


# -- scikit-learn's tools


def test_parameters_are_stored_untouched_and_checked_in_fit(train: Few, tiny_path: Path) -> None:
    wrong = bc.FewShotClassifier(method="tip-adaptor", settings={"alpha": 2}, random_state=-1, backbone=tiny_path)
    assert wrong.get_params()["backbone"] is tiny_path
    assert "did you mean tip-adapter" in refusal(wrong, train.paths, train.labels)
    wrong.set_params(method="simpleshot", settings=None)
    assert "random_state=-1 must be a whole number" in refusal(wrong, train.paths, train.labels)
    again = clone(wrong.set_params(random_state=2))
    assert again.get_params() == wrong.get_params()
    assert again.fit(train.paths, train.labels) is again
    assert "no score 'lic'" in refusal(again.set_params(set_score="lic"), train.paths, train.labels)
    with pytest.raises(NotFittedError):
        bc.FewShotClassifier().predict(train.paths)


def test_pipeline_search_and_calibration(train: Few, test: Few, tiny_path: Path) -> None:
    flipped = FunctionTransformer(lambda paths: [np.asarray(Image.open(path))[:, ::-1] for path in paths])
    pipeline = make_pipeline(flipped, probe(tiny_path)).fit(train.paths, train.labels)
    assert pipeline.predict_proba(test.paths).shape == (12, 3)
    assert pipeline.classes_.tolist() == list(NAMES.values())
    grid = {"method": ["simpleshot", "gda"], "calibrate": ["no"], "random_state": np.arange(1, 2)}
    search = GridSearchCV(probe(tiny_path), grid, cv=2, error_score="raise").fit(train.paths, train.labels)
    assert search.best_estimator_.get_params()["method"] in grid["method"]
    assert search.score(test.paths, test.labels) == np.mean(search.predict(test.paths) == test.labels)
    for kind in ({"ensemble": True}, {"ensemble": False}, {"method": "isotonic"}):
        calibrated = CalibratedClassifierCV(probe(tiny_path), cv=2, **kind).fit(train.paths, np.array(train.labels))
        np.testing.assert_allclose(calibrated.predict_proba(test.paths).sum(1), 1, atol=1e-6)


def test_groups_stay_together_in_a_fit(train: Few, tiny: Backbone) -> None:
    estimator = probe(tiny, method="linear-probe", calibrate="no")
    with pytest.warns(Note, match=r"only training images of one group"):
        estimator.fit(train.paths, train.labels, groups=train.labels)
    groups = np.arange(len(train.paths)) // 3
    cv = GroupKFold(2)
    found = cross_validate(estimator, train.paths, train.labels, groups=groups, params={"groups": groups}, cv=cv)
    assert len(found["test_score"]) == 2


def test_a_seed_draws_the_shots(train: Few, tiny: Backbone) -> None:
    def drawn(random_state: Any) -> list[str]:
        fitted = probe(tiny, shots=2, random_state=random_state).fit(train.paths, train.labels)
        return list(fitted.classifier_.facts["training_images"])

    assert len(probe(tiny).fit(train.paths, train.labels).classifier_.facts["training_images"]) == len(train.paths)
    assert len(drawn(1)) == 6
    assert drawn(1) == drawn(np.int64(1)) != drawn(2)
    assert drawn(np.random.RandomState(5)) == drawn(np.random.RandomState(5))
    state = np.random.RandomState(5)
    assert drawn(state) != drawn(state)
    assert len(drawn(None)) == 6


def test_sets_and_what_an_image_is_unlike(train: Few, test: Few, tiny: Backbone) -> None:
    estimator = probe(tiny, alpha=0.2).fit(train.paths, train.labels)
    assert len(estimator.classifier_.predict_sets(test.paths)) == len(test.paths)
    strange = np.zeros((2, 40, 40), dtype=np.uint8)
    strange[:, :20] = 255
    with pytest.warns(Note, match="2 of 2 images are unlike the training images") as said:
        probe(tiny, class_names=NAMES).fit(train.paths, train.numbers).predict(list(strange))
    assert {warning.filename for warning in said} == {__file__}


# -- the work is done once


def test_images_are_encoded_once_across_folds_and_searches(
    train: Few, tiny_path: Path, encoded: list[int], empty_store: Path
) -> None:
    estimator = probe(tiny_path)
    cross_val_score(estimator, train.paths, train.labels, cv=KFold(4))
    assert sum(encoded) == len(train.paths)
    GridSearchCV(estimator, {"method": ["simpleshot", "gda"], "class_names": [None]}, cv=2).fit(
        train.paths, train.labels
    )
    assert sum(encoded) == len(train.paths)


def test_a_backbone_is_loaded_once_while_it_is_the_same(tiny_path: Path, tmp_path: Path) -> None:
    first = loaded(tiny_path, "cpu", "float32")
    assert loaded(str(tiny_path), "cpu", "float32") is first
    copied = tmp_path / "model"
    copied.mkdir()
    for file in tiny_path.iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    other = loaded(copied, "cpu", "float32")
    assert other is not first
    assert loaded(copied, "cpu", "float32") is other
    (copied / "note.txt").write_text("changed")
    assert loaded(copied, "cpu", "float32") is not other
    assert loaded(first, "cpu", "float32") is first
    with pytest.raises(bc.UserError, match="did you mean mini"):
        loaded("minni", "cpu", "float32")


@pytest.mark.slow
def test_folds_in_several_processes(train: Few, tiny_path: Path) -> None:
    one, two = (cross_val_score(probe(tiny_path), train.paths, train.labels, cv=3, n_jobs=n) for n in (1, 2))
    assert one.tolist() == two.tolist()


# -- a folder without pickle


@pytest.mark.parametrize("kind", ["int64", "float32", "bool", "object", "<U12"])
def test_a_saved_estimator_is_the_same(train: Few, test: Few, tiny_path: Path, tmp_path: Path, kind: str) -> None:
    words = kind in ("object", "<U12")
    y = np.array(train.labels if words else train.numbers % (2 if kind == "bool" else 3), dtype=kind)
    class_names = None if words else {label: f"kind {label}" for label in np.unique(y).tolist()}
    estimator = probe(tiny_path, class_names=class_names, random_state=np.int64(4)).fit(train.paths, y)
    estimator.save(tmp_path / "model")
    again = bc.FewShotClassifier.load(tmp_path / "model", tiny_path)
    assert again.classes_.dtype == y.dtype
    assert again.classes_.tolist() == estimator.classes_.tolist()
    assert again.get_params() == estimator.get_params()
    assert again.predict_proba(test.paths).tobytes() == estimator.predict_proba(test.paths).tobytes()
    assert again.predict(test.paths).tolist() == estimator.predict(test.paths).tolist()
    assert clone(again).fit(train.paths, y).predict(test.paths).tolist() == estimator.predict(test.paths).tolist()
    assert bc.load(tmp_path / "model", tiny_path).class_names == estimator.classifier_.class_names


def test_a_saved_estimator_keeps_the_form_of_a_batch_and_no_folder(
    train: Few, tiny_path: Path, grey: np.ndarray, tmp_path: Path
) -> None:
    words = tmp_path / "words.json"
    words.write_text(json.dumps({name: ["Round.", "Dark."] for name in NAMES.values()}))
    estimator = probe(tiny_path, method="zero-shot-ensemble", prompts=words).fit(grey, train.labels)
    estimator.save(tmp_path / "model")
    assert {file.name for file in (tmp_path / "model").iterdir()} == {
        "classifier.json",
        "model.safetensors",
        "README.md",
    }
    for file in (tmp_path / "model").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes()
        assert str(tiny_path).encode() not in file.read_bytes()
    again = bc.FewShotClassifier.load(tmp_path / "model", tiny_path)
    assert again.predict(grey[:3]).tolist() == estimator.predict(grey[:3]).tolist()
    assert again.prompts == "words.json"  # a name: a fit that cannot find the file says so
    with pytest.raises(bc.UserError, match="exists"):
        estimator.save(tmp_path / "model")
    estimator.save(tmp_path / "model", overwrite=True)
    with pytest.raises(NotFittedError):
        bc.FewShotClassifier().save(tmp_path / "other")


def test_a_model_of_train_becomes_an_estimator(discs: Path, tiny: Backbone, test: Few, tmp_path: Path) -> None:
    bc.fit(bc.load_dataset(discs), "simpleshot", tiny, shots=4).save(tmp_path / "model")
    estimator = bc.FewShotClassifier.load(tmp_path / "model", tiny)
    assert estimator.classes_.tolist() == list(NAMES.values())
    assert estimator.method == "simpleshot"
    assert estimator.score(test.paths, test.labels) == np.mean(estimator.predict(test.paths) == test.labels)
