"""Logits of every kind of classifier (those of an earlier version serve), their gradient, temperature and batches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.features.passes import image_batch

ARTEFACTS = sorted((Path(__file__).parents[1] / "earlier" / "artefacts").iterdir())


@pytest.fixture(params=ARTEFACTS, ids=lambda path: path.name)
def classifier(request: pytest.FixtureRequest, tiny: Backbone) -> bc.Classifier:
    return bc.load(request.param, tiny)


@pytest.fixture
def features(parity: Path) -> torch.Tensor:
    with np.load(parity.parent / "earlier" / "probabilities.npz") as file:
        return torch.from_numpy(file["features"])


def test_logits_have_a_gradient(classifier: bc.Classifier, features: torch.Tensor) -> None:
    """The derivative along a random direction is the difference of two logits near by."""
    start = features.clone().requires_grad_()
    logits = classifier.logits(start)
    assert logits.shape == (8, 3)
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), start)
    direction = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    step = 1e-3 * direction
    difference = classifier.logits(features + step) - classifier.logits(features - step)
    expected = difference[:, 1].sum() / 2e-3
    assert expected.abs() > 0.01
    torch.testing.assert_close((gradient * direction).sum(), expected, rtol=0.02, atol=0.02)


def test_probabilities_are_those_of_the_logits(classifier: bc.Classifier, features: torch.Tensor) -> None:
    expected = classifier.logits(features).softmax(-1).detach().numpy()
    np.testing.assert_array_equal(classifier.probabilities(features.numpy()), expected)


def test_a_temperature_divides_the_logits_and_is_kept(
    clf: bc.Classifier, features: torch.Tensor, tiny: Backbone, tmp_path: Path
) -> None:
    warm = replace(clf, temperature=2.5)
    torch.testing.assert_close(warm.logits(features), clf.logits(features) / 2.5)
    for name, classifier in (("plain", clf), ("warm", warm)):
        classifier.save(tmp_path / name)
        description = json.loads((tmp_path / name / "classifier.json").read_text())
        assert description.get("temperature") == (None if name == "plain" else 2.5)
        read = bc.load(tmp_path / name, tiny)
        assert read.temperature == classifier.temperature
        np.testing.assert_array_equal(read.probabilities(features.numpy()), classifier.probabilities(features.numpy()))
    assert "divided by a temperature of 2.5" in (tmp_path / "warm" / "README.md").read_text()
    assert warm.for_classes(["cyst", "polyp"]).temperature == 2.5


def test_an_answer_does_not_depend_on_its_neighbours(
    classifier: bc.Classifier, test_images: list[Path], tiny: Backbone
) -> None:
    """To the last bit, in whole batches and the rest of one, beside images that cannot be read; CoCoOp's to 1e-5."""
    images: list[Any] = list(test_images[: image_batch(tiny) + 3])
    alone = np.concatenate([classifier.predict_proba(image) for image in images])
    images[3:3] = [b"text", b"text"]
    rows = [answer.probabilities for answer in classifier.predict_stream(images)]
    assert [i for i, row in enumerate(rows) if isinstance(row, bc.ImageError)] == [3, 4]
    together = np.stack([row for row in rows if not isinstance(row, bc.ImageError)])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5 if classifier.method == "cocoop" else 0)
