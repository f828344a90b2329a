"""What must hold on any device: the results of the CPU, tensors that never meet those of another device, steps that wait for nothing.

Each test runs on the second device of ``second_device.py``, which needs no GPU, and on a GPU where the marker ``cuda`` selects it:

    pytest -m cuda tests/test_devices.py
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.classifier import Classifier
from biomedcoop.methods import Method, Task, get_method
from methods.test_methods import IN_EPOCHS, METHODS, NAMES, make_task, only
from second_device import NAME, SecondDevice

DEVICES = (pytest.param(NAME, id="second"), pytest.param("cuda", id="cuda", marks=pytest.mark.cuda))


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a device that can be used; without a GPU a selected test of it fails."""
    name: str = request.param
    assert name == NAME or torch.cuda.is_available(), "the marker cuda selects this test, and this machine has no usable GPU"
    with SecondDevice() if name == NAME else nullcontext():
        yield name


@pytest.fixture
def elsewhere(device: str, parity: Path) -> Backbone:
    """The tiny backbone on that device."""
    return load_backbone(parity / "model", device=device)


@pytest.fixture
def there(tiny: Backbone, elsewhere: Backbone) -> Task:
    """A task on that device with the features of the CPU, so that methods alone are compared."""
    return moved(make_task(tiny, 8, 4), elsewhere)


def moved(task: Task, backbone: Backbone) -> Task:
    from dataclasses import fields, replace

    tensors = {f.name: one.to(backbone.device) for f in fields(task) if isinstance(one := getattr(task, f.name), torch.Tensor)}
    return replace(task, backbone=backbone, **tensors)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns_what_it_learns_on_the_cpu(name: str, there: Task, tiny: Backbone) -> None:
    method = get_method(name)
    settings = method.settings(METHODS[name])
    here = only(make_task(tiny, 8, 4), 0)
    (expected,) = method.fit(here, settings, [5])
    (found,) = method.fit(only(there, 0), settings, [5])
    assert {tensor.device.type for tensor in found.values()} == {"cpu"}
    features = here.val_features[0].numpy()
    answers = [
        Classifier(tuple(NAMES), name, state, task.backbone, {}).probabilities(features)
        for state, task in ((expected, here), (found, there))
    ]
    np.testing.assert_allclose(answers[1], answers[0], atol=5e-3)
