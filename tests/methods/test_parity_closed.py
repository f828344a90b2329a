"""Methods with a closed form against the golden numbers of the published implementations (tests/parity_later_a/README.md).

Tolerances are about ten times the differences between the golden numbers and an independent computation, see that README.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from biomedcoop.backbones.base import Backbone
from biomedcoop.methods import Task, get_method
from biomedcoop.methods.ss_text import SSText
from biomedcoop.methods.tip_adapter import cache_of

Arrays = Mapping[str, Any]
SUPPORTS = ("k16", "k1", "imbalanced", "missing")
NAMES = ["class a", "class b", "class c", "class d"]


@pytest.fixture(scope="module")
def stored(parity: Path, images: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Unit-norm features and labels of the fixture, by split."""
    encoders = np.load(parity / "encoders.npz")
    found: dict[str, Tensor] = {}
    for split in ("train", "val", "test"):
        found[split] = F.normalize(torch.from_numpy(encoders[f"{split}_image_features_raw"]), dim=-1)
        found[f"{split}_labels"] = torch.from_numpy(images[f"{split}_labels"]).long()
    return found


def support_task(stored: dict[str, Tensor], index: Any, backbone: Backbone, runs: int = 1) -> Task:
    """Training images at ``index``, for ``runs`` runs: the first has them in the fixture's order, each other one reversed."""
    index = torch.from_numpy(np.asarray(index))
    order = [index if run == 0 else index.flip(0) for run in range(runs)]
    features, labels = (torch.stack([stored[name][i] for i in order]) for name in ("train", "train_labels"))
    val, val_labels = (stored[name].expand(runs, *stored[name].shape) for name in ("val", "val_labels"))
    return Task(backbone, NAMES, features, labels, None, val, val_labels)


def close(found: Tensor, gold: Any, tolerance: float) -> None:
    torch.testing.assert_close(found, torch.from_numpy(np.asarray(gold)).to(found.dtype), atol=tolerance, rtol=0)


@pytest.mark.parametrize("text", ["mean_raw", "template_unit"])
@pytest.mark.parametrize("support", [*SUPPORTS, "n1280"])
@pytest.mark.parametrize(("name", "file"), [("ss-text", "ss_text"), ("ss-text+", "ss_text_plus")])
def test_ss_text(
    name: str, file: str, support: str, text: str, stored: dict[str, Tensor], later: Path, tiny: Backbone
) -> None:
    """The published code bounds the penalty; without the bound it gives the numbers of the authors' later repository."""
    if support == "n1280" and text != "mean_raw":
        return
    gold, other = np.load(later / f"{file}.npz"), np.load(later / "ss_text_u.npz")
    scale, words = float(gold["logit_scale"]), torch.from_numpy(gold[f"{text}/text"])
    task = support_task(stored, gold[f"{support}/support_index"], tiny, runs=3)
    method = get_method(name)
    assert isinstance(method, SSText)
    w = method.prototypes(*cache_of(task), words, scale, method.settings({"least_penalty": 0.001}))
    for run in w:
        close(run, gold[f"{text}/{support}/prototypes"], 1e-3 if support == "n1280" else 4e-4)
        close(scale * stored["test"] @ F.normalize(run, dim=-1).T, gold[f"{text}/{support}/test_logits"], 3e-5)
    if (key := f"other_solvers/{file}/{support}/prototypes") in other and text == "mean_raw":
        unbound = method.prototypes(*cache_of(task), words, scale, method.settings({}))
        close(unbound[0], other[key], 1e-3 if support == "n1280" else 4e-4)


def test_ss_text_weighs_images_by_the_logit_scale(stored: dict[str, Tensor], later: Path, tiny: Backbone) -> None:
    """A fit is the formula with the template as text and the backbone's own scale."""
    task = support_task(stored, np.load(later / "ss_text.npz")["missing/support_index"], tiny)
    for name in ("ss-text", "ss-text+"):
        method = get_method(name)
        assert isinstance(method, SSText)
        text = get_method("zero-shot").fit(task, get_method("zero-shot").settings({}), [1])[0]["class_embeddings"]
        (state,) = method.fit(task, method.settings({}), [1])
        w = method.prototypes(*cache_of(task), text, tiny.logit_scale, method.settings({}))
        close(state["class_embeddings"], F.normalize(w[0], dim=-1), 1e-6)
    method = get_method("ss-text")
    fits = [method.fit(task, method.settings({"image_weight": w}), [1])[0]["class_embeddings"] for w in (1e-6, 1, 1e6)]
    near = [F.cosine_similarity(one, text).mean() for one in fits]
    assert near[0] > near[1] > near[2]
    close(fits[0], text, 1e-4)


def test_simpleshot(stored: dict[str, Tensor], later: Path, tiny: Backbone) -> None:
    """Answers and probabilities from distances to class means, computed image by image."""
    index = np.load(later / "ss_text.npz")["missing/support_index"]
    task = support_task(stored, index, tiny)
    method = get_method("simpleshot")
    (state,) = method.fit(task, method.settings({"scale": 7.0}), [1])
    p = method.logits(state, 3 * stored["test"], tiny).softmax(-1)
    f, y = task.features[0].numpy(), task.labels[0].numpy()
    there = [c for c in range(4) if (y == c).any()]
    assert there == [0, 1, 3]
    centre = np.mean([f[y == c].mean(0) for c in there], axis=0)
    points = {c: np.mean([(v - centre) / np.linalg.norm(v - centre) for v in f[y == c]], axis=0) for c in there}
    for row, image in zip(p.numpy(), stored["test"].numpy(), strict=True):
        x = (image - centre) / np.linalg.norm(image - centre)
        distances = np.array([np.square(x - points[c]).sum() for c in there])
        weights = np.exp(-7 / 2 * distances)
        np.testing.assert_allclose(row[there], weights / weights.sum(), atol=1e-5)
        assert row[2] == 0
