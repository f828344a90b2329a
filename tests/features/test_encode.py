"""Encoding through the store: the right features, each computed once, with bits that depend on nothing but the input."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.crops import Crops
from biomedcoop.data.images.facts import ImageFacts, Tally
from biomedcoop.data.images.reading import read_and_hash, read_image, resize_and_crop
from biomedcoop.data.images.sources import as_source
from biomedcoop.errors import ImageError, UserError
from biomedcoop.features import encode
from biomedcoop.features.encode import (
    SHARD_ROWS,
    encode_images,
    encode_texts,
    encode_views,
    image_batch,
    image_facts,
    stream_features,
)
from biomedcoop.features.store import SpaceSummary, summary

Pixels = npt.NDArray[np.uint8]
PLAIN = Crops()

TEXTS = [
    "a cyst.",
    "a scan of the kidney.",
    "a photo of a normal kidney.",
    "a bright, round and well defined mass lies beside the left kidney, and its wall is thin and smooth all around.",
    "mass " * 100,
    "",
]


@pytest.fixture(scope="module")
def mini() -> Backbone:
    return load_backbone("mini")


@pytest.fixture
def passes(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every pass through the tiny model's towers, in order; eight images to a pass."""
    monkeypatch.setattr(encode, "image_batch", lambda backbone: 8)
    rows: list[int] = []
    for name in ("encode_image", "encode_text_embeddings"):
        real = getattr(tiny, name)

        def counted(first: torch.Tensor, *rest: torch.Tensor, real=real) -> torch.Tensor:  # type: ignore[no-untyped-def]
            rows.append(len(first))
            return real(first, *rest)  # type: ignore[no-any-return]

        monkeypatch.setattr(tiny, name, counted)
    return rows


def pictures(n: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (n, 40, 36, 3), dtype=np.uint8)


def dataset(images: list[Path] | Pixels) -> Dataset:
    keys = (
        tuple(path.name for path in images)
        if isinstance(images, list)
        else tuple(f"x[{i}]" for i in range(len(images)))
    )
    labels = np.zeros(len(images), dtype=np.int64)
    return Dataset("scans", ("only",), images, keys, labels, np.full(len(images), "train"))


def write(folder: Path, images: Pixels) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number:04}.png" for number in range(len(images))]
    for path, pixels in zip(paths, images, strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def feature_spaces(store: Path) -> list[SpaceSummary]:
    """What the store holds of features, without the facts beside them."""
    return [space for space in summary(store) if "fingerprint" in space.description]


def direct(backbone: Backbone, images: list[Path] | Pixels) -> npt.NDArray[np.float32]:
    crops = np.stack([resize_and_crop(read_image(image), backbone.image_size) for image in images])
    with torch.no_grad():
        return backbone.encode_image(backbone.normalize(crops)).numpy()


# -- images


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
    assert passes == [8, 8, 8]
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
    assert passes == [8]
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
    assert passes == [8]
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
    with pytest.raises(ImageError, match=r"21\.png: the content is no image"):
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
        assert passes == [8, 8, 8]
        assert reason in caplog.records[0].getMessage()


def test_a_space_of_another_store_version_is_refused(tiny: Backbone, tmp_path: Path) -> None:
    encode_images(tiny, dataset(pictures(2)), store_root=tmp_path)
    (description,) = (path for path in tmp_path.rglob("space.json") if "fingerprint" in path.read_text())
    description.write_text(json.dumps({**json.loads(description.read_text()), "store_format": 2}))
    with pytest.raises(UserError, match=r"space\.json does not describe .*; delete the folder") as caught:
        encode_images(tiny, dataset(pictures(2)), store_root=tmp_path)
    assert "\n" not in str(caught.value)


# -- processes that encode: several at once, interrupted, killed

# without the guard of "__main__", as a user's script may be
ENCODE = """
import sys
from pathlib import Path
import numpy as np
from biomedcoop.backbones import load_backbone
from biomedcoop.data.dataset import Dataset
from biomedcoop.features.encode import encode_images

model, scans, store, out, workers = sys.argv[1:]
paths = sorted(Path(scans).iterdir())
n = len(paths)
data = Dataset("scans", ("a",), paths, tuple(p.name for p in paths), np.zeros(n, dtype=np.int64), np.full(n, "train"))
tell = lambda done, total: print(done, total, flush=True)
try:
    np.save(out, encode_images(load_backbone(model), data, store_root=Path(store), workers=int(workers), progress=tell))
except KeyboardInterrupt:
    sys.exit(130)
"""


def start(model: Path, folder: Path, out: str, workers: int) -> subprocess.Popen[str]:
    """A process that encodes ``folder/scans`` into ``folder/store``, in a process group of its own as from a terminal."""
    words = [model, folder / "scans", folder / "store", folder / out, workers]
    return subprocess.Popen(
        [sys.executable, "-c", ENCODE, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # marks the workers too, which are told where to import from
        # one thread: on a busy machine two that wait for each other take many times as long
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]), "OMP_NUM_THREADS": "1"},
        # a shell starts its background jobs with SIGINT ignored, and so does what runs the tests there
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def processes_of(folder: Path) -> list[str]:
    """Command lines of running processes that name the folder."""
    listed = subprocess.run(["ps", "-A", "-ww", "-o", "args="], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if str(folder) in line]


def test_two_processes_encode_the_same_images_at_once(tiny: Backbone, parity: Path, tmp_path: Path) -> None:
    paths = write(tmp_path / "scans", pictures(700))
    running = [start(parity / "model", tmp_path, f"{n}.npy", workers=n) for n in range(2)]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")
    first, second = (np.load(tmp_path / f"{n}.npy") for n in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, direct(tiny, paths), atol=1e-5, rtol=0)
    assert feature_spaces(tmp_path / "store")[0].vectors == 700


@pytest.mark.parametrize(("sign", "lost"), [(signal.SIGINT, 32), (signal.SIGKILL, SHARD_ROWS)])
def test_an_end_in_the_middle(sign: signal.Signals, lost: int, tiny: Backbone, parity: Path, tmp_path: Path) -> None:
    paths = write(tmp_path / "scans", pictures(1300))
    process = start(parity / "model", tmp_path, "never.npy", workers=2)
    assert process.stdout is not None
    done = 0
    while done < 600:
        done = int(process.stdout.readline().split()[0])
    assert len(processes_of(tmp_path)) == 3
    os.killpg(process.pid, sign)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130 if sign == signal.SIGINT else -sign, "")
    end = time.monotonic() + 20
    while processes_of(tmp_path) and time.monotonic() < end:
        time.sleep(0.05)
    assert processes_of(tmp_path) == []
    kept = feature_spaces(tmp_path / "store")[0].vectors
    assert done - lost <= kept < 1300

    again = start(parity / "model", tmp_path, "whole.npy", workers=2)
    told, errors = again.communicate(timeout=120)
    assert (again.returncode, errors) == (0, "")
    assert told.splitlines()[-1] == f"{1300 - kept} {1300 - kept}"
    np.testing.assert_allclose(np.load(tmp_path / "whole.npy"), direct(tiny, paths), atol=1e-5, rtol=0)


# -- views


def test_views_are_crops_of_their_images(tiny: Backbone, tmp_path: Path) -> None:
    paths = write(tmp_path / "scans", pictures(5))
    found = encode_views(tiny, dataset(paths), Crops(), 3, store_root=tmp_path / "store")
    assert found.shape == (5, 3, tiny.embed_dim)
    for i, path in enumerate(paths):
        image, digest = read_and_hash(path)
        cut = np.stack([Crops().cut(image, tiny.image_size, digest, number) for number in range(3)])
        with torch.no_grad():
            expected = tiny.encode_image(tiny.normalize(cut)).numpy()
        np.testing.assert_allclose(found[i], expected, atol=1e-5, rtol=0)


def test_each_view_is_encoded_once(tiny: Backbone, tmp_path: Path, passes: list[int]) -> None:
    images, told = pictures(4), []

    def encode(n: int, views: int, crops: Crops = PLAIN) -> npt.NDArray[np.float32]:
        told.clear()
        passes.clear()
        return encode_views(
            tiny, dataset(images[:n]), crops, views, store_root=tmp_path, progress=lambda *now: told.append(now)
        )

    few = encode(3, 2)
    assert told[-1] == (6, 6)
    np.testing.assert_array_equal(encode(3, 2), few)
    assert not passes
    more = encode(4, 4)  # two more of three images, four of a new one
    assert told[-1] == (10, 10)
    np.testing.assert_array_equal(more[:3, :2], few)
    other = encode(3, 2, Crops(0.5, 0.5))
    assert told[-1] == (6, 6)
    assert (other != few).any(axis=2).all()
    # the centre crop is none of them
    encode_images(tiny, dataset(images[:3]), store_root=tmp_path, progress=lambda *now: told.append(now))
    assert told[-1] == (3, 3)


def test_an_image_is_read_once_for_all_its_views(
    tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    real = Image.open
    paths = write(tmp_path / "scans", pictures(3))
    monkeypatch.setattr(Image, "open", lambda file, **rest: opened.append(file) or real(file, **rest))
    encode_views(tiny, dataset(paths), Crops(), 1, store_root=tmp_path / "one")
    once = len(opened)
    encode_views(tiny, dataset(paths), Crops(), 6, store_root=tmp_path / "six")
    assert len(opened) == 2 * once


def test_views_of_an_image_that_cannot_be_read(tiny: Backbone, tmp_path: Path) -> None:
    paths, store = write(tmp_path / "scans", pictures(6)), tmp_path / "store"
    whole = paths[4].read_bytes()
    paths[4].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"04\.png: the file is truncated"):
        encode_views(tiny, dataset(paths), Crops(), 4, store_root=store)
    assert feature_spaces(store)[0].vectors == 16
    assert encode_views(tiny, dataset([]), Crops(), 4, store_root=store).shape == (0, 4, tiny.embed_dim)


# -- facts


def deep_files(folder: Path) -> list[Path]:
    """Six 16-bit files at 10 and 12 bits, a black one and a film."""
    folder.mkdir()
    ramp = np.tile(np.arange(0, 1000, 25, dtype=np.uint16), (40, 1))
    paths = []
    for number in range(6):
        ramp[0, :2] = 1023 + number % 2, number
        paths.append(folder / f"{number}.png")
        Image.fromarray(ramp).save(paths[-1])
    Image.new("L", (40, 40)).save(folder / "6.png")
    Image.effect_noise((40, 40), 50).save(folder / "7.gif", save_all=True, append_images=[Image.new("L", (40, 40))])
    return [*paths, folder / "6.png", folder / "7.gif"]


EXPECTED = [
    *[ImageFacts(10, True), ImageFacts(12, True)] * 3,
    ImageFacts(one_colour=True),
    ImageFacts(several_frames=True),
]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_warm_run_tells_of_images_what_the_first_one_told(
    tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    data, store = dataset(deep_files(tmp_path / "scans")), tmp_path / "store"
    cold, warm, views = Tally(), Tally(), Tally()
    encode_images(tiny, data, store_root=store, workers=workers, tally=cold)
    assert len(cold.notes()) == 3
    assert "3 at 10 bits (first 0.png), 3 at 12 bits (first 1.png)" in cold.notes()[0]
    encode_views(tiny, data, PLAIN, 2, store_root=store, workers=workers)
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", None)  # nothing is decoded any more
        encode_images(tiny, data, store_root=store, workers=workers, tally=warm)
        encode_views(tiny, data, PLAIN, 2, store_root=store, workers=workers, tally=views)
        assert image_facts(data, store_root=store, workers=workers) == EXPECTED
    assert warm.notes() == views.notes() == cold.notes()


def test_facts_need_no_features_and_are_decoded_where_they_lack(tiny: Backbone, tmp_path: Path) -> None:
    data = dataset(deep_files(tmp_path / "scans"))
    assert image_facts(data, store_root=tmp_path / "facts") == EXPECTED
    assert feature_spaces(tmp_path / "facts") == []
    store = tmp_path / "store"
    encode_images(tiny, data, store_root=store)
    for path in store.rglob("*.safetensors"):
        if "fingerprint" not in (path.parent / "space.json").read_text():
            path.unlink()
    tally = Tally()
    encode_images(tiny, data, store_root=store, tally=tally)
    assert len(tally.notes()) == 3
    assert image_facts(dataset([]), store_root=store) == []


def test_facts_of_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    paths = deep_files(tmp_path / "scans")
    paths[3].write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"3\.png: the content is no image"):
        image_facts(dataset(paths), store_root=tmp_path / "store")


def test_images_of_a_dataset_may_be_bytes_and_pillow_images(tiny: Backbone, tmp_path: Path) -> None:
    paths = deep_files(tmp_path / "scans")
    expected = encode_images(tiny, dataset(paths), store_root=tmp_path / "files")
    given = [as_source(item) for item in (paths[0].read_bytes(), Image.open(paths[1]), str(paths[2]))]
    data = Dataset("scans", ("only",), given, ("a", "b", "c"), np.zeros(3, dtype=np.int64), np.full(3, "train"))
    np.testing.assert_array_equal(encode_images(tiny, data, store_root=tmp_path / "given"), expected[:3])


# -- texts


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


# -- streams


def test_a_stream_keeps_the_order_and_reports_bad_images(tiny: Backbone, tmp_path: Path) -> None:
    paths = write(tmp_path / "scans", pictures(30))
    paths[0].write_text("no image")
    paths[9].write_bytes(b"")
    paths[29].unlink()
    results = list(stream_features(tiny, paths))
    assert [source for source, _ in results] == paths
    bad = [i for i, (_, result) in enumerate(results) if isinstance(result, ImageError)]
    assert bad == [0, 9, 29]
    good = [i for i in range(30) if i not in bad]
    features = np.stack([results[i][1] for i in good])  # type: ignore[arg-type]
    np.testing.assert_allclose(features, direct(tiny, [paths[i] for i in good]), atol=1e-5, rtol=0)
    assert all(str(paths[i]) in str(results[i][1]) for i in bad)


@pytest.mark.parametrize("n", [0, 1, 8, 9])
def test_streams_of_any_length(n: int, tiny: Backbone) -> None:
    assert len(list(stream_features(tiny, list(pictures(n))))) == n


def test_a_stream_of_bad_images_only(tiny: Backbone, tmp_path: Path) -> None:
    results = list(stream_features(tiny, [tmp_path / f"{n}.png" for n in range(10)]))
    assert len(results) == 10
    assert all(isinstance(result, ImageError) for _, result in results)


def test_an_endless_stream_is_read_only_a_little_ahead(tiny: Backbone) -> None:
    pulled = 0

    def endless() -> Iterator[Pixels]:
        nonlocal pulled
        for pulled in count(1):
            yield np.full((32, 32), pulled % 256, dtype=np.uint8)

    stream, most = stream_features(tiny, endless(), max_ahead=12), 0
    for taken, _ in enumerate(islice(stream, 100)):
        most = max(most, pulled - taken)
    # decoded ones, and a pass for each thread with one that waits and one that is being collected
    ahead = 12 + (torch.get_num_threads() + 2) * image_batch(tiny)
    assert most <= ahead
    stream.close()  # type: ignore[attr-defined]
    assert pulled <= 100 + ahead


def test_an_error_of_the_source_comes_through(tiny: Backbone) -> None:
    def breaking() -> Iterator[Pixels]:
        yield from pictures(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(stream_features(tiny, breaking()))
