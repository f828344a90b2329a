"""Facts about decoded images that can affect the results, and the notes for the user about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from biomedcoop.data.images.windows import ASKED, FROM_FILE, FROM_LUT, SOURCES


class ImageFacts(NamedTuple):
    """Facts about one image from its decoding; they are numbers, so that they can be stored with its features.

    Attributes:
        depth: bits of the value that became white; 0 where the image's own smallest and largest value set black and white.
        guessed: the depth is not stated and was guessed from the largest value.
        one_colour: all pixels are the same.
        transparent: every pixel is fully transparent.
        several_frames: an animation or a multi-page file, of which one frame was read.
        window: number of the source of the window in `windows.SOURCES`; 0 for an image without window.
        icc_ignored: the file has a colour profile, which is not applied.
        names_patient: the file names a patient.
        burned_in: text such as a name may be burned into the pixels.
    """

    depth: int = 8
    guessed: bool = False
    one_colour: bool = False
    transparent: bool = False
    several_frames: bool = False
    window: int = 0
    icc_ignored: bool = False
    names_patient: bool = False
    burned_in: bool = False


@dataclass
class Tally:
    """Counts of unusual images by kind, with the first image of each; its size does not grow with the number of images.

    Attributes:
        trained_on: guessed depths of the images that a classifier learned from, if that is known.
        trained_windows: sources of the windows of those images.
        trained_images: digests of those images (:func:`biomedcoop.data.sampling.leakage.digest`).
        images: how many were counted.
        unlike: how many are unlike the training images.
        depths: guessed depth -> how many images have it, and the first.
        windows: source of a window -> how many images have it, and the first.
        learned, one_colour, transparent, several_frames, icc_ignored, names_patient, burned_in: how many images, and the first;
            ``learned`` are those that the classifier learned from.
    """

    trained_on: tuple[int, ...] = ()
    trained_windows: tuple[int, ...] = ()
    trained_images: frozenset[str] = frozenset()
    images: int = 0
    unlike: int = 0
    depths: dict[int, tuple[int, str]] = field(default_factory=dict)
    learned: tuple[int, str] = (0, "")
    one_colour: tuple[int, str] = (0, "")
    transparent: tuple[int, str] = (0, "")
    several_frames: tuple[int, str] = (0, "")
    windows: dict[int, tuple[int, str]] = field(default_factory=dict)
    icc_ignored: tuple[int, str] = (0, "")
    names_patient: tuple[int, str] = (0, "")
    burned_in: tuple[int, str] = (0, "")

    @classmethod
    def after(cls, facts: Mapping[str, Any]) -> Tally:
        """An empty tally for images that a classifier with these facts is asked about."""
        learned = frozenset(facts.get("training_images", ()))
        return cls(tuple(facts.get("depths", ())), tuple(facts.get("windows", ())), learned)

    def add(self, key: str, facts: ImageFacts, content: bytes = b"") -> None:
        """Count one image.

        Args:
            key: name of the image in the notes.
            content: hash of its content, where it may be one of those that the classifier learned from.
        """
        self.images += 1
        if content[:8].hex() in self.trained_images:
            self.learned = _counted(self.learned, key)
        if facts.guessed and not facts.one_colour:
            self.depths[facts.depth] = _counted(self.depths.get(facts.depth, (0, "")), key)
        if facts.transparent:
            self.transparent = _counted(self.transparent, key)
        elif facts.one_colour:
            self.one_colour = _counted(self.one_colour, key)
        if facts.several_frames:
            self.several_frames = _counted(self.several_frames, key)
        if facts.window:
            self.windows[facts.window] = _counted(self.windows.get(facts.window, (0, "")), key)
        if facts.icc_ignored:
            self.icc_ignored = _counted(self.icc_ignored, key)
        if facts.names_patient:
            self.names_patient = _counted(self.names_patient, key)
        if facts.burned_in:
            self.burned_in = _counted(self.burned_in, key)

    def notes(self, named: bool = True) -> list[str]:
        """A sentence for each thing that a user should know.

        Args:
            named: name the first image of each kind; False for files that are shared, because names may be those of patients.
        """

        def first(key: str) -> str:
            return f", first {key}" if named else ""

        notes = []
        depths = sorted(depth for depth in self.depths if depth)
        learned = sorted(depth for depth in self.trained_on if depth)
        if len(depths) > 1 or (learned and not set(depths) <= set(learned)):
            found = ", ".join(
                f"{self.depths[d][0]} at {d} bits" + (f" (first {self.depths[d][1]})" if named else "") for d in depths
            )
            training = f", in training {' and '.join(map(str, learned))} bits" if learned else ""
            notes.append(
                "images above 8 bits without a stated depth are scaled by the depth that holds their largest value, which differs: "
                f"{found}{training}; so the same value is not equally bright in all of them; save them as 8-bit images with one "
                "scale, or state the depth (PNG: sBIT, TIFF: MaxSampleValue, PNM: a maxval below 65535)"
            )
        if 0 in self.depths:
            count, key = self.depths[0]
            notes.append(
                f"signed, 32-bit or float images, each scaled by its own smallest and largest value: {count}{first(key)}; "
                "where values have a meaning (Hounsfield units), save 8-bit images with one window instead"
            )
        notes += self._window_notes()
        for (count, key), what, remedy in (
            (
                self.learned,
                "training images of this model",
                "; the answers for them say nothing about new images",
            ),
            (
                self.transparent,
                "fully transparent images, which are read as black",
                "; save them without the alpha channel",
            ),
            (self.one_colour, "images of a single colour", "; look at them, and remove or replace them"),
            (self.several_frames, "files with several frames or pages", "; only the first frame is used"),
            (self.icc_ignored, "files with a colour profile (ICC), which is not applied", ""),
            (
                self.names_patient,
                "files that name a patient",
                "; nothing of it is written, but remove the names before you pass the files on",
            ),
            (
                self.burned_in,
                "images that may show burned-in text, such as a name",
                "; look at them, and crop it away",
            ),
        ):
            if count:
                notes.append(f"{what}: {count}{first(key)}{remedy}")
        return notes

    def _window_notes(self) -> list[str]:
        """How grey values became pictures; nothing where all windows are those of the files or the one that was asked for."""
        found = set(self.windows)
        expected = set(self.trained_windows) or {max(found & {FROM_FILE, FROM_LUT, ASKED}, default=0)}
        if not found or found <= expected:
            return []
        parts = [f"{self.windows[number][0]} by {SOURCES[number]}" for number in sorted(found)]
        known = sorted(set(self.trained_windows))
        training = f"; in training by {', '.join(SOURCES[number] for number in known)}" if known else ""
        return [
            f"grey values became pictures in several ways or without a window of the file: {'; '.join(parts)}{training}; "
            "--window gives all images one window"
        ]


def _counted(so_far: tuple[int, str], key: str) -> tuple[int, str]:
    """The count with one image more, and the first image."""
    count, first = so_far
    return count + 1, first if count else key
