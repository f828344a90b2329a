"""What must hold on any device: the results of the CPU, no operation on tensors of two devices, and steps that wait for nothing.

The tests run on the second device of ``second_device.py``, which needs no GPU, and on a GPU where the marker selects them:

    pytest -m cuda tests/test_devices.py
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.conftest import TINY, protocol
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.benchmark.compute import Work, compute_group
from biomedcoop.benchmark.plan import groups_of
from biomedcoop.benchmark.sources import find_sources
from biomedcoop.classifier import Classifier
from biomedcoop.classifier.sets import PredictionSets
from biomedcoop.data.readers.load import load_dataset
from biomedcoop.explain.maps import crop_maps
from biomedcoop.explain.words import words
from biomedcoop.features.images import encode_images, missing_images
from biomedcoop.features.passes import encode_crops
from biomedcoop.features.spaces import image_space, text_space
from biomedcoop.features.texts import encode_texts
from biomedcoop.methods import Method, Task, get_method
from methods.test_methods import IN_EPOCHS, METHODS, NAMES, make_task, only, read_by
from second_device import NAME, SecondDevice

DEVICES = (pytest.param(NAME, id="second"), pytest.param("cuda", marks=pytest.mark.cuda))
NO_GPU = "the marker cuda selects tests that need a GPU; none can be used here"
CLOSE = {"float32": 1e-4, "bfloat16": 0.05}
"""Largest difference of a unit-norm feature from the CPU's in float32."""


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    name: str = request.param
    assert name == NAME or torch.cuda.is_available(), NO_GPU
    with SecondDevice() if name == NAME else nullcontext():
        yield name


@pytest.fixture
def elsewhere(device: str, parity: Path) -> Backbone:
    """The tiny backbone on that device."""
    return load_backbone(parity / "model", device=device)


@pytest.fixture
def here(tiny: Backbone) -> Task:
    """A task of one run on the CPU."""
    return only(make_task(tiny, 8, 4), 0)


def moved(task: Task, backbone: Backbone) -> Task:
    """The same task on the device of a backbone."""
    values = {field.name: getattr(task, field.name) for field in fields(task)}
    tensors = {name: one.to(backbone.device) for name, one in values.items() if isinstance(one, torch.Tensor)}
    assert task.pixels is not None
    of_images = task.pixels

    def pixels(run: int, rows: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        return of_images(run, rows, generator).to(backbone.device)

    return replace(task, backbone=backbone, pixels=pixels, **tensors)


def quick(method: Method, epochs: int = 6) -> Any:
    """Settings of few steps, and more than run before a step is recorded."""
    shorter = {"epochs": epochs} if hasattr(method.settings({}), "epochs") else {}
    return method.settings({**METHODS[method.name], **shorter})


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def noise(backbone: Backbone, count: int = 3) -> np.ndarray:
    size = backbone.image_size
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


# -- methods


@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns_what_it_learns_on_the_cpu(name: str, here: Task, elsewhere: Backbone) -> None:
    method = get_method(name)
    here = read_by(method, here)
    features, answers = here.features[0].numpy(), []
    for task in (here, moved(here, elsewhere)):
        (state,) = method.fit(task, quick(method), [5])
        assert {tensor.device.type for tensor in state.values()} == {"cpu"}
        answers.append(
            Classifier(tuple(NAMES), name, state, method.read_from(task.backbone), {}).probabilities(features)
        )
    np.testing.assert_allclose(answers[1], answers[0], atol=5e-3)


@pytest.mark.parametrize("device", DEVICES[:1], indirect=True)
@pytest.mark.parametrize("name", IN_EPOCHS)
def test_no_step_moves_anything_between_devices(name: str, here: Task, parity: Path, device: str) -> None:
    method, counts = get_method(name), []
    backbone = load_backbone(parity / "model", device=device)
    task = moved(read_by(method, here), backbone)
    method.fit(task, quick(method, 2), [5])  # encodes the texts of the classes, which are then kept
    for epochs in (2, 4):
        with SecondDevice() as second:
            method.fit(task, quick(method, epochs), [5])
        counts.append(second.crossings)
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("name", ["krr", "simpleshot"])
def test_prediction_sets_by_a_fit_for_each_candidate(name: str, here: Task, elsewhere: Backbone) -> None:
    method, found = get_method(name), []
    features, labels = here.features[0].numpy(), here.labels[0].numpy()
    for task in (here, moved(here, elsewhere)):
        (state,) = method.fit(task, quick(method), [5])
        sets = PredictionSets(0.3, "lac", False, labels, features=features)
        settings = dataclasses.asdict(quick(method))
        classifier = Classifier(tuple(NAMES), name, state, task.backbone, settings, sets=sets)
        found.append(classifier.members(features[::5]))
    assert np.array_equal(*found)
    assert found[0].any(1).all()


def test_new_classes_and_words(here: Task, elsewhere: Backbone) -> None:
    method = get_method("biomedcoop")
    (state,) = method.fit(moved(here, elsewhere), quick(method), [5])
    facts = {"seed": 5, "notes": [], "sentences_by_class": {name: [f"a {name}", f"one {name}"] for name in NAMES}}
    classifier = Classifier(tuple(NAMES), "biomedcoop", state, elsewhere, {}, {**facts, "sentences": "own"})
    other = classifier.for_classes(["stone", "polyp"])
    assert other.probabilities(here.features[0].numpy()).shape == (24, 2)
    assert len(words(classifier, top=2).vectors) == 4


def test_a_group_of_a_benchmark(device: str, discs: Path) -> None:
    asked = protocol(datasets=[str(discs)], methods=["tip-adapter", "coop"], shots=[2], seeds=[1])
    work = Work(asked, find_sources(asked, None, lambda *_: None), device=device)
    for group in groups_of(asked, work.sources):
        (line,) = compute_group(work, group).lines
        assert line["status"] == "done", line


# -- encoding


# a tensor of the second device keeps its content when torch converts a module, so bfloat16 needs the GPU
@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.cuda)])
def test_features_are_those_of_the_cpu(precision: str, device: str, tiny: Backbone, parity: Path) -> None:
    device = "cuda" if precision == "bfloat16" else device
    assert device == NAME or torch.cuda.is_available(), NO_GPU
    backbone, crops = load_backbone(parity / "model", device=device, precision=precision), noise(tiny, 70)
    found, expected = encode_crops(backbone, list(crops)), encode_crops(tiny, list(crops))
    assert found.dtype == np.float32
    np.testing.assert_allclose(unit(found), unit(expected), atol=CLOSE[precision])
    texts = ["a scan of a cyst", "normal"]
    np.testing.assert_allclose(
        unit(encode_texts(backbone, texts)), unit(encode_texts(tiny, texts)), atol=CLOSE[precision]
    )


def test_convolutions_of_float32_are_exact(device: str, tiny_lite: Backbone, tmp_path: Path) -> None:
    from backbones.tiny_lite import write_lite

    other = load_backbone(write_lite(tmp_path / "lite"), device=device)
    crops = list(noise(other))
    np.testing.assert_allclose(unit(encode_crops(other, crops)), unit(encode_crops(tiny_lite, crops)), atol=1e-4)


def test_the_store_keeps_features_of_other_passes_apart(
    elsewhere: Backbone, tiny: Backbone, discs: Path, tmp_path: Path
) -> None:
    data = load_dataset(discs).part("test")
    encode_images(tiny, data, store_root=tmp_path)
    assert missing_images(elsewhere, data, store_root=tmp_path) == list(range(len(data)))
    first = encode_images(elsewhere, data, store_root=tmp_path)
    assert missing_images(elsewhere, data, store_root=tmp_path) == []
    np.testing.assert_array_equal(encode_images(elsewhere, data, store_root=tmp_path), first)
    assert image_space(elsewhere)["batch"] == "64"
    assert text_space(elsewhere) == text_space(tiny)


# -- maps


@pytest.mark.parametrize("map", ["grad-cam", "gscorecam", "gradient-attention", "attention-rollout"])
def test_maps_are_those_of_the_cpu(map: str, elsewhere: Backbone, tiny: Backbone, here: Task) -> None:
    method = get_method("zero-shot")
    (state,) = method.fit(here, method.settings({}), [1])
    maps = [
        crop_maps(Classifier(tuple(NAMES), "zero-shot", state, backbone, {}), noise(tiny), np.array([0, 1, 2]), map)
        for backbone in (tiny, elsewhere)
    ]
    np.testing.assert_allclose(maps[1], maps[0], atol=2e-2)


# -- of a GPU alone


@pytest.fixture
def gpu() -> torch.device:
    assert torch.cuda.is_available(), NO_GPU
    return torch.device("cuda")


@pytest.mark.cuda
def test_auto_is_the_gpu(gpu: torch.device, parity: Path) -> None:
    assert load_backbone(parity / "model", device="auto").device.type == gpu.type


@pytest.mark.cuda
def test_a_recorded_step_is_the_step(
    gpu: torch.device, here: Task, parity: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The context after many replays is that of as many plain steps."""
    method, task = get_method("biomedcoop"), moved(here, load_backbone(parity / "model", device=gpu))
    recorded = method.fit(task, quick(method, 20), [5])[0]["context"]
    monkeypatch.setattr("biomedcoop.methods.training.recorded", lambda take: take)
    plain = method.fit(task, quick(method, 20), [5])[0]["context"]
    torch.testing.assert_close(recorded, plain, atol=2e-4, rtol=0)


@pytest.mark.cuda
def test_memory_does_not_grow_with_runs(gpu: torch.device, here: Task, parity: Path) -> None:
    method, task = get_method("biomedcoop"), moved(here, load_backbone(parity / "model", device=gpu))
    held = []
    for _ in range(40):
        method.fit(task, quick(method), [5])
        held.append((torch.cuda.memory_allocated(gpu), torch.cuda.memory_reserved(gpu)))
    assert held[-1] == held[4]


@pytest.mark.cuda
def test_a_run_of_the_command_line(gpu: torch.device, cli: Any, discs: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ("train", "--data", discs, "--backbone", TINY, "--shots", 2, "--prompts", "templates:CT")
    assert cli(*command, "--set", "epochs=2", "--device", "auto", "--precision", "auto", "--out", out).status == 0
    assert '"device": "cuda' in (out / "metrics.json").read_text()
