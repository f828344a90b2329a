"""What every method must do, on a few-shot task of the tiny backbone; a method is a row of ``METHODS``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from biomedcoop.backbones.base import Backbone
from biomedcoop.methods import Method, Task, all_methods, get_method

# name: settings that make it quick
METHODS = {
    "biomedcoop": {"epochs": 4},
    "zero-shot": {},
    "zero-shot-ensemble": {},
}


@pytest.fixture(scope="module")
def features(tiny: Backbone, images: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return {split: tiny.encode_image(torch.from_numpy(images[f"{split}_images"])) for split in ("train", "test")}


@pytest.fixture(scope="module")
def sentences(tiny: Backbone, parity: Path) -> torch.Tensor:
    by_class = json.loads((parity / "prompts.json").read_text())
    with torch.no_grad():
        return torch.stack([tiny.encode_text(texts) for texts in by_class.values()])


def task_of(runs: int, tiny: Backbone, parity: Path, images: dict, features: dict, sentences: torch.Tensor) -> Task:
    """Each run has support images of its own: run r leaves out every image whose position is r modulo 4."""
    names = json.loads((parity / "classes.json").read_text())
    labels = torch.from_numpy(images["train_labels"])
    rows = torch.stack([torch.tensor([i for i in range(64) if i % 4 != r]) for r in range(runs)])
    return Task(tiny, names, features["train"][rows], labels[rows], sentences)


def test_the_matrix_is_complete() -> None:
    assert set(METHODS) == set(all_methods())


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Method:
    return get_method(request.param)


def test_alone_or_in_company(method, tiny, parity, images, features, sentences) -> None:
    settings = method.settings(METHODS[method.name])
    arguments = (tiny, parity, images, features, sentences)
    together = method.fit(task_of(3, *arguments), settings, seeds=[5, 6, 7])
    alone = method.fit(task_of(1, *arguments), settings, seeds=[5])
    again = method.fit(task_of(1, *arguments), settings, seeds=[5])
    logits = [method.logits(state, features["test"]) for state in (together[0], alone[0], again[0])]
    assert logits[0].shape == (40, 4)
    assert all(bool(torch.isfinite(value).all()) for value in together[0].values())
    assert torch.equal(logits[1], logits[2]), "the same run twice must give the same bits"
    torch.testing.assert_close(logits[0], logits[1], atol=5e-4, rtol=0)
    assert torch.equal(logits[0].argmax(1), logits[1].argmax(1))


@pytest.mark.parametrize("method", [n for n in METHODS if get_method(n).abilities.trains], indirect=True)
def test_training_fits_the_support_images(method, tiny, parity, images, features, sentences) -> None:
    """Cross-entropy on the support images falls below that of the starting point, the zero-shot template."""
    task = task_of(1, tiny, parity, images, features, sentences)
    (start,) = get_method("zero-shot").fit(task, get_method("zero-shot").settings({}), seeds=[1])
    (state,) = method.fit(task, method.settings(METHODS[method.name]), seeds=[1])

    def loss(which: Method, fitted: dict) -> float:
        return float(torch.nn.functional.cross_entropy(which.logits(fitted, task.features[0]), task.labels[0]))

    before, after = loss(get_method("zero-shot"), start), loss(method, state)
    assert after < before - 0.05


def test_settings_are_checked(method) -> None:
    from biomedcoop.errors import UserError

    with pytest.raises(UserError, match="has no setting 'nonsense'"):
        method.settings({"nonsense": 1})
