"""Streams: in order, with bounded memory, without the store."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import torch

from biomedcoop.backbones.base import Backbone
from biomedcoop.errors import ImageError
from biomedcoop.features.passes import image_batch
from biomedcoop.features.stream import stream_features
from features.scans import Pixels, direct, pictures, write


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


def test_a_large_pass_is_not_filled_up(tiny: Backbone, passes: list[int]) -> None:
    """No more than to a full pass of the backbone's own (8 here)."""
    features = [feature for _, feature in stream_features(tiny, iter(pictures(11)), size=500)]
    assert [n for n in passes if n > 1] == [16], "beside it, one image alone may be tried"
    np.testing.assert_allclose(np.stack(features), direct(tiny, pictures(11)), atol=1e-5, rtol=0)  # type: ignore[arg-type]


def test_an_error_of_the_source_comes_through(tiny: Backbone) -> None:
    def breaking() -> Iterator[Pixels]:
        yield from pictures(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(stream_features(tiny, breaking()))
