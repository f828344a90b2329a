"""``bc.embed``: arrays of features, in the order of the source, and wrong arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.errors import UserError
from biomedcoop.features.images import encode_images
from features.scans import dataset, pictures


def test_a_dataset_and_its_path_give_the_same(discs: Path, tiny: Backbone) -> None:
    data = bc.load_dataset(discs)
    found, again = bc.embed(data, tiny), bc.embed(discs, tiny)
    np.testing.assert_array_equal(found.features, again.features)
    np.testing.assert_array_equal(found.features, encode_images(tiny, data))
    assert found.keys == again.keys == data.keys
    assert found.classes == tuple(data.class_names[label] for label in data.labels)
    assert found.splits == tuple(data.splits)
    assert (found.errors, found.unreadable) == (None, 0)
    assert found.about["fingerprint"] == tiny.fingerprint
    assert repr(found) == f"Embeddings(102 images, width {tiny.embed_dim}, backbone='{tiny.name}')"


def test_arrays_have_features_too(tiny: Backbone) -> None:
    found = bc.embed(dataset(pictures(3)), tiny, unit_norm=True)
    np.testing.assert_allclose(np.linalg.norm(found.features, axis=1), 1, atol=1e-6)
    assert (found.keys, found.splits) == (("x[0]", "x[1]", "x[2]"), None)


@pytest.mark.parametrize("source", [None, 5, [None], np.zeros((3, 3)), []])
def test_other_sources_are_refused(source: Any, tiny: Backbone) -> None:
    with pytest.raises(UserError, match="give"):
        bc.embed(source, tiny)


def test_a_store_that_cannot_be_written_is_told_before_the_work(
    tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").symlink_to(tmp_path / "gone")
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(type(tiny), "encode_image", lambda *_: pytest.fail("the work has begun"))
    with pytest.raises(UserError, match=r"cannot write .*; make room or choose another place with BIOMEDCOOP_CACHE"):
        bc.embed(dataset(pictures(3)), tiny)
