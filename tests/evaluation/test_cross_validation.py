"""Cross-validation: when it takes the place of a test split, and that no image is tested by a classifier that has seen it."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.classifier import fit as fitting
from biomedcoop.data.sampling.folds import divide
from biomedcoop.data.sampling.leakage import digest
from biomedcoop.errors import Note
from biomedcoop.evaluation import cross_validation
from biomedcoop.evaluation.cross_validation import cross_validate, plan_folds, shots_outside
from biomedcoop.tasks.request import FitRequest

QUICK: dict[str, Any] = {"method": "clip-adapter", "settings": {"epochs": 2}, "n_bootstrap": 40}


@pytest.fixture
def few(discs: Path, tmp_path: Path) -> Path:
    """A folder with 24 images of each class and no split."""
    return shutil.copytree(discs / "train", tmp_path / "few")


def unsplit(discs: Path) -> bc.Dataset:
    data = bc.load_dataset(discs).part("train")
    return data


def test_it_is_for_few_images_without_a_test_split(discs: Path) -> None:
    data = unsplit(discs)
    divisions = divide(data, [7])
    assert divisions is not None
    assert (divisions.seeds, divisions.number) == ((7, 8, 9), 5)
    assert "trained on 3 images of each class of the other folds" in divisions.note(3)
    assert "trained on 3 images of each class on average, of the other folds" in divisions.note(3, realistic=True)
    assert "trained on all images of the other folds" in divisions.note("all", realistic=True)
    assert divide(bc.load_dataset(discs), [1]) is None


def test_fewer_seeds_than_three_are_filled_up(discs: Path) -> None:
    def seeds(*given: int) -> tuple[int, ...]:
        divisions = divide(unsplit(discs), given)
        assert divisions is not None
        return divisions.seeds

    assert seeds(3, 9) == (3, 9, 10)
    assert seeds(9, 3) == (9, 3, 10)
    assert seeds(4, 3, 2, 1) == (4, 3, 2, 1)
    assert seeds(2**63 - 1) == (2**63 - 1, 0, 1)


def test_no_image_is_tested_by_a_classifier_that_has_seen_it(
    discs: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = unsplit(discs)
    data = replace(data, groups=[f"g{i // 2}" for i in range(len(data))])
    divisions = divide(data, [1])
    assert divisions is not None
    seen: list[set[str]] = []

    def spy(*given: Any, **named: Any) -> Any:
        found = fitting.fit_plan(*given, **named)
        seen.extend(set(classifier.facts["training_images"]) for classifier in found)
        return found

    monkeypatch.setattr(cross_validation, "fit_plan", spy)
    request = FitRequest(data, method="clip-adapter", settings={"epochs": 1}, backbone=tiny, shots=8)
    features = np.random.default_rng(1).normal(size=(len(data), tiny.embed_dim)).astype(np.float32)
    answers = cross_validate(plan_folds(request, data, divisions), data, divisions, features, tiny)
    found = [one.probabilities for one in answers]
    assert len(found) == 3
    assert len(seen) == 15
    for trained_on, (_, _, tested) in zip(seen, divisions, strict=True):
        assert trained_on
        assert not trained_on & {digest(image) for image in data.select(tested).images}
        assert {data.groups[i] for i in np.flatnonzero(tested)}.isdisjoint(  # type: ignore[index]
            data.groups[i]
            for i in range(len(data))
            if digest(data.images[i]) in trained_on  # type: ignore[index]
        )
    for probabilities in found:
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)


def test_shots_are_what_every_fold_leaves(discs: Path, tiny: Backbone) -> None:
    data = unsplit(discs)
    divisions = divide(data, [1])
    assert divisions is not None
    assert shots_outside(FitRequest(data, backbone=tiny), data, divisions) == 16
    assert shots_outside(FitRequest(data, backbone=tiny, shots=24), data, divisions) == 19
    assert shots_outside(FitRequest(data, backbone=tiny, shots="all"), data, divisions) == "all"


def test_a_published_recipe_keeps_images_for_validation(few: Path, tiny: Backbone, tmp_path: Path) -> None:
    words: dict[str, Any] = {"method": "tip-adapter", "recipe": "paper", "compare": ["clip-adapter"], "n_bootstrap": 40}
    report = bc.train(few, tmp_path / "run", backbone=tiny, settings={"grid": 5}, **words, html=False)
    assert report.shots == 16
    for path in [p for folder in few.iterdir() for p in sorted(folder.iterdir())[14:]]:
        path.unlink()
    with pytest.warns(Note, match=r"has 14 training images, so 10 of each class are used .*keeps some for validation"):
        assert bc.train(few, tmp_path / "less", backbone=tiny, settings={"grid": 5}, **words, html=False).shots == 10


def test_a_class_that_cannot_be_tested_is_named(few: Path, tiny: Backbone, tmp_path: Path) -> None:
    for path in sorted((few / "red_stone").iterdir())[1:]:
        path.unlink()
    with pytest.raises(bc.UserError, match="class 'red stone' has one training image, so it cannot be both"):
        bc.train(few, tmp_path / "run", backbone=tiny, **QUICK, html=False)


def test_a_run_on_few_images(few: Path, tiny: Backbone, tmp_path: Path) -> None:
    words = (
        r"5-fold cross-validation, with 3 divisions into folds \(seeds 1, 2, 3\), .* trained on 16 images of each class"
    )
    with pytest.warns(Note, match="has only 24 images, too few to set some aside"), pytest.warns(Note, match=words):
        report = bc.train(few, tmp_path / "run", backbone=tiny, **QUICK, html=False)
    assert report.metrics.n_images == 72
    assert {name: len(found) for name, found in report.comparison.by_run.items()} == {"clip-adapter": 3}
    assert report.metrics.n_runs == 3
    content = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert content["folds"] == 5
    assert len(content["by_seed"]["clip-adapter"]) == 3
    text = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "over 3 cross-validations, each with its own division into 5 folds" in text
    assert "cross-validation" in (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert len(bc.load(tmp_path / "run", tiny).facts["training_images"]) == 48  # 16 of each class, of all folds


def test_all_shots_of_unequal_folds(few: Path, tiny: Backbone, tmp_path: Path) -> None:
    for path in sorted((few / "red_stone").iterdir())[:3]:
        path.unlink()
    report = bc.train(few, tmp_path / "run", backbone=tiny, shots="all", seeds=[4, 5], compare=[], **QUICK, html=False)
    assert (report.metrics.n_images, report.shots, report.seed) == (69, "all", 4)
    assert json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["seeds"] == [4, 5]


def test_several_seeds_with_a_test_split(discs: Path, tiny: Backbone, tmp_path: Path) -> None:
    report = bc.train(discs, tmp_path / "run", backbone=tiny, seeds=[3, 1], shots=4, **QUICK, html=False)
    one = bc.train(discs, tmp_path / "one", backbone=tiny, seed=3, shots=4, **QUICK, html=False)
    other = bc.train(discs, tmp_path / "other", backbone=tiny, seed=1, shots=4, **QUICK, html=False)
    assert one.comparison.by_run == {}
    both = one.metrics.accuracy.value, other.metrics.accuracy.value
    assert tuple(run["accuracy"] for run in report.comparison.by_run["clip-adapter"]) == both
    assert report.metrics.accuracy.value == pytest.approx(np.mean(both))
    summed = np.array(one.metrics.confusion) + np.array(other.metrics.confusion)
    assert report.metrics.confusion == tuple(map(tuple, summed.tolist()))
    rows = list(csv.DictReader((tmp_path / "run" / "predictions.csv").open(encoding="utf-8")))
    assert [row["seed"] for row in rows] == ["3"] * one.metrics.n_images + ["1"] * one.metrics.n_images
    assert "over 2 seeds" in (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
