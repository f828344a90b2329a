"""Biomed-DPT against a plain computation in float64, and the words of its prompts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.readers.load import load_dataset
from biomedcoop.methods import Task, get_method
from biomedcoop.methods.context import ClassPrompts, ContextMethod
from biomedcoop.tasks.plan import plan_fit
from biomedcoop.tasks.request import FitRequest

NAMES = ["cyst", "kidney stone", "tumor"]
B, STEPS = 4, 4


@pytest.fixture(scope="module")
def task(tiny: Backbone) -> Task:
    g = torch.Generator().manual_seed(3)
    labels = torch.arange(3).repeat(4)[None]
    features = torch.randn(1, 12, tiny.embed_dim, generator=g) + 2 * torch.eye(3, tiny.embed_dim)[labels]
    texts = [[f"a scan of a {name}", f"{name} in the middle", f"{name} on the left"] for name in NAMES]
    with torch.no_grad():
        sentences = torch.stack([tiny.encode_text(own) for own in texts])
    return Task(tiny, NAMES, features, labels, sentences)


def plain_losses(encode: Any, task: Task, context: Any, f: Any, y: Any) -> Any:
    """The paper's four terms with its weights, written out over images, classes and elements."""

    def unit(x: Any) -> Any:
        return x / (x * x).sum(-1, keepdim=True).sqrt()

    s = task.backbone.logit_scale
    t = unit(encode([f"{name} in the kidney." for name in NAMES], context))
    low = unit(encode([f"a photo of a {name}." for name in NAMES], None))
    mean = unit(torch.stack([unit(own.double()).sum(0) / len(own) for own in task.sentence_features]))
    ce = kl = 0.0
    for image, label in zip(unit(f.double()), y.tolist(), strict=True):
        log_p = torch.log(torch.softmax(s * (t @ image), 0))
        q = torch.softmax(s * (mean @ image), 0)
        ce = ce - log_p[label] / len(f)
        kl = kl + (q * (torch.log(q) - log_p)).sum() / (len(f) * len(NAMES))
    n = t.numel()
    return torch.stack([ce, 12.5 * (t - mean).abs().sum() / n, 0.25 * kl, 0.3 * (t - low).abs().sum() / n])


def test_a_few_steps_by_a_plain_computation(task: Task, tiny: Backbone, parity: Any) -> None:
    """Losses and context of four steps of SGD; float32 against float64, hence 2e-4 of losses near 5 and 5e-6 of the context."""
    from biomedcoop.backbones import load_backbone

    exact = load_backbone(parity / "model", dtype=torch.float64)

    def encode(endings: list[str], context: Any) -> Any:
        rows = []
        for text in endings:  # one by one, so that nothing is padded
            ids = exact.tokenize([text])
            x = exact.embed_tokens(ids)
            if context is not None:
                x = torch.cat([x[:, :1], context[None], x[:, 1:]], dim=1)
            rows.append(exact.encode_text_embeddings(x, torch.ones(x.shape[:2], dtype=torch.bool))[0])
        return torch.stack(rows)

    method = get_method("biomed-dpt")
    assert isinstance(method, ContextMethod)
    settings = method.settings({}, modality="CT", organ="kidney")
    prompts = ClassPrompts(tiny, NAMES, settings)
    context = prompts.initial_context([1]).requires_grad_()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    schedule = [(order[None, B * (k % 3) : B * (k % 3) + B], 0.05) for k in range(STEPS)]

    learned, velocity = context.detach()[0].double().requires_grad_(), 0.0
    expected = []
    for index, rate in schedule:
        terms = plain_losses(encode, task, learned, task.features[0, index[0]], task.labels[0, index[0]])
        (gradient,) = torch.autograd.grad(terms.sum(), [learned])
        velocity = 0.9 * velocity + gradient + 5e-4 * learned.detach()
        learned = (learned.detach() - rate * velocity).requires_grad_()
        expected.append(terms.detach().numpy())

    found: list[np.ndarray] = []
    method.train(
        task, settings, prompts, context, schedule, [1], lambda _, terms: found.append(terms[0].numpy().copy())
    )
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert np.abs(np.diff(np.sum(found, axis=1))).max() > 1e-2  # the steps change something
    np.testing.assert_allclose(context.detach()[0], learned.detach(), atol=5e-6)


def test_the_words_of_the_prompt(tiny: Backbone) -> None:
    method = get_method("biomed-dpt")
    known = method.settings({}, modality="ultrasound", organ="breast")
    assert (known.context_words, known.class_suffix) == ("a ultrasound photo of a", "in the breast")
    unknown = method.settings({})
    assert (unknown.context_words, unknown.class_suffix) == ("a photo of a", "")
    own = method.settings({"class_suffix": "on the scan"}, modality="CT")
    assert (own.context_words, own.class_suffix) == ("a CT photo of a", "on the scan")
    one = ClassPrompts(tiny, NAMES, unknown)
    assert one.n_context == len(tiny.tokenize(["a photo of a"])[0]) - 2
    assert ClassPrompts(tiny, NAMES, replace(known, n_context=12)).initial_context([1]).shape[1] == 12


def test_the_plan_fills_the_words_in() -> None:
    data = load_dataset("simulated:kidney-ct?train=2&val=0&test=1")
    settings = plan_fit(FitRequest(data=data, method="biomed-dpt", shots=1), data).settings
    assert (settings.context_words, settings.class_suffix) == ("a CT photo of a", "in the kidney")
    paper = get_method("biomed-dpt").settings({}, "paper", "dermamnist", "dermatoscopy", "skin")
    assert (paper.sentence_weight, paper.kl_weight, paper.class_suffix) == (25.0, 20.0, "in the skin")
