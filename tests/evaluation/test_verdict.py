"""Every finding of a verdict, its alarms, and their order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from biomedcoop.evaluation.comparison import Comparison, Predictions
from biomedcoop.evaluation.next_step import UNLIKE
from biomedcoop.evaluation.verdict import judge
from biomedcoop.methods.recommended import recommended

KINDS = ["headline", "score", "largest class", "zero-shot", "weakest class", "next"]


BEST = recommended()["unknown"]["recommended"]["16"]
BEST_KNOWN = recommended()["known"]["recommended"]["16"]
METHODS = ("coop", "zero-shot", BEST)


def comparison_of(
    truth, *answers, names=("cyst", "stone"), groups=None, sure=1.0, methods=METHODS, folds=None
) -> Comparison:
    """The comparison of methods that give their answers, [N] or [R, N], the probability ``sure``."""
    c = len(names)
    other = (1 - sure) / (c - 1)
    one_hot = {m: np.eye(c)[np.asarray(a)] for m, a in zip(methods, answers, strict=False)}
    p = {m: answers * (sure - other) + other for m, answers in one_hot.items()}
    keys = tuple(f"{i}.png" for i in range(len(truth)))
    return Comparison.of(Predictions(keys, np.asarray(truth), names, p, groups, folds=folds), n_bootstrap=200)


def verdict(*args, shots=16, recipe="general", unused=0, leaks=(), **given) -> dict[str, str]:
    """The texts of a verdict by kind."""
    findings = judge(comparison_of(*args, **given), shots=shots, recipe=recipe, unused=unused, leaks=leaks)
    kinds = [finding.kind for finding in findings]
    assert len(set(kinds)) == len(kinds)
    for finding in findings:
        assert finding.text.endswith("."), finding
        # a list after a colon may be longer
        assert all(len(sentence.split(": ")[0].split()) <= 30 for sentence in finding.text.split(". ")), finding
    return {finding.kind: finding.text for finding in findings}


def changed(n: int, of: int, wrong: int) -> str:
    return (
        f"Training changed {n} of the {of} answers that the backbone gives without training (zero-shot), though {wrong} of them "
        "are wrong."
    )


TRUTH = [0] * 50 + [1] * 50
GOOD = [0] * 40 + [1] * 10 + [1] * 45 + [0] * 5
HALF = [0, 1] * 50


def test_a_good_method_has_facts_and_no_alarm() -> None:
    found = verdict(TRUTH, GOOD, HALF, sure=0.85)
    assert list(found) == KINDS
    assert (
        found["headline"]
        == "coop is better than always answering the same class and than zero-shot (no training), beyond chance."
    )
    assert found["score"].startswith("It is right for 85.0 % of 100 test images (95 % interval 7")
    assert found["largest class"].startswith(
        "Always answering the same class reaches 50.0 %, a difference of +35.0 points (+2"
    )
    assert found["zero-shot"].startswith(
        "Zero-shot, the backbone without training, reaches 50.0 %, a difference of +35"
    )
    assert (
        found["weakest class"] == "Weakest class: 10 of 50 images of “cyst” are missed, all of them taken for “stone”."
    )
    assert not [f for f in judge(comparison_of(TRUTH, GOOD, HALF, sure=0.85)) if f.alarm]


def test_a_difference_that_may_be_chance_is_called_so() -> None:
    near = [*GOOD[:50], *[1] * 48, *[0] * 2]
    found = verdict(TRUTH, near, GOOD)
    assert found["headline"] == (
        "coop is better than always answering the same class, beyond chance, but not better than "
        "zero-shot (no training) beyond chance."
    )
    assert found["zero-shot"].endswith(", which may be chance.")


def test_a_slight_difference_is_called_slight() -> None:
    """As on covid_radiography with the published recipe: 61.6 % where always answering normal has 60.0."""
    truth = [0] * 180 + [1] * 270
    found = verdict(
        truth, [0] * 9 + [1] * 439 + [0] * 2, [1] * 450, names=("covid lungs", "normal lungs"), recipe="paper"
    )
    assert found["headline"] == (
        "coop is slightly better than always answering the largest class and than zero-shot (no training), "
        "beyond chance. It hardly finds "
        "“covid lungs”."
    )
    assert found["found less than by chance"] == (
        "171 of 180 images of “covid lungs” are missed, all of them taken for “normal lungs”. Random answers would find 50.0 %."
    )
    assert found["training changed little"] == changed(11, 450, 180)
    assert found["next"] == (
        f"Train with the default recipe and compare with {BEST} ('--recipe general --compare zero-shot,{BEST}')."
    )


def test_below_the_largest_class() -> None:
    truth = [0] * 40 + [1] * 60
    found = verdict(truth, [0] * 60 + [1] * 40, [1, 0] * 50)
    assert "below the largest class" not in found
    found = verdict(truth, [0] * 90 + [1] * 10, [1, 0] * 50)
    assert found["headline"].startswith(
        "coop is worse than always answering the largest class, though not beyond chance, and not better than zero-shot"
    )
    assert found["below the largest class"].startswith(
        "Always answering “stone”, the largest class, reaches 60.0 %, a difference of −10.0 points ("
    )
    assert "largest class" not in found


def test_uneven_classes_are_judged_by_balanced_accuracy_and_told_where_plain_accuracy_is_below() -> None:
    """As on ham10000 with the published recipe: balanced accuracy slightly above chance, accuracy far below the largest class."""
    truth, names = np.repeat([0, 1, 2], [20, 100, 30]), ("a", "b", "c")
    found = verdict(truth, np.where(np.arange(150) < 12, 0, 2), np.full(150, 2), names=names)
    assert found["headline"] == (
        "coop is right less often than always answering the largest class. In balanced accuracy, it is better than always "
        "answering the largest class and than zero-shot (no training), beyond chance. It hardly finds “b”."
    )
    assert found["score"].startswith(
        "Its balanced accuracy, in which every class counts the same, is 53.3 % (95 % interval "
    )
    assert found["score"].endswith("on 150 test images. It comes first, because “b” has 5.0 times the images of “a”.")
    assert found["largest class"].startswith(
        "In balanced accuracy, always answering “b”, the largest class, reaches 33.3 %, a difference of +20.0 points"
    )
    assert found["below the largest class"] == (
        "In plain accuracy it is below the largest class: it is right for 28.0 % of the images, always answering “b” for 66.7 %."
    )


def test_exactly_three_to_one_is_not_uneven() -> None:
    truth = [0] * 10 + [1] * 30
    assert comparison_of(truth, truth).measure == "accuracy"
    assert comparison_of([0, *truth[2:]], truth[1:]).measure == "balanced_accuracy"


def test_classes_that_are_never_predicted() -> None:
    names = tuple("abc")
    found = verdict(np.repeat([0, 1, 2], 20), np.repeat([0, 0, 2], 20), np.repeat([1, 1, 2], 20), names=names)
    assert (
        found["class never predicted"]
        == "Never the answer: “b” (20 test images). “a” is the answer for 40 of 60 images."
    )
    assert "weakest class" not in found
    many = tuple(f"c{k}" for k in range(9))
    found = verdict(np.repeat(range(9), 10), np.zeros(90, int), names=many)
    assert "“c5” (10 test images) and 3 more. “c0” is the answer for 90 of 90 images." in found["class never predicted"]
    assert "It hardly finds 8 of 9 classes." in found["headline"]


def test_training_that_changed_nothing() -> None:
    found = verdict(TRUTH, GOOD, GOOD)
    assert found["headline"].endswith("but no better than zero-shot (no training).")
    assert found["training changed little"] == changed(0, 100, 15)
    assert found["next"] == (
        f"Train with '--compare zero-shot,{BEST_KNOWN}': {BEST_KNOWN} is recommended where the backbone knows the classes."
    )
    assert "training changed little" not in verdict(TRUTH, GOOD, GOOD, shots=None)
    assert "training changed little" not in verdict(TRUTH, TRUTH, TRUTH)  # nothing was wrong


def test_a_method_below_zero_shot() -> None:
    found = verdict(TRUTH, HALF, GOOD)
    assert found["headline"] == (
        "coop is not better than always answering the same class beyond chance, and worse than zero-shot "
        "(no training), beyond chance."
    )
    assert found["below zero-shot"].startswith(
        "Zero-shot, the backbone without training, is better, beyond chance: it reaches 85.0 %, a difference of −35.0"
    )


def test_no_better_than_chance() -> None:
    found = verdict(TRUTH, HALF)
    assert found["no better than chance"].startswith("Not better than chance: the AUROC is 50.0 % (95 % interval ")


def test_badly_calibrated_probabilities() -> None:
    assert "badly calibrated" not in verdict(TRUTH, GOOD, HALF, sure=0.85)
    assert "badly calibrated" not in verdict(TRUTH, GOOD, HALF, sure=0.93)
    said = (
        "Do not read the probabilities as confidence: the answers claim 99.0 % on average, and 85.0 % of them are right "
        "(calibration error 14.0 points)"
    )
    assert verdict(TRUTH, GOOD, HALF, sure=0.99)["badly calibrated"] == f"{said}."
    mended = judge(comparison_of(TRUTH, GOOD, HALF, sure=0.99), may_calibrate=True)
    assert f"{said}; '--calibrate yes' may mend it." in [finding.text for finding in mended]


def test_leaks_stand_first() -> None:
    findings = judge(comparison_of(TRUTH, GOOD, HALF), leaks=["Copies: 3 of 9."])
    assert [f.kind for f in findings][:2] == ["leak", "headline"]
    assert findings[0].text == "The test images are not independent. Copies: 3 of 9."


def test_test_images_of_one_class() -> None:
    found = verdict([1] * 20, [1] * 15 + [0] * 5, [0] * 20)
    assert found["headline"] == "coop is better than zero-shot (no training), beyond chance."
    assert found["one class"].startswith("All test images show “stone”. The comparison with the largest class, AUROC ")
    assert not {"largest class", "below the largest class", "found less than by chance"} & found.keys()
    assert verdict([1] * 20, [1] * 20)["headline"] == "coop has nothing to be compared with on these images."


def test_without_a_zero_shot_row() -> None:
    found = verdict(TRUTH, GOOD)
    assert found["headline"] == "coop is better than always answering the same class, beyond chance."
    assert "zero-shot" not in found


def test_the_one_comparison_may_be_another_method() -> None:
    found = verdict(TRUTH, GOOD, HALF, methods=("coop", "lp++"))
    assert found["lp++"].startswith("lp++ reaches 50.0 %, a difference of +35.0 points")


def test_one_group_has_no_interval_and_no_relation() -> None:
    found = verdict(TRUTH, GOOD, HALF, groups=["P"] * 100)
    assert found["headline"] == (
        "coop is not comparable with always answering the same class or with zero-shot (no training): there is no interval."
    )
    assert found["score"] == "It is right for 85.0 % of 100 test images (without an interval)."
    assert found["one group"].startswith(
        "All test images come from one group (such as a patient): the numbers have no interval"
    )


def test_a_class_without_test_images() -> None:
    found = verdict([0] * 20 + [1] * 20, [0] * 20 + [1] * 20, names=tuple("abc"))
    assert found["class without test images"].startswith("No test image shows “c”: ")


def test_fewer_than_ten_images_or_groups_prove_no_difference() -> None:
    found = verdict([0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0, 0])
    assert (
        found["headline"]
        == "coop is not better than always answering the same class or than zero-shot (no training) beyond chance."
    )
    assert found["few test images"].startswith("The test has only 8 test images: the 95 % intervals are rough")
    assert found["zero-shot"].endswith("(+100.0 to +100.0), but 8 test images are too few to tell.")
    assert found["next"] == "Test on more images: fewer than 10 say little."
    found = verdict(TRUTH, TRUTH, HALF, groups=[f"P{i % 9}" for i in range(100)])
    assert "not better" in found["headline"]
    assert found["next"] == "Test on images of more groups (such as patients): fewer than 10 say little."


def test_a_perfect_score_on_few_images_has_wilsons_interval() -> None:
    """Nine of nine: all bootstrap resamples are equal, which would give 100.0–100.0."""
    truth = [0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert (
        verdict(truth, truth, truth)["score"]
        == "It is right for 100.0 % of 9 test images (95 % interval 70.1–100.0 %)."
    )


def test_several_seeds_are_judged_together() -> None:
    """The first seed is better than zero-shot, the others are not; a class that one seed finds is not "never predicted"."""
    zero_shot = [0] * 35 + [1] * 15 + [1] * 35 + [0] * 15
    found = verdict(TRUTH, [GOOD, [0] * 100, [0] * 100], zero_shot, sure=0.7)
    assert found["headline"].startswith(
        "coop is better than always answering the same class, beyond chance, but worse than zero-shot (no training), though not"
    )
    assert found["score"].startswith("It is right for 61.7 % of 100 test images (95 % interval ")
    assert found["score"].endswith("%), the mean of 3 seeds (50.0 to 85.0 %).")
    assert "class never predicted" not in found
    assert found["found less than by chance"].startswith(
        "35 of 50 images of “stone” are missed on average, all of them taken for “cyst”."
    )
    found = verdict(TRUTH, [[0] * 100] * 3, [0] * 99 + [1], sure=0.7, folds=5)
    assert found["class never predicted"].endswith("“cyst” is the answer for 100 of 100 images.")
    assert found["training changed little"].startswith("Training changed 1 of the 100 answers")
    assert found["score"].endswith("the mean of 3 cross-validations (50.0 to 50.0 %).")


def test_several_methods_leave_the_differences_to_the_table() -> None:
    found = verdict(TRUTH, GOOD, HALF, TRUTH)
    assert found["largest class"] == "Always answering the same class reaches 50.0 %."
    assert found[f"below {BEST}"] == f"{BEST} is better, beyond chance: it reaches 100.0 %."
    assert "zero-shot" not in found
    assert found["next"] == f"Train with '--method {BEST}', which is better on these images, beyond chance."


@pytest.mark.parametrize(
    ("answers", "options", "words"),
    [
        ((GOOD, HALF), {"leaks": ["Copies."]}, "Take the shared images or groups out"),
        ((GOOD, HALF), {"unused": 24}, "Train on the 24 training images that are left, too ('--shots all')."),
        ((GOOD, HALF), {}, "Train with several seeds ('--seeds 1,2,3')"),
        (([GOOD] * 3, HALF), {}, "Test on images from another place"),
        ((GOOD, HALF), {"shots": None}, f"Train on a few images per class: '--method {BEST}'."),
        ((HALF, HALF), {"shots": None}, "or check the sentences"),
        ((HALF, HALF), {}, f"'--compare zero-shot,{BEST}': {BEST} is recommended where the backbone does not know"),
        ((GOOD, GOOD), {}, f"{BEST_KNOWN}': {BEST_KNOWN} is recommended where the backbone knows the classes"),
        ((HALF, HALF, HALF), {}, "Train on more images, or with another backbone"),
        ((HALF, HALF, HALF), {"methods": ("coop", "zero-shot", "cocoop")}, f"'--compare zero-shot,cocoop,{BEST}'"),
        ((HALF, HALF, HALF), {"unused": 70}, "Train on the 70 training images that are left, too ('--shots all'), or with another"),
        ((HALF, HALF), {"methods": (BEST, "zero-shot"), "recipe": "paper"}, "Train on more images"),
        (([0] * 77 + [1] * 23, [1] * 50 + [0] * 50), {},
         f"Give more training images of “stone”, or train with '--compare zero-shot,{BEST}'"),
        (([0] * 77 + [1] * 23, [1] * 50 + [0] * 50), {"unused": 9}, "Train on the 9 training images that are left"),
    ],
)  # fmt: skip
def test_the_next_step_follows_from_the_findings(answers, options, words) -> None:
    assert words in verdict(TRUTH, *answers, **options)["next"]


def test_zero_shot_is_taken_where_nothing_better_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("biomedcoop.evaluation.next_step._recommended", lambda *_: "zero-shot")
    expected = "Take zero-shot ('--method zero-shot'), or train on more images"
    assert verdict(TRUTH, GOOD, GOOD, shots=1)["next"].startswith(expected)


def test_a_method_without_sentences_is_not_told_to_check_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("biomedcoop.evaluation.next_step._recommended", lambda *_: "linear-probe")
    half = [0] * 77 + [1] * 23, [1] * 50 + [0] * 50
    assert "sentences" not in verdict(TRUTH, *half, methods=("linear-probe", "zero-shot"))["next"]


def test_the_next_step_fits_method_and_classes() -> None:
    # one image per class, of classes that the backbone knows: a method that is better than zero-shot is not given up
    assert "Take zero-shot" not in verdict(TRUTH, TRUTH, GOOD, shots=1)["next"]
    collapsed = verdict(
        [0] * 60 + [1] * 20 + [2] * 20, [0] * 79 + [1] + [0] * 20, [0] * 100, names=("a", "b", "c"), shots="all"
    )
    assert collapsed["next"].startswith("Train with equally many images of each class")
    assert collapsed["found less than by chance"].startswith("19 of 20 images of “b” are missed")
    assert collapsed["class never predicted"].startswith("Never the answer: “c” (20 test images).")


def test_random_answers_are_over_all_classes() -> None:
    """A class without test images is an answer, too."""
    found = verdict([0] * 30 + [1] * 30, [0] * 30 + [1] * 12 + [2] * 18, [0] * 60, names=("a", "b", "c"))
    assert found["weakest class"].startswith("Weakest class: 18 of 30 images of “b” are missed")
    found = verdict([0] * 30 + [1] * 30, [0] * 30 + [1] * 8 + [2] * 22, [0] * 60, names=("a", "b", "c"))
    assert found["found less than by chance"].endswith("Random answers would find 33.3 %.")


def test_a_class_of_few_test_images_needs_more_of_them() -> None:
    truth = [0] * 30 + [1] * 9
    found = verdict(truth, [0] * 30 + [1] * 8 + [0], [1] * 39)
    assert found["few test images"] == "Classes with fewer than 10 test images: “stone” (9). Their numbers say little."
    assert found["next"] == "Collect more test images of “stone”."


def test_a_cross_validation_asks_for_images_not_for_test_images() -> None:
    found = verdict([0] * 30 + [1] * 9, [0] * 30 + [1] * 8 + [0], [1] * 39, folds=3)
    assert found["next"] == "Collect more images of “stone”."


def sets_verdict(members, answers, calibration, alpha=0.1) -> str:
    """The finding on prediction sets of 100 images, or an empty text."""
    p = np.eye(2)[np.asarray(answers)]
    keys = tuple(f"{i}.png" for i in range(100))
    sets = {"alpha": alpha, "members": np.asarray(members, dtype=bool)[None], "calibration": calibration}
    tested = Comparison.of(Predictions(keys, np.asarray(TRUTH), ("cyst", "stone"), {"gda": p}, **sets), n_bootstrap=40)
    return next((one.text for one in judge(tested, shots=16) if one.kind == "sets of all classes"), "")


@pytest.mark.parametrize(
    ("flagged", "of", "groups", "alarm"),
    [
        *[(2, 10, None, False), (6, 30, None, False), (7, 30, None, True)],
        *[(14, 100, None, False), (18, 100, None, True), (18, 100, 10, False)],
    ],
)
def test_images_unlike_the_training_images_alarm_where_false_alarms_cannot_be_the_reason(
    flagged: int, of: int, groups: int | None, alarm: bool
) -> None:
    """Up to 10 % are false alarms; few images, or few patients, may show more of them by chance."""
    of_group = None if groups is None else np.array([str(i % groups) for i in range(of)])
    tested = comparison_of([0, 1] * (of // 2), [0, 1] * (of // 2), groups=of_group)
    unlike = np.arange(of) < flagged
    tested = Comparison.of(replace(tested.predictions, unlike=unlike), n_bootstrap=200)
    findings = judge(tested, shots=16, recipe="general", unlike="Some are unlike them")
    assert [f.text for f in findings if f.kind == UNLIKE] == ["Some are unlike them."] * alarm


def test_sets_of_all_classes_are_of_no_use_and_the_reason_is_said() -> None:
    whole, single = [[1, 1]] * 100, np.eye(2)[GOOD].tolist()
    assert sets_verdict(single, GOOD, 20) == ""
    assert sets_verdict(single[:30] + whole[:70], GOOD, 20) == ""
    few = sets_verdict(whole, GOOD, 6)
    assert few.startswith(
        "The prediction sets are of no use here: 100.0 % of them hold all 2 classes. Alpha 0.1 needs 9 calibration"
    )
    assert few.endswith("and there are 6. Give more images, or a larger alpha (0.2 needs 4).")
    weak = sets_verdict(single[:20] + whole[:80], GOOD, 20)
    assert weak.startswith(
        "The prediction sets are of no use here: 80.0 % of them hold all 2 classes. Of the answers 15.0 % are wrong"
    )
    assert weak.endswith("or allow more misses ('--alpha 0.2').")
    assert sets_verdict(whole, [1 - k for k in GOOD], 20).endswith("more training images or a better method.")
    limit = "The largest score of the 15 calibration images is the limit, and more images lower it."
    assert limit in sets_verdict(whole, GOOD, 15)
    assert "is the limit" not in weak
