"""Images of a dataset to features through the store: each centre crop and each random crop is encoded once.

Decoding runs ahead in threads, with worker processes behind them on wide machines (``data/images/crop_reader.py``). The facts
that decoding finds are kept beside the features (``facts.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

from torch import Tensor

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.crop_reader import MANY_CORES, Crop, CropReader
from biomedcoop.data.images.crops import Crops
from biomedcoop.data.images.facts import Tally
from biomedcoop.features.content import content_hashes, named_images
from biomedcoop.features.facts import FactsStore, facts_of
from biomedcoop.features.parallel import run_ahead
from biomedcoop.features.passes import Floats, as_array, image_passes
from biomedcoop.features.spaces import Space, image_space, view_space
from biomedcoop.features.store import SHARD_ROWS, FeatureStore, default_root
from biomedcoop.threads import available_cores

Count = Callable[[int, int], None]
"""Called with (crops encoded so far, crops to be encoded)."""


def encode_images(
    backbone: Backbone,
    data: Dataset,
    *,
    store_root: Path | None = None,
    workers: int | None = None,
    progress: Count | None = None,
    tally: Tally | None = None,
) -> Floats:
    """Raw features of the centre crop of each image, from the store where it has them.

    Args:
        store_root: folder of the store; the user's cache folder by default.
        workers: processes that decode, 0 for none; by default as many as help, see
            :class:`biomedcoop.data.images.crop_reader.CropReader`.
        progress: called after each pass.
        tally: counts the facts of every image, whether it is encoded now or was before.

    Returns:
        float32 [N, E].

    Raises:
        ImageError: an image cannot be read; features encoded before stay in the store.
        UserError: the store cannot be written.
    """
    return _encode(backbone, data, image_space(backbone), None, 1, store_root, workers, progress, tally)[:, 0]


def missing_images(
    backbone: Backbone, data: Dataset, *, store_root: Path | None = None, progress: Count | None = None
) -> list[int]:
    """Positions of the images whose centre crop has no stored feature; of copies of an image the first.

    Args:
        progress: called with the number of images read.

    Raises:
        ImageError: a file cannot be read.
    """
    images, digests = named_images(data), []
    for digest in content_hashes(images, min(available_cores(), MANY_CORES)):
        digests.append(digest)
        if progress is not None:
            progress(len(digests), len(images))
    return FeatureStore(store_root or default_root(), image_space(backbone)).missing(digests)


def encode_views(
    backbone: Backbone,
    data: Dataset,
    crops: Crops,
    views: int,
    *,  # the options of encode_images, written out so that editors and type checkers know them
    store_root: Path | None = None,
    workers: int | None = None,
    progress: Count | None = None,
    tally: Tally | None = None,
) -> Floats:
    """Raw features of ``views`` random crops of each image, from the store where it has them.

    Each image is decoded once for all its crops. Other arguments and errors are those of :func:`encode_images`.

    Args:
        crops: the family of random crops.
        views: crops of each image, V.

    Returns:
        float32 [N, V, E].
    """
    return _encode(backbone, data, view_space(backbone, crops), crops, views, store_root, workers, progress, tally)


def _encode(
    backbone: Backbone,
    data: Dataset,
    space: Space,
    crops: Crops | None,
    views: int,
    store_root: Path | None,
    workers: int | None,
    progress: Count | None,
    tally: Tally | None,
) -> Floats:
    """Features [N, V, E] of random crops, or of the centre crop alone (V = 1) where ``crops`` is None."""
    root = store_root or default_root()
    store, facts = FeatureStore(root, space), FactsStore(root)
    images = named_images(data)

    def key(digest: bytes, number: int) -> bytes:
        return digest if crops is None else crops.key(digest, number)

    with CropReader(backbone.image_size, workers, backbone.resize) as read:
        digests = list(content_hashes(images, read.threads))
        keys = [key(digest, number) for digest in digests for number in range(views)]
        missing: dict[int, list[int]] = {}  # image -> the numbers of its crops that have no feature yet
        for row in store.missing(keys):
            missing.setdefault(row // views, []).append(row % views)

        def cut(i: int) -> list[tuple[Crop, bytes]]:
            cuts, digest, image_facts = read(*images[i], crops, missing[i])
            facts.add(digest, image_facts)
            return [(crop, key(digest, number)) for crop, number in zip(cuts, missing[i], strict=True)]

        with closing(run_ahead(cut, missing, threads=read.threads)) as ahead:
            keyed_crops = (keyed for of_image in ahead for keyed in of_image)
            _fill(store, facts, backbone, keyed_crops, sum(map(len, missing.values())), progress)
        if tally is not None:
            for name, image_facts in zip(data.keys, facts_of(images, digests, facts, read), strict=True):
                tally.add(name, image_facts)
    names = [name for _, name in images for _ in range(views)]
    return store.get_all(keys, names).reshape(len(images), views, backbone.embed_dim)


def _fill(
    store: FeatureStore,
    facts: FactsStore,
    backbone: Backbone,
    keyed_crops: Iterable[tuple[Crop, bytes]],
    total: int,
    progress: Count | None,
) -> None:
    """Encode crops and store their features under their keys, shard by shard; an error or Ctrl-C loses nothing encoded."""
    # keys and features are kept in one list, so that an interruption between any two lines cannot mix them up
    encoded: list[tuple[list[bytes], Tensor]] = []
    done = in_store = 0

    def flush() -> None:
        if encoded:
            keys = [key for keys_of_pass, _ in encoded for key in keys_of_pass]
            store.put(keys, as_array([rows for _, rows in encoded], backbone.embed_dim))
            encoded.clear()
        facts.flush()

    try:
        with closing(image_passes(backbone, keyed_crops)) as passes:
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
