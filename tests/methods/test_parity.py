"""Every method against the golden numbers of the published implementation (tests/parity_a/README.md).

Tolerances are about ten times what an independent implementation or other kernels show there.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from biomedcoop.backbones.base import Backbone
from biomedcoop.methods import Task, get_method
from biomedcoop.methods.biomedcoop import BiomedCoOpSettings, biomedcoop_losses
from biomedcoop.methods.context import ClassPrompts
from biomedcoop.methods.selection import select_sentences, sentence_scores, z_scores
from biomedcoop.methods.training import learning_rate, sgd

SETTINGS = BiomedCoOpSettings(sccm_weight=0.5, kdsp_weight=0.25, threshold=1.5)


def make_task(tiny: Backbone, parity: Path, images: dict[str, np.ndarray], runs: int = 1) -> Task:
    names = json.loads((parity / "classes.json").read_text())
    sentences = json.loads((parity / "prompts.json").read_text())
    with torch.no_grad():
        features = tiny.encode_image(torch.from_numpy(images["train_images"]))
        teacher = torch.stack([tiny.encode_text(sentences[name]) for name in names])
    labels = torch.from_numpy(images["train_labels"])
    return Task(tiny, names, features.expand(runs, -1, -1), labels.expand(runs, -1), teacher)


def logits_on_test(state: dict, name: str, tiny: Backbone, images: dict[str, np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        return get_method(name).logits(state, tiny.encode_image(torch.from_numpy(images["test_images"]))).numpy()


@pytest.mark.parametrize(
    ("name", "file"), [("zero-shot", "zeroshot_single"), ("zero-shot-ensemble", "zeroshot_ensemble")]
)
def test_zero_shot(name: str, file: str, tiny: Backbone, parity: Path, images: dict[str, np.ndarray]) -> None:
    gold = np.load(parity / f"{file}.npz")
    method = get_method(name)
    (state,) = method.fit(make_task(tiny, parity, images), method.settings({}), seeds=[1])
    np.testing.assert_allclose(state["class_embeddings"], gold["text_features"], atol=1e-5)
    logits = logits_on_test(state, name, tiny, images)
    np.testing.assert_allclose(logits, gold["test_logits"], atol=5e-4)
    accuracy = 100 * np.mean(logits.argmax(1) == images["test_labels"])
    assert accuracy == pytest.approx(float(gold["test_accuracy_percent"]))


@pytest.mark.parametrize("runs", [1, 3])
def test_biomedcoop_step_by_step(runs: int, tiny: Backbone, parity: Path, images: dict[str, np.ndarray]) -> None:
    """Run 0 takes the fixture's batches; the others, trained in its company, take other ones."""
    gold = np.load(parity / "biomedcoop.npz")
    order = torch.from_numpy(np.load(parity / "batch_order.npz")["batch_indices"])
    task = make_task(tiny, parity, images, runs)
    prompts = ClassPrompts(tiny, task.class_names, SETTINGS.context_words)
    np.testing.assert_array_equal(prompts.initial_context, gold["ctx_init"])
    context = prompts.initial_context.repeat(runs, 1, 1).requires_grad_()
    schedule = [(torch.stack([order[(step + 8 * r) % 16] for r in range(runs)]), 0.0025) for step in range(8)]
    losses, contexts = [], []

    def on_step(_step: int, terms: torch.Tensor) -> None:
        losses.append(terms[0].numpy().copy())
        contexts.append(context[0].detach().numpy().copy())

    sgd([context], biomedcoop_losses(task, SETTINGS, prompts, context), schedule, on_step=on_step)
    np.testing.assert_allclose(np.array(losses), gold["losses"], atol=5e-5)
    np.testing.assert_allclose(np.array(contexts), gold["ctx_after_step"], atol=2e-5)
    with torch.no_grad():
        embeddings = prompts.encode(context)[0]
    state = {
        "class_embeddings": torch.nn.functional.normalize(embeddings, dim=-1),
        "logit_scale": torch.tensor(tiny.logit_scale),
    }
    np.testing.assert_allclose(logits_on_test(state, "biomedcoop", tiny, images), gold["test_logits"], atol=5e-4)


def test_biomedcoop_masks(tiny: Backbone, parity: Path, images: dict[str, np.ndarray]) -> None:
    gold = np.load(parity / "biomedcoop.npz")
    order = np.load(parity / "batch_order.npz")["batch_indices"][:8]
    task = make_task(tiny, parity, images)
    f = torch.nn.functional.normalize(task.features[0], dim=-1)
    teacher = torch.nn.functional.normalize(task.sentence_features, dim=-1)
    scores = sentence_scores(tiny.logit_scale * torch.einsum("ne,cpe->ncp", f, teacher))[order].mean(1)  # [8, P]
    np.testing.assert_allclose(scores, gold["step/scores"], atol=1e-4)
    np.testing.assert_allclose(z_scores(scores), gold["step/zz"], atol=2e-4)
    np.testing.assert_array_equal(select_sentences(scores, 1.5), gold["step/mask"])


def test_padding_to_the_context_length_changes_nothing(parity: Path) -> None:
    """The published code pads to 64 or 256 tokens; its two results differ by less than our tolerance, so cutting is faithful."""
    short, long = np.load(parity / "biomedcoop.npz"), np.load(parity / "biomedcoop_ctx256.npz")
    np.testing.assert_allclose(short["ctx_after_step"], long["ctx_after_step"], atol=2e-5)


def test_learning_rates(parity: Path) -> None:
    for key, rates in json.loads((parity / "lr_schedules.json").read_text()).items():
        peak, epochs = rates[1], len(rates)
        ours = [learning_rate(epoch, epochs, peak) for epoch in range(epochs)]
        np.testing.assert_allclose(ours, rates, rtol=1e-12, err_msg=key)
