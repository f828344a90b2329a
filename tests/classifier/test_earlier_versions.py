"""What an earlier version wrote is still read, and answers as it did; see ``tests/earlier/README.md``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.methods import get_method

EARLIER = Path(__file__).parents[1] / "earlier"
NAMES = [path.name for path in sorted((EARLIER / "artefacts").iterdir())]
NEW = ["red stone", "polyp", "normal kidney"]
TOLERANCE = 5e-5
"""Float32 features with logits of up to 100, on another processor or with another version of torch."""


@pytest.fixture(scope="module")
def known() -> dict[str, np.ndarray]:
    with np.load(EARLIER / "probabilities.npz") as file:
        return dict(file)


def test_every_method_has_an_artefact(tiny: Backbone) -> None:
    assert {bc.load(EARLIER / "artefacts" / name, tiny).method for name in NAMES} >= {
        "biomedcoop", "clip-adapter", "cocoop", "coop", "kgcoop", "linear-probe", "lp++", "prograd", "tip-adapter",
        "tip-adapter-f", "zero-shot", "zero-shot-ensemble",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_artefacts(name: str, tiny: Backbone, known: dict[str, np.ndarray], tmp_path: Path) -> None:
    """Read, saved again and retargeted they give the probabilities that they gave."""
    classifier = bc.load(EARLIER / "artefacts" / name, tiny)
    features = known["features"]
    np.testing.assert_allclose(classifier.probabilities(features), known[name], atol=TOLERANCE)
    classifier.save(tmp_path / "again")
    again = bc.load(tmp_path / "again", tiny)
    np.testing.assert_array_equal(again.probabilities(features), classifier.probabilities(features))
    if f"{name}/new" in known:
        for read in (classifier, again):
            turned = read.for_classes(NEW, "templates")
            np.testing.assert_allclose(turned.probabilities(features), known[f"{name}/new"], atol=TOLERANCE)
    else:
        with pytest.raises(bc.UserError, match=r"cannot take new classes|so a new class has none"):
            classifier.for_classes(NEW)


def test_a_run_folder(tiny: Backbone, known: dict[str, np.ndarray]) -> None:
    classifier = bc.load(EARLIER / "run", tiny)
    assert classifier.class_names == ("blue cyst", "green tumor", "red stone")
    assert classifier.facts["test"]["n_images"] == 12
    np.testing.assert_allclose(classifier.probabilities(known["features"]), known["run"], atol=TOLERANCE)


def test_settings_are_read_as_they_were_given(tiny: Backbone) -> None:
    """What a classifier was trained with can be given to its method again."""
    for name in NAMES:
        classifier = bc.load(EARLIER / "artefacts" / name, tiny)
        settings = get_method(classifier.method).settings(classifier.settings)
        assert set(vars(settings)) >= set(classifier.settings)


def test_the_commands_take_a_run_of_version_0_1(
    cli: Callable[..., Any], refused: Callable[..., str], discs: Path, parity: Path
) -> None:
    """Given its backbone; without it, the line names the backbone that is asked for."""
    image = discs / "test" / "red_stone" / "00.png"
    result = cli("predict", EARLIER / "run", image, "--backbone", parity / "model", "--json")
    assert result.status == 0, result.err
    (row,) = json.loads(result.out)
    assert set(row) >= {"path", "prediction", "p_blue cyst", "p_green tumor", "p_red stone"}
    assert sum(row[f"p_{name}"] for name in ("blue cyst", "green tumor", "red stone")) == pytest.approx(1, abs=1e-3)
    assert "--backbone" in refused("predict", EARLIER / "run", image)
