"""PNG. Pillow keeps only the high byte of 16-bit samples with colour or alpha; this module reads all 16 bits."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from biomedcoop.data.images.decoders.pillow import PillowDecoder
from biomedcoop.data.images.samples import Samples, Values

GREY, RGB, GREY_ALPHA, RGB_ALPHA = 0, 2, 4, 6
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def deep_samples(content: bytes, image: Image.Image) -> Samples | None:
    """All 16 bits of a deep image; None if Pillow's 8 bits are right.

    Args:
        image: the image as Pillow opened it.

    Raises:
        ValueError: the pixels cannot be decompressed, or they belong to a later frame of a 16-bit animation.
    """
    if content[24:25] != b"\x10":
        _scale_transparent_grey(content, image)
        return None
    if image.tell():
        raise ValueError("only the first frame of a 16-bit animation is read")
    image.load()  # checks the file; gives all bits of grey and the high bytes of other samples
    kind, interlaced = content[25], content[28]
    chunks = list(_chunks(content))
    data = b"".join(body for name, body in chunks if name == b"IDAT")

    def unpacked(mode: str, rawmode: str) -> Values:
        return np.asarray(Image.frombytes(mode, image.size, data, "zip", rawmode, interlaced))

    values: Values
    alpha: Values | None = None
    if kind == GREY:
        values = np.asarray(image).astype(np.uint16)
    elif kind == GREY_ALPHA:  # the four bytes of a pixel, read as four channels
        both = unpacked("RGBA", "RGBA").astype(np.uint16)
        values, alpha = both[..., 0] << 8 | both[..., 1], both[..., 2] << 8 | both[..., 3]
    else:
        # with the opposite byte order, Pillow keeps the low byte
        mode = "RGB" if kind == RGB else "RGBA"
        values = np.asarray(image).astype(np.uint16) << 8 | unpacked(mode, f"{mode};16L")
        values, alpha = values[..., :3], values[..., 3] if kind == RGB_ALPHA else None
    stated = _significant_bits(chunks, kind, values)
    for name, body in chunks:
        if name == b"tRNS" and alpha is None:
            clear = np.array(struct.unpack(f">{len(body) // 2}H", body), dtype=np.uint16)
            same = values == clear
            alpha = np.where(same.all(-1) if values.ndim == 3 else same, 0, 0xFFFF).astype(np.uint16)
    return Samples(values, alpha, high=None if stated is None else 2**stated - 1)


def _scale_transparent_grey(content: bytes, image: Image.Image) -> None:
    """Scale the transparent grey of a 2- or 4-bit image to 8 bits, as Pillow scales its pixels."""
    image.load()  # before that, Pillow may not have read the transparency
    if content[25] == GREY and content[24] in (2, 4) and "transparency" in image.info:
        image.info["transparency"] *= 255 // (2 ** content[24] - 1)


def _significant_bits(chunks: list[tuple[bytes, bytes]], kind: int, values: Values) -> int | None:
    """Depth that sBIT states: 16 if the samples are scaled up as the standard asks, else the stated bits; None without sBIT."""
    body = next((body for name, body in chunks if name == b"sBIT"), b"")
    bits = max(body[:3] if kind in (RGB, RGB_ALPHA) else body[:1], default=0)
    if not 0 < bits <= 16:
        return None
    if bits == 16 or int(values.max()) >= 2**bits:
        return 16
    # small values are either dark samples scaled up (by zeros, repetition or rounding) or samples not scaled up
    top = values >> (16 - bits)
    rounded = (top.astype(np.uint32) * 0xFFFF + (2**bits - 1) // 2) // (2**bits - 1)
    repeated = top << (16 - bits) | (top >> (2 * bits - 16) if bits >= 8 else 0)
    scaled_up = (values == top << (16 - bits)) | (values == repeated) | (values == rounded)
    return 16 if scaled_up.all() else bits


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    start = len(_SIGNATURE)
    while start + 8 <= len(content):
        (length,) = struct.unpack(">I", content[start : start + 4])
        yield content[start + 4 : start + 8], content[start + 8 : start + 8 + length]
        start += 12 + length


DECODERS = (PillowDecoder("PNG", (".png",), deep_samples),)
