"""The studies of auto: answers come from the split that is asked for, and what a rule knows beforehand from other datasets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.datasets import GROUPS
from benchmarks.studies import auto, estimate
from biomedcoop.evaluation.study.inputs import encoded


@pytest.fixture
def backbone(monkeypatch: pytest.MonkeyPatch, parity: Path) -> Iterator[str]:
    """Simulated scans in place of the real datasets, and a tiny backbone."""
    from biomedcoop import load_dataset

    data = load_dataset("simulated:breast-ultrasound?train=6&val=3&test=4")
    monkeypatch.setattr("biomedcoop.evaluation.study.inputs.load_dataset", lambda name: data)
    encoded.cache_clear()
    yield str(parity / "model")
    encoded.cache_clear()


@pytest.fixture
def two_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "CANDIDATES", ("zero-shot", "simpleshot", "linear-probe"))
    monkeypatch.setattr(auto, "GROUPS", {"seen": ("btmri", "mednist"), "unseen": ("busi", "retina")})
    auto.prior.cache_clear()


@pytest.mark.usefixtures("two_candidates")
def test_answers_of_methods_and_rules(backbone: str, tmp_path: Path) -> None:
    for row in ("simpleshot", *auto.RULES):
        for split, images in (("val", 9), ("test", 12)):
            right = np.array(auto.compute("busi", (row, 2, split, str(tmp_path)), backbone))
            assert right.shape == (len(auto.SEEDS), images)
            assert set(np.unique(right)) <= {0, 1}
    one = auto.compute("busi", ("auto", 1, "test", str(tmp_path)), backbone)
    known = auto.prior(1, "busi", tmp_path, backbone)
    best = max(known, key=lambda name: known[name].accuracy)
    assert one == auto.compute("busi", (best, 1, "test", str(tmp_path)), backbone)


@pytest.mark.usefixtures("two_candidates")
def test_the_prior_of_a_dataset_comes_from_the_others(backbone: str, tmp_path: Path) -> None:
    before = auto.prior(2, "busi", tmp_path, backbone)
    for path in tmp_path.glob("busi-*.npz"):
        raise AssertionError(f"{path.name} was computed for the prior of busi")
    assert sum(one.weight for one in before.values()) == pytest.approx(1, abs=0.01)
    assert auto.prior(2, "none", tmp_path, backbone).keys() == before.keys()
    assert list(tmp_path.glob("busi-*.npz"))


def test_an_estimate_and_what_came_true(backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "unused_sentences", lambda data: [[f"a {name}"] for name in data.class_names])
    estimate.compute(tmp_path, backbone, ["zero-shot", "simpleshot"], ("busi", 4, 1))
    value, low, high, *reached = json.loads((tmp_path / "estimate-busi-4-1.json").read_text())
    assert 0 <= low <= value <= high <= 1
    assert len(reached) == 2
    assert (12 * reached[1]) % 1 == pytest.approx(0, abs=1e-6)  # of 12 test images, as many of each class


def test_bias_and_coverage(tmp_path: Path) -> None:
    for number, dataset in enumerate(GROUPS["unseen"]):
        for shots in estimate.SHOTS:
            for seed in estimate.SEEDS:
                test = 0.7 if number else 0.585  # outside the interval in one of five
                content = [0.65, 0.6, 0.75, 0.66, test]
                (tmp_path / f"estimate-{dataset}-{shots}-{seed}.json").write_text(json.dumps(content))
    table = estimate.rows(tmp_path, GROUPS["unseen"])
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["group"], row["estimate"], row["test"], row["half-width"]) == ("unseen", "65.0", "67.7", "7.5")
    assert str(row["estimate − validation"]).startswith("−1.0")
    assert str(row["estimate − test"]).startswith("−2.7")
    assert str(row["validation in interval"]).startswith("100.0")
    assert str(row["test in interval"]).startswith("80.0")
