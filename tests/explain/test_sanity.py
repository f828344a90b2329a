"""Sanity checks: what is randomised, and which maps count as changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.explain.sanity import randomised, rank_correlations, structural_similarities, with_nonsense


@pytest.fixture(params=["tiny", "tiny_clip_vit", "tiny_clip_resnet", "tiny_lite", "tiny_siglip"])
def tower(request: pytest.FixtureRequest) -> Backbone:
    backbone: Backbone = request.getfixturevalue(request.param)
    return backbone


@pytest.fixture
def crops(tower: Backbone) -> np.ndarray:
    size = tower.image_size
    return np.random.default_rng(0).integers(0, 256, (6, size, size, 3), dtype=np.uint8)


def features(backbone: Backbone, crops: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return backbone.encode_image(backbone.normalize(crops))


def test_random_weights_change_the_images_and_not_the_texts(tower: Backbone, crops: np.ndarray) -> None:
    before, words = features(tower, crops), tower.encode_text(["a scan"])
    other = randomised(tower, crops)
    after = features(other, crops)
    assert torch.equal(features(tower, crops), before), "the backbone itself has changed"
    assert torch.equal(other.encode_text(["a scan"]), words)
    assert torch.isfinite(after).all()
    assert after.std(0).mean() > 0, "the random tower does not see its input"
    assert not torch.allclose(after, before, atol=1e-3)
    assert other.fingerprint != tower.fingerprint
    assert torch.equal(features(randomised(tower, crops), crops), after)
    assert not torch.equal(features(randomised(tower, crops, seed=1), crops), after)


def test_the_values_of_a_tensor_stay(tower: Backbone, crops: np.ndarray) -> None:
    other = randomised(tower, crops)
    pairs = zip(tower.image_tower.parameters(), other.image_tower.parameters(), strict=True)
    assert all(torch.equal(a.flatten().sort().values, b.flatten().sort().values) for a, b in pairs)


def test_a_cascade_begins_at_the_output(tiny_lite: Backbone) -> None:
    crops = np.random.default_rng(0).integers(
        0, 256, (4, tiny_lite.image_size, tiny_lite.image_size, 3), dtype=np.uint8
    )
    other = randomised(tiny_lite, crops, share=0.3)
    named = zip(tiny_lite.image_tower.named_parameters(), other.image_tower.parameters(), strict=True)
    changed = [name for (name, before), after in named if not torch.equal(before, after)]
    assert "head.proj.weight" in changed
    assert "trunk.conv_stem.weight" not in changed


def test_nonsense_replaces_every_class(discs: object, tiny: Backbone) -> None:
    data = bc.load_dataset(discs)
    classifier = bc.fit(data, "zero-shot", tiny)
    nonsense = with_nonsense(classifier)
    assert nonsense is not None
    cosines = nonsense.state["class_embeddings"] @ classifier.state["class_embeddings"].T
    assert cosines.shape == (3, 3)
    assert cosines.max() < 0.9999
    assert with_nonsense(bc.fit(data, "linear-probe", tiny, shots=2)) is None


def test_similarity_of_maps() -> None:
    a = np.random.default_rng(0).random((1, 24, 24), dtype=np.float32)
    even = np.zeros_like(a)
    assert rank_correlations(a, a) == 1
    assert rank_correlations(a, a**3) == pytest.approx([1])
    assert rank_correlations(a, -a) == pytest.approx([-1])
    assert rank_correlations(a, even) == 0
    assert np.isnan(rank_correlations(even, a))
    assert structural_similarities(a, a) == pytest.approx([1])
    assert structural_similarities(a, a[:, ::-1])[0] < 0.2
