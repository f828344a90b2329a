"""The feature store: what was put comes back bit for bit or not at all, whatever happens to process and disk."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
import tracemalloc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from biomedcoop.errors import UserError
from biomedcoop.features.store import FeatureStore, default_root
from biomedcoop.features.upkeep import clear, summary

WIDTH = 64
DESCRIPTION: dict[str, str | int] = {"backbone": "fingerprint", "views": 1, "dtype": "float32", "width": WIDTH}
SPAWN = multiprocessing.get_context("spawn")


def keys_of(numbers: range) -> list[bytes]:
    return [hashlib.blake2b(str(number).encode(), digest_size=32).digest() for number in numbers]


def features_of(keys: list[bytes], width: int = WIDTH) -> npt.NDArray[np.float32]:
    """The one right vector of each key, which any process can tell from the key."""
    words = np.frombuffer(b"".join(keys), dtype="<u4").reshape(len(keys), 8).astype(np.float32)
    return np.resize(words.T, (width, len(keys))).T.copy()


def assert_all_right(store: FeatureStore, keys: list[bytes]) -> npt.NDArray[np.bool_]:
    """Every vector that is found is the right one."""
    features, found = store.get(keys)
    np.testing.assert_array_equal(features[found], features_of(keys, store.width)[found])
    assert np.isnan(features[~found]).all()
    return found


def only_shard(store: FeatureStore) -> Path:
    (path,) = store.folder.glob("*.safetensors")
    return path


def temporary_files(store: FeatureStore) -> list[Path]:
    return list(store.folder.glob(".tmp-*"))


# -- storing and reading


def test_round_trip_keeps_every_bit(tmp_path: Path) -> None:
    keys = keys_of(range(4))
    features = np.array([[0.0, -0.0], [1e-45, -3.4e38], [np.pi, 1 / 3], [1.17e-38, 65504.0]], dtype=np.float32)
    FeatureStore(tmp_path, {"width": 2}).put(keys, features)
    held, found = FeatureStore(tmp_path, {"width": 2}).get(keys)
    assert found.all()
    assert held.dtype == np.float32
    assert held.tobytes() == features.tobytes()


def test_many_keys_in_many_shards_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, DESCRIPTION)
    keys = keys_of(range(20_000))
    for start in range(0, 20_000, 1500):
        store.put(keys[start : start + 1500], features_of(keys[start : start + 1500]))
    order = np.random.default_rng(0).integers(0, 25_000, size=30_000).tolist()  # repeats, and keys that nobody put
    more = keys_of(range(25_000))
    asked = [more[i] for i in order]
    for reader in (store, FeatureStore(tmp_path, DESCRIPTION)):
        found = assert_all_right(reader, asked)
        np.testing.assert_array_equal(found, np.array(order) < 20_000)
        assert len(reader) == 20_000


def test_empty_store_and_empty_requests(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "none" / "yet", DESCRIPTION)
    keys = keys_of(range(2))
    assert len(store) == 0
    assert keys[0] not in store
    assert store.missing(keys) == [0, 1]
    features, found = store.get([])
    assert features.shape == (0, WIDTH)
    assert found.shape == (0,)
    store.put([], np.empty((0, WIDTH), np.float32))
    assert not (tmp_path / "none").exists()  # looking creates nothing


def test_missing_names_the_first_of_equal_keys(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, DESCRIPTION)
    a, b, c = keys_of(range(3))
    store.put([b], features_of([b]))
    assert store.missing([a, b, a, c, b, c]) == [0, 3]
    assert b in store
    assert a not in store


def test_a_key_keeps_its_first_vector(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, DESCRIPTION)
    a, b = keys_of(range(2))
    right = features_of([a, b])
    store.put([a, b, a], np.stack([right[0], right[1], -right[0]]))
    store.put([b], -right[1:])
    assert assert_all_right(store, [a, b, a]).all()
    assert len(list(store.folder.glob("*.safetensors"))) == 1


def test_shards_are_plain_safetensors(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, DESCRIPTION)
    keys = keys_of(range(7))
    store.put(keys, features_of(keys))
    tensors = load_file(only_shard(store))
    assert tensors["keys"].tobytes() == b"".join(keys)
    np.testing.assert_array_equal(tensors["features"], features_of(keys))


def test_one_row_is_read_without_the_rest_of_its_shard(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, {"width": 512})
    keys = keys_of(range(10_000))
    store.put(keys, features_of(keys, 512))  # 20 MB
    tracemalloc.start()
    try:
        assert assert_all_right(store, keys[5000:5001]).all()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5e6


def _read_all_with_few_descriptors(root: Path, count: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    store = FeatureStore(root, DESCRIPTION)
    assert assert_all_right(store, keys_of(range(count))).all()
    assert assert_all_right(store, keys_of(range(count))).all()


def test_many_shards_need_few_file_descriptors(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, DESCRIPTION)
    for key in keys_of(range(60)):
        store.put([key], features_of([key]))
    run(_read_all_with_few_descriptors, tmp_path, 60)


# -- refusals


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    store = FeatureStore(tmp_path, DESCRIPTION)
    keys = keys_of(range(3))
    features = features_of(keys)
    features[1, 5] = bad
    with pytest.raises(UserError, match=r"1 of 3 feature vectors are not finite \(first at position 1\)"):
        store.put(keys, features)
    assert store.missing(keys) == [0, 1, 2]


def test_wrong_shapes_types_and_keys_are_refused(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, DESCRIPTION)
    keys = keys_of(range(3))
    for features in (features_of(keys)[:2], features_of(keys)[:, 1:], features_of(keys).astype(np.float64)):
        with pytest.raises(ValueError, match=r"must be float32 \[3, 64\]"):
            store.put(keys, features)
    with pytest.raises(ValueError, match="32 bytes"):
        store.put([b"short", *keys[1:]], features_of(keys))
    for width in (0, "64", None):
        with pytest.raises(ValueError, match="width"):
            FeatureStore(tmp_path, {"width": width})  # type: ignore[dict-item]


def test_another_description_is_another_space(tmp_path: Path) -> None:
    keys = keys_of(range(2))
    store = FeatureStore(tmp_path, DESCRIPTION)
    store.put(keys, features_of(keys))
    for change in ({"backbone": "other"}, {"views": 2}, {"views": "1"}, {"width": WIDTH + 1}, {"crop": "random"}):
        other = FeatureStore(tmp_path, {**DESCRIPTION, **change})
        assert other.folder != store.folder
        assert other.missing(keys) == [0, 1]
    same = FeatureStore(tmp_path, dict(reversed(DESCRIPTION.items())))
    assert assert_all_right(same, keys).all()
    assert json.loads((same.folder / "space.json").read_text())["backbone"] == "fingerprint"


@pytest.mark.parametrize("text", ['{"backbone": "other", "width": 64}', "", "[1", "null"])
def test_a_folder_that_describes_something_else_is_refused(tmp_path: Path, text: str) -> None:
    keys = keys_of(range(2))
    store = FeatureStore(tmp_path, DESCRIPTION)
    store.put(keys[:1], features_of(keys[:1]))
    (store.folder / "space.json").write_text(text)
    with pytest.raises(UserError, match=r"space\.json does not describe .*delete the folder"):
        FeatureStore(tmp_path, DESCRIPTION)
    with pytest.raises(UserError, match="does not describe"):
        store.put(keys, features_of(keys))


# -- damage: never served, one warning


def small_shard(root: Path) -> tuple[FeatureStore, list[bytes], Path]:
    store = FeatureStore(root, {"width": 4})
    keys = keys_of(range(2))
    store.put(keys, features_of(keys, 4))
    return store, keys, only_shard(store)


def assert_ignored_with_one_warning(
    root: Path, keys: list[bytes], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    store = FeatureStore(root, {"width": 4})
    for _ in range(2):
        _, found = store.get(keys)
        assert not found.any()
        assert store.missing(keys) == [0, 1]
    (record,) = caplog.records
    assert record.name == "biomedcoop"
    assert record.levelno == logging.WARNING
    assert str(path) in record.getMessage()
    assert "\n" not in record.getMessage()


def test_a_shard_cut_short_anywhere_or_grown_is_not_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, keys, path = small_shard(tmp_path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert_ignored_with_one_warning(tmp_path, keys, path, caplog)
    path.write_bytes(whole + b"\0")
    assert_ignored_with_one_warning(tmp_path, keys, path, caplog)
    path.write_bytes(whole)
    assert assert_all_right(FeatureStore(tmp_path, {"width": 4}), keys).all()


def test_one_flipped_bit_anywhere_is_not_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, keys, path = small_shard(tmp_path)
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        assert_ignored_with_one_warning(tmp_path, keys, path, caplog)


def test_files_that_are_not_ours_are_not_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, keys, path = small_shard(tmp_path)
    whole = path.read_bytes()

    path.write_text("not a shard\n" * 50)
    assert_ignored_with_one_warning(tmp_path, keys, path, caplog)

    tensors = {"keys": np.frombuffer(b"".join(keys), np.uint8).reshape(2, 32), "features": features_of(keys, 4)}
    save_file(tensors, path)
    assert_ignored_with_one_warning(tmp_path, keys, path, caplog)

    path.write_bytes((2000).to_bytes(8, "little") + b"[" * 2000)
    assert_ignored_with_one_warning(tmp_path, keys, path, caplog)

    path.write_bytes(whole.replace(b"biomedcoop-features-1", b"biomedcoop-features-2"))
    assert_ignored_with_one_warning(tmp_path, keys, path, caplog)
    assert "'biomedcoop-features-2'" in caplog.text

    other = FeatureStore(tmp_path, {"width": 4, "backbone": "other"})
    other.put(keys, -features_of(keys, 4))
    shutil.copy(only_shard(other), path)
    assert_ignored_with_one_warning(tmp_path, keys, path, caplog)
    assert "written for the space" in caplog.text

    path.unlink()
    path.mkdir()
    assert_ignored_with_one_warning(tmp_path, keys, path, caplog)


def test_damage_is_mended_by_putting_the_vectors_again(tmp_path: Path) -> None:
    _, keys, path = small_shard(tmp_path)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    reader, writer = FeatureStore(tmp_path, {"width": 4}), FeatureStore(tmp_path, {"width": 4})
    assert len(reader.missing(keys)) == len(writer.missing(keys)) == 2
    writer.put(keys, features_of(keys, 4))
    for store in (writer, FeatureStore(tmp_path, {"width": 4})):
        assert assert_all_right(store, keys).all()


def test_a_deleted_shard_is_gone_and_is_checked_anew_when_it_returns(tmp_path: Path) -> None:
    _, keys, path = small_shard(tmp_path)
    whole = path.read_bytes()
    reader = FeatureStore(tmp_path, {"width": 4})
    for content, served in ((whole, True), (whole[:-1] + b"?", False), (whole, True)):
        path.write_bytes(content)
        assert assert_all_right(reader, keys).all() == served
        path.unlink()
        assert len(reader) == 0
        assert not assert_all_right(reader, keys).any()


def test_a_second_opinion_from_another_process_changes_nothing(tmp_path: Path) -> None:
    store, elsewhere = FeatureStore(tmp_path / "a", DESCRIPTION), FeatureStore(tmp_path / "b", DESCRIPTION)
    keys = keys_of(range(3))
    store.put(keys[:2], features_of(keys[:2]))
    elsewhere.put(keys[1:], -features_of(keys[1:]))
    shutil.copy(only_shard(elsewhere), store.folder)
    assert assert_all_right(store, keys[:2]).all()
    assert keys[2] in store


def test_a_damaged_shard_does_not_hide_a_good_one(tmp_path: Path) -> None:
    keys = keys_of(range(6))
    store, elsewhere = FeatureStore(tmp_path / "a", DESCRIPTION), FeatureStore(tmp_path / "b", DESCRIPTION)
    store.put(keys[:4], features_of(keys[:4]))
    elsewhere.put(keys[2:], features_of(keys[2:]))  # as two processes at once would
    first, second = only_shard(store), only_shard(elsewhere)
    shutil.copy(second, store.folder)
    for damaged, lost in ((first, keys[:2]), (store.folder / second.name, keys[4:])):
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[:-4] + b"\0\0\0\0")
        reader = FeatureStore(tmp_path / "a", DESCRIPTION)
        found = assert_all_right(reader, keys)
        assert [key for key, is_found in zip(keys, found, strict=True) if not is_found] == lost
        damaged.write_bytes(whole)


def test_shards_that_nobody_asks_for_are_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, _, path = small_shard(tmp_path)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    more = keys_of(range(10, 12))
    store.put(more, features_of(more, 4))
    assert assert_all_right(FeatureStore(tmp_path, {"width": 4}), more).all()
    assert not caplog.records


# -- several processes, killed processes


def run(target: object, *arguments: object) -> None:
    process = SPAWN.Process(target=target, args=arguments)  # type: ignore[arg-type]
    process.start()
    process.join(300)
    exit_code = process.exitcode
    process.kill()
    assert exit_code == 0


def _write_and_read(root: Path, seed: int, count: int) -> None:
    store = FeatureStore(root, DESCRIPTION)
    keys = keys_of(range(count))
    draw = random.Random(seed)
    while missing := store.missing(keys):
        batch = [keys[i] for i in draw.sample(missing, min(50, len(missing)))]
        store.put(batch, features_of(batch))
        assert_all_right(store, keys)


def test_two_processes_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = keys_of(range(1000))
    writers = [SPAWN.Process(target=_write_and_read, args=(tmp_path, seed, 1000)) for seed in range(2)]
    for writer in writers:
        writer.start()
    reader = FeatureStore(tmp_path, DESCRIPTION)
    held = 0
    while any(writer.is_alive() for writer in writers):
        now = int(assert_all_right(reader, keys).sum())
        assert now >= held
        held = now
        time.sleep(0.01)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert assert_all_right(reader, keys).all()
    assert assert_all_right(FeatureStore(tmp_path, DESCRIPTION), keys).all()
    assert not temporary_files(reader)
    assert not caplog.records


def _kill_writers_at_random(root: Path, kills: int) -> None:
    draw = random.Random(0)
    keys: list[bytes] = []
    before = np.zeros(0, dtype=np.bool_)
    for start in range(0, 1000 * kills, 1000):
        keys += keys_of(range(start, start + 1000))
        writer = os.fork()  # from this small process: starting an interpreter per kill would take most of the time
        if writer == 0:
            store = FeatureStore(root, DESCRIPTION)
            if start == 0:  # the first dies in the middle of a file, the others wherever they are
                Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment,method-assign]
            for begin in range(start, start + 1000, 100):
                store.put(keys[begin : begin + 100], features_of(keys[begin : begin + 100]))
            os._exit(0)
        if start:
            time.sleep(draw.uniform(0, 0.05))
            os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        found = assert_all_right(FeatureStore(root, DESCRIPTION), keys)
        assert found[: len(before)][before].all()  # nothing that was there is lost
        of_shard = found.reshape(-1, 100)
        np.testing.assert_array_equal(of_shard.any(axis=1), of_shard.all(axis=1))  # shards are whole or not there
        before = found


def test_killed_while_writing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(_kill_writers_at_random, tmp_path, 30)
    store = FeatureStore(tmp_path, DESCRIPTION)
    assert temporary_files(store)  # not all died between files
    keys = keys_of(range(1000 * 30))
    missing = store.missing(keys)
    assert 0 < len(missing) < len(keys)
    todo = [keys[i] for i in missing]
    store.put(todo, features_of(todo))
    assert assert_all_right(FeatureStore(tmp_path, DESCRIPTION), keys).all()
    assert not caplog.records


def test_leftovers_of_killed_processes_are_removed_after_a_day(tmp_path: Path) -> None:
    store, _, _ = small_shard(tmp_path)
    old, new = store.folder / ".tmp-old", store.folder / ".tmp-new"
    for path in (old, new):
        path.write_bytes(b"half a shard")
    os.utime(old, (time.time() - 25 * 3600,) * 2)
    more = keys_of(range(10, 12))
    FeatureStore(tmp_path, {"width": 4}).put(more, features_of(more, 4))
    assert not old.exists()
    assert new.exists()


# -- disk full, folder that cannot be written


def _fill_the_disk(root: Path, limit: int) -> None:
    keys = keys_of(range(1000))
    store = FeatureStore(root, DESCRIPTION)
    held = int(store.get(keys)[1].sum())
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))  # Python ignores SIGXFSZ: EFBIG is left
    with pytest.raises(UserError, match=r"cannot write to the feature store .*BIOMEDCOOP_CACHE") as refusal:
        store.put(keys, features_of(keys))
    assert str(store.folder) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not temporary_files(store)
    for reader in (store, FeatureStore(root, DESCRIPTION)):
        assert assert_all_right(reader, keys).sum() == held


@pytest.mark.parametrize("limit", [0, 100, 200_000])  # 100 bytes do not hold space.json
def test_disk_full(tmp_path: Path, limit: int) -> None:
    run(_fill_the_disk, tmp_path, limit)  # a new store
    keys = keys_of(range(30))
    store = FeatureStore(tmp_path, DESCRIPTION)
    store.put(keys, features_of(keys))
    run(_fill_the_disk, tmp_path, limit)  # a store that holds something
    assert assert_all_right(store, keys).all()


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    for use in (lambda: FeatureStore(file, DESCRIPTION), lambda: summary(file), lambda: clear(file)):
        with pytest.raises(UserError, match=r"cannot read the feature store .*BIOMEDCOOP_CACHE"):
            use()

    store = FeatureStore(tmp_path / "root", DESCRIPTION)
    keys = keys_of(range(2))
    (tmp_path / "root").write_text("in the way")
    with pytest.raises(UserError, match="cannot read the feature store"):
        store.put(keys, features_of(keys))
    assert (tmp_path / "root").read_text() == "in the way"


# -- places and upkeep


def test_default_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BIOMEDCOOP_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_root() == tmp_path / "home/.cache/biomedcoop/features"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_root() == tmp_path / "xdg/biomedcoop/features"
    monkeypatch.setenv("BIOMEDCOOP_CACHE", "~/here")
    assert default_root() == tmp_path / "home/here/features"


def test_summary_and_clear(tmp_path: Path) -> None:
    assert summary(tmp_path / "none") == []
    assert clear(tmp_path / "none") == 0
    keys = keys_of(range(50))
    first, second = FeatureStore(tmp_path, DESCRIPTION), FeatureStore(tmp_path, {"width": 4})
    first.put(keys[:30], features_of(keys[:30]))
    first.put(keys[30:], features_of(keys[30:]))
    second.put(keys[:2], features_of(keys[:2], 4))
    (tmp_path / "mine.txt").write_text("not the store's")
    (second.folder / "mine.txt").write_text("not the store's")
    (first.folder / "broken.safetensors").write_text("not a shard")
    (first.folder / ".tmp-half").write_text("half a shard")

    rows = {row.description["width"]: row for row in summary(tmp_path)}
    assert rows[WIDTH].description == first.description
    assert (rows[WIDTH].vectors, rows[4].vectors) == (50, 2)
    assert rows[WIDTH].bytes == sum(path.stat().st_size for path in first.folder.iterdir())

    assert clear(tmp_path) > 50 * (32 + 4 * WIDTH)
    assert not first.folder.exists()
    assert [path.name for path in second.folder.iterdir()] == ["mine.txt"]
    assert (tmp_path / "mine.txt").exists()
    assert first.missing(keys) == list(range(50))  # an open store sees it
    first.put(keys, features_of(keys))
    assert assert_all_right(FeatureStore(tmp_path, DESCRIPTION), keys).all()
