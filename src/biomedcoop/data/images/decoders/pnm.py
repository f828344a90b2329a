"""PNM. Samples above 8 bits are read here, because Pillow scales them to 8 or 16 bits by its own rules."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

from biomedcoop.data.images.decoders.pillow import PillowDecoder
from biomedcoop.data.images.samples import Samples

_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_HEADER = re.compile(rb"P([2356])" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)(?:#[^\r\n]*)?\s")


def deep_samples(content: bytes, image: Image.Image) -> Samples | None:
    """All bits of a deep image. The stated largest value sets the range, except 65535, which only describes the container.

    Returns:
        None if Pillow's 8 bits are right.

    Raises:
        ValueError: samples are missing or exceed the stated largest value.
    """
    header = _HEADER.match(content)
    if header is None or not 255 < int(header[4]) <= 0xFFFF:
        return None
    kind, width, height, largest = (int(word) for word in header.groups())
    shape = (height, width) if kind in (2, 5) else (height, width, 3)
    count = int(np.prod(shape))
    if kind in (5, 6):
        available = min(count, (len(content) - header.end()) // 2)
        values = np.frombuffer(content, ">u2", available, header.end()).astype(np.int64)
    else:
        values = np.array(re.sub(rb"#[^\r\n]*", b"", content[header.end() :]).split()[:count], dtype=np.int64)
    if len(values) < count:
        raise ValueError(f"truncated: only {len(values)} of {count} samples are there")
    if values.min(initial=0) < 0 or values.max(initial=0) > largest:
        raise ValueError(
            f"it states a largest value of {largest} but holds values from {values.min()} to {values.max()}"
        )
    return Samples(values.reshape(shape).astype(np.uint16), high=None if largest == 0xFFFF else largest)


DECODERS = (PillowDecoder("PPM", (".pgm", ".ppm", ".pbm", ".pnm", ".pfm"), deep_samples),)
