"""Kernel ridge and the text-initialised probes against golden numbers (tests/parity_later_a/README.md) and plain computations.

Tolerances are about ten times the differences between the golden numbers and an independent computation, see that README.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from biomedcoop.backbones.base import Backbone
from biomedcoop.errors import UserError
from biomedcoop.methods import Task, get_method, krr
from biomedcoop.methods.clap import HeldProbe
from biomedcoop.methods.zs_lp import ZSLP
from methods.plain_prolip import trained_matrix, unit

Arrays = Mapping[str, Any]
NAMES = ["glioma tumor", "meningioma tumor", "pituitary tumor", "normal brain"]


class World(NamedTuple):
    """Raw features and labels of the fixture, by split, the tiny model, and its embeddings of each class in double precision."""

    features: dict[str, Tensor]
    labels: dict[str, Tensor]
    backbone: Backbone
    texts: dict[str, Tensor]

    def task(self, index: Any, runs: int = 1) -> Task:
        """Training images at ``index`` for R runs: the first has them in the fixture's order, every other one backwards."""
        order = torch.from_numpy(np.asarray(index))
        rows = torch.stack([order.flip(0) if run % 2 else order for run in range(runs)])
        return Task(self.backbone, NAMES, self.features["train"][rows], self.labels["train"][rows])

    def unit(self, split: str) -> Tensor:
        return F.normalize(self.features[split].double(), dim=-1)


@pytest.fixture(scope="module")
def world(parity: Path, images: dict[str, np.ndarray], tiny: Backbone) -> World:
    splits = ("train", "val", "test")
    with np.load(parity / "encoders.npz") as encoders:
        features = {split: torch.from_numpy(encoders[f"{split}_image_features_raw"]) for split in splits}
        sentences, template = (
            torch.from_numpy(encoders[f"{kind}_text_features_raw"]).double() for kind in ("prompt", "template")
        )
    texts = {
        "template_raw": template,
        "template_unit": F.normalize(template, dim=-1),
        "mean_raw": sentences.mean(1),
    }
    labels = {split: torch.from_numpy(images[f"{split}_labels"]).long() for split in splits}
    return World(features, labels, tiny, texts)


def close(found: Tensor, gold: Any, tolerance: float) -> None:
    torch.testing.assert_close(found, torch.from_numpy(np.asarray(gold)).to(found.dtype), atol=tolerance, rtol=0)


# -- kernel ridge

CONSTANTS = [("k16", 16), ("k16", 1), ("k1", 1), ("imbalanced", 8)]


@pytest.mark.parametrize("text", ["ensemble_unit", "template_unit"])
@pytest.mark.parametrize(("support", "constants"), CONSTANTS)
@pytest.mark.parametrize("form", ["proker", "breg"])
def test_proker_with_given_values(
    form: str, support: str, constants: int, text: str, world: World, later: Path
) -> None:
    gold = np.load(later / "proker.npz")
    place = f"{form}/{text}/{support}/constants{constants}"
    values = krr.Values(float(gold[f"{place}/beta"]), float(gold[f"{place}/lambda"]), 1.0)
    given = {"form": form, "beta": values.beta, "penalty": values.penalty}
    settings = get_method("krr").settings(given if form == "proker" else {**given, "gamma": gold[f"{place}/gamma"]})
    words = torch.from_numpy(gold[f"{text}/text"])
    task = world.task(gold[f"{support}/support_index"])
    keys, coefficients, taken = krr.fitted(task, 0, words.double(), settings)
    assert taken == values
    if form == "proker":
        close(coefficients, gold[f"{place}/alpha"], 3e-6)
        if f"{place}/K_SS" in gold:
            close(krr.kernel_of(keys @ keys.T, values.beta), gold[f"{place}/K_SS"], 3e-6)
    else:  # the code keeps them in the space of features
        close(coefficients, gold[f"{place}/alpha"] @ gold[f"{text}/text"].T, 3e-6)
    regression = krr.Regression(keys, task.labels[0], words.double(), settings)
    close(regression.scores(world.unit("test"), values), gold[f"{place}/test_logits"], 2e-6)


@pytest.mark.parametrize("text", ["ensemble_unit", "template_unit"])
def test_proker_searches_the_published_grid_on_validation_images(text: str, world: World, later: Path) -> None:
    gold, place = np.load(later / "proker.npz"), f"proker/{text}/k16/grid"
    grid = krr.published_grid()
    np.testing.assert_allclose(sorted({v.beta for v in grid}), gold[f"{place}/beta_search"], atol=1e-6)
    np.testing.assert_allclose(sorted({v.penalty for v in grid}), gold[f"{place}/lambda_search"], atol=1e-6)
    task = world.task(gold["k16/support_index"])
    task = replace(task, val_features=world.features["val"][None], val_labels=world.labels["val"][None])
    settings, words = get_method("krr").settings({}, "paper"), torch.from_numpy(gold[f"{text}/text"]).double()
    keys, _, values = krr.fitted(task, 0, words, settings)
    np.testing.assert_allclose(values, [gold[f"{place}/beta"], gold[f"{place}/lambda"], 1], atol=1e-6)
    scores = krr.Regression(keys, task.labels[0], words, settings).scores(world.unit("test"), values)
    close(scores, gold[f"{place}/test_logits"], 1.6e-5)
    right = krr.Regression(keys, task.labels[0], words, settings).scores(world.unit("val"), values).argmax(1)
    assert float(right.eq(world.labels["val"]).double().mean()) * 100 == float(gold[f"{place}/best_val_acc"])


def test_logits_are_eight_times_the_published_scores(world: World, later: Path) -> None:
    """Through ``fit`` and ``logits``, in single precision and in company."""
    gold, method, place = np.load(later / "proker.npz"), get_method("krr"), "proker/template_unit/k16/constants16"
    settings = method.settings({"form": "proker", "beta": gold[f"{place}/beta"], "penalty": gold[f"{place}/lambda"]})
    for state in method.fit(world.task(gold["k16/support_index"], 2), settings, [1, 2]):
        close(method.logits(state, world.features["test"], world.backbone) / 8, gold[f"{place}/test_logits"], 2e-6)


@pytest.mark.parametrize("form", ["ridge", "proker", "breg"])
@pytest.mark.parametrize("block", [1, 2, 3])
def test_leaving_out_equals_a_fit_on_the_others(form: str, block: int, world: World) -> None:
    """The closed form of the error of left-out rows against regressions that never saw them; the last block is smaller."""
    task = world.task(range(0, 64, 3))  # 22 images
    f, labels = F.normalize(task.features[0].double(), dim=-1), task.labels[0]
    words = F.normalize(torch.randn(4, 48, generator=torch.Generator().manual_seed(1)).double(), dim=-1)
    settings, values = get_method("krr").settings({"form": form}), krr.Values(2.0, 0.2, 1.0 if form != "ridge" else 0.5)
    block_of = torch.randperm(22, generator=torch.Generator().manual_seed(2)) // block
    found = krr.Regression(f, labels, words, settings).left_out_errors(values, krr.equal_blocks(block_of))
    for number in set(block_of.tolist()):
        out = block_of == number
        scores = krr.Regression(f[~out], labels[~out], words, settings).scores(f[out], values)
        torch.testing.assert_close(found[out], (F.one_hot(labels[out], 4) - scores).square().sum(1))


def test_the_chosen_values_have_the_smallest_error(world: World) -> None:
    """Counted with a fit without each image; an image whose class has no other is not counted."""
    task = world.task([*range(5), *range(16, 20), *range(32, 34), 50])
    method = get_method("krr")
    (state,) = method.fit(task, method.settings({}, "general"), [1])

    def error(values: krr.Values) -> float:
        found = []
        for image in range(11):  # the last is the only one of its class
            rest = torch.arange(12) != image
            left = replace(task, features=task.features[:, rest], labels=task.labels[:, rest])
            (own,) = method.fit(left, method.settings(values._asdict(), "general"), [1])
            scores = method.logits(own, task.features[0, ~rest], world.backbone)[0] / krr.SHARPNESS
            found.append(float((F.one_hot(task.labels[0, image], 4) - scores).square().sum()))
        return float(np.mean(found))

    errors = {values: error(values) for values in krr.CANDIDATES}
    chosen = krr.Values(*(round(float(state[name]), 6) for name in krr.Values._fields))
    assert errors[chosen] == pytest.approx(min(errors.values()), rel=1e-4)
    assert errors[chosen] < 0.98 * max(errors.values())


def test_copies_views_and_groups_are_left_out_together(world: World) -> None:
    method, index = get_method("krr"), [0, 1, 2, 16, 17, 18, 32, 33, 34, 48, 49, 50]
    settings = method.settings({}, "general")
    plain = world.task(index)
    twice = replace(plain, features=plain.features.repeat(1, 2, 1), labels=plain.labels.repeat(1, 2))
    copies = krr.blocks_of(twice, 0)
    assert copies[:12].equal(copies[12:])
    assert len(set(copies.tolist())) == 12
    views = replace(plain, features=plain.features.repeat_interleave(2, 1), labels=plain.labels.repeat_interleave(2, 1))
    by_views = method.fit(replace(views, views=2), settings, [1])[0]
    by_copies = method.fit(twice, settings, [1])[0]
    test = world.features["test"]
    torch.testing.assert_close(
        method.logits(by_views, test, world.backbone), method.logits(by_copies, test, world.backbone)
    )
    # patients with all images of a class, so that none of its other images is left: nothing can be chosen
    alone = replace(plain, folds=torch.arange(4).repeat_interleave(3)[None])
    (state,) = method.fit(alone, settings, [1])
    np.testing.assert_allclose([float(state[name]) for name in krr.Values._fields], krr.DEFAULT)


def test_one_image_of_each_class_takes_the_default(world: World) -> None:
    method = get_method("krr")
    (state,) = method.fit(world.task([0, 16, 32, 48]), method.settings({"base": 2}, "general"), [1])
    assert [float(state[name]) for name in krr.Values._fields] == pytest.approx([1.0, 0.3, 2.0])


def test_a_class_without_an_image_falls_near_the_images(world: World) -> None:
    method = get_method("krr")
    task = world.task([0, 1, 2, 16, 17, 18, 32, 33, 34])  # none of the last class
    (state,) = method.fit(task, method.settings({}, "general"), [1])
    scores = method.logits(state, task.features[0], world.backbone) / krr.SHARPNESS
    assert scores.isfinite().all()
    words = float(state["base"]) * F.normalize(task.features[0], dim=-1) @ state["class_embeddings"][3]
    assert (scores[:, 3].abs() < words.abs()).float().mean() > 0.8


def test_too_many_images_are_refused(world: World) -> None:
    method, rows = get_method("krr"), krr.MOST_ROWS + 1
    task = Task(world.backbone, NAMES, torch.zeros(1, rows, 48), torch.zeros(1, rows, dtype=torch.int64))
    with pytest.raises(UserError, match="krr takes at most 10000 training images or views, not 10001; lower shots"):
        method.fit(task, method.settings({}, "general"), [1])


# -- probes that start as zero-shot

PUBLISHED = [
    (text, support) for text in ("template_raw", "mean_raw", "template_unit") for support in ("k16", "k1", "imbalanced")
]
MEDICAL = [
    (text, support) for text in ("mean_raw", "template_unit") for support in ("k16", "k1", "imbalanced", "missing")
]
VARIANTS = ("balanced", "corrected", "constant", "adaptative")
CASES = [
    *(("zs_lp", "zs-lp", {}, f"{text}/{support}") for text, support in PUBLISHED),
    *(("clap", "clap", {}, f"{text}/{support}") for text, support in PUBLISHED),
    *(
        ("clap", "clap", {"variant": variant}, f"template_raw/{support}/l2-{variant}")
        for variant in VARIANTS
        for support in ("k16", "imbalanced")
    ),
    *(("zs_lp_medical", "zs-lp", {"warmup_epochs": 0}, f"{text}/{support}") for text, support in MEDICAL),
    *(
        ("clap_medical", "clap", {"warmup_epochs": 0, "variant": "constant"}, f"{text}/{support}")
        for text, support in MEDICAL
    ),
]


@pytest.mark.parametrize(
    ("file", "name", "given", "place"),
    [pytest.param(*case, marks=[pytest.mark.slow] * case[3].startswith("template_unit")) for case in CASES],
    ids=str,
)
def test_probes(file: str, name: str, given: dict[str, Any], place: str, world: World, later: Path) -> None:
    """Twenty steps in single precision, in company; all 300 in double precision, where rounding is not amplified."""
    gold, method = np.load(later / f"{file}.npz"), get_method(name)
    assert isinstance(method, ZSLP)
    settings, (words, support) = method.settings(given), place.split("/")[:2]
    text, scale = torch.from_numpy(gold[f"{words}/text"]), float(gold["logit_scale"])
    task = world.task(gold[f"{support}/support_index"], 2)
    f = F.normalize(task.features.double(), dim=-1)

    probe = method.probe(f.float(), task.labels, text, scale, settings)
    if f"{place}/lambda" in gold and "variant" not in given:
        assert isinstance(probe, HeldProbe)
        close(probe.penalties[0], gold[f"{place}/lambda"], 3e-6)

    def compare(epoch: int, losses: Tensor) -> None:
        for run in range(2):
            close(losses[run], gold[f"{place}/losses"][epoch], 1.5e-5)
            close(probe.weight[run], gold[f"{place}/prototypes_after_step"][epoch], 1.7e-5)
        if epoch == 19:
            raise StopIteration

    with pytest.raises(StopIteration):
        probe.train(settings, compare)

    exact = method.probe(f, task.labels, world.texts[words], scale, settings)
    kept: list[float] = []
    penalties: list[Tensor] = []

    def keep(epoch: int, losses: Tensor) -> None:
        kept.append(float(losses[0]))
        if isinstance(exact, HeldProbe):
            penalties.append(exact.penalties[0])

    exact.train(settings, keep)
    np.testing.assert_allclose(kept, gold[f"{place}/losses_all_float64"], atol=1e-9, rtol=0)
    for weight in exact.weight:
        close(weight, gold[f"{place}/prototypes_float64"], 1e-9)
        logits = scale * world.unit("test") @ F.normalize(weight, dim=-1).T
        close(logits, gold[f"{place}/test_logits_float64"], 1e-9)
    if f"{place}/lambda_per_epoch" in gold:  # of each epoch; the last update serves no epoch
        np.testing.assert_allclose(torch.stack(penalties[:-1]), gold[f"{place}/lambda_per_epoch"][1:], atol=7e-5)


# -- RLA


@pytest.mark.parametrize("given", [{}, {"penalty": 0.05, "lr": 0.002}], ids=str)
def test_rla_equals_a_plain_computation(given: dict[str, float], world: World) -> None:
    """Numpy, one run, the gradient written out; float32 rounding grows over 40 steps of Adam to less than 1e-4."""
    method, epochs = get_method("rla"), 40
    task = world.task([*range(6), *range(16, 22), *range(32, 38), *range(48, 54)], 2)
    states = method.fit(task, method.settings({**given, "epochs": epochs}), [1, 2])
    f, t = world.unit("train")[task_rows(task, world)].numpy(), world.texts["template_unit"].numpy()
    scale, penalty, peak = world.backbone.logit_scale, given.get("penalty", 1 / 6), given.get("lr", 1e-4)
    matrix = trained_matrix(f, np.eye(48), 0.0, t, task.labels[0].numpy(), scale, penalty, peak, epochs)
    assert np.abs(matrix - np.eye(48)).max() > 1e-4
    for state in states:  # the other run has the images backwards
        np.testing.assert_allclose(state["matrix"], matrix, atol=1e-4 * max(1, peak / 1e-3), rtol=0)
    found = method.logits(states[0], world.features["test"], world.backbone)
    np.testing.assert_allclose(found, scale * unit(world.unit("test").numpy() @ matrix.T) @ t.T, atol=5e-3)


def task_rows(task: Task, world: World) -> list[int]:
    """Positions of the first run's images in the training split."""
    return [int((world.features["train"] == row).all(1).nonzero()) for row in task.features[0]]
