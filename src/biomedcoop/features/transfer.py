"""Rows of the feature store that travel to the store of another machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from biomedcoop.features.shard import KEY_BYTES
from biomedcoop.features.spaces import Space
from biomedcoop.features.store import FeatureStore, default_root


class Rows(NamedTuple):
    """Vectors of one space.

    Attributes:
        keys: uint8 [n, 32].
        features: float32 [n, E].
    """

    space: Space
    keys: npt.NDArray[np.uint8]
    features: npt.NDArray[np.float32]


def read_rows(space: Space, keys: Sequence[bytes]) -> Rows:
    """The vectors that the store of this machine holds under some of the keys.

    Args:
        keys: n keys of 32 bytes.
    """
    features, found = FeatureStore(default_root(), space).get(keys)
    return Rows(space, np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)[found], features[found])


def write_rows(rows: Rows) -> None:
    """Add vectors to the store of this machine; those that it holds already stay as they are.

    Raises:
        UserError: the store cannot be written.
    """
    FeatureStore(default_root(), rows.space).put([key.tobytes() for key in rows.keys], rows.features)
