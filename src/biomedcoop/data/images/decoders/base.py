"""The contract of an image decoder: how it recognises its format and decodes a file's content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import BinaryIO, Protocol

from PIL import Image

from biomedcoop.data.images.samples import Samples
from biomedcoop.data.images.windows import AUTO

START_BYTES = 512
"""Number of bytes at the beginning of a file from which decoders recognise their format."""


@dataclass(frozen=True)
class DecodeOptions:
    """Which image of a file to decode.

    Options that differ from the defaults are part of the image's content hash, and so of its key in the feature store.

    Attributes:
        frame: number of the frame, page or slice, from 0.
        window: window of a grey image whose values have a meaning; see :func:`biomedcoop.data.images.windows.check_window`. Only
            formats of such images know it.
    """

    frame: int = 0
    window: str = AUTO

    @property
    def key(self) -> bytes:
        """The options that differ from the defaults, for the content hash; empty if none differs."""
        named = ((one.name, getattr(self, one.name), one.default) for one in fields(self))
        return "".join(f"\0{name}={value!r}" for name, value, default in named if value != default).encode()


@dataclass(frozen=True)
class Decoded:
    """One image as a decoder gives it, before it becomes upright 8-bit RGB.

    Attributes:
        pixels: a loaded Pillow image if Pillow's own conversion to RGB is right, else samples.
        mode: Pillow's mode of the stored image; above 8 bits with the bits of a sample (`Samples.mode`).
        orientation: EXIF orientation, 1 to 8, not applied yet.
        several_frames: the file holds more frames or pages.
        pixel_aspect: height of a pixel for a width of 1; other values than 1 are stretched to square pixels.
        window: number of the source of its window in `windows.SOURCES`.
        marks: facts about the file by their names in `facts.ImageFacts`.
    """

    pixels: Image.Image | Samples
    mode: str
    orientation: int = 1
    several_frames: bool = False
    pixel_aspect: float = 1.0
    window: int = 0
    marks: Mapping[str, bool] = field(default_factory=dict)


class Refused(ValueError):
    """A file that cannot be read; the message is the whole reason and says how to mend it."""


class Decoder(Protocol):
    """Reads one image format.

    Attributes:
        name: name of the format.
        suffixes: lower-case file name endings of the format; files in a folder with such an ending count as images.
        windowed: True for a format that knows windows; others need not have the attribute.
    """

    @property
    def name(self) -> str: ...

    @property
    def suffixes(self) -> tuple[str, ...]: ...

    def recognizes(self, start: bytes) -> bool:
        """Whether a file that begins with ``start`` (`START_BYTES` bytes, or all of it) is of this format."""

    def size(self, file: BinaryIO) -> tuple[int, int]:
        """Width and height in pixels from the header, so that the pixel limit is checked before decoding."""

    def decode(self, content: bytes, options: DecodeOptions) -> Decoded:
        """Decode one image of a file.

        Args:
            content: all bytes of the file.

        Raises:
            ValueError: the content is damaged or of a kind that is not read; the message gives the reason. Libraries may
                raise other errors on broken content (`reading.DECODING_ERRORS`).
        """


def check_frame(frame: int, n_frames: int) -> None:
    """Refuse a frame that a file does not have."""
    if not 0 <= frame < n_frames:
        raise Refused(f"frame {frame} was requested, but the file has {n_frames}, numbered from 0")
