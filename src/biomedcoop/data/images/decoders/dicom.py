"""DICOM. Modality LUT, window, then inversion, in the order of PS3.3 C.11 and PS3.4 N.2; pydicom parses and decompresses.

Of a header only the elements that :data:`TAGS` names are read, none of which names a person, but for the question whether the file
does. Messages quote no value of a header.
"""

from __future__ import annotations

import hashlib
import io
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from biomedcoop.data.archives import MAX_RATIO, SMALL
from biomedcoop.data.images import apart
from biomedcoop.data.images.decoders.base import Decoded, DecodeOptions, Refused, check_frame
from biomedcoop.data.images.dicom_warnings import quiet
from biomedcoop.data.images.samples import Samples
from biomedcoop.data.images.windows import (
    ASKED,
    AUTO,
    BY_NAME,
    CT_SOFT,
    FROM_FILE,
    FROM_LUT,
    FUNCTIONS,
    PERCENTILES,
    PRESETS,
    STORED_RANGE,
    asked_window,
    between,
    in_range,
    linear_exact,
    overflows,
    percentiles,
    to_bytes,
)

if TYPE_CHECKING:
    from pydicom import Dataset

MARK, MARK_AT = b"DICM", 128
"""What stands behind the preamble of a DICOM file."""

MAX_FRAMES = 10_000
"""Largest number of frames of a file."""

MAX_INFLATED = 2**30
"""Largest size of a deflated file when it is inflated, bytes; each stored byte may become as many as in a zip archive."""

NEEDED = "DICOM needs pydicom: pip install 'biomedcoop[dicom]'"

NO_PIXELS = "it holds no pixels (Pixel Data (7FE0,0010) is missing); copy it again or remove it"

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

NO_IMAGES = ("SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "RTRECORD", "RTIMAGE", "SR", "PR", "KO", "REG", "DOC", "AU", "ECG")
"""Modality (0008,0060) of objects that are no images to classify, although some hold pixels."""

BURNED_IN_LIKELY = ("US", "SC", "ES", "OT", "XC", "GM")
"""Modality of images that often show text; without the attribute Burned In Annotation nothing is known."""

COLOURS = {
    1: ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"),
    3: ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"),
}
"""Samples of a pixel -> values of Photometric Interpretation (0028,0004) that are read."""

COLOURS_NOT_READ = ("YBR_PARTIAL_420", "YBR_PARTIAL_422", "HSV", "ARGB", "CMYK", "XYB")

TAGS = (
    *(
        "SOPClassUID",
        "Modality",
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "PlanarConfiguration",
        "NumberOfFrames",
        "Rows",
    ),
    *("Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue"),
    *(
        "PixelPaddingRangeLimit",
        "ModalityLUTSequence",
        "RescaleSlope",
        "RescaleIntercept",
        "RescaleType",
        "VOILUTSequence",
    ),
    *("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction", "PresentationLUTShape"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PixelSpacing", "PixelAspectRatio"),
    *("ImagerPixelSpacing", "NominalScannedPixelSpacing", "ICCProfile", "OpticalPathSequence", "BurnedInAnnotation"),
    "ConversionType",
    *("PatientIdentityRemoved", "PatientName", "PatientID"),
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for part in ("Descriptor", "Data")
    ),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
)
_PIXEL_TAGS = (*PIXELS, "ExtendedOffsetTable", "ExtendedOffsetTableLengths")

PACKAGES = {"JPEG Lossless": "python-gdcm", "JPEG-LS": "pyjpegls", "JPEG 2000": "'pylibjpeg[openjpeg]'"} | {
    "High-Throughput JPEG 2000": "'pylibjpeg[openjpeg]'",
    "JPEG": "pillow or python-gdcm",
}
"""Begin of a transfer syntax's name -> the package that decodes it; the extra ``dicom`` holds all of them."""

PLUGINS = ("pydicom", "pylibjpeg", "pyjpegls", "pillow", "gdcm")
"""Decoders by their names in pydicom, the most robust first. On damaged data pylibjpeg panics with RLE, and GDCM, which alone
decodes JPEG lossless, ends the process: it runs apart."""

DAMAGE = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError),
    *(ZeroDivisionError, NotImplementedError, RuntimeError, struct.error, zlib.error),
)
"""Exceptions that pydicom and its decoders raise on broken content."""

Grey = npt.NDArray[np.float64]


class DicomDecoder:
    """Reads one frame of a DICOM file as it is meant to be seen."""

    name = "DICOM"
    suffixes = (".dcm", ".dicom")
    windowed = True

    def recognizes(self, start: bytes) -> bool:
        return start[MARK_AT : MARK_AT + len(MARK)] == MARK or begins_without_mark(start)

    def size(self, file: BinaryIO) -> tuple[int, int]:
        header = read_header(file, TAGS, pixels=False)
        with reading():
            rows, columns, _ = shape_of(header)
        return columns, rows

    def decode(self, content: bytes, options: DecodeOptions) -> Decoded:
        data = read_header(io.BytesIO(content), (*TAGS, *_PIXEL_TAGS), pixels=True)
        with reading():
            return self._decode(content, data, options)

    def _decode(self, content: bytes, data: Dataset, options: DecodeOptions) -> Decoded:
        check_kind(data)
        if not any(name in data for name in PIXELS):
            raise Refused(NO_PIXELS)
        _, _, frames = shape_of(data)
        check_frame(options.frame, frames)
        check_pixels(data, options.frame, frames)
        samples = whole(data, "SamplesPerPixel", 1)
        kind = colours_of(data, samples)
        groups = functional_groups(data, options.frame)
        if samples == 1 and kind in ("MONOCHROME1", "MONOCHROME2"):
            pixels, window = grey(data, groups, stored_values(content, data, options.frame), options.window)
            if kind == "MONOCHROME1" or word(data, "PresentationLUTShape") == "INVERSE":
                pixels = 255 - pixels
            image: Image.Image | Samples = Image.fromarray(pixels)
        else:
            if options.window != AUTO:
                raise Refused(
                    f"the window {options.window} is for grey images, but this one is in colour; leave it out"
                )
            image, window = colour(data, kind, samples, stored_values(content, data, options.frame)), 0
        bits = whole(data, "BitsStored", 32)
        letter = "S" if samples == 1 and whole(data, "PixelRepresentation", 0) else "I" if samples == 1 else "RGB"
        mode = {"I": "L"}.get(letter, letter) if bits <= 8 else f"{letter};{bits}"
        aspect = pixel_aspect(data, groups)
        return Decoded(image, mode, pixel_aspect=aspect, window=window, marks=marks_of(data))


def begins_without_mark(start: bytes) -> bool:
    """Whether a file begins with two elements of the meta header or of group 8: old archives write neither preamble nor mark."""
    for order in "<>":
        if len(start) < 8:
            return False
        group, element, length = struct.unpack_from(f"{order}HHI", start)
        if start[4:6].isalpha() and start[4:6].isupper():  # an explicit VR
            (length,) = struct.unpack_from(f"{order}H", start, 6)
        if group in (2, 8) and length % 2 == 0 and 12 + length <= len(start):
            following, further = struct.unpack_from(f"{order}HH", start, 8 + length)
            if following == group and further > element:
                return True
    return False


def read_header(file: BinaryIO, tags: tuple[str, ...], pixels: bool) -> Dataset:
    """The named elements of a DICOM file.

    Args:
        file: the open file, at its begin.
        pixels: read on to the pixels.

    Raises:
        Refused: pydicom is missing, or the file is damaged.
    """
    try:
        from pydicom import dcmread
        from pydicom.errors import BytesLengthException, InvalidDicomError
        from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
    except ImportError:
        raise Refused(NEEDED) from None
    with quiet():
        _check_deflated(file)
        try:
            # a decoder has recognised the file, with or without the mark
            data = dcmread(file, stop_before_pixels=not pixels, specific_tags=list(tags), force=True)
            if data.preamble is None and "TransferSyntaxUID" not in data.file_meta:
                implicit, little = data.original_encoding
                data.file_meta.TransferSyntaxUID = (
                    (ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian) if little else ExplicitVRBigEndian
                )
            data.file_meta.TransferSyntaxUID  # noqa: B018 - a damaged one fails here
        except (*DAMAGE, BytesLengthException, InvalidDicomError) as error:
            raise damaged(error) from None  # the text of the error may quote the header
        return data


def damaged(error: BaseException) -> Refused:
    """What is said of a file that pydicom cannot read; without the words of the error, which may quote the header."""
    if isinstance(error, EOFError):
        return Refused("the file is truncated; copy it again or remove it")
    return Refused(f"the DICOM file is damaged ({type(error).__name__}); copy it again or remove it")


def _check_deflated(file: BinaryIO) -> None:
    """Refuse a deflated file that would fill the memory."""
    from pydicom.filereader import read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    begin = file.read(4096)
    most = min(MAX_INFLATED, max(SMALL, MAX_RATIO * file.seek(0, io.SEEK_END)))
    file.seek(0)
    if str(DeflatedExplicitVRLittleEndian).encode() not in begin:
        return
    try:
        from pydicom.filereader import _read_file_meta_info

        read_preamble(file, force=True)
        _read_file_meta_info(file)
        inflate, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while chunk := inflate.unconsumed_tail or file.read(2**16):
            size += len(inflate.decompress(chunk, 2**20))
            if size > most:
                raise Refused(f"it inflates to more than {most:,} bytes; give the image without deflation")
            if inflate.eof:
                break
    except DAMAGE as error:
        raise (error if isinstance(error, Refused) else damaged(error)) from None
    file.seek(0)


def check_kind(data: Dataset) -> None:
    """Refuse objects that are no images to classify.

    Raises:
        Refused: it is one.
    """
    if (kind := no_image(data)) is not None:
        raise Refused(f"it is no image to classify ({kind}); leave it out")


def no_image(data: Dataset) -> str | None:
    """What a DICOM file is if it is no image to classify: "DICOMDIR", a modality such as "SR", "no pixels"; None for an image.

    A damaged image is an image: without its rows or its pixels it is refused, not left out.
    """
    from pydicom.uid import UID

    holders = ((data.file_meta, "MediaStorageSOPClassUID"), (data, "SOPClassUID"))
    kinds = [UID(kind) for holder, name in holders if (kind := identifier(holder, name).decode("latin-1"))]
    if "1.2.840.10008.1.3.10" in kinds[:1]:
        return "DICOMDIR"
    if (modality := word(data, "Modality")) in NO_IMAGES:
        return modality
    other = bool(kinds) and all(kind.is_valid and "Image" not in kind.name for kind in kinds)
    return "no pixels" if other and "Rows" not in data else None


def pixel_digest(file: BinaryIO) -> bytes:
    """Hash of the pixels of a DICOM file as they are stored.

    Raises:
        Refused: pydicom is missing, the file is damaged, or it holds no pixels.
    """
    data = read_header(file, PIXELS, pixels=True)
    if not any(name in data for name in PIXELS):
        raise Refused(NO_PIXELS)
    return hashlib.blake2b(b"\0".join(identifier(data, name) for name in PIXELS), digest_size=32).digest()


def shape_of(data: Dataset) -> tuple[int, int, int]:
    """Rows, columns and frames.

    Raises:
        Refused: one is missing or absurd.
    """
    check_kind(data)
    rows, columns = whole(data, "Rows"), whole(data, "Columns")
    frames = whole(data, "NumberOfFrames", 1) or 1  # some devices write 0 for a single frame
    if rows < 1 or columns < 1 or frames < 1:
        raise Refused(f"it states {rows} rows, {columns} columns and {frames} frames; copy it again or remove it")
    if frames > MAX_FRAMES:
        raise Refused(f"it states {frames:,} frames, more than the limit of {MAX_FRAMES:,}; divide it")
    return rows, columns, frames


def check_pixels(data: Dataset, frame: int, frames: int) -> None:
    """Check before decoding that the pixels are as many as stated, and that their compression can be decoded.

    Raises:
        Refused: they are not, or it cannot.
    """
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEGExtended12Bit

    syntax = data.file_meta.TransferSyntaxUID
    if not syntax.is_transfer_syntax:
        raise Refused("its Transfer Syntax UID (0002,0010) is not known; export it again")
    rows, columns, _ = shape_of(data)
    bits, samples = whole(data, "BitsAllocated"), whole(data, "SamplesPerPixel", 1)
    stored, high = whole(data, "BitsStored", bits), whole(data, "HighBit", whole(data, "BitsStored", bits) - 1)
    if not 0 < stored <= bits <= 64 or samples not in (1, 3, 4):
        raise Refused(f"it states {stored} of {bits} bits and {samples} samples in a pixel, which is not read")
    if not stored - 1 <= high < bits or (high != stored - 1 and syntax.is_encapsulated):
        raise Refused(
            f"its samples of {stored} bits end at bit {high} (High Bit (0028,0102)), which is not read; save it uncompressed with "
            f"High Bit {stored - 1}"
        )
    if not syntax.is_encapsulated:
        if data[next(name for name in PIXELS if name in data)].is_undefined_length:
            raise Refused(
                "its pixels are compressed, but the file does not state how (Transfer Syntax UID (0002,0010)); export it again"
            )
        part = 2 / 3 if word(data, "PhotometricInterpretation") == "YBR_FULL_422" else 1
        needed = math.ceil(rows * columns * samples * frames * bits * part / 8)
        held = len(data[next(name for name in PIXELS if name in data)].value or b"")
        if held < needed:
            raise Refused(
                f"the file is truncated: {frames} frame{'s' * (frames > 1)} of {columns} × {rows} pixels need {needed:,} bytes, "
                f"but it holds {held:,}; copy it again or remove it"
            )
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        raise Refused(
            f"its compression {syntax} ({syntax.name}) is not read; store it as JPEG 2000 or uncompressed"
        ) from None
    if not available:
        package = next((p for begin, p in PACKAGES.items() if syntax.name.startswith(begin)), "pydicom")
        raise Refused(
            f"its compression {syntax} ({syntax.name}) needs {package}: pip install {package}, or all decoders with "
            "pip install 'biomedcoop[dicom]'"
        )
    if syntax == JPEGExtended12Bit and stored > 8:
        raise Refused("JPEG Extended with 12 bits is not read; decompress it first, with dcmdjpeg of dcmtk for example")
    from pydicom.encaps import get_frame

    with reading():
        compressed = get_frame(data.PixelData, frame, number_of_frames=frames)
    size = compressed_size(compressed)
    if size is not None and size != (columns, rows):
        raise Refused(f"the header states {columns} × {rows} pixels, but the compressed frame {size[0]} × {size[1]}")


def compressed_size(frame: bytes) -> tuple[int, int] | None:
    """Width and height in the header of a JPEG, JPEG-LS or JPEG 2000 stream; None if it has none, as RLE.

    Decoders reserve memory for this size, not for that of the DICOM header.
    """
    start = frame.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start >= 0 and len(frame) >= start + 24:
        right, lower, left, upper = struct.unpack(">4I", frame[start + 8 : start + 24])
        return right - left, lower - upper
    place = 2
    while frame[:2] == b"\xff\xd8" and place + 9 <= len(frame):
        if frame[place] != 0xFF:
            return None
        code = frame[place + 1]
        if code == 0xFF:  # a fill byte
            place += 1
            continue
        if code == 0xF7 or (0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC)):
            height, width = struct.unpack(">2H", frame[place + 5 : place + 9])
            return width, height
        place += 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
    return None


def stored_values(content: bytes, data: Dataset, frame: int) -> npt.NDArray[Any]:
    """Stored values of a frame, [H, W] or [H, W, 3] in RGB; bits beyond those stored are cleared."""
    from pydicom.pixels import get_decoder, pixel_array

    available = get_decoder(data.file_meta.TransferSyntaxUID).available_plugins
    plugin = next((name for name in PLUGINS if name in available), "")
    if plugin == "gdcm":
        return apart.decode(content, frame)
    allocated, bits = whole(data, "BitsAllocated"), whole(data, "BitsStored", 0)
    high = whole(data, "HighBit", bits - 1)
    if high == bits - 1:
        return np.asarray(pixel_array(data, index=frame, decoding_plugin=plugin))
    data.BitsStored, data.HighBit = allocated, allocated - 1  # all bits, of which pydicom would take the lowest
    try:
        words = np.asarray(pixel_array(data, index=frame, decoding_plugin=plugin))
    finally:
        data.BitsStored, data.HighBit = bits, high
    return (words << (allocated - 1 - high)) >> (allocated - bits)  # of a signed kind, with the sign


@contextmanager
def reading() -> Iterator[None]:
    """Turns what pydicom and the decoders raise into a reason, and what they warn of into nothing; both may quote the header."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    try:
        with quiet():
            yield
    except Refused:
        raise
    except (BytesLengthException, InvalidDicomError) as error:
        raise damaged(error) from None
    except DAMAGE as error:
        text = str(error).lower()
        if "fewer" in text or "less than" in text or "truncated" in text or "end of" in text:
            raise Refused("the pixels are truncated; copy the file again or remove it") from None
        raise Refused(
            f"the pixels cannot be decoded ({type(error).__name__}); copy the file again or remove it"
        ) from None


def grey(
    data: Dataset, groups: tuple[Dataset, ...], stored: npt.NDArray[Any], window: str
) -> tuple[npt.NDArray[np.uint8], int]:
    """The grey values of a frame before any inversion, and the source of the window."""
    from pydicom.pixels import apply_modality_lut, apply_voi

    values = stored.astype(np.float64)
    convert = None
    if overflows(stored):
        raise Refused("it holds values above 3.4e38; copy it again or remove it")
    if "ModalityLUTSequence" in data:
        check_table(data.ModalityLUTSequence, "Modality LUT Sequence (0028,3000)")
        with reading():
            values = np.asarray(apply_modality_lut(stored, data), dtype=np.float64)
    elif "FloatPixelData" not in data and "DoubleFloatPixelData" not in data:
        slope, intercept = rescale(data, groups)
        convert = lambda x: x * slope + intercept  # noqa: E731
        values = convert(values)
    asked = asked_window(window)
    other = other_than_hounsfield(data, groups)
    if asked is not None:
        if window in PRESETS and other:
            raise Refused(f"the window {window} is in Hounsfield units of CT, but {other}; give centre,width or auto")
        return to_bytes(linear_exact(values, *asked)), ASKED
    name = window.removeprefix(BY_NAME) if window.startswith(BY_NAME) else ""
    holder = next((one for one in groups if "VOILUTSequence" in one), None)
    if holder is not None and not name:
        bits = check_table(holder.VOILUTSequence, "VOI LUT Sequence (0028,3010)")
        with reading():
            # below and above the table its ends hold; pydicom would let large values run over
            entries, first, _ = (int(one) for one in holder.VOILUTSequence[0].LUTDescriptor)
            places = np.rint(np.clip(np.nan_to_num(values, nan=first), first, first + (entries or 2**16) - 1))
            found = np.asarray(apply_voi(places.astype(np.int64), holder, 0), dtype=np.float64)
        return to_bytes(between(found, 0, 2**bits - 1)), FROM_LUT
    stated = stated_window(groups, name)
    if stated is not None:
        function, centre, width = stated
        return to_bytes(FUNCTIONS[function][0](values, centre, width)), FROM_FILE
    if not other:
        return to_bytes(linear_exact(values, *PRESETS["soft"])), CT_SOFT
    bits = whole(data, "BitsStored", 32)
    if convert is not None and bits <= 8:
        signed = whole(data, "PixelRepresentation", 0)
        ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        return to_bytes(between(values, *sorted(map(convert, ends)))), STORED_RANGE
    shown = values[~is_padding(data, stored)]
    if not np.isfinite(values).any():
        raise Refused("no pixel has a finite value; leave it out")
    return to_bytes(between(values, *percentiles(shown if shown.size else values))), PERCENTILES


def other_than_hounsfield(data: Dataset, groups: tuple[Dataset, ...]) -> str:
    """Why the values are no Hounsfield units; empty if they are."""
    modality = word(data, "Modality")
    if modality != "CT":
        return f"its Modality (0008,0060) is {'not CT' if modality else 'missing'}"
    units = [word(one, "RescaleType") for one in groups if "RescaleType" in one]
    if units and units[0] not in ("", "HU", "HU_MOD"):
        return "its Rescale Type (0028,1054) is not HU"
    if "ModalityLUTSequence" not in data and not any("RescaleIntercept" in one for one in groups):
        return "its Rescale Intercept (0028,1052) is missing"  # as in a picture of a screen
    return ""


def rescale(data: Dataset, groups: tuple[Dataset, ...]) -> tuple[float, float]:
    """Slope and intercept of the Modality LUT."""
    slope, intercept = number(groups, "RescaleSlope", 1.0), number(groups, "RescaleIntercept", 0.0)
    if slope == 0:
        raise Refused("its Rescale Slope (0028,1053) is 0, so that all pixels are equal; copy it again or remove it")
    return slope, intercept


def stated_window(groups: tuple[Dataset, ...], name: str) -> tuple[str, float, float] | None:
    """Function, centre and width of the file's first window, or of that with an explanation; None if it states none or 0, 0.

    Raises:
        Refused: its window cannot be used, or none has the explanation.
    """
    holder = next((one for one in groups if "WindowCenter" in one or "WindowWidth" in one), None)
    centres, widths = (numbers(holder, tag) if holder is not None else [] for tag in ("WindowCenter", "WindowWidth"))
    place = 0
    if name:
        given = None if holder is None else holder.get("WindowCenterWidthExplanation")
        words = [given] if isinstance(given, str) else list(given or ())
        folded = [str(one).strip().casefold() for one in words]
        if name.casefold() not in folded:
            raise Refused(f"none of its windows is explained as '{name}'; give centre,width or auto")
        place = folded.index(name.casefold())
    if not any(centres) and not any(widths) and not name:
        return None  # centre and width of 0 are as good as none
    if place >= min(len(centres), len(widths)):
        raise Refused(
            "it states a Window Center (0028,1050) without a Window Width (0028,1051); give a window: centre,width"
        )
    assert holder is not None
    function = word(holder, "VOILUTFunction") or "LINEAR"
    if function not in FUNCTIONS:
        raise Refused("its VOI LUT Function (0028,1056) is not known; give a window: centre,width")
    centre, width, least = centres[place], widths[place], FUNCTIONS[function][1]
    if width < least or width <= 0:
        raise Refused(
            f"its Window Width (0028,1051) is {width:g}, which {function} does not allow; give a window: centre,width"
        )
    return function, centre, width


def is_padding(data: Dataset, stored: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which stored values are padding outside the image, bool [H, W]."""
    values, limits = numbers(data, "PixelPaddingValue"), numbers(data, "PixelPaddingRangeLimit")
    if not values:
        return np.zeros(stored.shape, dtype=bool)
    ends = [values[0], (limits or values)[0]]
    if stored.dtype.kind == "i":  # the value may be stored unsigned
        ends = [end - 2**16 if end > 2**15 - 1 and stored.dtype.itemsize == 2 else end for end in ends]
    return np.asarray((stored >= min(ends)) & (stored <= max(ends)))


def colours_of(data: Dataset, samples: int) -> str:
    """Photometric Interpretation.

    Raises:
        Refused: it is none of those that are read.
    """
    kind = word(data, "PhotometricInterpretation")
    if kind in COLOURS.get(samples, ()):
        return kind
    known = kind in (*COLOURS_NOT_READ, *(one for read in COLOURS.values() for one in read))
    raise Refused(
        f"its colours ({samples} samples, Photometric Interpretation (0028,0004) "
        f"{kind if known else 'not known' if kind else 'missing'}) are not read; convert it to RGB"
    )


def colour(data: Dataset, kind: str, samples: int, stored: npt.NDArray[Any]) -> Image.Image | Samples:
    """A frame in RGB."""
    from pydicom.pixels import apply_color_lut

    if samples == 1 and kind == "PALETTE COLOR":
        with reading():
            found = np.asarray(apply_color_lut(stored, data))[..., :3]
            if found.dtype.itemsize == 2:
                # tables of 16 bits hold 16-bit colours, or 8-bit colours in the low byte as some writers store them
                entries, first, _ = (int(one) for one in data.RedPaletteColorLookupTableDescriptor)
                table = np.asarray(apply_color_lut(np.arange(first, first + (entries or 2**16)), data))[..., :3]
                found = found >> 8 if table.max() > 255 else found
        return Image.fromarray(found.astype(np.uint8))
    bits = whole(data, "BitsStored", 8)
    if bits <= 8 and stored.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(stored))
    return Samples(stored, high=2**bits - 1)


def check_table(sequence: Any, name: str) -> int:
    """Bits of the first table of a sequence of lookup tables.

    Raises:
        Refused: it is damaged.
    """
    try:
        entries, _, bits = (int(one) for one in sequence[0].LUTDescriptor)
        data = sequence[0]["LUTData"].value
        length = len(data) if not isinstance(data, int) else 1
        if not 1 <= bits <= 16 or length < min(entries or 2**16, 2):
            raise ValueError
    except DAMAGE:
        raise Refused(f"its {name} is damaged; give a window: centre,width") from None
    return bits


def functional_groups(data: Dataset, frame: int) -> tuple[Dataset, ...]:
    """Where attributes of a frame stand, the nearest first: its functional groups, the shared ones, the file."""
    found: list[Dataset] = []
    with reading():
        for name, place in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
            items = data.get(name) or ()
            if place < len(items):
                for inner in ("FrameVOILUTSequence", "PixelValueTransformationSequence", "PixelMeasuresSequence"):
                    found += list(items[place].get(inner) or ())[:1]
    return (*found, data)


def pixel_aspect(data: Dataset, groups: tuple[Dataset, ...]) -> float:
    """Height of a pixel for a width of 1. Two numbers of 0 are what devices write that do not know: as good as none.

    Raises:
        Refused: it is absurd.
    """
    for name in ("PixelSpacing", "PixelAspectRatio", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        holder = next((one for one in groups if name in one), None)
        pair = numbers(holder, name) if holder is not None else []
        if pair[:2] == [0, 0]:
            continue
        if pair and (len(pair) < 2 or min(pair[:2]) <= 0):
            raise Refused(f"its {described(name)} is not two numbers above 0; correct it or remove it")
        if pair:
            return checked_aspect(pair[0] / pair[1])
    return 1.0


def checked_aspect(aspect: float) -> float:
    """An aspect of pixels; 1 where it differs by less than a thousandth.

    Raises:
        Refused: a pixel is more than twenty times as long as wide.
    """
    if not 1 / 20 <= aspect <= 20:
        raise Refused("its pixels are more than twenty times as long as wide; correct its Pixel Spacing (0028,0030)")
    return 1.0 if abs(aspect - 1) < 1e-3 else aspect


def marks_of(data: Dataset) -> dict[str, bool]:
    """What the user is told of: a colour profile, a patient's name, text that may be burned in."""
    burned = word(data, "BurnedInAnnotation")
    # an image that was converted, such as a picture of a screen, states how, whatever its modality
    likely = word(data, "Modality") in BURNED_IN_LIKELY or bool(word(data, "ConversionType"))
    return {
        "icc_ignored": any("ICCProfile" in one for one in (data, *(data.get("OpticalPathSequence") or ()))),
        "names_patient": names_patient(data),
        "burned_in": burned == "YES" or (not burned and likely),
    }


def names_patient(data: Dataset) -> bool:
    """Whether a name or number of a patient stands in the header and nothing says that it is a replacement."""
    if word(data, "PatientIdentityRemoved") == "YES":
        return False
    found = (data.get_item(name) for name in ("PatientName", "PatientID"))
    return any(element is not None and bool(raw(element)) for element in found)


def identifier(data: Dataset, name: str) -> bytes:
    """An identifier as it is stored; empty if it is missing."""
    element = data.get_item(name)
    return b"" if element is None else raw(element)


def raw(element: Any) -> bytes:
    """The value of an element as it is stored, without padding; nothing is parsed, so nothing is warned about."""
    value = element.value
    return (value if isinstance(value, bytes) else str(value or "").encode()).strip(b" \0^")


def stored(data: Dataset, name: str) -> Any:
    """The value of an element; of one stored as text its parts as they stand, which pydicom would refuse or change."""
    from pydicom.datadict import dictionary_VR

    element = data.get_item(name)
    if element is None or not isinstance(element.value, bytes):
        return data.get(name)
    if (element.VR or dictionary_VR(element.tag)) not in ("CS", "DS", "IS"):
        return data.get(name)
    text = raw(element).decode("latin-1").strip()
    return text.split("\\") if text else None


def words(data: Dataset, name: str) -> list[str]:
    """The words of an element in upper case; empty if it is missing."""
    with reading():
        value = stored(data, name)
        parts = [value] if value is None or isinstance(value, str) else list(value)
        return [str(part or "").strip().upper() for part in parts]


def word(data: Dataset, name: str) -> str:
    """The first word of an element in upper case; empty if it is missing."""
    return next(iter(words(data, name)), "")


def whole(data: Dataset, name: str, default: int | None = None) -> int:
    """A whole number of the header.

    Raises:
        Refused: it is missing and has no default, or is no whole number.
    """
    found = numbers(data, name)
    if not found and default is not None:
        return default
    if not found:
        raise Refused(f"its {described(name)} is missing; copy it again or remove it")
    if found[0] != int(found[0]):
        raise Refused(f"its {described(name)} is not a whole number; copy it again or remove it")
    return int(found[0])


def number(groups: tuple[Dataset, ...], name: str, default: float) -> float:
    holder = next((one for one in groups if name in one), None)
    found = numbers(holder, name) if holder is not None else []
    return found[0] if found else default


def numbers(data: Dataset, name: str) -> list[float]:
    """The numbers of an element; empty if it is missing or empty.

    Raises:
        Refused: one of them is not a finite number, or of an absurd size.
    """
    try:
        value = stored(data, name)
        if value is None or (isinstance(value, str) and not value.strip()):
            return []
        several = not isinstance(value, (str, bytes, int, float)) and hasattr(value, "__iter__")
        found = [float(one) for one in (value if several else [value])]
    except DAMAGE:
        raise Refused(f"its {described(name)} is not a number; copy it again or remove it") from None
    if not all(map(math.isfinite, found)):
        raise Refused(f"its {described(name)} is not a finite number; copy it again or remove it")
    if not all(map(in_range, found)):
        raise Refused(f"its {described(name)} is no number from 1e-38 to 3e38 in size; copy it again or remove it")
    return found


def described(name: str) -> str:
    """An attribute as a user looks it up: "Rescale Slope (0028,1053)"."""
    from pydicom.datadict import dictionary_description, tag_for_keyword

    tag = tag_for_keyword(name) or 0
    return f"{dictionary_description(tag)} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


@lru_cache
def decodable() -> dict[str, bool]:
    """Name of each transfer syntax -> whether this installation decodes it; empty without pydicom."""
    try:
        from pydicom import uid
        from pydicom.pixels import get_decoder
    except ImportError:
        return {}
    syntaxes = (
        *(uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian, uid.RLELossless, uid.JPEGBaseline8Bit),
        *(uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEGLSNearLossless),
        *(uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K),
    )
    decode: Callable[[Any], bool] = lambda syntax: bool(get_decoder(syntax).is_available)  # noqa: E731
    return {syntax.name.split(",")[0].partition(" (")[0]: decode(syntax) for syntax in syntaxes}


DECODERS = (DicomDecoder(),)
