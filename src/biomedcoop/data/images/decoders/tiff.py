"""TIFF. Where samples are not plain 8-bit, what the tags say of them is honoured, or the file is refused.

Plain pages are Pillow's. ``tifffile`` reads the others, and is imported only for them. What it cannot decompress without further
packages, libtiff inside Pillow can.
"""

from __future__ import annotations

import io
import logging
import struct
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import UnidentifiedImageError

from biomedcoop.data.images.decoders.base import Decoded, DecodeOptions, check_frame
from biomedcoop.data.images.decoders.pillow import PillowDecoder
from biomedcoop.data.images.samples import DEPTHS, Samples, Values

if TYPE_CHECKING:
    from tifffile import TiffPage

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, FORMAT = 256, 257, 258, 259, 262, 274, 339
SAMPLES, MAX_SAMPLE, PLANES, COLOUR_MAP, INK_SET, EXTRA = 277, 281, 284, 320, 332, 338
SMALLEST, LARGEST, SUBSAMPLING, DEPTH = 340, 341, 530, 32997

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4}
"""Samples of a pixel that are colour, for each photometric interpretation that is read here."""

UNSIGNED, SIGNED, FLOAT, UNDEFINED = 1, 2, 3, 4
ASSOCIATED, UNASSOCIATED = 1, 2

_LZW, _ZSTD = 5, 50000
_BYTEWISE = (_LZW, 8, 32946, 32773, _ZSTD)
"""Compressions of bytes that libtiff undoes: LZW, deflate under two numbers, PackBits, Zstandard."""

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what is wrong becomes an error of ours


class Tiff(PillowDecoder):
    """Pillow for plain pages, tifffile for the others and for files that Pillow does not know."""

    def recognizes(self, start: bytes) -> bool:
        return start[:4] in MAGIC or super().recognizes(start)

    def size(self, file: BinaryIO) -> tuple[int, int]:
        try:
            return super().size(file)
        except UnidentifiedImageError:
            page = _page(file)
            return page.imagewidth, page.imagelength

    def decode(self, content: bytes, options: DecodeOptions) -> Decoded:
        if content[:4] in MAGIC and not _is_plain(content, options.frame):
            return _decode_deep(content, options.frame)
        try:
            return super().decode(content, options)
        except UnidentifiedImageError:
            if content[:4] not in MAGIC:
                raise
            return _decode_deep(content, options.frame)


def _is_plain(content: bytes, frame: int) -> bool:
    """Whether a page holds 8-bit unsigned samples (or 1, 2, 4 bits) of a kind that Pillow reads right, if it reads it."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    try:
        file = io.BytesIO(content)
        tags = ImageFileDirectory_v2(file.read(16 if content[2] == 43 else 8))
        for _ in range(frame + 1):
            if not tags.next:
                return True  # there is no such page, as Pillow will say
            file.seek(tags.next)
            tags.load(file)
    except (SyntaxError, OSError, ValueError, struct.error):
        return False

    def all_of(tag: int, default: int) -> set[Any]:
        value = tags.get(tag, default)
        return set(value) if isinstance(value, tuple) else {value}

    photometric, compression = tags.get(PHOTOMETRIC, WHITE_IS_ZERO), tags.get(COMPRESSION, 1)
    if SMALLEST in tags or LARGEST in tags or not all_of(FORMAT, UNSIGNED) <= {UNSIGNED, UNDEFINED}:
        return False
    if tags.get(DEPTH, 1) != 1 or (photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO) and 0 in all_of(EXTRA, 1)):
        return False  # a volume, or a second channel that nothing explains
    if photometric == PALETTE and max(all_of(COLOUR_MAP, 0)) < 256:
        return False  # 8-bit colours in a table of 16 bits
    if photometric == YCBCR and compression == 1 and (tags.get(SUBSAMPLING) != (1, 1) or tags.get(PLANES, 1) != 1):
        return False  # blocks of subsampled colours, which Pillow takes for pixels
    return all_of(BITS, 1) in ({1}, {2}, {4}, {8}) and photometric in (*COLOURS, YCBCR)


def _decode_deep(content: bytes, frame: int) -> Decoded:
    """Samples of a page.

    Raises:
        ValueError: its samples are of a kind that is not understood, or it is damaged.
    """
    page = _page(io.BytesIO(content), frame)
    tags = page.tags
    photometric, several = int(tags.valueof(PHOTOMETRIC, WHITE_IS_ZERO)), len(page.parent.pages) > 1
    bits, kind = _one(tags.valueof(BITS, 1), "bits"), _one(tags.valueof(FORMAT, UNSIGNED), "sample formats")
    kind = UNSIGNED if kind == UNDEFINED else kind
    if photometric not in COLOURS:
        raise ValueError(f"{bits}-bit samples of the photometric interpretation {_name(page.photometric)} are not read")
    if kind not in (UNSIGNED, SIGNED, FLOAT) or (kind != UNSIGNED and bits not in (8, 16, 32, 64)):
        raise ValueError(f"samples of format {kind} with {bits} bits are not read")
    if photometric == CMYK and tags.valueof(INK_SET, 1) != 1:
        raise ValueError("its inks are other than CMYK")
    values = _pixels(page, content)  # [H, W] or [H, W, S]
    values, alpha, premultiplied = _without_extras(values, photometric, _extras(tags.valueof(EXTRA, ())))
    low, high = _range(page, bits, kind)
    if photometric == PALETTE:
        values, low, high = _coloured(values, np.asarray(page.colormap))
    samples = Samples(values, alpha, low, high, photometric == WHITE_IS_ZERO, premultiplied)
    return Decoded(samples, samples.mode, int(tags.valueof(ORIENTATION, 1)), several)


def _page(file: BinaryIO, number: int = 0) -> TiffPage:
    from tifffile import TiffFile, TiffPage

    file.seek(0)
    pages = TiffFile(file).pages
    if number:
        check_frame(number, len(pages))
    page = pages[number] if number else pages.first
    if not isinstance(page, TiffPage):
        raise ValueError("it has no page of pixels")
    return page


def _name(code: Any) -> str:
    """What the standard calls a number, where tifffile knows it."""
    return str(getattr(code, "name", code))


def _one(value: Any, what: str) -> int:
    values = set(value) if isinstance(value, tuple) else {value}
    if len(values) != 1:
        raise ValueError(f"its channels have different {what}: {', '.join(map(str, value))}")
    return int(values.pop())


def _extras(value: Any) -> tuple[int, ...]:
    return tuple(map(int, value)) if isinstance(value, tuple) else (int(value),)


def _pixels(page: TiffPage, content: bytes) -> Values:
    """Samples as stored, [H, W] or [H, W, S]; nothing is filled in where data are missing."""
    whole = int(page.size) * page.bitspersample // 8
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if not ends or max(ends) > len(content) or 0 in page.databytecounts:
        raise ValueError("truncated: its tags point beyond its end")
    if page.compression == 1 and sum(page.databytecounts) < whole:
        raise ValueError(f"truncated: {sum(page.databytecounts)} of {whole} bytes are there")
    if page.predictor == 3:
        return _float_by_libtiff(content, page.index)
    if page.compression in (_LZW, _ZSTD) or page.bitspersample not in (8, 16, 32, 64):
        page = _plain(page, content)
    try:
        values: Values = page.asarray(maxworkers=1)
    except ValueError as error:
        if "imagecodecs" in str(error):
            method = _name(page.compression)
            raise ValueError(f"{page.bitspersample}-bit samples with the compression {method} are not read") from error
        raise
    axes = page.axes
    if "Z" in axes or values.ndim != len(axes) or values.ndim > 3:
        raise ValueError(f"the page holds a volume or a series ({axes} {list(values.shape)}), not one image")
    return np.moveaxis(values, axes.index("S"), -1) if "S" in axes else values


def _plain(page: TiffPage, content: bytes) -> TiffPage:
    """The same page with its strips or tiles as plain samples, put behind the file's end: what tifffile alone cannot unpack."""
    bits, compression = page.bitspersample, int(page.compression)
    if page.fillorder != 1 or (compression != 1 and compression not in _BYTEWISE) or page.predictor not in (1, 2):
        raise ValueError(f"{bits}-bit samples with the compression {_name(page.compression)} are not read")
    if bits > 16 and bits not in (32, 64):
        raise ValueError(f"samples of {bits} bits are not read")
    columns, most = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.rowsperstrip)
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    strips = -(-page.imagelength // most)
    dtype = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
    pieces, offsets, end = [content], [], len(content)
    for number, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        rows = most if page.is_tiled else min(most, page.imagelength - number % strips * most)
        row_bytes = -(-columns * samples * bits // 8)
        data = content[offset : offset + count]
        if compression != 1:
            data = _libtiff_bytes(data, compression, rows * row_bytes)
        if len(data) < rows * row_bytes:
            raise ValueError(f"truncated: {len(data)} of {rows * row_bytes} bytes are there")
        values = _unpacked(data[: rows * row_bytes], rows, columns * samples, bits, dtype)
        if page.predictor == 2:
            values = np.cumsum(values.reshape(rows, columns, samples), axis=1, dtype=dtype.newbyteorder("="))
        pieces.append(values.astype(dtype).tobytes())
        offsets.append(end)
        end += len(pieces[-1])
    plain = _page(io.BytesIO(b"".join(pieces)), page.index)
    plain.compression, plain.predictor, plain.bitspersample = type(plain.compression)(1), 1, dtype.itemsize * 8
    plain.dataoffsets, plain.databytecounts = tuple(offsets), tuple(map(len, pieces[1:]))
    return plain


def _unpacked(data: bytes, rows: int, length: int, bits: int, dtype: np.dtype[Any]) -> Values:
    """Samples [rows, length] of any number of bits, each row beginning with a byte."""
    if bits == dtype.itemsize * 8:
        return np.frombuffer(data, dtype).reshape(rows, length)
    single = np.unpackbits(np.frombuffer(data, np.uint8).reshape(rows, -1), axis=1)[:, : length * bits]
    values: Values = np.zeros((rows, length), dtype=np.uint16)
    for place in range(bits):
        values = values << 1 | single[:, place::bits]
    return values


def _libtiff_bytes(data: bytes, compression: int, count: int) -> bytes:
    """Decompress ``data`` to ``count`` bytes, as the one row of an 8-bit grey image."""
    from PIL.TiffImagePlugin import TiffImageFile

    tags = [(WIDTH, count), (HEIGHT, 1), (BITS, 8), (COMPRESSION, compression), (PHOTOMETRIC, BLACK_IS_ZERO)]
    start = 8 + 2 + 12 * 9 + 4
    tags += [(273, start), (SAMPLES, 1), (278, 1), (279, len(data))]
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    file = io.BytesIO(struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + table + struct.pack("<I", 0) + data)
    with TiffImageFile(file) as image:
        plain: bytes = image.tobytes()
    return plain


def _float_by_libtiff(content: bytes, frame: int) -> Values:
    """Float samples whose bytes were reordered before compression, which only libtiff undoes."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=("TIFF",)) as image:
            image.seek(frame)
            if image.mode == "F":
                return np.asarray(image)
    except UnidentifiedImageError:
        pass
    raise ValueError("samples with the floating-point predictor are read only where they are grey of 32 bits")


def _without_extras(values: Values, photometric: int, extras: tuple[int, ...]) -> tuple[Values, Values | None, bool]:
    """Colours, alpha, and whether the colours hold it already."""
    colours = COLOURS[photometric]
    channels = values.shape[2] if values.ndim == 3 else 1
    more = channels - colours
    if more == 1 and not extras and photometric == RGB:
        extras = (UNASSOCIATED,)  # as Pillow takes four samples whose last has no description
    known = more == len(extras) and (photometric == RGB or extras in ((), (ASSOCIATED,), (UNASSOCIATED,)))
    if more < 0 or not known or (photometric in (PALETTE, CMYK) and more):
        raise ValueError(f"{channels} channels, of which its tags describe no more than {colours} as colour")
    if not more:
        return values, None, False
    own = values[..., :colours] if colours > 1 else values[..., 0]
    alphas = [index for index, extra in enumerate(extras) if extra in (ASSOCIATED, UNASSOCIATED)]
    if not alphas:
        return own, None, False
    return own, values[..., colours + alphas[0]], extras[alphas[0]] == ASSOCIATED


def _range(page: TiffPage, bits: int, kind: int) -> tuple[float, float | None]:
    """Smallest and largest value as the tags state them; None for the largest where they state no more than a container."""
    smallest, largest = page.tags.valueof(SMALLEST), page.tags.valueof(LARGEST)
    if largest is not None and (smallest is not None or kind == UNSIGNED):
        lows = (0,) if smallest is None else smallest if isinstance(smallest, tuple) else (smallest,)
        highs = largest if isinstance(largest, tuple) else (largest,)
        return float(min(lows)), float(max(highs))
    if kind != UNSIGNED:
        return 0, None
    if bits not in (8, 16, 32, 64):
        return 0, 2**bits - 1
    most = page.tags.valueof(MAX_SAMPLE)
    most = max(most) if isinstance(most, tuple) else most
    if bits != 16 or most is None or most <= 0:
        return 0, (255 if bits == 8 else None)
    # a depth, or by the standard the largest value that occurs
    exact = most if (most + 1) & most == 0 and most >= 255 else None
    return 0, exact or 2 ** next(depth for depth in DEPTHS if most < 2**depth) - 1


def _coloured(values: Values, table: Values) -> tuple[Values, float, float]:
    """Numbers of colours -> colours of 8 or 16 bits, as their largest value says."""
    if int(values.max()) >= table.shape[1]:
        raise ValueError(f"colour {int(values.max())} is not in its table of {table.shape[1]}")
    return np.moveaxis(table[:, values], 0, -1), 0, 255 if int(table.max()) < 256 else 65535


DECODERS = (Tiff("TIFF", (".tif", ".tiff")),)
