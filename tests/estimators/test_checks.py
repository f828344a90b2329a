"""scikit-learn's own checks of an estimator.

They make tables of numbers and nothing else, so for an estimator of images they are none; rows as pictures (``rows.py``) let all of
them run, each with a fit, features and predictions of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator

import biomedcoop as bc
from estimators.rows import RowClassifier, RowEncoder

pytestmark = pytest.mark.filterwarnings("ignore")  # the checks give all kinds of tables

ELSEWHERE = ("SCIPY_ARRAY_API is not set", "pandas is not installed")
"""Ends of checks that want an environment of their own, after all that they check in this one."""


def statuses(estimator: Any) -> dict[str, set[str]]:
    """Names of the checks by result."""
    found: dict[str, set[str]] = {}
    for result in check_estimator(estimator, on_fail=None, on_skip=None):
        reason = str(result["exception"])
        status = "passed" if result["status"] == "skipped" and reason.startswith(ELSEWHERE) else result["status"]
        found.setdefault(status, set()).add(result["check_name"])
    return found


def test_the_classifier_passes_every_check(parity: Path) -> None:
    found = statuses(RowClassifier("simpleshot", parity / "model", calibrate="no"))
    assert found.keys() == {"passed"}, found
    assert len(found["passed"]) > 45


def test_the_encoder_passes_every_check(parity: Path) -> None:
    found = statuses(RowEncoder(parity / "model"))
    assert found.keys() == {"passed"}, found
    assert len(found["passed"]) > 40


@pytest.mark.slow
@pytest.mark.parametrize(("method", "calibrate"), [("linear-probe", "no"), ("simpleshot", "yes")])
def test_a_classifier_that_chooses_or_calibrates_passes_every_check(method: str, calibrate: str, parity: Path) -> None:
    assert statuses(RowClassifier(method, parity / "model", calibrate=calibrate)).keys() == {"passed"}


def test_tags_say_that_an_input_is_an_image() -> None:
    for estimator in (bc.FewShotClassifier(), bc.ImageEncoder()):
        tags = get_tags(estimator)
        given = tags.input_tags
        assert (given.two_d_array, given.one_d_array, given.three_d_array, given.string) == (False, True, True, True)
        assert tags.requires_fit
    assert get_tags(bc.FewShotClassifier()).estimator_type == "classifier"
    assert get_tags(bc.FewShotClassifier()).target_tags.required
