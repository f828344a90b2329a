"""Images through the store: the right features, each computed once, with bits that depend on nothing but the input."""

from __future__ import annotations

import copy
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.prepack import prepack_image_tower
from biomedcoop.errors import ImageError, UserError
from biomedcoop.features import parallel
from biomedcoop.features import passes as image_pass
from biomedcoop.features.images import encode_images, encode_readable
from biomedcoop.features.passes import encode_crops
from biomedcoop.features.stream import stream_features
from biomedcoop.features.texts import encode_texts
from features.scans import TEXTS, dataset, direct, feature_spaces, pictures, write


def test_features_are_those_of_the_backbone(tiny: Backbone, tmp_path: Path) -> None:
    paths = write(tmp_path / "scans", pictures(19))
    features = encode_images(tiny, dataset(paths), store_root=tmp_path / "store")
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, direct(tiny, paths), atol=1e-5, rtol=0)


def test_arrays_are_images_too(tiny: Backbone, tmp_path: Path) -> None:
    colour, grey = pictures(5), pictures(5)[..., 0]
    for images in (colour, grey):
        features = encode_images(tiny, dataset(images), store_root=tmp_path)
        np.testing.assert_allclose(features, direct(tiny, images), atol=1e-5, rtol=0)
    files = encode_images(tiny, dataset(write(tmp_path / "scans", colour)), store_root=tmp_path)
    np.testing.assert_array_equal(files, encode_images(tiny, dataset(colour), store_root=tmp_path))


def test_an_empty_dataset_has_no_features(tiny: Backbone, tmp_path: Path) -> None:
    assert encode_images(tiny, dataset(pictures(0)), store_root=tmp_path).shape == (0, tiny.embed_dim)


def test_each_image_is_encoded_once(tiny: Backbone, tmp_path: Path, passes: list[int]) -> None:
    paths, store, told = write(tmp_path / "scans", pictures(20)), tmp_path / "store", []

    def encode() -> npt.NDArray[np.float32]:
        told.clear()
        passes.clear()
        return encode_images(tiny, dataset(paths), store_root=store, progress=lambda *now: told.append(now))

    first = encode()
    assert sorted(passes) == [1, 8, 8, 8], "an image alone is tried beside the short pass"
    assert told == [(8, 20), (16, 20), (20, 20)]
    np.testing.assert_array_equal(encode(), first)
    assert not passes
    assert told == [(0, 0)]
    # one image changes, another moves
    Image.fromarray(pictures(1, seed=1)[0]).save(paths[3])
    paths[7] = paths[7].rename(tmp_path / "elsewhere.png")
    again = encode()
    assert told == [(1, 1)]
    assert (again != first).any(axis=1).nonzero()[0].tolist() == [3]


def test_duplicates_are_encoded_once(tiny: Backbone, tmp_path: Path, passes: list[int]) -> None:
    images = np.concatenate([pictures(3)] * 10)
    told: list[tuple[int, int]] = []
    features = encode_images(tiny, dataset(images), store_root=tmp_path, progress=lambda *now: told.append(now))
    assert [n for n in passes if n > 1] == [8], "beside it, one image alone may be tried"
    assert told == [(3, 3)]
    np.testing.assert_array_equal(features, np.concatenate([features[:3]] * 10))


@pytest.mark.parametrize("which", ["tiny", "mini"])
def test_bits_do_not_depend_on_neighbours_or_order(which: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    backbone = request.getfixturevalue(which)
    images = pictures(13)
    together = encode_images(backbone, dataset(images), store_root=tmp_path / "together")
    order = np.random.default_rng(0).permutation(13)
    shuffled = encode_images(backbone, dataset(images[order]), store_root=tmp_path / "shuffled")
    np.testing.assert_array_equal(shuffled, together[order])
    for i in range(0, 13, 4):
        alone = encode_images(backbone, dataset(images[i : i + 1]), store_root=tmp_path / f"alone-{i}")
        np.testing.assert_array_equal(alone[0], together[i])
    streamed = [feature for _, feature in stream_features(backbone, iter(images))]
    np.testing.assert_array_equal(np.stack(streamed), together)  # type: ignore[arg-type]


@pytest.mark.parametrize("which", ["tiny", "mini"])
def test_bits_do_not_depend_on_the_cores_that_share_a_pass(
    which: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first images are asked whether an image alone may be encoded alone; the later ones follow from the answer."""
    backbone = request.getfixturevalue(which)
    shape = (9, backbone.image_size, backbone.image_size, 3)
    images = list(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    together = encode_crops(backbone, images)
    monkeypatch.setattr(parallel, "torch_cores", lambda: 2)
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate([encode_crops(backbone, [image]) for image in images]), together)
    assert 2 in image_pass._alone[prepack_image_tower(backbone, image_pass.image_batch(backbone)).image_tower]


@pytest.mark.parametrize("kind", ["tiny", "tiny_clip_vit", "tiny_clip_resnet", "tiny_siglip", "tiny_lite"])
def test_small_batches_are_not_filled_up_once_a_tower_is_warm(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bits are those of a full pass; only where the processor's library gives other bits to an image alone are passes filled up."""
    backbone = request.getfixturevalue(kind)
    monkeypatch.setattr(image_pass, "image_batch", lambda _: 4)
    monkeypatch.setattr(parallel, "torch_cores", lambda: 2)
    shape = (8, backbone.image_size, backbone.image_size, 3)
    images = list(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    together = encode_crops(backbone, images)
    image_pass.warm_up(backbone)
    rows: list[int] = []
    real = backbone.normalize
    monkeypatch.setattr(backbone, "normalize", lambda crops: (rows.append(len(crops)), real(crops))[1])
    for n in (1, 2):
        np.testing.assert_array_equal(encode_crops(backbone, images[:n]), together[:n])
    known = image_pass._alone[prepack_image_tower(backbone, 4).image_tower]
    assert sorted(known) == [1, 2]
    assert rows == ([1, 1, 1] if known[2] else [4, 4])


def test_bits_do_not_depend_on_the_number_of_threads(mini: Backbone, tmp_path: Path) -> None:
    before, images = torch.get_num_threads(), pictures(40)
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(encode_images(mini, dataset(images), store_root=tmp_path / f"images-{threads}"))
            found.append(encode_texts(mini, TEXTS * 3, store_root=tmp_path / f"texts-{threads}"))
            assert torch.get_num_threads() == threads  # as it was
    finally:
        torch.set_num_threads(before)
    for n in range(2, 6):
        np.testing.assert_array_equal(found[n], found[n - 2])


def test_threads_that_encode_at_once_change_nothing(mini: Backbone, tmp_path: Path) -> None:
    cores, images = torch.get_num_threads(), pictures(40)
    expected = encode_images(mini, dataset(images), store_root=tmp_path), encode_texts(mini, TEXTS, store_root=tmp_path)

    def encode(n: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], int]:
        time.sleep(0.05 * n)
        store = tmp_path / f"store-{n}"
        found = encode_images(mini, dataset(images), store_root=store), encode_texts(mini, TEXTS, store_root=store)
        return *found, torch.get_num_threads()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(encode, range(6)))
    for of_images, of_texts, cores_after in found:
        np.testing.assert_array_equal(of_images, expected[0])
        np.testing.assert_array_equal(of_texts, expected[1])
        assert cores_after == cores
    with ThreadPoolExecutor(1) as pool:  # a thread that is new
        assert pool.submit(torch.get_num_threads).result() == cores


def test_a_model_is_copied_while_it_encodes(mini: Backbone) -> None:
    stream = stream_features(mini, list(pictures(50)))
    _, first = next(stream)
    other = copy.deepcopy(mini)
    stream.close()  # type: ignore[attr-defined]
    (_, again), *_ = stream_features(other, list(pictures(50)))
    np.testing.assert_array_equal(first, again)  # type: ignore[arg-type]


def test_an_unreadable_image_keeps_what_was_encoded_before(tiny: Backbone, tmp_path: Path, passes: list[int]) -> None:
    paths, store = write(tmp_path / "scans", pictures(20)), tmp_path / "store"
    whole = paths[17].read_bytes()
    paths[17].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"17\.png: the file is truncated"):
        encode_images(tiny, dataset(paths), store_root=store)
    assert feature_spaces(store)[0].vectors == 17
    paths[17].write_bytes(whole)
    told: list[tuple[int, int]] = []
    passes.clear()
    features = encode_images(tiny, dataset(paths), store_root=store, progress=lambda *now: told.append(now))
    assert told[-1] == (3, 3)
    assert [n for n in passes if n > 1] == [8], "beside it, one image alone may be tried"
    np.testing.assert_allclose(features, direct(tiny, paths), atol=1e-5, rtol=0)


def test_a_missing_image_is_named_before_anything_is_encoded(tiny: Backbone, tmp_path: Path, passes: list[int]) -> None:
    paths = write(tmp_path / "scans", pictures(20))
    paths[19].unlink()
    with pytest.raises(ImageError, match=r"19\.png: there is no such file"):
        encode_images(tiny, dataset(paths), store_root=tmp_path / "store")
    assert not passes


def test_backbones_and_precisions_do_not_share_features(tiny: Backbone, parity: Path, tmp_path: Path) -> None:
    images = dataset(pictures(2))
    encode_images(tiny, images, store_root=tmp_path)
    half = load_backbone(parity / "model", precision="bfloat16")
    features = encode_images(half, images, store_root=tmp_path)
    assert features.dtype == np.float32
    assert len(feature_spaces(tmp_path)) == 2


def test_a_store_that_cannot_be_written(tiny: Backbone, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where a folder should be")
    with pytest.raises(UserError, match="feature store"):
        encode_images(tiny, dataset(pictures(2)), store_root=tmp_path / "store")


def test_worker_processes_change_nothing(tiny: Backbone, tmp_path: Path) -> None:
    paths = write(tmp_path / "scans", pictures(30))
    here = encode_images(tiny, dataset(paths), store_root=tmp_path / "here", workers=0)
    there = encode_images(tiny, dataset(paths), store_root=tmp_path / "there", workers=2)
    np.testing.assert_array_equal(there, here)
    paths[21].write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"21\.png: the content is not a readable image"):
        encode_images(tiny, dataset(paths), store_root=tmp_path / "other", workers=2)
    assert feature_spaces(tmp_path / "other")[0].vectors == 21


def test_shards_of_another_version_or_cut_short_are_encoded_again(
    tiny: Backbone, tmp_path: Path, caplog: pytest.LogCaptureFixture, passes: list[int]
) -> None:
    images, store = dataset(pictures(20)), tmp_path / "store"
    first = encode_images(tiny, images, store_root=store)
    for spoil, reason in (
        (lambda content: content.replace(b"biomedcoop-features-1", b"biomedcoop-features-2"), "this version reads"),
        (lambda content: content[: len(content) // 2], "its size is not"),
    ):
        (shard,) = (p for p in store.rglob("*.safetensors") if "fingerprint" in (p.parent / "space.json").read_text())
        shard.write_bytes(spoil(shard.read_bytes()))
        caplog.clear()
        passes.clear()
        np.testing.assert_array_equal(encode_images(tiny, images, store_root=store), first)
        assert [n for n in passes if n > 1] == [8, 8, 8]
        assert reason in caplog.records[0].getMessage()


def test_a_space_of_another_store_version_is_refused(tiny: Backbone, tmp_path: Path) -> None:
    encode_images(tiny, dataset(pictures(2)), store_root=tmp_path)
    (description,) = (path for path in tmp_path.rglob("space.json") if "fingerprint" in path.read_text())
    description.write_text(json.dumps({**json.loads(description.read_text()), "store_format": 2}))
    with pytest.raises(UserError, match=r"space\.json does not describe .*; delete the folder") as caught:
        encode_images(tiny, dataset(pictures(2)), store_root=tmp_path)
    assert "\n" not in str(caught.value)


def test_images_that_cannot_be_read_are_left_out(tiny: Backbone, tmp_path: Path, passes: list[int]) -> None:
    paths = write(tmp_path / "scans", pictures(6))
    whole = encode_images(tiny, dataset(paths), store_root=tmp_path / "store")
    paths[1].write_bytes(b"no image")
    paths[4].write_bytes(b"no image")
    paths[2].unlink()
    images = [(path, str(path)) for path in paths]
    with pytest.raises(ImageError, match=r"000[124]"):
        encode_readable(tiny, images, skip_bad=False)
    for _ in range(2):  # the second time from the store
        features, bad = encode_readable(tiny, images, skip_bad=True)
        assert sorted(bad) == [1, 2, 4]
        assert all(str(paths[i]) == error.where for i, error in bad.items())
        assert "no such file" in bad[2].reason
        assert bad[1].reason == bad[4].reason
        assert np.isnan(features[[1, 2, 4]]).all()
        np.testing.assert_array_equal(features[[0, 3, 5]], whole[[0, 3, 5]])
