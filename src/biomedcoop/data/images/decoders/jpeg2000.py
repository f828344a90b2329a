"""JPEG 2000. A depth above 8 bits is read from the codestream, because Pillow's image does not state it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from biomedcoop.data.images.decoders.pillow import PillowDecoder
from biomedcoop.data.images.samples import DEPTHS, Samples

_START = b"\xff\x4f\xff\x51"  # start of the codestream, then the marker of its sizes


def deep_samples(content: bytes, image: Image.Image) -> Samples | None:
    """Samples of a deep grey image; None if Pillow's 8 bits are right.

    Args:
        image: the image as Pillow opened it.

    Raises:
        ValueError: samples are signed, or colours use so few of their bits that Pillow's 8 bits would lose too much.
    """
    image.load()
    start = content.find(_START)
    channels = int.from_bytes(content[start + 40 : start + 42], "big")
    stated = content[start + 42 : start + 42 + 3 * channels : 3] if start >= 0 else b""
    bits = max((one & 0x7F) + 1 for one in stated) if stated else 8
    if any(one & 0x80 for one in stated):
        raise ValueError(f"signed samples of {bits} bits in JPEG 2000 are not read")
    if bits <= 8:
        return None
    if image.mode.startswith("I") and bits <= 16:  # Pillow has shifted the samples up to 16 bits
        values = np.asarray(image).astype(np.uint16) >> (16 - bits)
        return Samples(values, high=None if bits == 16 else 2**bits - 1)
    pixels = np.asarray(image)
    colours = pixels[..., : 3 if image.mode in ("RGB", "RGBA") else 1]
    # Pillow keeps the high byte of colours: enough if all 16 bits are used, too little if a smaller depth fits
    if bits > 16 or (bits == 16 and int(colours.max()) < 2 ** (DEPTHS[-2] - 8)):
        raise ValueError(f"{bits}-bit colours that use few of their bits are not read from JPEG 2000")
    return None


DECODERS = (PillowDecoder("JPEG2000", (".jp2", ".j2k", ".jpf", ".jpx", ".jpc", ".j2c"), deep_samples),)
