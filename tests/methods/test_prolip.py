"""ProLIP beside a plain computation, and from images to predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.data.dataset import Dataset
from biomedcoop.errors import UserError
from biomedcoop.methods import Task, get_method
from methods.plain_prolip import trained_matrix, unit

NAMES = ["cyst", "stone", "tumor"]


@pytest.fixture(scope="module")
def data() -> Dataset:
    return bc.load_dataset("simulated:breast-ultrasound?train=4&val=0&test=2")


@pytest.mark.parametrize("kind", ["tiny", "tiny_clip_resnet"])
@pytest.mark.parametrize("given", [{}, {"penalty": 0.05, "lr": 0.002}], ids=str)
def test_it_equals_a_plain_computation(given: dict[str, float], kind: str, request: pytest.FixtureRequest) -> None:
    """Numpy in double precision, one run, the gradient written out; the ResNet's projection has a bias, which stays.

    Float32 rounding grows over 40 steps of Adam to less than a hundredth of what an entry moves.
    """
    backbone: Backbone = request.getfixturevalue(kind)
    method, epochs, shots = get_method("prolip"), 40, 4
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(3).repeat_interleave(shots)
    s = backbone.image_size
    with torch.no_grad():
        features = method.read_from(backbone).encode_image(torch.randn(3 * shots, 3, s, s, generator=generator))
    task = Task(backbone, NAMES, torch.stack([features, features.flip(0)]), torch.stack([labels, labels.flip(0)]))
    states = method.fit(task, method.settings({**given, "epochs": epochs}), [1, 2])

    tensors = {name: tensor.detach().double().numpy() for name, tensor in backbone.towers.named_parameters()}
    if kind == "tiny":
        start, bias = tensors["visual.head.proj.weight"], 0.0
    else:
        start, bias = tensors["visual.attnpool.c_proj.weight"], tensors["visual.attnpool.c_proj.bias"]
    with torch.no_grad():
        t = backbone.encode_text([f"a photo of a {name}." for name in NAMES]).double().numpy()
    t, x, scale = unit(t), features.double().numpy(), backbone.logit_scale
    penalty, peak = given.get("penalty", 1 / shots), given.get("lr", 1e-4)
    matrix = trained_matrix(x, start, bias, t, labels.numpy(), scale, penalty, peak, epochs)
    moved_by = np.abs(matrix - start).max()
    assert moved_by > 3 * peak
    for state in states:  # the other run has the images backwards
        np.testing.assert_allclose(state["matrix"], matrix, atol=0.01 * moved_by, rtol=0)
    found = method.logits(states[0], features, method.read_from(backbone))
    np.testing.assert_allclose(found, scale * unit(x @ matrix.T + bias) @ t.T, atol=1e-2 * scale * moved_by)


def test_nothing_learned_changes_nothing(tiny: Backbone, data: Dataset) -> None:
    """With the projection as it was, the answers are those of zero-shot."""
    still = bc.fit(data, "prolip", tiny, shots=4, settings={"epochs": 1, "lr": 1e-12}, calibrate="no")
    images = list(data.part("test").images)
    zero_shot = bc.fit(data, "zero-shot", tiny).predict_proba(images)
    np.testing.assert_allclose(still.predict_proba(images), zero_shot, atol=1e-4)


def test_from_images_to_predictions(tiny: Backbone, data: Dataset, tmp_path: Path) -> None:
    classifier = bc.fit(data, "prolip", tiny, shots=4, views=2)
    images = list(data.part("test").images)
    answers = classifier.predict_proba(images)
    classifier.save(tmp_path / "model")
    read = bc.load(tmp_path / "model", tiny)
    np.testing.assert_array_equal(read.predict_proba(images), answers)
    assert read.for_classes(["cyst", "abscess"]).predict_proba(images).shape == (len(images), 2)
    assert bc.evaluate(read, data, n_bootstrap=100).n_images == len(images)
    assert any("learns no text" in note for note in bc.words(read).notes)
    case = bc.case(read, images[0], data)
    assert case.predicted.class_name == read.class_names[int(answers[0].argmax())]
    assert any("without its projection has no text tower" in note for note in case.notes)
    assert bc.saliency(read, images[:1])[0].values.max() > 0


def test_a_tower_without_projection(tiny_siglip: Backbone, data: Dataset) -> None:
    with pytest.raises(UserError, match="does not end with a linear projection; use the method rla"):
        bc.fit(data, "prolip", tiny_siglip, shots=4)
