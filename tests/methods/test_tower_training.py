"""Training through the towers: what a step computes, interruptions, and what is refused."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import biomedcoop as bc
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.errors import UserError
from biomedcoop.methods import Task, get_method
from biomedcoop.methods.held_out import held_out_logits
from biomedcoop.methods.linear_probe import CANDIDATES, fitted
from biomedcoop.methods.tower_training import parts_of
from biomedcoop.output import cache_root
from methods.tiny_task import tiny_task

TINY = Path(__file__).parents[1] / "parity_a" / "model"


@pytest.fixture
def task(tiny: Backbone) -> Task:
    return tiny_task(tiny, ["cyst", "stone", "tumor"])


def test_fine_tune_equals_a_plain_training(task: Task) -> None:
    """torch's own AdamW and modules, the whole batch at once; the step order is rounding apart, so 1e-4 is far above it."""
    assert task.pixels is not None
    method = get_method("fine-tune")
    settings = method.settings(
        {"epochs": 3, "batch_size": 6, "lr": 1e-3, "head_lr": 0.01, "weight_decay": 0.01, "mix": 0.7}
    )
    (state,) = method.fit(task, settings, [1])

    plain = load_backbone(TINY)
    tower = plain.image_tower.requires_grad_()
    start = {f"visual.{name}": p.detach().clone() for name, p in tower.named_parameters()}
    features, labels = F.normalize(task.features[0], dim=-1), task.labels[0]
    weight, bias = map(torch.from_numpy, fitted(features.numpy(), labels.numpy(), 3, CANDIDATES[0], 1000))
    start |= {"weight": weight.clone(), "bias": bias.clone()}
    weight.requires_grad_(), bias.requires_grad_()
    groups = [{"params": list(tower.parameters()), "lr": 1e-3}, {"params": [weight, bias], "lr": 0.01}]
    optimizer = torch.optim.AdamW(groups, eps=1e-8, weight_decay=0.01)
    peaks = [1e-3, 0.01]
    for step in range(3):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * 0.5 * (1 + np.cos(np.pi * step / 3))
        optimizer.zero_grad()
        logits = F.normalize(tower(task.pixels(0, torch.arange(6), None)), dim=-1) @ weight.T + bias
        F.cross_entropy(logits, labels).backward()
        optimizer.step()
    end = {f"visual.{name}": p for name, p in tower.named_parameters()} | {"weight": weight, "bias": bias}
    assert set(state) == set(end)
    for name, value in state.items():
        expected = 0.3 * start[name] + 0.7 * end[name].detach()
        if name.endswith(
            "qkv.bias"
        ):  # a key's bias changes no attention: its gradient is rounding, which Adam scales up
            value, expected = (torch.cat([x.chunk(3)[0], x.chunk(3)[2]]) for x in (value, expected))
        torch.testing.assert_close(value, expected, atol=1e-4, rtol=1e-4, msg=name)
    moved = (state["visual.head.proj.weight"] - start["visual.head.proj.weight"]).abs().max()
    assert moved > 1e-3


def test_memory_does_not_decide_the_result(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch in parts of two images has the gradient of the whole, but for rounding."""
    method = get_method("fine-tune")
    settings = method.settings({"epochs": 2, "batch_size": 6})
    whole = method.fit(task, settings, [1])[0]
    monkeypatch.setattr("biomedcoop.features.passes.image_batch", lambda backbone: 2)
    parts = method.fit(task, settings, [1])[0]
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=1e-4, rtol=1e-4, msg=name)


def test_batches_of_nearly_equal_size() -> None:
    assert [parts_of(*given) for given in ((6, 6), (7, 6), (20, 16), (3, 16))] == [[6], [4, 3], [10, 10], [3]]


# -- interruptions

FIT = """
import sys
from safetensors.torch import save_file
import biomedcoop as bc

folder, model, epochs, out = sys.argv[1:]
tell = lambda what, done, total: print(what.split()[0], done, flush=True)
data = bc.load_dataset(folder)
found = bc.fit_runs(data, "fine-tune", model, shots=4, seeds=[1, 2], settings={"epochs": int(epochs)}, progress=tell)
save_file({f"{seed} {name}": t for seed, c in enumerate(found) for name, t in c.state.items()}, out)
"""


def start(discs: Path, cache: Path, out: Path, epochs: int = 4) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", FIT, str(discs), str(TINY), str(epochs), str(out)]
    own = {"BIOMEDCOOP_CACHE": str(cache), "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, **own})


def steps_until(process: subprocess.Popen[str], last: int | None = None) -> list[int]:
    """Numbers of the training steps that a process reports until step ``last``."""
    assert process.stdout is not None
    found = []
    for line in process.stdout:
        word, number = line.split()
        if word == "training":
            found.append(int(number))
            if found[-1] == last:
                break
    return found


@pytest.mark.slow
def test_a_killed_training_continues_and_ends_with_the_same_bits(discs: Path, tmp_path: Path) -> None:
    """Killed in the second of two runs; a step has one batch of 12 images, so an epoch is a step."""
    undisturbed = start(discs, tmp_path / "a", tmp_path / "a.safetensors")
    assert steps_until(undisturbed) == list(range(1, 9))
    assert undisturbed.wait() == 0
    killed = start(discs, tmp_path / "b", tmp_path / "b.safetensors")
    steps_until(killed, 7)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(list((tmp_path / "b" / "training").glob("*.safetensors"))) == 2
    again = start(discs, tmp_path / "b", tmp_path / "b.safetensors")
    steps = steps_until(again)
    assert again.wait() == 0
    assert steps[0] > 4, "the first run is not trained again"
    assert steps[-1] == 8
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert not list((tmp_path / "b" / "training").iterdir())


def test_what_was_kept_is_for_the_same_training_only(task: Task) -> None:
    method = get_method("fine-tune")
    settings = method.settings({"epochs": 3})

    def interrupted(done: int, total: int, words: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    def steps(task: Task, settings: Any, seed: int) -> int:
        seen: list[int] = []
        method.fit(task, settings, [seed], lambda done, total, words: seen.append(done))
        return len(seen)

    undisturbed = method.fit(task, settings, [1])[0]
    with pytest.raises(KeyboardInterrupt):
        method.fit(task, settings, [1], interrupted)
    assert steps(task, settings, 2) == 3
    assert steps(task, dataclasses.replace(settings, mix=0.25), 1) == 3
    assert steps(dataclasses.replace(task, features=task.features + 1), settings, 1) == 3
    (kept,) = (cache_root() / "training").glob("*.safetensors")
    content, seen = kept.read_bytes(), []
    continued = method.fit(task, settings, [1], lambda done, total, words: seen.append(done))[0]
    assert seen == [2, 3]
    assert all(torch.equal(continued[name], value) for name, value in undisturbed.items())
    kept.write_bytes(content[:1000])
    assert steps(task, settings, 1) == 3
    kept.write_bytes(content)
    os.utime(kept, (0, time.time() - 15 * 24 * 3600))
    assert steps(task, settings, 1) == 3
    assert not kept.exists()


# -- what is refused, and what must work


def test_a_training_that_takes_too_long_is_refused_with_the_estimate(task: Task) -> None:
    method, seen = get_method("fine-tune"), []
    settings = method.settings({"epochs": 2000, "batch_size": 2, "hours": 1e-5})
    with pytest.raises(UserError, match=r"about .* hours on cpu: 5998 steps of .* settings=\{'hours': 1\}$"):
        method.fit(task, settings, [1], lambda done, total, words: seen.append(done))
    assert seen == [1, 2]
    assert len(method.fit(task, method.settings({"epochs": 2, "hours": 0.1}), [1])) == 1


def test_features_alone_are_refused(task: Task) -> None:
    method = get_method("fine-tune")
    with pytest.raises(UserError, match="fine-tune trains through the image tower and needs images"):
        method.fit(dataclasses.replace(task, pixels=None), method.settings({}), [1])
    with pytest.raises(UserError, match="fine-tune trains the image tower, so fits without some of the images"):
        held_out_logits(method, task, method.settings({}), [1], torch.tensor([[0, 0, 0, 1, 1, 1]]))


def test_a_training_that_diverges(task: Task) -> None:
    method = get_method("fine-tune")
    with pytest.raises(UserError, match=r"diverged .* settings=\{'lr': 1e\+17\}"):
        method.fit(task, method.settings({"epochs": 6, "lr": 1e18}), [1])
    assert not list((cache_root() / "training").glob("*.safetensors"))


def test_options_that_do_not_apply(discs: Path, tiny: Backbone, tmp_path: Path) -> None:
    data = bc.load_dataset(discs)
    with pytest.raises(UserError, match="new random crop of each image at every step, so views does not apply"):
        bc.fit(data, "fine-tune", tiny, shots=2, views=4)
    for precision in ("bfloat16", "int8"):
        with pytest.raises(UserError, match=f"loaded with precision {precision}; use precision float32"):
            bc.train(discs, tmp_path / "run", method="fine-tune", backbone=TINY, shots=2, precision=precision)
    classifier = bc.fit(data, "fine-tune", tiny, shots=2, settings={"epochs": 1})
    with pytest.raises(UserError, match="were changed by training; give the frozen one"):
        bc.fit(data, "zero-shot", classifier.backbone)
    assert bc.fit(data, "zero-shot", classifier.backbone.original).backbone is tiny


def test_arrays_in_place_of_files(discs: Path, tiny: Backbone) -> None:
    files = bc.load_dataset(discs)
    images = np.stack([bc.data.images.reading.read_image(path) for path in files.images])
    arrays = dataclasses.replace(files, images=images)
    settings = {"epochs": 2}
    found = bc.fit(arrays, "fine-tune", tiny, shots=2, settings=settings)
    assert found.predict_proba(list(arrays.images[:4])).shape == (4, 3)


# -- from training to prediction


def test_from_training_to_prediction(discs: Path, tmp_path: Path, cli: Any) -> None:
    """Test images are encoded by the trained tower; the saved model gives the run's own predictions."""
    run = tmp_path / "run"
    report = bc.train(
        discs, run, method="fine-tune", backbone=TINY, shots=4, seeds=[1, 2], settings={"epochs": 4}, n_bootstrap=40
    )
    assert report.metrics.n_images == 30
    classifier = bc.load(run, TINY)
    data = bc.load_dataset(discs)
    test = data.part("test")
    in_report = report.comparison.predictions.runs("fine-tune")[0]
    np.testing.assert_array_equal(classifier.predict_proba(list(test.images)), in_report)
    frozen = bc.Classifier(classifier.class_names, "fine-tune", classifier.state, classifier.backbone.original)
    assert not np.allclose(frozen.predict_proba(list(test.images)), in_report, atol=1e-3)
    again = bc.compare(classifier, data, n_bootstrap=40)
    np.testing.assert_array_equal(again.comparison.predictions.runs("fine-tune")[0], in_report)
    # zero-shot is that of the frozen backbone
    np.testing.assert_array_equal(
        again.comparison.predictions.runs("zero-shot")[0], report.comparison.predictions.runs("zero-shot")[0]
    )
    assert "through the backbone model" in (run / "report.md").read_text()
    assert "There is no learning curve" in (run / "report.html").read_text()
    assert "what training changed in it is" in (run / "model" / "README.md").read_text()
    assert len(bc.saliency(classifier, test.images[0])) == 1
    predicted = cli("predict", run, discs / "test", "--backbone", TINY)
    assert predicted.status == 0, predicted
    with pytest.raises(UserError, match="cannot take new classes"):
        classifier.for_classes(["a", "b"])


def test_a_damaged_tower_is_refused(discs: Path, tiny: Backbone, tmp_path: Path) -> None:
    classifier = bc.fit(bc.load_dataset(discs), "fine-tune", tiny, shots=2, settings={"epochs": 1})
    name = "visual.head.proj.weight"
    less = {key: value for key, value in classifier.state.items() if key != name}
    for number, state in enumerate((less, {**less, name: classifier.state[name][:3]})):
        dataclasses.replace(classifier, state=state).save(tmp_path / str(number))
        with pytest.raises(UserError, match=r"damaged .*head\.proj\.weight"):
            bc.load(tmp_path / str(number), tiny)


def test_cross_validation(tmp_path: Path, discs: Path) -> None:
    """Without a test split, each fold's images are encoded by the tower that has not seen them."""
    run = tmp_path / "run"
    report = bc.train(
        discs / "test",
        run,
        method="fine-tune",
        backbone=TINY,
        shots=2,
        settings={"epochs": 1},
        n_bootstrap=40,
        html=False,
    )
    assert report.comparison.predictions.folds is not None
    assert report.metrics.n_images == 30
