"""Images of a dataset to features through the store: each centre crop and each random crop is encoded once.

Decoding runs ahead in threads, with worker processes behind them on wide machines (``data/images/crop_reader.py``). The facts
that decoding finds are kept beside the features (``facts.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from torch import Tensor

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.crop_reader import MANY_CORES, Crop, CropReader
from biomedcoop.data.images.crops import Crops
from biomedcoop.data.images.facts import Tally
from biomedcoop.errors import ImageError
from biomedcoop.features.content import NamedImage, content_hashes, hashes_or_errors, named_images
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
    images = named_images(data)
    return _encode(backbone, images, image_space(backbone), None, 1, store_root, workers, progress, tally, data.keys)[
        :, 0
    ]


def encode_readable(
    backbone: Backbone,
    images: Sequence[NamedImage],
    *,
    skip_bad: bool,
    progress: Count | None = None,
    tally: Tally | None = None,
) -> tuple[Floats, dict[int, ImageError]]:
    """Raw features of the centre crop of each image that can be read, through the store.

    Args:
        skip_bad: go on after images that cannot be read.
        progress, tally: as for :func:`encode_images`; images that cannot be read are not counted.

    Returns:
        float32 [N, E] with NaN in the rows of images that cannot be read, and the error of each of them by position.

    Raises:
        ImageError: an image cannot be read, unless ``skip_bad``.
        UserError: the store cannot be written.
    """
    bad: dict[int, ImageError] = {}
    names, space = [name for _, name in images], image_space(backbone)
    skipped = bad if skip_bad else None
    return _encode(backbone, images, space, None, 1, None, None, progress, tally, names, skipped)[:, 0], bad


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
    images = named_images(data)
    space = view_space(backbone, crops)
    return _encode(backbone, images, space, crops, views, store_root, workers, progress, tally, data.keys)


def _encode(
    backbone: Backbone,
    images: Sequence[NamedImage],
    space: Space,
    crops: Crops | None,
    views: int,
    store_root: Path | None,
    workers: int | None,
    progress: Count | None,
    tally: Tally | None,
    keys_in_notes: Sequence[str],
    bad: dict[int, ImageError] | None = None,
) -> Floats:
    """Features [N, V, E] of random crops, or of the centre crop alone (V = 1) where ``crops`` is None.

    With ``bad``, an image that cannot be read is put there by its position, and its features are NaN.
    """
    root = store_root or default_root()
    store, facts = FeatureStore(root, space), FactsStore(root)

    def key(digest: bytes, number: int) -> bytes:
        return digest if crops is None else crops.key(digest, number)

    with CropReader(backbone.image_size, workers, backbone.resize) as read:
        digests: list[bytes] = []
        if bad is None:
            digests = list(content_hashes(images, read.threads))
        else:
            for i, found in enumerate(hashes_or_errors(images, read.threads)):
                digests.append(b"" if isinstance(found, ImageError) else found)
                if isinstance(found, ImageError):
                    bad[i] = found
        there = [i for i in range(len(images)) if not bad or i not in bad]
        missing: dict[int, list[int]] = {}  # image -> the numbers of its crops that have no feature yet
        for row in store.missing([key(digests[i], number) for i in there for number in range(views)]):
            missing.setdefault(there[row // views], []).append(row % views)
        if missing:
            store.check_writable()

        def cut(i: int) -> list[tuple[Crop, bytes]]:
            try:
                cuts, digest, image_facts = read(*images[i], crops, missing[i])
            except ImageError as error:
                if bad is None:
                    raise
                bad[i] = error
                return []
            facts.add(digest, image_facts)
            return [(crop, key(digest, number)) for crop, number in zip(cuts, missing[i], strict=True)]

        with closing(run_ahead(cut, missing, threads=read.threads)) as ahead:
            keyed_crops = (keyed for of_image in ahead for keyed in of_image)
            _fill(store, facts, backbone, keyed_crops, sum(map(len, missing.values())), progress)
        if bad:
            # of copies of an image, one was read
            reasons = {digests[i]: error.reason for i, error in bad.items() if digests[i]}
            bad |= {i: ImageError(images[i][1], reasons[digests[i]]) for i in there if digests[i] in reasons}
            there = [i for i in there if i not in bad]
        if tally is not None:
            known = facts_of([images[i] for i in there], [digests[i] for i in there], facts, read)
            for i, image_facts in zip(there, known, strict=True):
                tally.add(keys_in_notes[i], image_facts)
    names = [images[i][1] for i in there for _ in range(views)]
    rows = store.get_all([key(digests[i], number) for i in there for number in range(views)], names)
    rows = rows.reshape(len(there), views, backbone.embed_dim)
    if not bad:
        return rows
    features = np.full((len(images), *rows.shape[1:]), np.nan, dtype=np.float32)
    features[there] = rows
    return features


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
