"""Texts through the store: the right features, each computed once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from biomedcoop.backbones.base import Backbone
from biomedcoop.features.texts import encode_texts
from features.scans import TEXTS


def test_text_features_are_those_of_the_backbone(tiny: Backbone, tmp_path: Path) -> None:
    with torch.no_grad():
        expected = tiny.encode_text(TEXTS)
    features = encode_texts(tiny, TEXTS, store_root=tmp_path)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=1e-5, rtol=0)
    assert encode_texts(tiny, [], store_root=tmp_path).shape == (0, tiny.embed_dim)


def test_each_text_is_encoded_once(tiny: Backbone, tmp_path: Path, passes: list[int]) -> None:
    texts = TEXTS + [f"a mass of {n} mm." for n in range(20)]
    first = encode_texts(tiny, texts + texts, store_root=tmp_path)
    np.testing.assert_array_equal(first[: len(texts)], first[len(texts) :])
    assert set(passes) == {16}
    passes.clear()
    np.testing.assert_array_equal(encode_texts(tiny, texts[::-1], store_root=tmp_path), first[: len(texts)][::-1])
    assert not passes
    encode_texts(tiny, [*texts, "something new."], store_root=tmp_path)
    assert passes == [16]


@pytest.mark.parametrize("which", ["tiny", "mini"])
def test_bits_of_texts_do_not_depend_on_neighbours(which: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    backbone = request.getfixturevalue(which)
    texts = TEXTS + [f"a mass of {n} mm." for n in range(20)]
    together = encode_texts(backbone, texts, store_root=tmp_path / "together")
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = encode_texts(backbone, [texts[i] for i in order], store_root=tmp_path / "shuffled")
    np.testing.assert_array_equal(shuffled, together[order])
    for i in range(0, len(texts), 3):
        alone = encode_texts(backbone, [texts[i]], store_root=tmp_path / f"alone-{i}")
        np.testing.assert_array_equal(alone[0], together[i])
