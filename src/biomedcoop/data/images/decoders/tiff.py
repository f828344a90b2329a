"""TIFF. The tags of samples that are not plain 8-bit are honoured, or the file is refused.

Pillow reads plain pages. ``tifffile`` reads the others, and is imported only for them. If it cannot decompress them without
further packages, libtiff inside Pillow does.
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
SAMPLES, MAX_SAMPLE, COLOUR_MAP, INK_SET, EXTRA = 277, 281, 320, 332, 338
SMALLEST, LARGEST, SUBSAMPLING, DEPTH = 340, 341, 530, 32997

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4}
"""Number of colour samples in a pixel, for each photometric interpretation that is read here."""

UNSIGNED, SIGNED, FLOAT, UNDEFINED = 1, 2, 3, 4
ASSOCIATED, UNASSOCIATED = 1, 2

_LZW, _ZSTD = 5, 50000
_BYTEWISE = (_LZW, 8, 32946, 32773, _ZSTD)
"""Compressions of bytes that libtiff undoes: LZW, deflate (two codes), PackBits, Zstandard."""

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # no log lines: faults are raised as errors


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
    """Whether a page holds unsigned samples of 1, 2, 4 or 8 bits that Pillow reads right if it can open the file."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    try:
        file = io.BytesIO(content)
        tags = ImageFileDirectory_v2(file.read(16 if content[2] == 43 else 8))
        for _ in range(frame + 1):
            if not tags.next:
                return True  # there is no such page; Pillow raises the error
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
    if photometric == YCBCR and compression == 1:
        return False  # Pillow before 13 reads too few bytes of them, and subsampled blocks as pixels
    return all_of(BITS, 1) in ({1}, {2}, {4}, {8}) and photometric in (*COLOURS, YCBCR)


def _decode_deep(content: bytes, frame: int) -> Decoded:
    """Samples of a page.

    Raises:
        ValueError: its samples are of a kind that is not understood, or it is damaged.
    """
    page = _page(io.BytesIO(content), frame)
    tags = page.tags
    photometric, several = int(tags.valueof(PHOTOMETRIC, WHITE_IS_ZERO)), len(page.parent.pages) > 1
    bits, kind = _single(tags.valueof(BITS, 1), "bits"), _single(tags.valueof(FORMAT, UNSIGNED), "sample formats")
    kind = UNSIGNED if kind == UNDEFINED else kind
    plain_ycbcr = photometric == YCBCR and (bits, kind, page.compression) == (8, UNSIGNED, 1)
    if photometric not in COLOURS and not (plain_ycbcr and tags.valueof(SUBSAMPLING) == (1, 1)):
        raise ValueError(f"{bits}-bit samples of the photometric interpretation {_name(page.photometric)} are not read")
    if kind not in (UNSIGNED, SIGNED, FLOAT) or (kind != UNSIGNED and bits not in (8, 16, 32, 64)):
        raise ValueError(f"samples of format {kind} with {bits} bits are not read")
    if photometric == CMYK and tags.valueof(INK_SET, 1) != 1:
        raise ValueError("its inks are not CMYK")
    values = _pixels(page, content)  # [H, W] or [H, W, S]
    if photometric == YCBCR:
        values, photometric = _rgb_of_ycbcr(values), RGB
    values, alpha, premultiplied = _split_channels(values, photometric, _extras(tags.valueof(EXTRA, ())))
    low, high = _range(page, bits, kind)
    if photometric == PALETTE:
        values, low, high = _apply_palette(values, np.asarray(page.colormap))
    samples = Samples(values, alpha, low, high, photometric == WHITE_IS_ZERO, premultiplied)
    return Decoded(samples, samples.mode, int(tags.valueof(ORIENTATION, 1)), several)


def _page(file: BinaryIO, number: int = 0) -> TiffPage:
    from tifffile import TiffFile, TiffFileError, TiffPage

    file.seek(0)
    try:
        pages = TiffFile(file).pages
        if number:
            check_frame(number, len(pages))
        page = pages[number] if number else pages.first
    except TiffFileError as error:  # in versions for Python 3.10 no ValueError
        raise ValueError(str(error)) from error
    if not isinstance(page, TiffPage):
        raise ValueError("it has no page of pixels")
    return page


def _name(code: Any) -> str:
    """The standard's name of a code if tifffile knows it, else the code."""
    return str(getattr(code, "name", code))


def _single(value: Any, what: str) -> int:
    values = set(value) if isinstance(value, tuple) else {value}
    if len(values) != 1:
        raise ValueError(f"its channels have different {what}: {', '.join(map(str, value))}")
    return int(values.pop())


def _extras(value: Any) -> tuple[int, ...]:
    return tuple(map(int, value)) if isinstance(value, tuple) else (int(value),)


def _pixels(page: TiffPage, content: bytes) -> Values:
    """Samples as stored, [H, W] or [H, W, S]; missing data are an error and not filled in."""
    full_size = int(page.size) * page.bitspersample // 8
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if not ends or max(ends) > len(content) or 0 in page.databytecounts:
        raise ValueError("truncated: its tags point beyond the end of the file")
    if page.compression == 1 and sum(page.databytecounts) < full_size:
        raise ValueError(f"truncated: only {sum(page.databytecounts)} of {full_size} bytes are there")
    if page.predictor == 3:
        return _float_by_libtiff(content, page.index)
    if page.compression in (_LZW, _ZSTD) or page.bitspersample not in (8, 16, 32, 64):
        page = _uncompressed(page, content)
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


def _uncompressed(page: TiffPage, content: bytes) -> TiffPage:
    """The same page with uncompressed strips or tiles after the end of the file, for what tifffile alone cannot unpack."""
    bits, compression = page.bitspersample, int(page.compression)
    if page.fillorder != 1 or (compression != 1 and compression not in _BYTEWISE) or page.predictor not in (1, 2):
        raise ValueError(f"{bits}-bit samples with the compression {_name(page.compression)} are not read")
    if bits > 16 and bits not in (32, 64):
        raise ValueError(f"samples of {bits} bits are not read")
    columns, max_rows = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.rowsperstrip)
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    strips = -(-page.imagelength // max_rows)
    dtype = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
    pieces, offsets, end = [content], [], len(content)
    for number, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        rows = max_rows if page.is_tiled else min(max_rows, page.imagelength - number % strips * max_rows)
        row_bytes = -(-columns * samples * bits // 8)
        data = content[offset : offset + count]
        if compression != 1:
            data = _libtiff_bytes(data, compression, rows * row_bytes)
        if len(data) < rows * row_bytes:
            raise ValueError(f"truncated: only {len(data)} of {rows * row_bytes} bytes are there")
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
    """Samples [rows, length] of any number of bits; each row begins at a new byte."""
    if bits == dtype.itemsize * 8:
        return np.frombuffer(data, dtype).reshape(rows, length)
    single = np.unpackbits(np.frombuffer(data, np.uint8).reshape(rows, -1), axis=1)[:, : length * bits]
    values: Values = np.zeros((rows, length), dtype=np.uint16)
    for place in range(bits):
        values = values << 1 | single[:, place::bits]
    return values


def _libtiff_bytes(data: bytes, compression: int, count: int) -> bytes:
    """Decompress ``data`` to ``count`` bytes: libtiff reads it as an 8-bit grey image of one row."""
    from PIL.TiffImagePlugin import TiffImageFile

    tags = [(WIDTH, count), (HEIGHT, 1), (BITS, 8), (COMPRESSION, compression), (PHOTOMETRIC, BLACK_IS_ZERO)]
    start = 8 + 2 + 12 * 9 + 4
    tags += [(273, start), (SAMPLES, 1), (278, 1), (279, len(data))]
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    file = io.BytesIO(struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + table + struct.pack("<I", 0) + data)
    with TiffImageFile(file) as image:
        plain: bytes = image.tobytes()
    return plain


def _rgb_of_ycbcr(values: Values) -> Values:
    """8-bit luminance and two colour differences -> RGB, [H, W, 3]."""
    from PIL import Image

    if values.ndim != 3 or values.shape[2] != 3:
        raise ValueError(f"YCbCr in {values.shape[2] if values.ndim == 3 else 1} channels in place of 3")
    height, width, _ = values.shape
    return np.asarray(Image.frombytes("YCbCr", (width, height), values.tobytes()).convert("RGB"))


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
    raise ValueError("samples with the floating-point predictor are read only if they are grey with 32 bits")


def _split_channels(values: Values, photometric: int, extras: tuple[int, ...]) -> tuple[Values, Values | None, bool]:
    """Colours, alpha, and whether the colours are already multiplied by alpha."""
    colours = COLOURS[photometric]
    channels = values.shape[2] if values.ndim == 3 else 1
    more = channels - colours
    if more == 1 and not extras and photometric == RGB:
        extras = (UNASSOCIATED,)  # alpha, as Pillow reads a fourth sample without description
    known = more == len(extras) and (photometric == RGB or extras in ((), (ASSOCIATED,), (UNASSOCIATED,)))
    if more < 0 or not known or (photometric in (PALETTE, CMYK) and more):
        raise ValueError(f"{channels} channels, but its tags describe only {colours} as colour")
    if not more:
        return values, None, False
    colour_values = values[..., :colours] if colours > 1 else values[..., 0]
    alphas = [index for index, extra in enumerate(extras) if extra in (ASSOCIATED, UNASSOCIATED)]
    if not alphas:
        return colour_values, None, False
    return colour_values, values[..., colours + alphas[0]], extras[alphas[0]] == ASSOCIATED


def _range(page: TiffPage, bits: int, kind: int) -> tuple[float, float | None]:
    """Smallest and largest value that the tags state; the largest is None if they state only the size of the container."""
    smallest, largest = page.tags.valueof(SMALLEST), page.tags.valueof(LARGEST)
    if largest is not None and (smallest is not None or kind == UNSIGNED):
        lows = (0,) if smallest is None else smallest if isinstance(smallest, tuple) else (smallest,)
        highs = largest if isinstance(largest, tuple) else (largest,)
        return float(min(lows)), float(max(highs))
    if kind != UNSIGNED:
        return 0, None
    if bits not in (8, 16, 32, 64):
        return 0, 2**bits - 1
    stated = page.tags.valueof(MAX_SAMPLE)
    stated = max(stated) if isinstance(stated, tuple) else stated
    if bits != 16 or stated is None or stated <= 0:
        return 0, (255 if bits == 8 else None)
    # MaxSampleValue is used for the depth or, as in the standard, for the largest value that occurs
    exact = stated if (stated + 1) & stated == 0 and stated >= 255 else None
    return 0, exact or 2 ** next(depth for depth in DEPTHS if stated < 2**depth) - 1


def _apply_palette(values: Values, table: Values) -> tuple[Values, float, float]:
    """Palette indices -> colours, of 8 bits if the largest value of the palette fits, else of 16 bits."""
    if int(values.max()) >= table.shape[1]:
        raise ValueError(f"colour {int(values.max())} is not in its palette of {table.shape[1]} colours")
    return np.moveaxis(table[:, values], 0, -1), 0, 255 if int(table.max()) < 256 else 65535


DECODERS = (Tiff("TIFF", (".tif", ".tiff")),)
