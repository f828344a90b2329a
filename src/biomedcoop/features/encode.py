"""Images and sentences to features, each encoded once and kept in the feature store.

Passes have a fixed shape (the last one is filled up with zeros), so that a feature's bits do not depend on what else was
encoded with it. On a CPU every core runs a pass of its own: cores that share one wait for each other at each of its operations.
Decoding runs ahead in threads, with worker processes behind them on wide machines (``data/images/crop_reader.py``). What became
known of an image while it was decoded is kept beside its features (``facts.py``), so that a run that decodes nothing tells it too.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.products import laid_out, laid_out_for_images
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.content import content_hash
from biomedcoop.data.images.crop_reader import Crop, CropReader
from biomedcoop.data.images.crops import Crops
from biomedcoop.data.images.facts import ImageFacts, Tally
from biomedcoop.data.images.sources import ImageSource
from biomedcoop.errors import ImageError, UserError
from biomedcoop.features.facts import FactsStore
from biomedcoop.features.store import FeatureStore, default_root
from biomedcoop.threads import set_torch_threads, torch_cores

IMAGE_VIEW = "centre: short edge bicubic, centre crop, 2"
"""Name and version of the transform in the store's description; a change of pixels needs a new version."""

TEXT_BATCH, TEXT_STEP = 16, 16
SHARD_ROWS = 512

Floats = npt.NDArray[np.float32]
Count = Callable[[int, int], None]
"""Called with (done, in all)."""

In = TypeVar("In")
Out = TypeVar("Out")
Own = TypeVar("Own")


def image_batch(backbone: Backbone) -> int:
    """Images per pass of the image tower.

    On a CPU few of a large tower, whose activations then stay in a core's cache, and many of a small one, where a pass has a cost
    of its own: as many as there are weights to share among 270 million, at most 16.
    """
    if backbone.device.type != "cpu":
        return 64
    if backbone.precision == "int8":
        return 1  # activations share one scale in a pass, and an image must not depend on its neighbours
    weights = sum(parameter.numel() for parameter in backbone.image_tower.parameters())
    return min(16, max(1, 2**28 // weights))


def encode_crops(backbone: Backbone, crops: Sequence[Crop]) -> Floats:
    """uint8 crops [S, S, 3] -> raw features float32 [n, E], in passes of fixed shape."""
    with closing(_passes(backbone, ((crop, None) for crop in crops))) as passes:
        return _fetched(backbone, [rows for _, rows in passes])


def _passes(backbone: Backbone, crops: Iterable[tuple[Crop, Own]]) -> Generator[tuple[list[Own], Tensor], None, None]:
    """Crops with what belongs to them -> the same with raw features [n, E], pass by pass and in order.

    Features are on the backbone's device, which may still be computing them. An error of ``crops`` comes after the features of
    what came before it.
    """
    size = image_batch(backbone)
    backbone = laid_out_for_images(backbone)

    def encode(batch: list[tuple[Crop, Own]]) -> tuple[list[Own], Tensor]:
        filled = np.zeros((size, *batch[0][0].shape), dtype=np.uint8)
        np.stack([crop for crop, _ in batch], out=filled[: len(batch)])
        with torch.inference_mode():
            rows = backbone.encode_image(backbone.normalize(filled))[: len(batch)].float()
        return [own for _, own in batch], rows

    with closing(_on_every_core(encode, _batches(crops, size), backbone)) as passes:
        yield from passes


def _on_every_core(
    encode: Callable[[In], Out], batches: Iterable[In], backbone: Backbone
) -> Generator[Out, None, None]:
    """``map``; on a CPU a pass on each core at the same time, few of them ahead."""
    if backbone.device.type != "cpu":
        yield from map(encode, batches)
        return
    cores = torch_cores()
    with closing(run_ahead(encode, batches, cores + 1, cores, lambda: set_torch_threads(1))) as ahead:
        yield from ahead


def _batches(items: Iterable[In], size: int) -> Iterator[list[In]]:
    """Lists of ``size`` items, the last one shorter; an error of ``items`` comes after those before it."""
    batch: list[In] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _fetched(backbone: Backbone, rows: list[Tensor]) -> Floats:
    return torch.cat(rows).cpu().numpy() if rows else np.zeros((0, backbone.embed_dim), dtype=np.float32)


def encode_images(
    backbone: Backbone,
    data: Dataset,
    *,
    store_root: Path | None = None,
    workers: int | None = None,
    progress: Count | None = None,
    tally: Tally | None = None,
) -> Floats:
    """Raw image features of a dataset, float32 [N, E], from the store where it has them.

    Args:
        store_root: folder of the store; the user's cache folder by default.
        workers: processes that decode, 0 for none; by default as many as help, see
            :class:`biomedcoop.data.images.crop_reader.CropReader`.
        progress: told of the images to be encoded.
        tally: counts the facts of every image, encoded now or before.

    Raises:
        ImageError: an image cannot be read; what was encoded before is kept.
        UserError: the store cannot be written.
    """
    root = store_root or default_root()
    store, facts = FeatureStore(root, image_space(backbone)), FactsStore(root)
    items = _named(data)
    with CropReader(backbone.image_size, workers) as read:
        keys = list(_hashes(items, read.threads))
        todo = store.missing(keys)

        def centre(i: int) -> list[tuple[Crop, bytes]]:
            (crop,), digest, found = read(*items[i])
            facts.add(digest, found)
            return [(crop, digest)]

        with closing(run_ahead(centre, todo, threads=read.threads)) as ahead:
            _encode_into(store, facts, backbone, ahead, len(todo), progress)
        if tally is not None:
            _count(tally, data, keys, items, facts, read)
    return _all_of(store, keys, [name for _, name in items])


def encode_views(
    backbone: Backbone,
    data: Dataset,
    crops: Crops,
    views: int,
    *,
    store_root: Path | None = None,
    workers: int | None = None,
    progress: Count | None = None,
    tally: Tally | None = None,
) -> Floats:
    """Raw features of ``views`` random crops of each image, float32 [N, V, E], from the store where it has them.

    An image is read and decoded once for all its crops. Arguments and errors are those of :func:`encode_images`.
    """
    root = store_root or default_root()
    store, facts = FeatureStore(root, view_space(backbone, crops)), FactsStore(root)
    items = _named(data)
    with CropReader(backbone.image_size, workers) as read:
        digests = list(_hashes(items, read.threads))
        keys = [crops.key(digest, number) for digest in digests for number in range(views)]
        todo: dict[int, list[int]] = {}
        for row in store.missing(keys):
            todo.setdefault(row // views, []).append(row % views)

        def cut(i: int) -> list[tuple[Crop, bytes]]:
            cuts, digest, found = read(*items[i], crops, todo[i])
            facts.add(digest, found)
            return [(crop, crops.key(digest, number)) for crop, number in zip(cuts, todo[i], strict=True)]

        with closing(run_ahead(cut, todo, threads=read.threads)) as ahead:
            _encode_into(store, facts, backbone, ahead, sum(map(len, todo.values())), progress)
        if tally is not None:
            _count(tally, data, digests, items, facts, read)
    names = [name for _, name in items for _ in range(views)]
    return _all_of(store, keys, names).reshape(len(items), views, backbone.embed_dim)


def image_facts(data: Dataset, *, store_root: Path | None = None, workers: int | None = None) -> list[ImageFacts]:
    """Facts of each image of a dataset, from the store where it has them; the others are decoded.

    Raises:
        ImageError: an image cannot be read.
        UserError: the store cannot be written.
    """
    facts, items = FactsStore(store_root or default_root()), _named(data)
    with CropReader(1, workers) as read:
        return _facts_of(list(_hashes(items, read.threads)), items, facts, read)


def _count(
    tally: Tally,
    data: Dataset,
    digests: Sequence[bytes],
    items: Sequence[tuple[ImageSource, str]],
    facts: FactsStore,
    read: CropReader,
) -> None:
    for key, found in zip(data.keys, _facts_of(digests, items, facts, read), strict=True):
        tally.add(key, found)


def _facts_of(
    digests: Sequence[bytes], items: Sequence[tuple[ImageSource, str]], facts: FactsStore, read: CropReader
) -> list[ImageFacts]:
    """Facts of images of known content; those that the store lacks are decoded, without a crop."""

    def look(i: int) -> None:
        _, digest, found = read(*items[i], Crops(), ())
        facts.add(digest, found)

    with closing(run_ahead(look, facts.missing(digests), threads=read.threads)) as ahead:
        for done, _ in enumerate(ahead, start=1):
            if done % SHARD_ROWS == 0:
                facts.flush()
    facts.flush()
    return facts.get(digests, [name for _, name in items])


def _named(data: Dataset) -> list[tuple[ImageSource, str]]:
    """Each image and its name in messages: a file's path, an array's place in the dataset."""
    names = [str(image) if isinstance(image, Path) else key for image, key in zip(data.images, data.keys, strict=True)]
    return list(zip(data.images, names, strict=True))


def _hashes(items: Iterable[tuple[ImageSource, str]], threads: int) -> Iterator[bytes]:
    """Content hash of each image; several to a thread's turn, as one takes hardly longer than the turn."""
    parts = run_ahead(lambda part: [content_hash(*item) for item in part], _batches(items, 16), threads=threads)
    with closing(parts):
        for part in parts:
            yield from part


def _encode_into(
    store: FeatureStore,
    facts: FactsStore,
    backbone: Backbone,
    crops_of_images: Iterable[list[tuple[Crop, bytes]]],
    total: int,
    progress: Count | None,
) -> None:
    """Encode crops and put them under their keys, shard by shard; what is done when an error or Ctrl-C comes is kept."""
    # keys go with what they belong to, so that an interruption between any two lines mixes up nothing
    encoded: list[tuple[list[bytes], Tensor]] = []
    done = in_store = 0

    def flush() -> None:
        if encoded:
            store.put([key for own, _ in encoded for key in own], _fetched(backbone, [rows for _, rows in encoded]))
            encoded.clear()
        facts.flush()

    try:
        with closing(_passes(backbone, (crop for crops in crops_of_images for crop in crops))) as passes:
            for keys, rows in passes:
                encoded.append((keys, rows))
                done += len(keys)
                if progress is not None:
                    progress(done, total)
                if done - in_store >= SHARD_ROWS:
                    flush()
                    in_store = done
    finally:
        flush()
    if progress is not None and done == 0:
        progress(0, total)


def encode_texts(backbone: Backbone, texts: Sequence[str], *, store_root: Path | None = None) -> Floats:
    """Raw text features float32 [n, E]; equal texts are encoded once, and kept in the store."""
    store = FeatureStore(
        store_root or default_root(),
        space(backbone, "text", f"{TEXT_BATCH} x {TEXT_STEP}", str(backbone.dtype).removeprefix("torch.")),
    )
    keys = [hashlib.blake2b(text.encode(), digest_size=32).digest() for text in texts]
    todo = store.missing(keys)
    ids = [backbone.tokenize([texts[i]])[0] for i in todo]
    # the padded length follows from the text alone, not from its neighbours
    by_length: dict[int, list[int]] = {}
    for position, row in enumerate(ids):
        by_length.setdefault(-(-len(row) // TEXT_STEP) * TEXT_STEP, []).append(position)
    backbone = laid_out(backbone)
    # the commonest length first: for it weights are laid out
    batches = (
        (length, positions[start : start + TEXT_BATCH])
        for length, positions in sorted(by_length.items(), key=lambda item: -len(item[1]))
        for start in range(0, len(positions), TEXT_BATCH)
    )

    def encode(of_one_length: tuple[int, list[int]]) -> tuple[list[int], Floats]:
        length, part = of_one_length
        batch = torch.zeros(TEXT_BATCH, min(length, backbone.context_length), dtype=torch.int64)
        # rows that only fill up repeat the first: a row of padding alone has nothing to attend to
        for slot, position in enumerate(part + [part[0]] * (TEXT_BATCH - len(part))):
            batch[slot, : len(ids[position])] = ids[position]
        batch = batch.to(backbone.device)
        with torch.inference_mode():
            out = backbone.encode_text_embeddings(backbone.embed_tokens(batch), backbone.mask(batch))
        return part, out[: len(part)].float().cpu().numpy()

    features = np.empty((len(todo), backbone.embed_dim), dtype=np.float32)
    with closing(_on_every_core(encode, batches, backbone)) as passes:
        for part, rows in passes:
            features[part] = rows
    store.put([keys[i] for i in todo], features)
    return _all_of(store, keys, texts)


def _all_of(store: FeatureStore, keys: Sequence[bytes], names: Sequence[str]) -> Floats:
    """Every vector, or an error that names the first that is not there although it has just been put."""
    features, found = store.get(keys)
    if not found.all():
        name = names[int(np.flatnonzero(~found)[0])]
        raise UserError(
            f"{name!r} or the feature store {store.folder} changed meanwhile; start again when nothing writes to it"
        )
    return features


def stream_features(
    backbone: Backbone, sources: Iterable[ImageSource], max_ahead: int = 16, tally: Tally | None = None
) -> Iterator[tuple[ImageSource, Floats | ImageError]]:
    """Features of any number of images in order, with bounded memory and without the store.

    Args:
        max_ahead: images that are read in advance.
        tally: counts the facts of every image as its feature is given.

    Yields:
        The source and its raw feature [E], or the error that says why it has none.
    """

    nothing = np.zeros((backbone.image_size, backbone.image_size, 3), dtype=np.uint8)

    def crop_or_error(
        item: tuple[ImageSource, str],
    ) -> tuple[Crop, tuple[ImageSource, str, ImageFacts | ImageError]]:
        source, name = item
        try:
            (crop,), _, facts = read(source, name)
            return crop, (source, name, facts)
        except ImageError as error:
            return nothing, (source, name, error)  # goes with the others to keep the order

    named = ((source, _place(source, number)) for number, source in enumerate(sources))
    with (
        CropReader(backbone.image_size) as read,
        closing(run_ahead(crop_or_error, named, max_ahead, read.threads)) as ahead,
        closing(_passes(backbone, ahead)) as passes,
    ):
        for owners, rows in passes:
            for (source, name, facts), feature in zip(owners, rows.cpu().numpy(), strict=True):
                if isinstance(facts, ImageError):
                    yield source, facts
                    continue
                if tally is not None:
                    tally.add(name, facts)
                yield source, feature


def _place(source: ImageSource, number: int) -> str:
    """An image's name in messages: its path, or its place among the images given."""
    return str(source) if isinstance(source, Path) else f"images[{number}]"


def image_space(backbone: Backbone) -> dict[str, str | int]:
    """Description of the store's space that holds a backbone's image features."""
    return space(backbone, IMAGE_VIEW, str(image_batch(backbone)), backbone.precision)


def view_space(backbone: Backbone, crops: Crops) -> dict[str, str | int]:
    """Description of the store's space that holds a backbone's features of random crops."""
    view = f"random crop, bicubic: area from {crops.smallest:g}, flip {crops.flip:g}, 2"
    return space(backbone, view, str(image_batch(backbone)), backbone.precision)


def space(backbone: Backbone, view: str, batch: str, dtype: str) -> dict[str, str | int]:
    return {
        "fingerprint": backbone.fingerprint,
        "view": view,
        "batch": batch,
        "dtype": dtype,
        "width": backbone.embed_dim,
    }


def run_ahead(
    function: Callable[[In], Out],
    items: Iterable[In],
    ahead: int = 32,
    threads: int = 2,
    initializer: Callable[[], object] | None = None,
) -> Generator[Out, None, None]:
    """``map`` in threads, at most ``ahead`` results in advance, in order; an error of ``items`` comes after those before it.

    Args:
        initializer: called first in each thread.
    """
    failure, source = None, iter(items)
    with ThreadPoolExecutor(threads, initializer=initializer) as pool:
        waiting: deque[Future[Out]] = deque()
        try:
            while True:
                try:
                    item = next(source)
                except StopIteration:
                    break
                except Exception as error:
                    failure = error
                    break
                waiting.append(pool.submit(function, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
    if failure is not None:
        raise failure
