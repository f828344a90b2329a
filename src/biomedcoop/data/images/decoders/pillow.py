"""The decoder for formats of Pillow, and the formats whose files hold 8-bit samples only."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from PIL import ExifTags, Image, UnidentifiedImageError

from biomedcoop.data.images.decoders.base import Decoded, DecodeOptions, check_frame
from biomedcoop.data.images.samples import Samples


@dataclass(frozen=True)
class PillowDecoder:
    """Decoder of one format of Pillow; it recognizes nothing if Pillow was built without the format.

    Attributes:
        name: Pillow's name of the format.
        deep: function that returns the samples of a file that Pillow would read wrong, or None if Pillow is right. It gets the
            file's content and Pillow's image at the requested frame, opened but not loaded.
    """

    name: str
    suffixes: tuple[str, ...]
    deep: Callable[[bytes, Image.Image], Samples | None] | None = None

    def recognizes(self, start: bytes) -> bool:
        Image.init()
        _, accept = Image.OPEN.get(self.name, (None, None))
        return accept is not None and accept(start) is True  # a text names a library that this Pillow lacks

    def size(self, file: BinaryIO) -> tuple[int, int]:
        with self._open(file) as header:
            width, height = header.size
        return width, height

    def decode(self, content: bytes, options: DecodeOptions) -> Decoded:
        with self._open(io.BytesIO(content)) as stored:
            several = bool(getattr(stored, "is_animated", False))
            if options.frame:  # counting frames may read the whole file
                check_frame(options.frame, getattr(stored, "n_frames", 1))
            mode = stored.mode
            stored.seek(options.frame)
            samples = self.deep(content, stored) if self.deep else None
            stored.load() if samples is None else None
            orientation = stored.getexif().get(ExifTags.Base.Orientation, 1)
            if samples is not None:
                return Decoded(samples, samples.mode, orientation, several)
            return Decoded(stored, mode, orientation, several)

    def _open(self, file: BinaryIO) -> Image.Image:
        return Image.open(file, formats=(self.name,))


class Tga(PillowDecoder):
    """TGA has no signature; its header is recognized by values that are valid together."""

    def recognizes(self, start: bytes) -> bool:
        if not len(start) >= 18 or start[1] > 1 or start[2] & 7 not in (1, 2, 3):
            return False
        try:
            return min(self.size(io.BytesIO(start))) > 0
        except (UnidentifiedImageError, OSError, ValueError):
            return False


DECODERS = (
    PillowDecoder("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif")),
    PillowDecoder("BMP", (".bmp",)),
    PillowDecoder("GIF", (".gif",)),
    PillowDecoder("WEBP", (".webp",)),
    PillowDecoder("AVIF", (".avif",)),
    Tga("TGA", (".tga",)),
)
