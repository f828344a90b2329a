"""Files and series that hold several images: which of their images are taken, in which order, and which are of one patient.

A stack is a file with several frames, or the slices of one DICOM series in one folder.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from biomedcoop.data import archives
from biomedcoop.data.images.decoders import all_decoders, find_decoder
from biomedcoop.data.images.decoders.base import START_BYTES, DecodeOptions, Refused
from biomedcoop.data.images.decoders.dicom import (
    DicomDecoder,
    identifier,
    no_image,
    numbers,
    pixel_digest,
    read_header,
    reading,
    shape_of,
    word,
    words,
)
from biomedcoop.data.images.sources import ImageInFile, ImageSource, as_sources
from biomedcoop.data.images.windows import AUTO, check_window
from biomedcoop.errors import UserError

if TYPE_CHECKING:
    from pydicom import Dataset as Header

ALL, MIDDLE = "all", "middle"
"""Every frame of a stack; the one in its middle."""

FRAME_HELP = "all, middle, or the number of a frame or slice, from 0"

_TAGS = (
    *(
        "SOPClassUID",
        "Modality",
        "ImageType",
        "Rows",
        "Columns",
        "NumberOfFrames",
        "PatientID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
    ),
    *("SOPInstanceUID", "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient"),
    *("ViewPosition", "ImageLaterality", "Laterality"),
)
_VIEWS = (
    *("AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO"),
    *("CC", "MLO", "ML", "LM", "LMO", "XCC", "XCCL", "XCCM", "FB", "SIO", "ISO", "CV", "AT"),
)
"""Terms of View Position (0018,5101) of radiographs and mammograms; other text might be anything."""

_SIDES = {"R": "right", "L": "left", "B": "both"}
"""Terms of Image Laterality (0020,0062) and Laterality (0020,0060)."""

_FRAME = re.compile(r"(?P<file>.+)#(?P<frame>\d+)")
_UNEVEN = 0.1
"""Share of the usual distance between slices by which one may differ before a note tells of it."""


@dataclass(frozen=True)
class Reading:
    """How files with windows, frames and slices are read; other images do not depend on it.

    Attributes:
        window: see :func:`biomedcoop.data.images.windows.check_window`.
        frame: "all", "middle", or the number of a frame or slice, from 0.

    Raises:
        UserError: a value cannot be used.
    """

    window: str = AUTO
    frame: str = ALL

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", check_window("window", self.window))
        object.__setattr__(self, "frame", check_frame_choice("frame", self.frame))

    def sources(self, images: Any) -> Iterator[ImageSource]:
        """:func:`as_sources` with this window, and the frame of "film.dcm#3"; one image for each image given.

        Raises:
            UserError: an element is no image, or a file holds several and none is chosen.
        """
        for source in as_sources(images):
            yield self.source(source)

    def source(self, source: ImageSource) -> ImageSource:
        """One image of :meth:`sources`."""
        return self.windowed_source(source)[0]

    def windowed_source(self, source: ImageSource) -> tuple[ImageSource, bool]:
        """One image of :meth:`sources`, and whether its format knows windows."""
        if isinstance(source, Path):
            if not may_be_stack(source):
                return source, False
            taken, _ = taken_from([source], self, listed=True)
            if len(taken) > 1:
                raise _several(source, len(taken), f"name one, e.g. '{source.name}#{len(taken) // 2}', or ")
            return taken[0].source, taken[0].facts.windowed
        if not isinstance(source, (bytes, ImageInFile)):
            return source, False
        if isinstance(source, ImageInFile) and source.options.window != AUTO:
            return source, True
        file = source if isinstance(source, bytes) else source.file
        known = facts_of(file)
        if not known.windowed:
            return source, False
        if isinstance(source, ImageInFile):
            number = source.options.frame
        else:
            number, *others = _chosen(known.frames, self.frame, "image in memory")
            if others:
                raise _several("image in memory", known.frames)
        return ImageInFile(file, DecodeOptions(number, self.window)), True

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Reading:
        """The reading in the facts of an artefact or in a request; the default one where they hold none."""
        return cls(values.get("window", AUTO), values.get("frame", ALL))


def _several(name: object, images: int, way: str = "") -> UserError:
    """The refusal of a file with several images where one image is wanted."""
    return UserError(
        f"{name}: it holds {images} images; {way}give frame='middle' to the estimator, or to read_with of the classifier"
    )


def check_frame_choice(name: str, value: object) -> str:
    """A choice of frames in its one spelling.

    Raises:
        UserError: it is none.
    """
    text = str(value).strip().lower() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if text in (ALL, MIDDLE) or (text.isascii() and text.isdigit()):
        return text if text in (ALL, MIDDLE) else str(int(text))
    raise UserError(f"{name}={value!r} must be {FRAME_HELP}")


class Facts(NamedTuple):
    """What the header of a file says about its place among others; the identifiers stay in memory.

    Attributes:
        windowed: its format knows windows.
        frames: number of frames.
        no_image: what it is instead of an image, or None.
        localizer: it is a scout.
        patient, study, series, instance: identifiers as they are stored; empty where there is none.
        place: place along the normal of its slice in mm, or None.
        number: Instance Number.
        view: View Position, such as "PA"; empty where none of the usual terms is stated.
        laterality: "right", "left" or "both", or empty.
    """

    windowed: bool = False
    frames: int = 1
    no_image: str | None = None
    localizer: bool = False
    patient: bytes = b""
    study: bytes = b""
    series: bytes = b""
    instance: bytes = b""
    place: float | None = None
    number: float = 0.0
    view: str = ""
    laterality: str = ""


class Taken(NamedTuple):
    """An image that is taken from a list of files.

    Attributes:
        position: place of its file in the list.
        source: the image.
        frame: "#3" for a frame of a file with several, else "".
        facts: those of its file.
    """

    position: int
    source: ImageSource
    frame: str
    facts: Facts


def taken_from(files: Sequence[Path], reading: Reading, *, listed: bool = False) -> tuple[list[Taken], list[str]]:
    """The images of files, and notes without names on what was left out.

    Args:
        files: image files, or frames of them ("film.dcm#3").
        listed: the user listed the files one by one: none is left out, and their order is kept.

    Raises:
        UserError: a stack has no frame of the number asked for.
    """
    if not any(map(may_be_stack, files)):
        return [Taken(i, file, "", Facts()) for i, file in enumerate(files)], single_frame_notes(reading, bool(files))
    named = [split_frame(file) for file in files]
    facts = [facts_of(file) for file, _ in named]
    if listed:
        order: Sequence[int] = range(len(files))
        alone = any(known.frames == 1 and frame is None for (_, frame), known in zip(named, facts, strict=True))
        notes = single_frame_notes(reading, alone)
    else:
        order, notes = _in_order([file for file, _ in named], facts, reading)
    taken = []
    for i in order:
        (file, frame), known = named[i], facts[i]
        several = known.frames > 1
        for number in [frame] if frame is not None else _chosen(known.frames, reading.frame, file):
            options = DecodeOptions(number, reading.window if known.windowed else AUTO)
            source = file if options == DecodeOptions() and not several else ImageInFile(file, options)
            taken.append(Taken(i, source, f"#{number}" if several and frame is None else "", known))
    return taken, notes


def may_be_stack(file: Path) -> bool:
    """Whether a file's name leaves open that it holds several images or needs a window; others are never opened for it."""
    return file.suffix.lower() not in _plain_suffixes()


@cache
def _plain_suffixes() -> frozenset[str]:
    return frozenset(suffix for decoder in all_decoders() if not windowed(decoder) for suffix in decoder.suffixes)


def windowed(decoder: object) -> bool:
    """Whether a format knows windows."""
    return bool(getattr(decoder, "windowed", False))


def split_frame(file: Path) -> tuple[Path, int | None]:
    """The file and the number of the frame in "film.dcm#3"; a file that really has such a name is itself."""
    match = _FRAME.fullmatch(file.name)
    if match is None or archives.is_file(file):
        return file, None
    return file.with_name(match["file"]), int(match["frame"])


def split_frame_key(key: str) -> str:
    """The key of a file from that of one of its frames."""
    match = _FRAME.fullmatch(key)
    return key if match is None else match["file"]


def facts_of(file: Path | bytes) -> Facts:
    """The facts of a file; those of an ordinary image where its header cannot be read, which its decoding then reports."""
    try:
        return _read_facts(BytesIO(file)) if isinstance(file, bytes) else _facts(file, *archives.stamp(file))
    except (OSError, UserError, Refused):
        return Facts()


@lru_cache(maxsize=2**17)
def _facts(file: Path, *_: int) -> Facts:
    with archives.opened(file) as stream:
        return _read_facts(stream)


def _read_facts(stream: BinaryIO) -> Facts:
    decoder = find_decoder(stream.read(START_BYTES))
    stream.seek(0)
    if decoder is None or not windowed(decoder):
        return Facts()
    if not isinstance(decoder, DicomDecoder):
        return Facts(True, decoder.frames(stream))  # type: ignore[attr-defined]
    header = read_header(stream, _TAGS, pixels=False)
    with reading():
        return _facts_in(header)


def _facts_in(header: Header) -> Facts:
    if (kind := no_image(header)) is not None:
        return Facts(True, no_image=kind)
    return Facts(
        windowed=True,
        frames=shape_of(header)[2],
        localizer="LOCALIZER" in words(header, "ImageType"),
        patient=identifier(header, "PatientID"),
        study=identifier(header, "StudyInstanceUID"),
        series=identifier(header, "SeriesInstanceUID"),
        instance=identifier(header, "SOPInstanceUID"),
        place=_place(header),
        number=next(iter(numbers(header, "InstanceNumber")), 0.0),
        view=view if (view := word(header, "ViewPosition")) in _VIEWS else "",
        laterality=_SIDES.get(word(header, "ImageLaterality") or word(header, "Laterality"), ""),
    )


def _place(header: Header) -> float | None:
    position, axes = numbers(header, "ImagePositionPatient"), numbers(header, "ImageOrientationPatient")
    if len(position) != 3 or len(axes) != 6:
        return None
    return float(np.dot(position, np.cross(axes[:3], axes[3:])))


def _chosen(frames: int, choice: str, file: Path | str) -> Sequence[int]:
    if choice == ALL or frames == 1:
        return range(frames)
    number = frames // 2 if choice == MIDDLE else int(choice)
    if number >= frames:
        raise UserError(f"{file}: frame {number} was asked for, but it has {frames} frames, numbered from 0")
    return [number]


def single_frame_notes(reading: Reading, alone: bool) -> list[str]:
    """The note that the number of a frame chooses nothing in a file of one frame.

    Args:
        alone: whether there is such a file, and it is no slice of a series.
    """
    if not alone or reading.frame in (ALL, MIDDLE, "0"):
        return []
    return [f"frame {reading.frame} is chosen, but some files have a single frame, which is used"]


def _in_order(files: Sequence[Path], facts: Sequence[Facts], reading: Reading) -> tuple[list[int], list[str]]:
    """Positions of the files to use, slices of a series in their order, and notes."""
    left_out: Counter[str] = Counter()
    seen: set[tuple[bytes, bytes]] = set()
    uses = Counter(known.instance for known in facts)
    differing: Counter[bytes] = Counter()
    series: defaultdict[tuple[Path, bytes], list[int]] = defaultdict(list)
    units: list[list[int]] = []
    for i, (file, known) in enumerate(zip(files, facts, strict=True)):
        image = None
        if known.instance and uses[known.instance] > 1 and not known.no_image:  # some writers give all slices one UID
            image = known.instance, _pixels_of(file)
        reason = (
            (known.no_image and f"no images to classify ({known.no_image})")
            or (known.localizer and "scouts (localizers)")
            or (image in seen and "copies of another file (same SOP Instance UID and pixels)")
        )
        if reason:
            left_out[reason] += 1
            continue
        if image is not None:
            seen.add(image)
            differing[known.instance] += 1
        if known.series and known.frames == 1:
            held = series[file.parent, known.series]
            if not held:
                units.append(held)
            held.append(i)
        else:
            units.append([i])
    notes = [f"DICOM files left out, {reason}: {count}" for reason, count in left_out.items()]
    if shared := sum(count for count in differing.values() if count > 1):
        notes.append(f"DICOM files with the SOP Instance UID of another file, but other pixels: {shared}; all are used")
    notes += _series_notes(series)
    order: list[int] = []
    uneven, alone = 0, False
    for unit in units:
        places = [facts[i].place for i in unit]
        slices = len(unit) > 1 and len(set(places)) == len(unit) and None not in places
        if len(unit) > 1:
            unit.sort(key=lambda i: (facts[i].place or 0.0 if slices else 0.0, facts[i].number))
        if slices:
            uneven += _is_uneven([facts[i].place or 0.0 for i in unit])
            unit = [unit[k] for k in _chosen(len(unit), reading.frame, files[unit[0]].parent)]
        else:
            alone = alone or any(facts[i].frames == 1 for i in unit)
        order += unit
    if uneven:
        notes.append(f"series with missing or uneven slices: {uneven}; look at them")
    return order, [*notes, *single_frame_notes(reading, alone)]


def _pixels_of(file: Path) -> bytes:
    """The hash of a file's pixels; its path where they cannot be read, so that it is a copy of none."""
    try:
        with archives.opened(file) as stream:
            return pixel_digest(stream)
    except (OSError, UserError, Refused):
        return str(file).encode("utf-8", "surrogateescape")


def _series_notes(series: Mapping[tuple[Path, bytes], Sequence[int]]) -> list[str]:
    held = Counter(folder for folder, _ in series)
    several = {folder: count for folder, count in held.items() if count > 1}
    slices = [
        sorted((len(f) for (place, _), f in series.items() if place == folder), reverse=True) for folder in several
    ]
    if not any(sizes[0] > 1 for sizes in slices):
        return []
    shown = ", ".join(map(str, slices[0][:6])) + (", …" if len(slices[0]) > 6 else "")
    return [
        f"folders with several DICOM series: {len(several)}; the series of a folder stand one after another (the first folder: "
        f"{shown} images)"
    ]


def _is_uneven(places: Sequence[float]) -> bool:
    gaps = np.diff(places)
    usual = float(np.median(gaps))
    return bool(len(gaps) > 1 and (np.abs(gaps - usual) > _UNEVEN * abs(usual)).any())


def patient_groups(facts: Sequence[Facts]) -> tuple[list[str] | None, list[str]]:
    """A hashed group of each image: its patient, else its study; None without either, or if all images are of one.

    The hash is keyed by the identifiers of all images, which nobody without the files knows, so that it cannot be tried out for
    likely patient numbers. The same files give the same groups.

    Returns:
        The groups, empty for an image without one, and a note.
    """
    for name, own in (
        ("patient", [one.patient or one.study for one in facts]),
        ("study", [one.study for one in facts]),
    ):
        known = set(own) - {b""}
        if len(known) > 1:
            salt = hashlib.blake2b(
                b"\0".join(sorted({one.instance + one.study for one in facts})), digest_size=32
            ).digest()
            groups = [
                f"{name}-{hashlib.blake2b(one, key=salt, digest_size=8).hexdigest()}" if one else "" for one in own
            ]
            alone = groups.count("")
            rest = f"; images without a {name}, each by itself: {alone}" if alone else ""
            return groups, [
                f"images of one {name} stay together, as the DICOM files name it ({len(known)} groups){rest}"
            ]
    return None, ["the DICOM files name one patient or none, so that images are not grouped"] if any(
        one.instance for one in facts
    ) else []
