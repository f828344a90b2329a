"""Images and sentences to features, each encoded once and kept in the feature store.

Batches have a fixed shape (the last one is filled up with zeros), so that a feature's bits do not depend on what else was
encoded with it. Decoding runs ahead in threads: Pillow releases the interpreter while it decodes and resizes.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.crops import Crops
from biomedcoop.data.dataset import Dataset, ImageSource
from biomedcoop.data.images import content_hash, read_and_hash, resize_and_crop
from biomedcoop.errors import ImageError, UserError
from biomedcoop.features.store import FeatureStore, default_root

IMAGE_VIEW = "centre: short edge bicubic, centre crop, 1"
"""Name and version of the transform in the store's description; a change of pixels needs a new version."""

TEXT_BATCH, TEXT_STEP = 16, 16
SHARD_ROWS = 512

Crop = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Count = Callable[[int, int], None]
"""Called with (done, in all)."""

In = TypeVar("In")
Out = TypeVar("Out")


def image_batch(backbone: Backbone) -> int:
    """Images per pass: enough to fill the hardware, few enough that filling up the last batch costs little."""
    return 64 if backbone.device.type == "cuda" else 8


def encode_crops(backbone: Backbone, crops: Sequence[Crop]) -> Floats:
    """uint8 crops [S, S, 3] -> raw features float32 [n, E], in passes of fixed shape."""
    size = image_batch(backbone)
    rows = []
    with torch.inference_mode():
        for start in range(0, len(crops), size):
            batch = np.stack(crops[start : start + size])
            filled = np.zeros((size, *batch.shape[1:]), dtype=np.uint8)
            filled[: len(batch)] = batch
            rows.append(backbone.encode_image(backbone.normalize(filled))[: len(batch)].float().cpu().numpy())
    return np.concatenate(rows) if rows else np.zeros((0, backbone.embed_dim), dtype=np.float32)


def encode_images(
    backbone: Backbone, data: Dataset, *, store_root: Path | None = None, progress: Count | None = None
) -> Floats:
    """Raw image features of a dataset, float32 [N, E], from the store where it has them.

    Args:
        store_root: folder of the store; the user's cache folder by default.
        progress: told of the images to be encoded.

    Raises:
        ImageError: an image cannot be read; what was encoded before is kept.
        UserError: the store cannot be written.
    """
    store = FeatureStore(store_root or default_root(), image_space(backbone))
    items = _named(data)
    keys = list(run_ahead(lambda item: content_hash(*item), items))
    todo = store.missing(keys)
    read = run_ahead(lambda i: read_crop(backbone, *items[i]), todo)
    _encode_into(store, backbone, read, len(todo), progress)
    return _all_of(store, keys, [name for _, name in items])


def encode_views(
    backbone: Backbone,
    data: Dataset,
    crops: Crops,
    views: int,
    *,
    store_root: Path | None = None,
    progress: Count | None = None,
) -> Floats:
    """Raw features of ``views`` random crops of each image, float32 [N, V, E], from the store where it has them.

    An image is read and decoded once for all its crops. Arguments and errors are those of :func:`encode_images`.
    """
    store = FeatureStore(store_root or default_root(), view_space(backbone, crops))
    items = _named(data)
    digests = run_ahead(lambda item: content_hash(*item), items)
    keys = [crops.key(digest, number) for digest in digests for number in range(views)]
    todo: dict[int, list[int]] = {}
    for row in store.missing(keys):
        todo.setdefault(row // views, []).append(row % views)

    def read(i: int) -> list[tuple[Crop, bytes]]:
        image, digest = read_and_hash(*items[i])
        return [(crops.cut(image, backbone.image_size, digest, n), crops.key(digest, n)) for n in todo[i]]

    several = run_ahead(read, todo)
    _encode_into(store, backbone, (one for image in several for one in image), sum(map(len, todo.values())), progress)
    names = [name for _, name in items for _ in range(views)]
    return _all_of(store, keys, names).reshape(len(items), views, backbone.embed_dim)


def _named(data: Dataset) -> list[tuple[ImageSource, str]]:
    """Each image and its name in messages: a file's path, an array's place in the dataset."""
    names = [str(image) if isinstance(image, Path) else key for image, key in zip(data.images, data.keys, strict=True)]
    return list(zip(data.images, names, strict=True))


def _encode_into(
    store: FeatureStore, backbone: Backbone, crops: Iterable[tuple[Crop, bytes]], total: int, progress: Count | None
) -> None:
    """Encode crops and put them under their keys, shard by shard; what is done when an error or Ctrl-C comes is kept."""
    keys: list[bytes] = []
    batch: list[Crop] = []
    rows: list[Floats] = []

    def flush() -> None:
        if batch:
            rows.append(encode_crops(backbone, batch))
            batch.clear()
        if rows:
            features = np.concatenate(rows)
            store.put(keys[: len(features)], features)
            del keys[: len(features)]
            rows.clear()

    try:
        for done, (crop, key) in enumerate(crops, start=1):
            batch.append(crop)
            keys.append(key)
            if len(batch) == image_batch(backbone):
                rows.append(encode_crops(backbone, batch))
                batch.clear()
                if progress is not None:
                    progress(done, total)
            if len(keys) >= SHARD_ROWS and not batch:
                flush()
    finally:
        flush()
    if progress is not None:
        progress(total, total)


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
    features = np.empty((len(todo), backbone.embed_dim), dtype=np.float32)
    with torch.inference_mode():
        for length, positions in by_length.items():
            length = min(length, backbone.context_length)
            for start in range(0, len(positions), TEXT_BATCH):
                part = positions[start : start + TEXT_BATCH]
                batch = torch.zeros(TEXT_BATCH, length, dtype=torch.int64)
                # rows that only fill up repeat the first: a row of padding alone has nothing to attend to
                for slot, position in enumerate(part + [part[0]] * (TEXT_BATCH - len(part))):
                    batch[slot, : len(ids[position])] = ids[position]
                batch = batch.to(backbone.device)
                out = backbone.encode_text_embeddings(backbone.embed_tokens(batch), backbone.mask(batch))
                features[part] = out[: len(part)].float().cpu().numpy()
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
    backbone: Backbone, sources: Iterable[ImageSource], max_ahead: int = 32
) -> Iterator[tuple[ImageSource, Floats | ImageError]]:
    """Features of any number of images in order, with bounded memory and without the store.

    Yields:
        The source and its raw feature [E], or the error that says why it has none.
    """

    def read(source: ImageSource) -> tuple[ImageSource, Crop | ImageError]:
        try:
            return source, read_crop(backbone, source)[0]
        except ImageError as error:
            return source, error

    def encoded(
        batch: list[tuple[ImageSource, Crop | ImageError]],
    ) -> Iterator[tuple[ImageSource, Floats | ImageError]]:
        features = iter(encode_crops(backbone, [crop for _, crop in batch if not isinstance(crop, ImageError)]))
        for source, crop in batch:
            yield source, (crop if isinstance(crop, ImageError) else next(features))

    batch: list[tuple[ImageSource, Crop | ImageError]] = []
    for item in run_ahead(read, sources, max_ahead):
        batch.append(item)
        if len(batch) == image_batch(backbone):
            yield from encoded(batch)
            batch = []
    yield from encoded(batch)


def image_space(backbone: Backbone) -> dict[str, str | int]:
    """Description of the store's space that holds a backbone's image features."""
    return space(backbone, IMAGE_VIEW, str(image_batch(backbone)), backbone.precision)


def view_space(backbone: Backbone, crops: Crops) -> dict[str, str | int]:
    """Description of the store's space that holds a backbone's features of random crops."""
    view = f"random crop, bicubic: area from {crops.smallest:g}, flip {crops.flip:g}, 1"
    return space(backbone, view, str(image_batch(backbone)), backbone.precision)


def space(backbone: Backbone, view: str, batch: str, dtype: str) -> dict[str, str | int]:
    return {
        "fingerprint": backbone.fingerprint,
        "view": view,
        "batch": batch,
        "dtype": dtype,
        "width": backbone.embed_dim,
    }


def read_crop(backbone: Backbone, source: ImageSource, where: str | None = None) -> tuple[Crop, bytes]:
    """The uint8 crop that the backbone sees, and the content hash."""
    image, digest = read_and_hash(source, where)
    return resize_and_crop(image, backbone.image_size), digest


def run_ahead(function: Callable[[In], Out], items: Iterable[In], ahead: int = 32) -> Iterator[Out]:
    """``map`` in two threads, at most ``ahead`` results in advance, in order."""
    with ThreadPoolExecutor(2) as pool:
        waiting: deque[Future[Out]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
