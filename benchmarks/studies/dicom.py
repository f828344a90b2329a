"""Grey values of DICOM files against those that dcmtk draws.

    python -m benchmarks.studies.dicom FILE_OR_FOLDER…

The first frame of each file is drawn twice: by this package and by `dcmj2pnm` (`dcml2pnm` for JPEG-LS) with the same window.
dcmtk decodes no JPEG 2000, so that GDCM first decompresses such a file, and dcmtk draws the result. Pixels that are not square stay
so, because dcmtk keeps them. Needs dcmtk (apt-get install dcmtk) and the extra dicom; `pip install pydicom-data` gives more files.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom import dcmread

from biomedcoop.data.images.decoders import dicom
from biomedcoop.data.images.decoders.base import DecodeOptions, Refused
from biomedcoop.data.images.rgb import to_rgb
from biomedcoop.data.images.windows import ASKED, FROM_FILE, FROM_LUT, SOURCES

TOOLS = ("dcmj2pnm", "dcml2pnm")


class Compared(NamedTuple):
    """A file: the tool, the largest difference of grey values, the share of values that differ by more than one, and dcmtk's values
    on a grid of 6 × 6 pixels as hexadecimal text, which `tests/data/images/decoders/test_dicom.py` holds for some files.
    """

    name: str
    window: str
    tool: str
    largest: int
    above_one: float
    grid: str


def ours(content: bytes, window: str) -> tuple[npt.NDArray[np.uint8], int]:
    decoded = dicom.DicomDecoder().decode(content, DecodeOptions(0, window))
    rendered, _ = to_rgb(replace(decoded, pixel_aspect=1.0))
    return np.asarray(rendered.image), decoded.window


def theirs(file: Path, window: list[str]) -> tuple[npt.NDArray[np.uint8] | None, str]:
    """dcmtk's picture and the tool, or None and its complaint."""
    said = ""
    with tempfile.TemporaryDirectory() as folder:
        source, out = file, Path(folder) / "out.ppm"
        data = dcmread(file, force=True)  # some have neither a preamble nor a header
        if getattr(data.file_meta.get("TransferSyntaxUID"), "name", "").startswith("JPEG 2000"):
            data.decompress(decoding_plugin="gdcm", generate_instance_uid=False)
            source = Path(folder) / "decompressed.dcm"
            data.save_as(source)
        for tool in TOOLS:
            command = [tool, "--no-overlays", "--frame", "1", *window, str(source), str(out)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if out.exists() and out.stat().st_size:
                return np.asarray(Image.open(out).convert("RGB")), tool
            said = (done.stderr.strip().splitlines() or ["no picture"])[-1]
    return None, said


def compare(file: Path) -> Compared | str:
    """The comparison of a file's first frame, or why there is none."""
    content = file.read_bytes()
    window = "auto"
    try:
        picture, source = ours(content, window)
        if source not in (0, FROM_FILE, FROM_LUT):  # dcmtk chooses otherwise where a file states no window
            window = "300,800"
            picture, source = ours(content, window)
    except Refused as error:
        return f"refused: {error}"
    arguments = {0: [], FROM_FILE: ["+Wi", "1"], FROM_LUT: ["+Wl", "1"], ASKED: ["+Ww", "300", "800"]}[source]
    reference, tool = theirs(file, arguments)
    if reference is None and source == FROM_FILE:  # dcmtk does not look for windows in functional groups
        window = "300,800"
        picture, source = ours(content, window)
        reference, tool = theirs(file, ["+Ww", "300", "800"])
    if reference is None:
        return f"not drawn by dcmtk: {tool}"
    difference = np.abs(reference.astype(int) - picture)
    above = float((difference > 1).mean())
    named = window if source == ASKED else SOURCES[source] or "colour"
    return Compared(file.name, named, tool, int(difference.max()), above, grid(reference))


def grid(picture: npt.NDArray[np.uint8]) -> str:
    """Values [H, W, 3] on a grid of 6 × 6 pixels, of grey pictures one channel."""
    rows, columns = (np.linspace(0, n - 1, 6).astype(int) for n in picture.shape[:2])
    values = picture[np.ix_(rows, columns)]
    return (values[..., 0] if (picture == picture[..., :1]).all() else values).tobytes().hex()


def files_of(names: list[str]) -> Iterator[Path]:
    for name in names:
        path = Path(name)
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and dicom.DicomDecoder().recognizes(file.read_bytes()[:512]):
                yield file


def main(names: list[str]) -> None:
    warnings.simplefilter("ignore")
    found = []
    for file in files_of(names):
        try:
            result = compare(file)
        except (RuntimeError, ValueError, KeyError, AttributeError) as error:
            result = f"not drawn: {type(error).__name__}"
        if isinstance(result, str):
            print(f"{file.name:44} {result}")
        else:
            found.append(result)
            print(
                f"{result.name:44} {result.tool} {result.window[:28]:28} largest {result.largest:3d}, above one "
                f"{100 * result.above_one:.3f} %, grid {result.grid}"
            )
    within = sum(one.largest <= 1 for one in found)
    print(f"{within} of {len(found)} pictures agree within one grey level")


if __name__ == "__main__":
    main(sys.argv[1:])
