"""CLIP-SVD beside a plain computation, and which matrices it trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.errors import UserError
from biomedcoop.methods import Task, check_towers, get_method
from biomedcoop.methods.clip_svd import matrices
from methods.tiny_task import tiny_task

TINY = Path(__file__).parents[1] / "parity_a" / "model"
NAMES = ["cyst", "stone", "tumor"]


@pytest.fixture
def task(tiny: Backbone) -> Task:
    return tiny_task(tiny, NAMES)


def test_it_equals_a_plain_training(task: Task) -> None:
    """W = U diag(σ) V by torch's own modules, functions and AdamW.

    The sums are taken in another order, and Adam divides by the size of a gradient: 1e-3 is a hundredth of what σ moves.
    """
    assert task.pixels is not None
    method = get_method("clip-svd")
    settings = method.settings({"epochs": 4, "lr": 0.05, "template": "a scan of a {}."})
    (state,) = method.fit(task, settings, [1])

    plain = load_backbone(TINY)
    decomposed, sigma = {}, {}
    for name, weight in plain.towers.named_parameters():
        if "blocks" in name or ".layer." in name:
            if "qkv.weight" in name:
                decomposed[name] = [torch.linalg.svd(part, full_matrices=False) for part in weight.chunk(3)]
            elif weight.dim() == 2:
                decomposed[name] = [torch.linalg.svd(weight, full_matrices=False)]
    for name, parts in decomposed.items():
        sigma[name] = torch.stack([s for _, s, _ in parts]).requires_grad_()
    assert len(sigma) == 4 * plain.towers.visual.trunk.config.layers + 6 * plain.towers.text.transformer.config.layers
    ids = plain.tokenize([f"a scan of a {name}." for name in NAMES])
    optimizer = torch.optim.AdamW([{"params": list(sigma.values())}], weight_decay=0.0)

    def embeddings_and_features(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights = {
            name: torch.cat([u @ torch.diag(sigma[name][part]) @ v for part, (u, _, v) in enumerate(decomposed[name])])
            for name in sigma
        }
        of_image = {n.removeprefix("visual."): w for n, w in weights.items() if n.startswith("visual.")}
        of_text = {n.removeprefix("text."): w for n, w in weights.items() if n.startswith("text.")}
        features = functional_call(plain.towers.visual, of_image, (pixels,))
        texts = functional_call(plain.towers.text, of_text, (plain.embed_tokens(ids), plain.mask(ids)))
        return F.normalize(texts, dim=-1), F.normalize(features, dim=-1)

    pixels = task.pixels(0, torch.arange(6), None)
    for step in range(4):
        optimizer.param_groups[0]["lr"] = 0.05 * 0.5 * (1 + np.cos(np.pi * step / 4))
        optimizer.zero_grad()
        texts, features = embeddings_and_features(pixels)
        F.cross_entropy(plain.logit_scale * features @ texts.T, task.labels[0]).backward()
        optimizer.step()
    for name, value in sigma.items():
        start = torch.stack([s for _, s, _ in decomposed[name]])
        assert (value - start).abs().max() > 0.05
        torch.testing.assert_close(state[f"sigma.{name}"], value.detach(), atol=1e-3, rtol=0, msg=name)
    with torch.no_grad():
        texts, features = embeddings_and_features(pixels)
        own = method.adapted(state, task.backbone)
        torch.testing.assert_close(F.normalize(own.encode_image(pixels), dim=-1), features, atol=2e-3, rtol=0)
    torch.testing.assert_close(state["class_embeddings"], texts, atol=2e-3, rtol=0)


def test_a_convolutional_tower_gives_its_pointwise_convolutions(tiny_lite: Backbone) -> None:
    found = [name for name in matrices(tiny_lite) if name.startswith("visual.")]
    assert found
    assert all(".conv_pw" in name or name.endswith("conv_head.weight") for name in found)
    assert sum("conv_pwl" in name for name in found) > 1


def test_nothing_learned_changes_nothing(task: Task) -> None:
    """With the frozen singular values the towers have the frozen weights, to the last bit."""
    method = get_method("clip-svd")
    settings = method.settings({"epochs": 1, "lr": 1e-30})
    (state,) = method.fit(task, settings, [1])
    assert task.pixels is not None
    pixels = task.pixels(0, torch.arange(6), None)
    own = method.adapted(state, task.backbone)
    with torch.no_grad():
        assert torch.equal(own.encode_image(pixels), task.backbone.encode_image(pixels))
    (zero_shot,) = get_method("zero-shot").fit(task, get_method("zero-shot").settings({}), [1])
    torch.testing.assert_close(state["class_embeddings"], zero_shot["class_embeddings"], atol=1e-6, rtol=0)


def test_a_backbone_without_texts_is_refused(tmp_path: Path) -> None:
    from backbones.tiny_image_only import write_dinov2

    with pytest.raises(UserError, match=r"clip-svd encodes texts.* choose the method auto or"):
        check_towers(get_method("clip-svd"), write_dinov2(tmp_path / "dino"))
