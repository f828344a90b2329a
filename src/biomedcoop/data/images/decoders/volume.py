"""Slices of NIfTI and NRRD volumes, where nibabel (NIfTI) or SimpleITK (both) is installed.

A slice is axial and drawn as radiologists look at it: the patient's right on the left, anterior at the top.
"""

from __future__ import annotations

import io
import math
import struct
import tempfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from biomedcoop.data.images.decoders.base import Decoded, DecodeOptions, Refused, check_frame
from biomedcoop.data.images.decoders.dicom import MAX_FRAMES, checked_aspect
from biomedcoop.data.images.windows import (
    ASKED,
    AUTO,
    LARGEST,
    PERCENTILES,
    asked_window,
    between,
    linear_exact,
    overflows,
    percentiles,
    to_bytes,
)

MAX_VOLUME = 2**31
"""Largest size of an unpacked volume, bytes; of NIfTI its header states the size, and no more is unpacked."""

_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    RuntimeError,
    struct.error,
    zlib.error,
)
_NIFTI_HEADER, _LONGEST_HEADER = 348, 540


class Volume(NamedTuple):
    """A volume.

    Attributes:
        values: [slices, H, W], drawn as radiologists look at it.
        aspect: height of a pixel for a width of 1.
        ends: values between which most of the volume lies.
    """

    values: npt.NDArray[Any]
    aspect: float
    ends: tuple[float, float]


@dataclass(frozen=True)
class VolumeDecoder:
    """Reads an axial slice of a volume; its folders are searched for the format only where a library reads it."""

    name: str
    endings: tuple[str, ...]
    libraries: tuple[str, ...]
    windowed = True

    @property
    def suffixes(self) -> tuple[str, ...]:
        return self.endings if any(map(find_spec, self.libraries)) else ()

    @property
    def missing(self) -> str:
        """The package to install where no library reads the format; else empty."""
        return "" if self.suffixes else self.libraries[0]

    def recognizes(self, start: bytes) -> bool:
        if self.name == "NRRD":
            return start.startswith(b"NRRD000")
        return _is_nifti(_inflated(start, _NIFTI_HEADER) if start[:2] == b"\x1f\x8b" else start)

    def frames(self, file: BinaryIO) -> int:
        """Number of slices, from the whole file, because only its orientation says which axis they lie along."""
        return len(self.volume(file.read()).values)

    def size(self, file: BinaryIO) -> tuple[int, int]:
        _, height, width = self.volume(file.read()).values.shape
        return width, height

    def decode(self, content: bytes, options: DecodeOptions) -> Decoded:
        volume = self.volume(content)
        check_frame(options.frame, len(volume.values))
        values = volume.values[options.frame].astype(np.float64)
        asked = asked_window(options.window)
        if asked is None and options.window != AUTO:
            raise Refused(f"it has no windows of its own to choose from ({options.window}); give centre,width or auto")
        shares = between(values, *volume.ends) if asked is None else linear_exact(values, *asked)
        kind = {"f": "F", "i": "S"}.get(volume.values.dtype.kind, "I")
        return Decoded(
            Image.fromarray(to_bytes(shares)),
            f"{kind};{volume.values.dtype.itemsize * 8}",
            pixel_aspect=volume.aspect,
            window=PERCENTILES if asked is None else ASKED,
        )

    def volume(self, content: bytes) -> Volume:
        """The volume of a file; the last one is kept for its other slices."""
        library = next((name for name in self.libraries if find_spec(name)), None)
        if library is None:
            raise Refused(f"{self.name} needs {' or '.join(self.libraries)}: pip install {self.libraries[0]}")
        return _volume(content, self.name, library)


@lru_cache(maxsize=1)
def _volume(content: bytes, name: str, library: str) -> Volume:
    scaled = name == "NIfTI" and _is_scaled(content)
    try:
        with np.errstate(all="ignore"):  # what overflows is refused below
            values, spacing = _by_nibabel(content) if library == "nibabel" else _by_simpleitk(content, name)
    except _DAMAGE as error:
        raise (
            error
            if isinstance(error, Refused)
            else Refused(f"the {name} file is damaged ({type(error).__name__}); copy it again or remove it")
        ) from None
    if values.ndim != 3 or values.dtype.kind not in "iuf" or not values.size or len(values) > MAX_FRAMES:
        raise Refused(
            f"a volume of {values.dtype} {list(values.shape)} is not read; give single volumes of grey values with at most "
            f"{MAX_FRAMES:,} slices"
        )
    if not all(math.isfinite(one) and one > 0 for one in spacing):
        raise Refused(f"the {name} file states no distance between pixels; correct it")
    if overflows(values) or (scaled and np.isinf(values).any()):
        by = ", by its scl_slope and scl_inter" if scaled else ""
        raise Refused(f"it holds values above 3.4e38{by}; copy it again or remove it")
    if not np.isfinite(values).any():
        raise Refused("no voxel has a finite value; leave it out")
    return Volume(values, checked_aspect(spacing[0] / spacing[1]), percentiles(values))


def _by_nibabel(content: bytes) -> tuple[npt.NDArray[Any], tuple[float, float]]:
    """Values [slices, H, W], and height and width of a pixel."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.orientations import OrientationError
    from nibabel.spatialimages import HeaderDataError

    packed = content[:2] == b"\x1f\x8b"
    start = _inflated(content, _LONGEST_HEADER) if packed else content[:_LONGEST_HEADER]
    kind = nibabel.Nifti2Image if start[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nibabel.Nifti1Image
    try:
        header = kind.header_class.from_fileobj(io.BytesIO(start))
        voxels = math.prod(map(int, header.get_data_shape())) * header.get_data_dtype().itemsize
        needed = int(header.get_data_offset()) + voxels
        if needed > MAX_VOLUME:
            raise Refused(
                f"its header states {needed:,} bytes of values, more than the limit of {MAX_VOLUME:,}; divide it"
            )
        content = _inflated(content, needed) if packed else content
        image = kind.from_bytes(content)
        image = image.slicer[..., 0] if image.ndim == 4 and image.shape[3] == 1 else image
        image = nibabel.as_closest_canonical(image)
    except (ImageFileError, OrientationError, HeaderDataError) as error:
        raise ValueError from error
    if image.ndim not in (2, 3):
        raise Refused(f"a volume of the shape {list(image.shape)} is not read; give single volumes")
    values = np.asarray(image.dataobj)
    values = values[..., None] if values.ndim == 2 else values
    across, down = image.header.get_zooms()[:2]
    return np.ascontiguousarray(values[::-1, ::-1].transpose(2, 1, 0)), (float(down), float(across))


def _by_simpleitk(content: bytes, name: str) -> tuple[npt.NDArray[Any], tuple[float, float]]:
    """Values [slices, H, W], and height and width of a pixel. SimpleITK reads files alone, so a private one is written for it."""
    import SimpleITK

    if b"data file:" in content[:4096].lower() or b"datafile:" in content[:4096].lower():
        raise Refused("its values stand in another file; give the volume as one file")
    ending = ".nrrd" if name == "NRRD" else ".nii.gz" if content[:2] == b"\x1f\x8b" else ".nii"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"volume{ending}"
        file.write_bytes(content)
        reader = SimpleITK.ImageFileReader()
        reader.SetFileName(str(file))
        reader.ReadImageInformation()
        if math.prod(reader.GetSize()) * 8 > 4 * MAX_VOLUME or reader.GetNumberOfComponents() != 1:
            raise Refused(
                f"a volume of the shape {list(reader.GetSize())} is not read; give single volumes of grey values"
            )
        image = reader.Execute()
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() == 3:
        image = SimpleITK.DICOMOrient(image, "LPS")
    values = SimpleITK.GetArrayFromImage(image)
    across, down = image.GetSpacing()[:2]
    return values[None] if values.ndim == 2 else values, (float(down), float(across))


def _is_nifti(start: bytes) -> bool:
    return start[344:348] in (b"n+1\0", b"ni1\0") or start[4:8] in (b"n+2\0", b"ni2\0")


def _is_scaled(content: bytes) -> bool:
    """Whether a NIfTI file scales its values by scl_slope and scl_inter.

    Raises:
        Refused: one of them is infinite or too large to be computed with.
    """
    start = _inflated(content, _LONGEST_HEADER) if content[:2] == b"\x1f\x8b" else content[:_LONGEST_HEADER]
    order = "<" if start[:1] in (b"\x5c", b"\x1c") else ">"
    form, place = (f"{order}2d", 176) if start[4:8] in (b"n+2\0", b"ni2\0") else (f"{order}2f", 112)
    if len(start) < place + struct.calcsize(form):
        return False
    slope, intercept = struct.unpack_from(form, start, place)
    if max(abs(slope), abs(intercept)) > LARGEST:
        raise Refused("its scl_slope or scl_inter is above 3.4e38; copy it again or remove it")
    return bool(math.isfinite(slope) and slope != 0 and (slope, intercept) != (1, 0))


def _inflated(content: bytes, most: int) -> bytes:
    """The first ``most`` bytes of gzip content; of truncated content what there is."""
    try:
        return zlib.decompressobj(31).decompress(content, most)
    except zlib.error:
        return b""


DECODERS = (
    VolumeDecoder("NIfTI", (".nii", ".nii.gz"), ("nibabel", "SimpleITK")),
    VolumeDecoder("NRRD", (".nrrd",), ("SimpleITK",)),
)
