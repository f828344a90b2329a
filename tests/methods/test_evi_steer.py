"""Evi-Steer beside a plain computation, and what its image tower owes to the classes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import biomedcoop as bc
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.errors import UserError
from biomedcoop.methods import Task, check_towers, get_method
from biomedcoop.methods.evi_steer import steered_blocks
from methods.plain_evi_steer import encode_images, encode_texts, kl
from methods.tiny_task import tiny_task

TINY = Path(__file__).parents[1] / "parity_a" / "model"
NAMES = ["cyst", "stone in a kidney", "tumor"]
PARTS = ("down", "up", "weight", "gate")


@pytest.fixture
def task(tiny: Backbone) -> Task:
    return tiny_task(tiny, NAMES)


def test_it_equals_a_plain_training(task: Task) -> None:
    """Towers, modules, divergence and AdamW of other code in float64.

    Adam divides by the size of a gradient, which rounding of float32 moves: 2e-3 is a tenth of a step, of which there are five.
    """
    assert task.pixels is not None
    method, losses = get_method("evi-steer"), []
    given = {"epochs": 5, "template": "a scan of a {}.", "rank": 3, "kl_weight": 0.5}
    start = method.fit(task, method.settings({**given, "epochs": 1, "lr": 1e-30}), [1])[0]
    settings = method.settings({**given, "lr": 0.02})
    (state,) = method.fit(task, settings, [1], lambda done, total, words: losses.append(float(words.split()[-1])))

    plain = load_backbone(TINY)
    w = {name: value.double() for name, value in plain.towers.state_dict().items()}
    of_image, of_text = plain.towers.visual.trunk.config, plain.towers.text.transformer.config
    modules = {
        side: [
            {part: start[f"{side}.{number}.{part}"].double().requires_grad_() for part in PARTS}
            for number in range(1, min(of_image.layers, of_text.layers))
        ]
        for side in ("image", "text")
    }
    ids, pixels = plain.tokenize([f"a scan of a {name}." for name in NAMES]), task.pixels(0, torch.arange(6), None)
    assert bool((ids == 0).any()), "the texts differ in length"

    def passed() -> tuple[torch.Tensor, ...]:
        texts, alphas_t = encode_texts(w, ids, of_text.heads, of_text.layers, modules["text"])
        u_t = [(1 / alpha).mean(0) for alpha in alphas_t]
        features, alphas_v = encode_images(w, pixels.double(), of_image.heads, of_image.layers, modules["image"], u_t)
        divergence = sum(map(kl, alphas_v)) / len(alphas_v) + sum(map(kl, alphas_t)) / len(alphas_t)
        return texts, features, torch.stack(u_t), divergence

    optimizer = torch.optim.AdamW(
        [p for own in modules.values() for module in own for p in module.values()], weight_decay=0.0
    )
    expected = []
    for step in range(5):
        optimizer.param_groups[0]["lr"] = 0.02 * 0.5 * (1 + math.cos(math.pi * step / 5))
        optimizer.zero_grad()
        texts, features, _, divergence = passed()
        loss = F.cross_entropy(plain.logit_scale * features @ texts.T, task.labels[0]) + 0.5 * divergence
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    np.testing.assert_allclose(losses, expected, atol=1.5e-3)
    for side, own in modules.items():
        for number, module in enumerate(own, start=1):
            for part, value in module.items():
                name = f"{side}.{number}.{part}"
                found = state[name].double()
                assert (found - start[name]).abs().max() > 0.02, name
                torch.testing.assert_close(found, value.detach(), atol=2e-3, rtol=0, msg=name)
    with torch.no_grad():
        texts, features, u_t, _ = passed()
        found = F.normalize(method.adapted(state, task.backbone).encode_image(pixels), dim=-1)
        frozen = F.normalize(task.backbone.encode_image(pixels), dim=-1)
    torch.testing.assert_close(found.double(), features, atol=1e-3, rtol=0)
    assert (found - frozen).abs().max() > 0.02
    torch.testing.assert_close(state["class_embeddings"].double(), texts, atol=1e-3, rtol=0)
    torch.testing.assert_close(state["text_uncertainty"].double(), u_t, atol=1e-3, rtol=0)


def test_training_starts_from_zero_shot(task: Task) -> None:
    method = get_method("evi-steer")
    (state,) = method.fit(task, method.settings({"epochs": 1, "lr": 1e-30}), [1])
    assert task.pixels is not None
    pixels = task.pixels(0, torch.arange(6), None)
    with torch.no_grad():
        own = method.adapted(state, task.backbone).encode_image(pixels)
        torch.testing.assert_close(own, task.backbone.encode_image(pixels), atol=1e-6, rtol=0)
    (zero_shot,) = get_method("zero-shot").fit(task, get_method("zero-shot").settings({}), [1])
    torch.testing.assert_close(state["class_embeddings"], zero_shot["class_embeddings"], atol=1e-6, rtol=0)


def test_new_classes_steer_the_images_too(discs: Path, tiny: Backbone, tmp_path: Path) -> None:
    """The image tower reads the uncertainty of the classes, so it becomes another one; attention maps come from it."""
    data = bc.load_dataset(discs)
    classifier = bc.fit(data, "evi-steer", tiny, shots=4, settings={"epochs": 8, "lr": 0.05})
    other = classifier.for_classes(["stone", "polyp"])
    assert not torch.equal(other.state["text_uncertainty"], classifier.state["text_uncertainty"])
    assert len({one.fingerprint for one in (tiny, classifier.backbone, other.backbone)}) == 3
    images = [data.images[i] for i in data.indices("test")[:3]]
    pixels = torch.randn(2, 3, tiny.image_size, tiny.image_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = [one.backbone.encode_image(pixels) for one in (classifier, other)]
        through_maps, _ = classifier.backbone.attention_maps(pixels)
    assert not torch.equal(*features)
    torch.testing.assert_close(through_maps, features[0], atol=1e-5, rtol=1e-5)
    other.save(tmp_path / "model")
    np.testing.assert_array_equal(bc.load(tmp_path / "model", tiny).predict_proba(images), other.predict_proba(images))
    back = other.for_classes(classifier.class_names)
    np.testing.assert_allclose(back.predict_proba(images), classifier.predict_proba(images), atol=1e-5)


def test_predicting_runs_no_text_tower(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bc.load_dataset(discs)
    bc.fit(data, "evi-steer", TINY, shots=2, settings={"epochs": 1}).save(tmp_path / "model")
    classifier = bc.load(tmp_path / "model", TINY)
    passes: list[object] = []
    classifier.backbone.towers.text.register_forward_hook(lambda *call: passes.append(call))
    assert classifier.predict_proba([data.images[0]]).shape == (1, len(data.class_names))
    assert not passes


@pytest.mark.parametrize("part", ["text_uncertainty", "image.1.down"])
def test_a_damaged_module_is_refused(part: str, discs: Path, tiny: Backbone, tmp_path: Path) -> None:
    classifier = bc.fit(bc.load_dataset(discs), "evi-steer", tiny, shots=2, settings={"epochs": 1})
    less = {key: value for key, value in classifier.state.items() if key != part}
    for number, state in enumerate((less, {**less, part: classifier.state[part].repeat(2, 1)})):
        replace(classifier, state=state).save(tmp_path / str(number))
        with pytest.raises(UserError, match=f"damaged .*{part}"):
            bc.load(tmp_path / str(number), tiny)


def test_blocks_of_every_kind(tiny_lite: Backbone, tiny_clip_vit: Backbone, tiny_siglip: Backbone) -> None:
    for backbone in (tiny_lite, tiny_clip_vit, tiny_siglip):
        blocks, layers = steered_blocks("evi-steer", backbone)
        assert len(blocks) == len(layers) >= 1
    stages, layers = steered_blocks("evi-steer", tiny_lite)
    assert stages == list(tiny_lite.towers.visual.trunk.blocks)[: len(layers)]


def test_the_token_that_stands_for_a_text(tiny: Backbone, tiny_clip_vit: Backbone, tiny_siglip: Backbone) -> None:
    """With all tokens but one set to zero behind the last block, a text has the features that it had."""
    texts = ["cyst", "a photo of a large stone"]
    for backbone in (tiny, tiny_clip_vit, tiny_siglip):
        positions = backbone.pooled_token(backbone.mask(backbone.tokenize(texts)))
        with torch.no_grad():
            expected = backbone.encode_text(texts)
        kind = type(steered_blocks("evi-steer", backbone)[1][0])
        last = [m for name, m in backbone.towers.named_modules() if type(m) is kind and "visual" not in name][-1]

        def alone(_block: object, _inputs: object, out: torch.Tensor, kept: torch.Tensor = positions) -> torch.Tensor:
            if out.shape[1] == 1:  # the tower computes no other
                return out
            rows = torch.arange(len(out))
            zeroed = torch.zeros_like(out)
            zeroed[rows, kept] = out[rows, kept]
            return zeroed

        handle = last.register_forward_hook(alone)
        with torch.no_grad():
            found = backbone.encode_text(texts)
        handle.remove()
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_backbone_without_texts_is_refused(tmp_path: Path) -> None:
    from backbones.tiny_image_only import write_dinov2

    with pytest.raises(UserError, match=r"evi-steer encodes texts.* choose the method auto or"):
        check_towers(get_method("evi-steer"), write_dinov2(tmp_path / "dino"))
