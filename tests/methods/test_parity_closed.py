"""Methods with a closed form against the golden numbers of the published implementations (tests/parity_later_a/README.md).

Tolerances are about ten times the differences between the golden numbers and an independent computation, see that README.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from biomedcoop.backbones.base import Backbone
from biomedcoop.errors import UserError
from biomedcoop.methods import Task, gda, get_method, ss_text_u, timo
from biomedcoop.methods.ss_text import SSText
from biomedcoop.methods.tip_adapter import cache_of

Arrays = Mapping[str, Any]
SUPPORTS = ("k16", "k1", "imbalanced", "missing")
NAMES = ["glioma tumor", "meningioma tumor", "pituitary tumor", "normal brain"]


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


@pytest.mark.parametrize("text", ["ensemble_unit", "template_unit"])
@pytest.mark.parametrize("support", ["k16", "k1", "imbalanced"])
def test_gda(support: str, text: str, stored: dict[str, Tensor], later: Path, tiny: Backbone) -> None:
    """Weights, the choice of α on validation images and logits, at the published scale 100 and at the backbone's own."""
    gold = np.load(later / "gda.npz")
    task = support_task(stored, gold[f"{support}/support_index"], tiny, runs=3)
    settings = gda.GDASettings()
    weight, bias = gda.discriminant(task.features, task.labels, 4, settings)
    words = torch.from_numpy(gold[f"{text}/text"])
    for run in range(3):
        close(weight[run], gold[f"{support}/W"].T, 1.6e-4)
        close(bias[run], gold[f"{support}/b"], 6e-5)
    for name, scale in (("s100", 100.0), ("s14", float(gold["logit_scale"]))):
        key = f"{text}/{support}/{name}"
        for alpha in (0.01, 0.1, 1, 10):
            found = scale * stored["test"] @ words.T + alpha * (stored["test"] @ weight[0].T + bias[0])
            close(found, gold[f"{key}/alpha{alpha:g}/test_logits"], 1.6e-4 * max(1, alpha))
        chosen = gda.chosen_alphas(task, scale * words, settings)
        np.testing.assert_allclose(chosen, float(gold[f"{key}/val/alpha"]))
        found = scale * stored["test"] @ words.T + chosen[0] * (stored["test"] @ weight[0].T + bias[0])
        close(found, gold[f"{key}/val/test_logits"], 2e-3)


def test_gda_fit(stored: dict[str, Tensor], later: Path, tiny: Backbone) -> None:
    """The method itself, whose text is the template, with three views of each image and with one."""
    gold = np.load(later / "gda.npz")
    method = get_method("gda")
    key = "template_unit/k1_three_views/s14/val"
    views = torch.from_numpy(gold[f"{key}/vecs"]).view(3, 4, 48).transpose(0, 1).reshape(1, 12, 48)
    labels = torch.from_numpy(gold[f"{key}/labels"]).view(3, 4).T.reshape(1, 12)
    task = replace(support_task(stored, gold["k1/support_index"], tiny), features=views, labels=labels, views=3)
    (state,) = method.fit(task, method.settings({}), [1])
    close(state["weight"], gold[f"{key}/W"].T, 1e-3)
    close(state["bias"], gold[f"{key}/b"], 1e-3)
    close(method.logits(state, stored["test"], tiny), gold[f"{key}/test_logits"], 2e-3)
    one = support_task(stored, gold["k1/support_index"], tiny, runs=2)
    for state in method.fit(one, method.settings({}), [1, 2]):
        zero_shot = get_method("zero-shot").fit(one, get_method("zero-shot").settings({}), [1])[0]
        expected = method.logits(state, stored["test"], tiny).softmax(-1)
        close(get_method("zero-shot").logits(zero_shot, stored["test"], tiny).softmax(-1), expected, 1e-5)
    (useful,) = method.fit(one, method.settings({"floor": 0.3}), [1, 2])[:1]
    assert method.logits(useful, one.features[0], tiny).argmax(1).tolist() == one.labels[0].tolist()


def test_gda_for_new_classes(stored: dict[str, Tensor], later: Path, tiny: Backbone) -> None:
    """The published base-to-novel run: covariances of the base classes as they are, new classes from texts and base images."""
    gold = np.load(later / "gda_base2new.npz")
    rows, labels = torch.from_numpy(gold["vecs"]), torch.from_numpy(gold["labels"])
    settings = gda.GDASettings(covariance="classes")
    weight, bias = gda.discriminant(rows[None], labels[None], 2, settings)
    scale = float(np.abs(gold["W"]).max())
    close(weight[0] / scale, gold["W"].T / scale, 7.5e-5)
    val = stored["val_labels"] < 2
    one = Task(tiny, NAMES[:2], rows[None], labels[None], val_features=stored["val"][None, val], views=3)
    one = replace(one, val_labels=stored["val_labels"][None, val])
    for text in ("ensemble_unit", "template_unit"):
        words = torch.from_numpy(gold[f"{text}/text"])
        new_weight, new_bias = gda.discriminant_of_texts(rows, words[2:])
        close(new_weight, gold[f"{text}/W_new"].T, 1.1e-4)
        close(new_bias, gold[f"{text}/b_new"], 1.1e-4)
        for name, s in (("s100", 100.0), ("s14", float(gold["logit_scale"]))):
            alpha = gda.chosen_alphas(one, s * words[:2], settings)[0]
            np.testing.assert_allclose(alpha, float(gold[f"{text}/{name}/alpha"]))
            base, new = (stored["test"][np.isin(stored["test_labels"], own)] for own in ((0, 1), (2, 3)))
            close(
                s * new @ words[2:].T + alpha * (new @ new_weight.T + new_bias),
                gold[f"{text}/{name}/new_test_logits"],
                1e-3,
            )
            close(
                s * base @ words[:2].T + alpha * (base @ weight[0].T + bias[0]),
                gold[f"{text}/{name}/base_test_logits"],
                1.4e-2,
            )


def test_gda_takes_new_classes_by_its_rows(stored: dict[str, Tensor], later: Path, tiny: Backbone) -> None:
    """A fitted classifier of 64 rows serves new classes with the formula above; one of fewer rows says that it cannot."""
    method = get_method("gda")
    task = support_task(stored, np.arange(64), tiny)
    (state,) = method.fit(task, method.settings({}), [1])
    new = replace(task, class_names=["another", "one more", "and a third"])
    turned = method.retarget(state, new, method.settings({}))
    weight, bias = gda.discriminant_of_texts(task.features[0], turned["text"])
    f = stored["test"]
    expected = tiny.logit_scale * f @ turned["text"].T + state["alpha"] * (f @ weight.T + bias)
    close(method.logits(turned, f, tiny), expected, 1e-5)
    (few,) = method.fit(support_task(stored, np.arange(60), tiny), method.settings({}), [1])
    with pytest.raises(UserError, match=r"at least 64 crops of training images.* more shots or views"):
        method.retarget(few, new, method.settings({}))


@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize("support", ["k16", "k1"])
def test_timo(support: str, search: bool, stored: dict[str, Tensor], later: Path, tiny: Backbone) -> None:
    gold, key = np.load(later / "timo.npz"), f"{support}/{'timo_s' if search else 'timo'}"
    sentences = torch.from_numpy(gold["texts_unit_50"])
    task = replace(
        support_task(stored, gold[f"{support}/support_index"], tiny, runs=2), sentence_features=3 * sentences
    )
    method = get_method("timo")
    settings = method.settings({"search": search})
    gamma, beta, alpha = timo.chosen_values(task, sentences, settings)
    for run, state in enumerate(method.fit(task, settings, [1, 2])):
        close(timo.matches(task, sentences)[run], gold[f"{key}/matching_score"], 9e-7)
        assert float(gamma[run]) == float(gold[f"{key}/{'best_gamma' if search else 'gamma'}"])
        assert int(beta[run]) == int(gold[f"{key}/best_beta"])
        np.testing.assert_allclose(alpha[run], float(gold[f"{key}/best_alpha"]), rtol=1e-6)
        close(state["text"], gold[f"{key}/text_guided"], 6e-6)
        close(state["weight"], gold[f"{key}/W"].T, 3.2e-4)
        close(state["bias"], gold[f"{key}/b"], 3.2e-4)
        close(method.logits(state, stored["test"], tiny), gold[f"{key}/test_logits"], 2.6e-4)


def test_timo_searches_few_rows_by_their_products() -> None:
    """The same logits as from weights, with fewer sentences than there are, each once, some twice, and all twice."""
    generator = torch.Generator().manual_seed(3)
    rows, sentences, f = (
        torch.nn.functional.normalize(torch.randn(*shape, 64, generator=generator), dim=-1)
        for shape in [(2, 10), (3, 7), (2, 5)]
    )
    images = rows, torch.tensor([[0, 1] * 5, [0, 1, 2, 2, 1] * 2])  # no image of the last class in the first run
    match = torch.rand(2, 3, 7, generator=generator)
    counts = [1, 4, 7, 9, 14]
    for count, logits in zip(counts, timo.joint_logits(images, match, sentences, counts, f), strict=True):
        weight, bias = timo.joint_discriminant(images, match, sentences, count)
        close(logits, f @ weight.transpose(1, 2) + bias[:, None], 1e-4)


@pytest.mark.parametrize("text", ["mean_raw", "template_unit"])
@pytest.mark.parametrize("support", SUPPORTS)
def test_ss_text_u(support: str, text: str, stored: dict[str, Tensor], later: Path, tiny: Backbone) -> None:
    """The assignment in every round, the prototypes and the logits; a large scale stays finite."""
    gold = np.load(later / "ss_text_u.npz")
    scale, words = float(gold["logit_scale"]), torch.from_numpy(gold[f"{text}/text"])
    task = support_task(stored, gold[f"{support}/support_index"], tiny, runs=3)
    f, one_hot = cache_of(task)
    key = f"{text}/{support}"
    marginal = ss_text_u.shares(one_hot.mean(1))
    close(marginal[2], gold[f"{key}/marginal"], 1e-6)
    for scores, codes in zip(gold[f"{key}/scores_unlabelled"], gold[f"{key}/codes"], strict=True):
        close(ss_text_u.assigned(torch.from_numpy(scores)[None], marginal[:1], 10)[0], codes, 8e-6)
    unlabelled = torch.from_numpy(gold["unlabelled_features"]).expand(3, -1, -1)
    found = ss_text_u.prototypes(f, one_hot, unlabelled, words, scale, scale, ss_text_u.SSTextUSettings())
    for w in found:
        close(w, gold[f"{key}/prototypes"], 1.1e-5)
        close(scale * stored["test"] @ F.normalize(w, dim=-1).T, gold[f"{key}/test_logits"], 3e-5)
    none = ss_text_u.prototypes(f, one_hot, unlabelled, words, scale, scale, ss_text_u.SSTextUSettings(iterations=0))
    close(none[0], gold[f"{key}/prototypes_0iter"], 1.1e-5)
    assert ss_text_u.assigned(torch.tensor([[[900.0, 0], [0, 900]]]), torch.tensor([[0.5, 0.5]]), 10).isfinite().all()


def test_ss_text_u_draws_by_the_seed(stored: dict[str, Tensor], tiny: Backbone) -> None:
    """At most so many images per class as the setting says; each run has its own, alone as in company."""
    task = replace(support_task(stored, np.arange(0, 64, 4), tiny, runs=3), unlabelled=stored["test"])
    method = get_method("ss-text-u")
    few = method.settings({"unlabelled_per_class": 3})
    assert ss_text_u.drawn(40, 12, 5).unique().tolist() == ss_text_u.drawn(40, 12, 5).tolist()
    assert len(ss_text_u.drawn(40, 12, 5)) == 12
    one, two, three = (state["class_embeddings"] for state in method.fit(task, few, [1, 2, 2]))
    alone = replace(task, features=task.features[:1], labels=task.labels[:1])
    close(method.fit(alone, few, [1])[0]["class_embeddings"], one, 1e-6)
    close(two, three, 1e-5)  # other order of the same labelled images
    assert (one - two).abs().max() > 1e-3
    every = method.fit(task, method.settings({}), [1, 2, 3])
    close(every[0]["class_embeddings"], every[1]["class_embeddings"], 1e-5)


@pytest.mark.parametrize("name", ["gda", "simpleshot", "ss-text", "ss-text+", "ss-text-u", "timo"])
def test_a_class_without_an_image(name: str, stored: dict[str, Tensor], later: Path, tiny: Backbone) -> None:
    """It has finite logits; where there are words it can be the answer, and the others are told apart as ever."""
    index = np.load(later / "ss_text.npz")["missing/support_index"]
    sentences = torch.from_numpy(np.load(later / "timo.npz")["texts_unit_50"])
    folds = torch.arange(len(index)) % 2
    task = replace(
        support_task(stored, index, tiny),
        sentence_features=sentences,
        unlabelled=stored["val"],
        val_features=None,
        val_labels=None,
        folds=folds[None],
    )
    method = get_method(name)
    (state,) = method.fit(task, method.settings({}), [1])
    logits = method.logits(state, stored["test"], tiny)
    assert logits.shape == (40, 4)
    assert logits.isfinite().all()
    right = method.logits(state, task.features[0], tiny).argmax(1) == task.labels[0]
    assert right.float().mean() > 0.6
    if name == "gda":
        close(state["weight"][2], state["weight"][[0, 1, 3]].mean(0), 1e-4)
    elif method.abilities.needs_text_tower:
        # an image that is as the words of the class say is of the class
        text = state["text"] if "text" in state else state["class_embeddings"]
        assert int(method.logits(state, text[2:3], tiny).argmax()) == 2
