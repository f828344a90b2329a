"""The feature store: vectors of a frozen encoder on disk, by the content of the image or text they belong to.

A *space* is everything that decides a vector's bits apart from the image (backbone fingerprint, transform and view
parameters, dtype, width); it has one folder, named by a hash of that description. Inside a space vectors are only ever
added, one shard per ``put``, so any number of processes (and machines that share the folder) read and write at once
without locks: each shard appears whole, under a name made from its content, or not at all. A shard whose checksum fails
counts as missing, and its vectors are encoded again.

Cost (processor time of one 2.8 GHz Xeon core, files in the page cache, 512 values per vector): opening reads only sizes
and keys, 0.1 s for 200 shards of 512 vectors; a shard's checksum is verified once per process, when one of its vectors
is first asked for, at 0.5 GB/s (250,000 vectors per second). There is no compaction: 80,000 vectors in 10,000 shards take
0.9 s to open and 2 s to read where one shard takes 0.05 s and 0.2 s, and shards that small come only from tiny calls.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from biomedcoop.errors import UserError
from biomedcoop.features.shard import (
    FORMAT_VERSION,
    KEY_BYTES,
    SUFFIX,
    Shard,
    ShardError,
    open_shard,
    write_shard,
)
from biomedcoop.output import TEMPORARY_PREFIX, cache_root, check_writable, replace_file

SHARD_ROWS = 512
"""Vectors after which encoding writes a shard."""

_log = logging.getLogger("biomedcoop")

DESCRIPTION_FILE = "space.json"
_STALE_AFTER_SECONDS = 24 * 3600


class FeatureStore:
    """The vectors of one space.

    Several processes may hold the same space open, each with its own ``FeatureStore`` (one instance is not for several
    threads). A key keeps the vector it was first seen with for the life of the instance.

    Args:
        root: the folder that holds all spaces; created by the first ``put``.
        description: what decides the vectors' bits; must hold ``"width"``, the number E of values per vector. The
            version of the store's own format is added.

    Attributes:
        description: the full description, as in ``space.json``.
        folder: the space's folder.
        width: E.

    Raises:
        UserError: if the folder cannot be read or belongs to another description.
        ValueError: if ``description`` has no usable ``"width"``.
    """

    def __init__(self, root: Path, description: Mapping[str, str | int]) -> None:
        width = description.get("width")
        if not isinstance(width, int) or width < 1:
            raise ValueError(f"the description of a feature space needs 'width', a positive int, not {width!r}")
        self.description: dict[str, str | int] = {**description, "store_format": FORMAT_VERSION}
        self.width = width
        canonical = json.dumps(self.description, sort_keys=True, separators=(",", ":"))
        self._space = hashlib.blake2b(canonical.encode("ascii"), digest_size=8).hexdigest()
        self.folder = root / self._space
        self._rows_by_key: dict[bytes, int] = {}  # rows are numbered through all shards: 140-250 bytes per vector
        self._shards: list[Shard] = []
        self._starts: list[int] = []  # number of each shard's first row
        self._listed: frozenset[str] = frozenset()
        self._verified: set[str] = set()
        self._ignored: set[str] = set()
        self._swept = False
        self._check_description()

    def __len__(self) -> int:
        """Vectors listed by the shards; their content is checked only when they are asked for."""
        self.refresh()
        return len(self._rows_by_key)

    def __contains__(self, key: bytes) -> bool:
        return not self.missing([key])

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Positions of the keys that are not held, in order; of equal keys the first position only."""
        first: dict[bytes, int] = {}
        for position in np.flatnonzero(self._find(keys) < 0).tolist():
            first.setdefault(keys[position], position)
        return list(first.values())

    def get(self, keys: Sequence[bytes]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Read vectors; of each shard only the rows that are asked for.

        Args:
            keys: n keys of 32 bytes; repeats allowed.

        Returns:
            Features float32 [n, E], a copy, NaN where not found; and found, bool [n].
        """
        rows = self._find(keys)
        features = np.full((len(keys), self.width), np.nan, dtype=np.float32)
        found = np.zeros(len(keys), dtype=np.bool_)
        in_file_order = np.argsort(rows, kind="stable")[np.count_nonzero(rows < 0) :]
        shard_of = self._shard_of(rows[in_file_order])
        for shard in np.unique(shard_of).tolist():
            begin, end = np.searchsorted(shard_of, [shard, shard + 1])
            positions = in_file_order[begin:end]
            try:
                features[positions] = self._shards[shard].map_features()[rows[positions] - self._starts[shard]]
            except ShardError as error:  # vanished since it was found, for instance by ``clear`` in another process
                _warn_ignored(self._shards[shard].path, error)
                continue
            found[positions] = True
        return features, found

    def get_all(self, keys: Sequence[bytes], names: Sequence[str]) -> npt.NDArray[np.float32]:
        """Read vectors that have just been put.

        Args:
            keys: n keys of 32 bytes.
            names: what each vector belongs to, for the message.

        Returns:
            float32 [n, E].

        Raises:
            UserError: a vector is gone; the message names the first.
        """
        features, found = self.get(keys)
        if not found.all():
            name = names[int(np.flatnonzero(~found)[0])]
            raise UserError(
                f"{name!r} or the feature store {self.folder} changed meanwhile; start again when nothing writes to it"
            )
        return features

    def check_writable(self) -> None:
        """Check before long work that vectors can be added.

        Raises:
            UserError: the folder cannot be written to.
        """
        try:
            check_writable(self.folder if self.folder.is_dir() else self.folder.parent)
        except UserError as error:
            raise UserError(f"the feature store has no place: {error} with BIOMEDCOOP_CACHE") from error

    def put(self, keys: Sequence[bytes], features: npt.NDArray[np.float32]) -> None:
        """Add vectors as one shard, on the disk when this returns. Keys that are already held keep their vector.

        Args:
            keys: n keys of 32 bytes; of equal keys the first counts.
            features: float32 [n, E], finite.

        Raises:
            UserError: if a value is not finite, or the shard cannot be written (disk full, read-only folder, …);
                nothing is stored then, and what was stored before stays readable.
            ValueError: if a key, the shape or the dtype is wrong.
        """
        if any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"keys of the feature store have {KEY_BYTES} bytes")
        if features.dtype != np.float32 or features.shape != (len(keys), self.width):
            raise ValueError(
                f"features must be float32 {[len(keys), self.width]}, not {features.dtype} {list(features.shape)}"
            )
        broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(broken):
            raise UserError(
                f"{len(broken)} of {len(keys)} feature vectors are not finite (first at position {broken[0]}): "
                "nothing was stored; check the backbone's weights, or encode in float32"
            )
        new = self.missing(keys)
        if not new:
            return
        with self._explain_write_errors():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            if not self._check_description():
                text = json.dumps(self.description, indent=2, sort_keys=True) + "\n"
                replace_file(self.folder / DESCRIPTION_FILE, [text.encode("ascii")])
            name = write_shard(self.folder, self._space, b"".join(keys[i] for i in new), features[new])
        # A damaged shard of the same name has just been replaced by a good one.
        self._ignored.discard(name)
        self._listed -= {name}
        self.refresh()

    def refresh(self) -> None:
        """Index what other processes added or removed; ``missing``, ``get`` and ``len`` call it themselves.

        Costs one folder listing when nothing changed: 20 ms at 10,000 shards.

        Raises:
            UserError: if the folder exists but cannot be listed.
        """
        names = shard_names(self.folder)
        self._ignored &= names
        self._verified &= names
        if self._listed - names:
            self._forget()
        for name in sorted(names - self._listed - self._ignored):
            try:
                shard, keys = open_shard(self.folder / name, self._space, self.width)
            except ShardError as error:
                self._ignored.add(name)
                _warn_ignored(self.folder / name, error)
                continue
            start = self._starts[-1] + self._shards[-1].rows if self._shards else 0
            self._shards.append(shard)
            self._starts.append(start)
            for row in range(shard.rows):
                self._rows_by_key.setdefault(keys[row * KEY_BYTES : (row + 1) * KEY_BYTES], start + row)
        self._listed = names

    def _find(self, keys: Sequence[bytes]) -> npt.NDArray[np.int64]:
        """Row number of each key, -1 where not held; every shard they point to has passed its checksum."""
        while True:
            self.refresh()
            rows = np.fromiter((self._rows_by_key.get(key, -1) for key in keys), dtype=np.int64, count=len(keys))
            used = np.unique(self._shard_of(rows[rows >= 0])).tolist()
            # All are checked before starting over, so that many damaged shards cost one new index and not many.
            if all([self._passes(self._shards[shard]) for shard in used]):
                return rows
            self._forget()

    def _shard_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.searchsorted(self._starts, rows, side="right").astype(np.int64) - 1

    def _passes(self, shard: Shard) -> bool:
        name = shard.path.name
        if name not in self._verified:
            try:
                shard.verify()
            except ShardError as error:
                self._ignored.add(name)
                _warn_ignored(shard.path, error)
                return False
            self._verified.add(name)
        return True

    def _forget(self) -> None:
        """Start the index over: a shard's keys may also be held by another one that they had been hiding."""
        self._rows_by_key.clear()
        self._shards.clear()
        self._starts.clear()
        self._listed = frozenset()

    def _check_description(self) -> bool:
        """Whether the folder holds its description; refused if it is another one."""
        path = self.folder / DESCRIPTION_FILE
        try:
            held = json.loads(path.read_bytes())
        except FileNotFoundError:
            return False
        except OSError as error:
            raise unreadable(self.folder, error) from error
        except ValueError:
            held = None
        if held != self.description:
            raise UserError(
                f"{path} does not describe the features that belong there; delete the folder {self.folder}, its features are "
                "computed again"
            )
        return True

    def _sweep(self) -> None:
        """Remove what killed processes left behind; a day is longer than any shard takes to write."""
        if self._swept:
            return
        self._swept = True
        for path in self.folder.glob(f"{TEMPORARY_PREFIX}*"):
            with contextlib.suppress(OSError):  # another process may sweep too
                if time.time() - path.stat().st_mtime > _STALE_AFTER_SECONDS:
                    path.unlink()

    @contextlib.contextmanager
    def _explain_write_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write to the feature store {self.folder}: {error.strerror or error}; "
                "make room there, or let BIOMEDCOOP_CACHE name a folder that can be written"
            ) from error


def default_root() -> Path:
    """``features`` in the user's cache folder; see :func:`biomedcoop.output.cache_root`."""
    return cache_root() / "features"


def shard_names(folder: Path) -> frozenset[str]:
    """Names of the shards of a space; none if its folder does not exist."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.name.endswith(SUFFIX))
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise unreadable(folder, error) from error


def unreadable(folder: Path, error: OSError) -> UserError:
    """The error for a folder of the store that cannot be read."""
    return UserError(
        f"cannot read the feature store {folder}: {error.strerror or error}; let BIOMEDCOOP_CACHE name another folder"
    )


def _warn_ignored(path: Path, reason: ShardError) -> None:
    _log.warning(
        "ignored the feature shard %s: %s; its vectors are encoded again (delete the file if this message repeats)",
        path,
        reason,
    )
