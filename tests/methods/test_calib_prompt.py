"""CalibPrompt's losses against a plain computation, and as settings of every context learner."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from biomedcoop.backbones.base import Backbone
from biomedcoop.methods import Task, get_method
from biomedcoop.methods.calib_prompt import label_loss
from biomedcoop.methods.training import cross_entropy

LEARNERS = ["biomed-dpt", "biomedcoop", "cocoop", "coop", "kgcoop", "prograd"]
OFF = {"label_smoothing": 0.0, "smac_weight": 0.0, "separation_weight": 0.0}
PUBLISHED = {"label_smoothing": 0.1, "smac_weight": 1.0, "separation_weight": 3.0}


def by_hand(p: np.ndarray, y: np.ndarray, t: np.ndarray, a: float, smac: float, separation: float) -> float:
    """The equations of the paper, summed up one number at a time, for probabilities [B, C] and unit vectors [C, E]."""
    b, c = p.shape
    loss = 0.0
    for i in range(b):
        for k in range(c):
            loss -= (1 - a if k == y[i] else a / (c - 1)) * np.log(p[i, k]) / b
    for k in range(c):
        q = sum(label == k for label in y) / b
        loss += smac / c * abs(p[:, k].sum() / b - (q * (1 - a) + (1 - q) * a / (c - 1)))
    pairs = [float(t[k] @ t[m]) for k in range(c) for m in range(c) if k != m]
    return loss + separation * sum(pairs) / len(pairs)


@pytest.mark.parametrize("values", [(0.1, 1.0, 3.0), (0.2, 0.0, 0.0), (0.0, 2.0, 0.0), (0.0, 0.0, 1.0)], ids=str)
def test_by_hand(values: tuple[float, float, float]) -> None:
    g = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 5, 4, generator=g, dtype=torch.float64)
    labels = torch.tensor([[0, 1, 2, 3, 3], [1, 1, 1, 0, 1]])
    t = torch.nn.functional.normalize(torch.randn(2, 4, 6, generator=g, dtype=torch.float64), dim=-1)
    settings = SimpleNamespace(**dict(zip(OFF, values, strict=True)))
    found = label_loss(logits.log_softmax(-1), labels, t, settings)
    wanted = [by_hand(logits[r].softmax(-1).numpy(), labels[r].numpy(), t[r].numpy(), *values) for r in range(2)]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    own = t[:, None].expand(-1, 5, -1, -1)  # the same embeddings for each image
    np.testing.assert_allclose(label_loss(logits.log_softmax(-1), labels, own, settings), wanted, rtol=1e-12)


def test_off_is_the_plain_loss() -> None:
    logits = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(5).remainder(4).expand(3, -1)
    log_p, t = logits.log_softmax(-1), torch.zeros(3, 4, 2)
    assert torch.equal(label_loss(log_p, labels, t, SimpleNamespace(**OFF)), cross_entropy(log_p, labels))


@pytest.mark.parametrize("name", LEARNERS)
def test_every_context_learner_has_them(name: str, tiny: Backbone) -> None:
    """The defaults are off; each loss alone changes what is learned, and answers become less confident by smoothing."""
    g = torch.Generator().manual_seed(4)
    labels = torch.arange(3).repeat(4)[None]
    features = torch.randn(1, 12, tiny.embed_dim, generator=g) + 3 * torch.eye(3, tiny.embed_dim)[labels]
    names = ["cyst", "stone", "tumor"]
    with torch.no_grad():
        sentences = torch.stack([tiny.encode_text([f"a scan of a {n}", f"a {n}"]) for n in names])
    task = Task(tiny, names, features, labels, sentences)
    method = get_method(name)
    quick = {"epochs": 2, "batch_size": 6, "lr": 0.02, "class_specific": True}
    plain = method.settings(quick)
    assert {key: getattr(plain, key) for key in OFF} == OFF

    def context(**more: float) -> torch.Tensor:
        return method.fit(task, method.settings({**quick, **more}), [1])[0]["context"]

    start = context()
    for key, value in PUBLISHED.items():
        assert (context(**{key: value}) - start).abs().max() > 1e-5, key
