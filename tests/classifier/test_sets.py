"""Temperature and prediction sets of a fitted classifier: fitted, kept in the artefact, predicted, and refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.classifier.sets import PredictionSets
from biomedcoop.classifier.temperature import fit_temperature
from biomedcoop.data.sampling.calibration import set_aside
from biomedcoop.errors import Note
from biomedcoop.features.images import encode_images
from biomedcoop.methods import Abilities, Method, register
from biomedcoop.methods.base import REGISTRY


@dataclass(frozen=True)
class NoSettings:
    pass


@pytest.fixture
def closed() -> Iterator[str]:
    """A method with a closed form: class means of unit features, and the mean text of the sentences is left out."""

    @register
    class Means(Method):
        name = "class-means"
        title = "Class means"
        paper = "none"
        settings_type = NoSettings
        abilities = Abilities(uses_images=True, needs_text_tower=False, closed_form=True)
        parameters = "nothing"

        def fit(self, task: Any, settings: Any, seeds: Sequence[int], progress: Any = None) -> list[dict[str, Any]]:
            one_hot = F.one_hot(task.labels, len(task.class_names)).to(task.features)
            means = F.normalize(one_hot.transpose(1, 2) @ F.normalize(task.features, dim=-1), dim=-1)
            return [{"class_embeddings": own, "logit_scale": torch.tensor(20.0)} for own in means]

    yield "class-means"
    del REGISTRY["class-means"]


# -- temperature


def test_the_temperature_is_the_most_probable_one_with_one_more_image_that_all_classes_share() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 50)
    logits = 6 * (generator.standard_normal((50, 3)) + np.eye(3)[labels])
    targets = (np.eye(3)[labels] * 50 + 1 / 3) / 51

    def loss(temperature: float) -> float:
        z = logits / temperature
        likelihood = (targets * (z - np.log(np.exp(z).sum(axis=1, keepdims=True)))).sum()
        return float(np.log(temperature) ** 2 / 2 - likelihood)

    found = fit_temperature(logits, labels)
    assert found == pytest.approx(min(np.geomspace(0.1, 100, 4000), key=loss), rel=2 ** (1 / 32) - 1)
    assert 3 * found < fit_temperature(logits * 7, labels) < 7 * found  # the prior holds it back


def test_a_few_answers_that_are_all_wrong_do_not_flatten_all_probabilities() -> None:
    wrong = 2 * np.eye(3)[[1, 2, 0, 1, 2, 0]]
    assert 1 < fit_temperature(wrong, np.array([0, 1, 2, 0, 1, 2])) < 10


def test_answers_without_an_error_do_not_claim_certainty() -> None:
    logits = 100 * np.eye(2)[[0, 0, 1, 1]]
    p = 1 / (1 + np.exp(-100 / fit_temperature(logits, np.array([0, 0, 1, 1]))))
    assert (4 + 1 / 2) / (4 + 1) < p < 0.9995  # without the logits divided, it is 1 to the last bit


def test_answers_that_are_right_as_often_as_they_say_stay_as_they_are() -> None:
    """Also with few images of many classes: 14 of 16 answers are right, and their probability is 0.88."""
    labels = np.arange(16) % 8
    answers = labels.copy()
    answers[:2] += 1
    logits = np.log(0.88 / (0.12 / 7)) * np.eye(8)[answers]
    assert fit_temperature(logits, labels) == pytest.approx(1, abs=0.15)


def test_a_temperature_is_fitted_where_it_is_cheap_and_changes_no_answer(discs: Path, tiny: Backbone) -> None:
    data = bc.load_dataset(discs)
    plain = bc.fit(data, "tip-adapter", tiny, shots=8, calibrate="no")
    fitted = bc.fit(data, "tip-adapter", tiny, shots=8)
    assert plain.temperature == 1
    assert plain.facts["calibrated"] == ""
    assert fitted.temperature != 1
    assert (
        f"a temperature of {fitted.temperature:g}, fitted on answers about the 24 training images"
        in fitted.facts["calibrated"]
    )
    images = list(data.part("test").images)
    assert fitted.predict(images) == plain.predict(images)
    assert bc.fit(data, "tip-adapter", tiny, shots=8, recipe="paper").temperature == 1
    slow = {"settings": {"epochs": 1}, "shots": 4}
    dear = bc.fit(data, "coop", tiny, **slow)
    assert dear.temperature == 1
    assert dear.facts["calibrated"].endswith("would train through the text encoder; with calibrate yes it does.")
    one = bc.fit(data, "coop", tiny, **{**slow, "shots": 1})
    assert "not calibrated: every class has one training image" in one.facts["calibrated"], (
        "no fold, whatever is asked for"
    )
    assert bc.fit(data, "coop", tiny, **slow, calibrate="yes").temperature != 1


def test_a_temperature_survives_saving(discs: Path, tiny: Backbone, tmp_path: Path) -> None:
    data = bc.load_dataset(discs)
    fitted = bc.fit(data, "tip-adapter", tiny, shots=8, alpha=0.2)
    fitted.save(tmp_path / "model")
    read, images = bc.load(tmp_path / "model", tiny), list(data.part("test").images)
    assert read.temperature == fitted.temperature
    assert read.predict_proba(images).tobytes() == fitted.predict_proba(images).tobytes()
    assert read.predict_sets(images) == fitted.predict_sets(images)


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("tip-adapter", {"shots": 1}, "has one training image"),
        ("zero-shot", {}, "learns from no image"),
    ],
)
def test_where_nothing_can_be_held_out_a_note_says_so(
    method: str, options: dict[str, Any], words: str, discs: Path, tiny: Backbone
) -> None:
    with pytest.warns(Note, match=words):
        classifier = bc.fit(bc.load_dataset(discs), method, tiny, calibrate="yes", **options)
    assert classifier.temperature == 1


# -- calibration images


def test_calibration_images_are_of_other_groups_than_those_that_stay() -> None:
    labels = np.repeat([0, 1, 2], 12)
    related = np.arange(36) // 2  # pairs
    kept, calibration = set_aside(labels, related, 6, seed=3)
    assert not set(related[kept]) & set(related[calibration])
    assert len(set(related[calibration])) == len(calibration) == 6
    assert np.bincount(labels[calibration]).tolist() == [2, 2, 2]
    assert len(kept) == 36 - 2 * 6
    assert np.bincount(labels[set_aside(labels, related, 9, seed=3)[1]]).tolist() == [3, 3, 3]
    assert np.bincount(labels[set_aside(labels, np.arange(36), 4, 3, by_class=True)[1]]).tolist() == [4, 4, 4]


@pytest.mark.parametrize(("shots", "needed"), [(1, 9), (2, 9), (5, 9), (8, 19)])
def test_too_few_images_are_not_set_aside_in_vain(shots: int, needed: int) -> None:
    kept, calibration = set_aside(np.repeat([0, 1, 2], shots), np.arange(3 * shots), needed, seed=1)
    assert len(kept) == 3 * shots
    assert not len(calibration)


# -- sets


def test_split_sets_follow_from_the_calibration_images(discs: Path, tiny: Backbone) -> None:
    data = bc.load_dataset(discs)
    classifier = bc.fit(data, "tip-adapter", tiny, shots=16, alpha=0.2)
    sets = classifier.sets
    assert sets is not None
    assert sets.scores is not None
    assert len(sets.labels) == 15
    assert len(classifier.state["keys"]) == 48 - 15
    limit = np.sort(sets.scores)[13 - 1]  # ⌈16 · 0.8⌉ = 13
    images = list(data.part("test").images)
    p = classifier.predict_proba(images).astype(np.float64)
    names = np.array(classifier.class_names)
    # the predicted class is always in
    expected = [tuple(names[(1 - row <= limit) | (row == row.max())].tolist()) for row in p]
    assert classifier.predict_sets(images) == expected
    assert classifier.predict_sets(images[3]) == classifier.predict_sets(images)[3:4]


@pytest.mark.parametrize("score", ["lac", "aps", "raps"])
@pytest.mark.parametrize("by_class", [False, True])
def test_full_sets_equal_a_fit_by_hand_for_each_candidate(
    score: str, by_class: bool, closed: str, discs: Path, tiny: Backbone, tmp_path: Path
) -> None:
    from biomedcoop.classifier.conformal import random_numbers, set_scores
    from biomedcoop.methods import Task, get_method

    data = bc.load_dataset(discs)
    classifier = bc.fit(data, closed, tiny, shots=6, alpha=0.3, score=score, by_class=by_class)
    sets = classifier.sets
    assert sets is not None
    assert sets.features is not None
    tested = data.part("test").select(np.arange(0, 30, 5))
    x = encode_images(tiny, tested)
    found = classifier.members(x)
    method = get_method(closed)
    for i, feature in enumerate(x):
        for candidate in range(3):
            features = np.concatenate([sets.features, feature[None]])
            labels = np.append(sets.labels, candidate)
            task = Task(tiny, classifier.class_names, torch.from_numpy(features)[None], torch.from_numpy(labels)[None])
            (state,) = method.fit(task, NoSettings(), [1])
            p = method.logits(state, torch.from_numpy(features), tiny).double().softmax(-1).numpy()
            scores = set_scores(p, score, random_numbers(features))[np.arange(19), labels]
            among = scores[:18][sets.labels == candidate] if by_class else scores[:18]
            # p-value above alpha: the same rule without a threshold
            inside = (1 + (among >= scores[18]).sum()) / (len(among) + 1) > 0.3
            predicted = classifier.probabilities(feature[None]).argmax() == candidate
            assert found[i, candidate] == (inside or predicted)
    classifier.save(tmp_path / "model")
    assert np.array_equal(bc.load(tmp_path / "model", tiny).members(x), found)


def test_one_image_of_a_group_calibrates_full_sets(closed: str, discs: Path, tiny: Backbone) -> None:
    data = bc.load_dataset(discs)
    groups = np.array([f"{key.rpartition('/')[0]} {i // 2}" for i, key in enumerate(data.keys)])
    with pytest.warns(Note, match=r"\d+ of the \d+ training images, one of each group, calibrate them"):
        classifier = bc.fit(replace(data, groups=groups), closed, tiny, shots="all", alpha=0.3)
    assert classifier.sets is not None
    assert len(classifier.sets.labels) == len(set(groups[data.splits == "train"]))


def test_images_of_the_groups_of_calibration_images_are_counted(discs: Path, tiny: Backbone) -> None:
    data = bc.load_dataset(discs)
    groups = np.array([f"{key.rpartition('/')[0]} {i // 2}" for i, key in enumerate(data.keys)])
    words = r"(\d+) of the (\d+) training images are set aside to calibrate them \((\d+) more, of the same groups, .* other (\d+);"
    with pytest.warns(Note, match=words) as notes:
        bc.fit(replace(data, groups=groups), "tip-adapter", tiny, shots="all", alpha=0.3)
    (found,) = (match for note in notes if (match := re.search(words, str(note.message))))
    aside, drawn, unused, learned = map(int, found.groups())
    assert 0 < unused <= aside
    assert aside + unused + learned == drawn == (data.splits == "train").sum()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"shots": 4, "alpha": 0.05},
            r"need 19 calibration images, and at most half of the \d+ training images can be set aside: every set",
        ),
        ({"shots": 1, "alpha": 0.1}, "need 9 calibration images"),
        (
            {"shots": 16, "alpha": 0.1, "by_class": True},
            "need 9 calibration images of each class, and at most half of a class is set aside, with 16 training images of "
            ".*; give at least 18 images of each class",
        ),
    ],
)
def test_of_too_few_images_every_set_is_all_classes(
    options: dict[str, Any], words: str, discs: Path, tiny: Backbone
) -> None:
    data = bc.load_dataset(discs)
    with pytest.warns(Note, match=words):
        classifier = bc.fit(data, "tip-adapter", tiny, **options)
    assert set(classifier.predict_sets(list(data.part("test").images))) == {classifier.class_names}


def test_a_classifier_without_sets_says_so_before_it_reads_an_image(clf: bc.Classifier, tiny: Backbone) -> None:
    with pytest.raises(bc.UserError, match="no prediction sets; fit it with alpha"):
        clf.predict_sets(["there is no such file.png"])


def test_damaged_sets_are_refused() -> None:
    kept = PredictionSets(0.1, "lac", False, np.array([0, 1]), scores=np.array([0.2, 0.3]))
    tensors = kept.tensors()
    del tensors["sets.scores"]
    with pytest.raises(KeyError, match=r"sets\.scores"):
        PredictionSets.take_from(tensors, kept.description())


def test_a_score_without_alpha_is_said_to_change_nothing(discs: Path, tiny: Backbone) -> None:
    with pytest.warns(Note, match="score is given; without alpha there are no prediction sets"):
        bc.fit(bc.load_dataset(discs), "simpleshot", tiny, shots=2, score="aps")
