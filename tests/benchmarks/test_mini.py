"""What the tables of mini are made of: the probe, the intervals, the means and the marks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from benchmarks.datasets import GROUPS, complete_groups, related
from benchmarks.mini import modality, probe, similarity
from benchmarks.mini.accuracy import CARD, Row, balanced, dealt, estimated
from benchmarks.mini.probe import C_GRID, cached_raw_probes, choose_c, on_span, standardised
from benchmarks.mini.tables import accuracy_table, aims, aims_table, draws_table, group_means
from biomedcoop.data.dataset import Dataset
from biomedcoop.evaluation.bootstrap import Estimate
from biomedcoop.evaluation.intervals import bootstrap_means, wilson

N = 40


def dataset(n: int = N, root: Path | None = None, name: str = "toy") -> Dataset:
    return Dataset(
        name=name,
        class_names=("cyst", "stone"),
        images=np.zeros((n, 4, 4), dtype=np.uint8),
        keys=tuple(f"test/{i}.png" for i in range(n)),
        labels=np.arange(n) % 2,
        splits=np.array(["test"] * n),
        root=root,
    )


def row(name: str, group: str, **columns: tuple[float, float]) -> Row:
    """A dataset with (value, half width of the interval) by column."""
    estimates = {k: Estimate(v, v - half, v + half) for k, (v, half) in columns.items()}
    samples = {k: np.array([v - half, v + half]) for k, (v, half) in columns.items()}
    draws = {"features": [0.5, 0.6, 0.7], "raw pixels": [0.1, 0.2, 0.3]}
    return Row(name, group, dataset(), np.zeros((N, 2), dtype=np.float32), {}, estimates, samples, draws)


def scored(name: str, group: str, probe: float, raw: float, half: float, names: float = 0.6) -> Row:
    gain = (probe - raw, half)
    columns: dict[str, Any] = {
        f"{what}_{k}": (v, 0.01) for what, v in (("probe", probe), ("raw", raw)) for k in ("16", "all")
    }
    more = {"gain_16": gain, "gain_all": gain, "gain_names": (names - 0.5, half)}
    return row(name, group, **columns, **more, largest=(0.5, 0.01), class_names=(names, 0.01))


# --- probe --------------------------------------------------------------------------------------------------------


def test_standardised_uses_the_training_images_alone_and_centres_a_constant() -> None:
    train = np.array([[1.0, 5.0], [5.0, 5.0]])  # means 3 and 5, deviations 2 and 0
    got_train, got_test = standardised(train, np.array([[9.0, 6.0], [3.0, 5.0]]))
    assert got_train.tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    assert got_test.tolist() == [[3.0, 1.0], [0.0, 0.0]]


def test_on_span_keeps_the_answers_of_the_probe() -> None:
    rng = np.random.default_rng(0)
    train, test, labels = rng.normal(size=(12, 50)), rng.normal(size=(200, 50)), np.arange(12) % 3
    small_train, small_test = on_span(train, test)
    assert small_train.shape == (12, 12)
    assert small_test.shape == (200, 12)
    models = [LogisticRegression(C=0.1, max_iter=5000, tol=1e-8).fit(x, labels) for x in (train, small_train)]
    whole, small = models[0].predict_proba(test), models[1].predict_proba(small_test)
    np.testing.assert_allclose(small, whole, atol=1e-4)  # two runs of an iterative solver
    assert len(np.unique(whole.argmax(1))) == 3


def test_on_span_leaves_many_images_as_they_are() -> None:
    train, test = np.ones((5, 3)), np.ones((2, 3))
    assert on_span(train, test)[0] is train
    assert on_span(train, test)[1] is test


def test_choose_c_is_weak_on_separable_data_and_strong_on_noise() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    noise = rng.normal(size=(60, 5))
    separable = noise + 20.0 * labels[:, None]
    weak, strong = choose_c(separable, labels), choose_c(noise, labels)
    assert {weak, strong} <= set(C_GRID)
    assert strong < 0.1 < 1.0 <= weak


def test_cached_raw_probes_are_read_back_and_made_anew_for_other_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(data: Dataset, features: Any, split: str) -> dict[str, Any]:
        calls.append(probe.SEEDS)
        return probe.collected([[1, 0], [1, 1], [0, 0]], [1, 0], [0.1, 0.2, 0.3, 0.4])

    monkeypatch.setattr(probe, "probes", counted)
    first = cached_raw_probes(dataset(2), "test", tmp_path)
    again = cached_raw_probes(dataset(2), "test", tmp_path)
    assert len(calls) == 1
    assert again["draws"].tolist() == first["draws"].tolist() == [[1, 0], [1, 1], [0, 0]]
    assert again["16"] == pytest.approx([2 / 3, 1 / 3])
    assert again["all"].tolist() == [1, 0]
    assert again["c"] == [0.1, 0.2, 0.3, 0.4]
    monkeypatch.setattr(probe, "SEEDS", (4, 5, 6))
    cached_raw_probes(dataset(2), "test", tmp_path)
    assert len(calls) == 2


# --- intervals ----------------------------------------------------------------------------------------------------


def test_related_reads_the_manifest(tmp_path: Path) -> None:
    data = dataset(4, tmp_path)
    assert len(set(related(data))) == 4, "without a manifest every image is its own group"
    lines = ["file,label,group", "test/0.png,0,p1", "test/1.png,1,p1", "test/2.png,0,", "test/3.png,1,"]
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    groups = related(data)
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3


def test_all_right_and_all_wrong_have_a_width_but_no_difference_does() -> None:
    scores = {"names": np.ones(N), "sentences": np.zeros(N), "gain_16": np.zeros(N)}
    estimates, _ = estimated(scores, 0)
    assert estimates["names"] == wilson(1.0, N)
    assert estimates["sentences"] == wilson(0.0, N)
    assert estimates["gain_16"] == Estimate(0.0, 0.0, 0.0)
    halves = np.repeat(np.arange(N // 2), 2).astype(str)
    assert estimated(scores, 0, halves)[0]["names"] == wilson(1.0, N // 2)


def test_balanced_scores_resample_as_the_balanced_accuracy_does() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 2, 3], [300, 60, 40])  # no image of class 1
    right = (rng.random(400) < np.array([0.9, 0.0, 0.5, 0.2])[truth]).astype(float)

    def exact(rows: Any) -> float:
        return float(np.mean([right[rows][truth[rows] == c].mean() for c in (0, 2, 3)]))

    scores = balanced(right, truth)
    assert scores.mean() == pytest.approx(exact(np.arange(400)))
    assert scores.mean() < right.mean() - 0.1
    resampled = np.std([exact(rng.integers(400, size=400)) for _ in range(1000)])
    assert bootstrap_means({"": scores}, 0)[1][""].std() == pytest.approx(resampled, rel=0.1)  # two draws of 1,000
    assert (balanced(np.ones(400), truth) == 1.0).all()


def test_dealt_sentences_are_of_another_class_each() -> None:
    own = [["a1", "a2"], ["b1", "b2"], ["c1", "c2"]]
    wrong = dealt(own)
    assert sorted(wrong) == own
    assert not any(one == other for one, other in zip(own, wrong, strict=True))


# --- tables -------------------------------------------------------------------------------------------------------


def test_group_means_are_of_complete_groups_only() -> None:
    names = GROUPS["unseen"]
    values = [0.1 * i for i in range(1, len(names) + 1)]
    rows = [row(name, "unseen", largest=(v, 0.1)) for name, v in zip(names, values, strict=True)]
    rows[0] = replace(rows[0], estimates={**rows[0].estimates, "sentences": Estimate(0.7, 0.6, 0.8)})
    rows[0].samples["sentences"] = np.array([0.6, 0.8])
    means = group_means([*rows, row("btmri", "seen", largest=(0.9, 0.1))])
    assert list(means) == ["unseen"]
    mean = means["unseen"]["largest"]
    assert mean.value == pytest.approx(np.mean(values))
    assert mean.low == pytest.approx(np.mean(values) - 0.095)
    assert means["unseen"]["sentences"].value == pytest.approx(0.7), "over the datasets that have the column"
    assert group_means(rows[1:]) == {}
    assert complete_groups([name for names in GROUPS.values() for name in names]) == ["seen", "unseen"]


def test_aims_marks() -> None:
    rows = [
        scored("btmri", "seen", 0.90, 0.80, 0.05),
        scored("kneexray", "seen", 0.90, 0.80, 0.20),
        scored("mednist", "seen", 0.80, 0.80, 0.01, names=0.4),
        scored("bccd_cells", "seen", 0.90, 0.80, 0.05),
        scored("busi", "unseen", 0.90, 0.80, 0.05),
    ]
    table = aims_table(aims(rows, {}, "val"))
    marks = {row[0]: [row[i] for i in (4, 8, 11)] for row in table.rows}
    assert marks == {
        "btmri": ["✓", "✓", "✓"],
        "kneexray": ["✓ (±)", "✓ (±)", "✓ (±)"],
        "mednist": ["✗", "✗", "✗"],
        "bccd_cells": ["", "", ""],
        "busi": ["", "", ""],
    }
    assert table.notes[-1] == "Aims met: 6 of 9, 3 of them without (±)."


def test_aims_take_the_card_as_a_second_bar_on_test_images_only() -> None:
    below = CARD["btmri"][0] / 100 - 0.01
    one = [scored("btmri", "seen", below, below - 0.2, 0.05)]
    assert [aim["met"] for aim in aims(one, {}, "test")] == [False, False, True]
    assert [aim["met"] for aim in aims(one, {}, "val")] == [True, True, True]


def test_aims_of_the_unseen_mean_use_its_paired_interval() -> None:
    rows = [scored(name, "unseen", 0.99, 0.90, 0.05) for name in GROUPS["unseen"]]
    unseen = [aim for aim in aims(rows, group_means(rows), "val") if aim["what"] == "unseen, mean"]
    assert [(aim["met"], aim["sure"]) for aim in unseen] == [(True, True)] * 2
    wide = [scored(name, "unseen", 0.99, 0.90, 0.30) for name in GROUPS["unseen"]]
    unseen = [aim for aim in aims(wide, group_means(wide), "val") if aim["what"] == "unseen, mean"]
    assert [(aim["met"], aim["sure"]) for aim in unseen] == [(True, False)] * 2


def test_tables_name_groups_and_draws() -> None:
    one = scored("btmri", "seen", 0.9, 0.8, 0.05)
    pairs = np.repeat(np.arange(N // 2), 2).astype(str)
    one = replace(one, held=replace(one.held, groups=pairs))
    assert accuracy_table([one]).rows[0][:5] == ["seen", "btmri", 40, 20, "50.0 (49.0–51.0)"]
    assert draws_table([one]).rows[0] == ["btmri", "50.0", "60.0", "70.0", "10.0", "20.0", "30.0"]


# --- words --------------------------------------------------------------------------------------------------------


def test_similarity_counts_as_seen_only_classes_with_real_images() -> None:
    classes = similarity.library_classes()
    real = {(c.file, c.name) for c in classes if similarity.had_images(c)}
    assert ("bccd_cells", "red blood cell") in real
    assert not {("bccd_cells", "platelets"), ("bccd_cells", "white blood cell"), ("busi", "benign tumor")} & real
    summary = similarity.similarity_summary(classes, np.eye(len(classes)))
    assert sum(r["n"] for r in summary if r["classes"] == "seen") == len(real) * (len(real) - 1) // 2


def test_modality_table_gives_wilson_and_no_mean_of_part_of_a_group() -> None:
    columns = [("X-ray", "knee"), ("X-ray", "chest"), ("MRI", "brain")]
    answers = [np.array([2, 2, 2, 2]), np.array([0, 1, 0, 2])]
    shares = np.stack([np.bincount(a, minlength=3) / len(a) for a in answers])
    rows = [("seen", "btmri", 2, 4), ("seen", "kneexray", 0, 4)]
    table = modality.modality_table(modality.Confusion(columns, rows, shares, answers, [None, None]))
    assert [row[3:6] for row in table.rows] == [[4, "100.0 (51.0–100.0)", "100"], [4, "50.0 (15.0–85.0)", "75"]]
    assert not table.notes
    everything = [(group, name, 0, 4) for group, names in GROUPS.items() for name in names]
    n = len(everything)
    whole = modality.Confusion(columns, everything, np.stack([shares[1]] * n), [answers[1]] * n, [None] * n)
    last = modality.modality_table(whole).notes[-1]
    assert last.startswith("Mean of the unseen rows, percent: both right 50.0 (")
    means = modality.modality_means(whole)["unseen"]
    assert means["both"].low < 0.5 < means["both"].high
