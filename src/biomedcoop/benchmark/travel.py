"""Work on machines with feature stores of their own: shards of images to encode, and features that travel.

An image is encoded on one node, and its feature travels to all others: no image is encoded twice, and all nodes learn from the same
bits. Where nodes share a store, nothing is written twice.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from biomedcoop.benchmark.compute import Computed, Work, compute_group
from biomedcoop.benchmark.executor import WorkerLost
from biomedcoop.benchmark.plan import Group
from biomedcoop.benchmark.prepare import Grid, images_of
from biomedcoop.benchmark.ray_executor import RayCluster
from biomedcoop.benchmark.sources import read_source
from biomedcoop.errors import ImageError, UserError
from biomedcoop.features.content import content_hashes, named_images
from biomedcoop.features.facts import SPACE
from biomedcoop.features.images import encode_images
from biomedcoop.features.spaces import image_space, text_space
from biomedcoop.features.store import FeatureStore, default_root
from biomedcoop.features.texts import encode_texts, text_keys
from biomedcoop.features.transfer import Rows, read_rows, write_rows
from biomedcoop.progress import Progress
from biomedcoop.threads import available_cores

SHARD = 128
"""Images that a task encodes."""

_log = logging.getLogger("biomedcoop")


@dataclass(frozen=True)
class Shard:
    """Images that a task encodes.

    Attributes:
        dataset, backbone: as in the protocol.
        positions: of the images in the dataset.
        keys: of their features in the store.
    """

    dataset: str
    backbone: str
    positions: tuple[int, ...]
    keys: tuple[bytes, ...]


class Encoded(NamedTuple):
    """What a shard gave: features and facts of its images, and why some are missing."""

    rows: list[Rows]
    reason: str = ""


def encode_shard(work: Work, shard: Shard) -> Encoded:
    """Encode the images of a shard into the store of the machine that this is called on."""
    source = work.sources[shard.dataset]
    assert source.place is not None
    try:
        model, reason = work.load(shard.backbone), ""
        try:
            encode_images(model, read_source(source.place, source.trained).select(np.array(shard.positions)))
        except ImageError as error:  # the images before it are encoded
            reason = str(error)
        return Encoded([read_rows(space, shard.keys) for space in (image_space(model), SPACE)], reason)
    except Exception as error:  # of any kind: memory, a damaged disk
        return Encoded([], f"{type(error).__name__}: {error}")


@dataclass(frozen=True)
class TravellingWork:
    """Computes groups on any machine; it brings the features that they read.

    Attributes:
        images: (dataset, backbone) -> features and facts of the images.
        sentences: backbone -> features of the sentences.
    """

    work: Work
    images: dict[tuple[str, str], list[Rows]] = field(default_factory=dict)
    sentences: dict[str, Rows] = field(default_factory=dict)

    def __call__(self, group: Group) -> Computed:
        """See :func:`biomedcoop.benchmark.compute.compute_group`."""
        try:
            for dataset in {group.dataset, *self.work.protocol.tested_on(group.dataset)}:
                self._unpack((dataset, group.backbone), self.images.get((dataset, group.backbone), ()))
            if group.backbone in self.sentences:
                self._unpack((group.backbone,), [self.sentences[group.backbone]])
        except UserError as error:
            return Computed(group.lines("failed", reason=str(error)), 0.0)
        return compute_group(self.work, group)

    def _unpack(self, name: tuple[str, ...], rows: Sequence[Rows]) -> None:
        if (mark := (self.work.protocol.digest, *name)) not in _unpacked:
            for some in rows:
                write_rows(some)
            _unpacked.add(mark)


_unpacked: set[tuple[str, ...]] = set()
"""What this process has put into its store."""


def encode_on(cluster: RayCluster, work: Work, grid: Grid, progress: Progress) -> TravellingWork:
    """Encode the images and sentences of the grid that have no stored features, the images by tasks of the cluster.

    Returns:
        The work that computes groups on the cluster.
    """
    travelling = TravellingWork(work)
    keys_of: dict[tuple[str, str], list[bytes]] = {}
    shards = []
    for backbone, dataset, data in images_of(work, grid):
        try:
            keys = list(content_hashes(named_images(data), available_cores()))
        except ImageError as error:  # runs without this image are still possible
            _log.warning(str(error))
            continue
        keys_of[dataset, backbone] = keys
        missing = FeatureStore(default_root(), image_space(work.load(backbone))).missing(keys)
        positions = sorted(grid.images[dataset, backbone])
        for start in range(0, len(missing), SHARD):
            part = missing[start : start + SHARD]
            shards.append(Shard(dataset, backbone, tuple(positions[i] for i in part), tuple(keys[i] for i in part)))
    total, done = sum(len(shard.keys) for shard in shards), 0
    for shard, encoded in cluster.map(partial(encode_shard, work), shards):
        if isinstance(encoded, WorkerLost):
            _log.warning(f"{shard.dataset}: {encoded}")
            continue
        if encoded.reason:
            _log.warning(encoded.reason)
        for rows in encoded.rows:
            write_rows(rows)
        progress("encoding", done := done + len(shard.keys), total)
    for (dataset, backbone), keys in keys_of.items():
        space = image_space(work.load(backbone))
        travelling.images[dataset, backbone] = [read_rows(own, keys) for own in (space, SPACE)]
    for backbone, sentences in grid.sentences.items():
        model = work.load(backbone)
        encode_texts(model, list(sentences))
        travelling.sentences[backbone] = read_rows(text_space(model), text_keys(list(sentences)))
    return travelling
