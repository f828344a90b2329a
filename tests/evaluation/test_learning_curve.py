"""The arithmetic of a learning curve on made-up answers, and a curve of a real method on simulated discs."""

from __future__ import annotations

import numpy as np
import pytest

import biomedcoop as bc
from biomedcoop.evaluation import learning_curve as learning_curve_module
from biomedcoop.evaluation.learning_curve import PARTS, LearningCurve, NoCurve, learning_curve
from biomedcoop.evaluation.wording import number
from biomedcoop.features.images import encode_images
from biomedcoop.tasks.request import TrainRequest

NAMES = ("cyst", "stone")


def curve_of(accuracies, n=400, seed=0, shots=(4.0, 8.0, 16.0)):
    """A curve whose classifiers are right with these probabilities."""
    rng = np.random.default_rng(seed)
    right = tuple(rng.random((parts, n)) < a for parts, a in zip(PARTS, accuracies, strict=True))
    return LearningCurve(shots, right, np.arange(n) % 2, NAMES, "fast")


def test_a_steady_gain_is_measured_and_continued():
    curve = curve_of((0.5, 0.6, 0.7), n=8000)
    slope, _, _ = curve.slopes[None]
    assert slope == pytest.approx(0.1, abs=0.01)
    assert curve.gain(8).value == pytest.approx(slope * np.log2(24 / 16))
    assert curve.gain(8, "cyst").value == pytest.approx(curve.slopes["cyst"][0] * np.log2(1.5))
    assert curve.sentence().startswith("8 more images of each class would change balanced accuracy by about +")
    assert "too uncertain" not in curve.sentence()


def test_the_interval_covers_the_change_to_the_next_training():
    rng, doublings, covered = np.random.default_rng(0), np.log2(1.5), 0
    for seed in range(60):
        curve = curve_of((0.6, 0.65, 0.7), n=100, seed=seed)
        change = rng.binomial(100, 0.7 + 0.05 * doublings) / 100 - curve.values()[2][0]
        covered += (gain := curve.gain(8)).low <= change <= gain.high
    assert covered >= 54


def test_no_gain_is_no_promise():
    curve = curve_of((0.6, 0.6, 0.6))
    gain = curve.gain(8)
    assert curve.sentence() == (
        f"What 8 more images of each class would change is too uncertain to tell: from {number(gain.low, signed=True)} "
        f"to {number(gain.high, signed=True)} points of balanced accuracy (95 % interval)."
    )


def test_a_gain_stays_between_nothing_and_all():
    curve = curve_of((0.3, 0.5, 0.8), n=12)
    for name in (None, *NAMES):
        now, gain = curve.values(name)[-1].mean(), curve.gain(8, name)
        assert -now <= gain.low <= gain.value <= gain.high <= 1 - now
    assert (gain.low, gain.high) == (-now, 1 - now)


def test_values_are_balanced_accuracies():
    right = tuple(np.tile([True, False, True, True], (parts, 1)) for parts in PARTS)
    curve = LearningCurve((1.0, 2.0, 4.0), right, np.array([0, 0, 1, 1]), NAMES, "fast")
    assert [value.tolist() for value in curve.values()] == [[0.75] * 4, [0.75] * 2, [0.75]]
    assert curve.values("cyst")[2].tolist() == [0.5]
    assert curve.more == 4


@pytest.fixture(scope="module")
def parts(discs):
    """What a curve needs: data, 8 training images of each class, features and the backbone."""
    data = bc.load_dataset(discs)
    backbone = bc.load_backbone("mini")
    tested = data.part("test")
    drawn = np.concatenate([np.flatnonzero((data.splits == "train") & (data.labels == k))[:8] for k in range(3)])
    classifier = bc.fit(data, method="tip-adapter", backbone=backbone, shots=8)
    return data, drawn, encode_images(backbone, tested), tested, classifier


def of(parts, **options):
    data, drawn, features, tested, classifier = parts
    request = TrainRequest.of({"data": data, "backbone": classifier.backbone, **options})
    return learning_curve(request, data, drawn, features, tested, classifier, np.ones(len(tested), dtype=np.int64))


def test_a_curve_trains_on_quarters_halves_and_all(parts):
    curve = of(parts, method="tip-adapter")
    assert curve.shots == (2.0, 4.0, 8.0)
    assert [len(right) for right in curve.right] == list(PARTS)
    assert all(right.shape[1] == 30 for right in curve.right)
    assert curve.recipe == "general"
    assert of(parts, method="tip-adapter").values()[0].tolist() == curve.values()[0].tolist()


def test_the_last_point_is_the_run_itself(parts, monkeypatch):
    trained = []
    known = learning_curve_module.fit_plan
    monkeypatch.setattr(
        learning_curve_module, "fit_plan", lambda plan, *v, **k: trained.append(1) or known(plan, *v, **k)
    )
    curve = of(parts, method="tip-adapter")
    assert curve.ends_at_run
    assert curve.right[-1].tolist() == [(parts[3].labels == 1).tolist()]  # the answers that were given, always class 1
    assert len(trained) == 2, "all images are not trained on again"
    other = of(parts, method="tip-adapter", settings={"grid": 5})
    assert not other.ends_at_run
    assert len(trained) == 5


def test_the_fast_recipe_stands_in_for_a_slow_one(parts):
    curve = of(parts, method="kgcoop")
    assert curve.recipe == "fast"
    assert not curve.ends_at_run


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "cocoop"}, "steps through the text tower"),
        ({"method": "kgcoop", "settings": {"epochs": 90}}, "steps through the text tower"),
        ({"method": "zero-shot"}, "learns from no image"),
        ({"method": "tip-adapter", "views": 4}, "random crops"),
    ],
)
def test_what_is_not_cheap_is_not_done(parts, options, words):
    with pytest.raises(NoCurve, match=words):
        of(parts, **options)


def test_too_few_images_make_no_curve(parts):
    data, drawn, *rest = parts
    for left, said in ((3, "has 3 training images, and a curve needs 4"), (1, "has 1 training image, and a curve")):
        with pytest.raises(NoCurve, match=said):
            of((data, np.concatenate([drawn[:left], drawn[8:]]), *rest), method="tip-adapter")
