"""Grey values of DICOM: Modality LUT, window, inversion, colours, frames; and what is refused, in one line without a name."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import JPEG2000Lossless

from biomedcoop.data.images.content import content_hash
from biomedcoop.data.images.decoders import dicom
from biomedcoop.data.images.decoders.base import DecodeOptions
from biomedcoop.data.images.facts import Tally
from biomedcoop.data.images.reading import OpenedImage, open_image
from biomedcoop.data.images.sources import ImageInFile
from biomedcoop.data.images.windows import ASKED, CT_SOFT, FROM_FILE, FROM_LUT, PERCENTILES, STORED_RANGE
from biomedcoop.errors import ImageError
from dicom_files import NAMES, ct, ramp


def saved(data: Dataset) -> bytes:
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def opened(data: Dataset | bytes, window: str = "auto", frame: int = 0) -> OpenedImage:
    content = data if isinstance(data, bytes) else saved(data)
    return open_image(ImageInFile(content, DecodeOptions(frame, window)), "scan")


def grey(data: Dataset | bytes, window: str = "auto", frame: int = 0) -> npt.NDArray[np.uint8]:
    return np.asarray(opened(data, window, frame).image)[..., 0]


def refusal(data: Dataset | bytes, window: str = "auto", frame: int = 0) -> str:
    with pytest.raises(ImageError) as caught:
        opened(data, window, frame)
    line = str(caught.value)
    assert "\n" not in line
    assert not any(name in line for name in NAMES)
    return line


DCMTK = json.loads((Path(__file__).parent / "dcmtk.json").read_text())
"""Some of pydicom's own files: the window asked for, and grey values on a grid of 6 × 6 pixels as dcmtk 3.6.7 draws them, in
hexadecimal; ``python -m benchmarks.studies.dicom FILE…`` printed them (for JPEG 2000, dcmtk drew what GDCM had decompressed).
"""


@pytest.mark.parametrize("name", DCMTK)
def test_pictures_are_those_of_dcmtk(name: str) -> None:
    """Within one grey level, which rounding explains: dcmtk computes in whole numbers. MONOCHROME1 is tested below."""
    window, values = DCMTK[name]
    file = Path(str(get_testdata_file(name, download=False)))
    picture = np.asarray(open_image(ImageInFile(file, DecodeOptions(0, window))).image).astype(int)
    rows, columns = (np.linspace(0, n - 1, 6).astype(int) for n in picture.shape[:2])
    expected = np.frombuffer(bytes.fromhex(values), np.uint8).reshape(6, 6, -1)
    assert np.abs(picture[np.ix_(rows, columns)] - expected).max() <= 1
    assert len(np.unique(expected)) > 3


@pytest.mark.parametrize(
    ("stored", "expected"),
    # LINEAR of PS3.3 C.11.2.1.2 with centre 40, width 400: y = ((x − 39.5) / 399 + 0.5) · 255, x in Hounsfield units
    [
        (1024 - 160, 0),
        (1024 - 60, 64),
        (1024 + 40, 128),
        (1024 + 140, 192),
        (1024 + 240, 255),
        (1024 - 1024, 0),
        (4095, 255),
    ],
)
def test_the_windows_of_a_file(stored: int, expected: int) -> None:
    image = grey(ct(ramp(), WindowCenter=[40, 500], WindowWidth=[400, 2000]))
    assert image.ravel()[stored] == expected


def test_a_window_is_chosen_by_its_explanation() -> None:
    data = ct(ramp(), WindowCenter=[40, 500], WindowWidth=[400, 2000], WindowCenterWidthExplanation=["SOFT", "BONE"])
    assert (grey(data, "file:bone") == grey(ct(ramp(), WindowCenter=500, WindowWidth=2000))).all()
    assert "none of its windows is explained as 'liver'" in refusal(data, "file:liver")


def test_the_functions_of_a_window() -> None:
    x = ramp().ravel().astype(float) - 1024
    exact = np.clip((x - 40) / 400 + 0.5, 0, 1) * 255
    sigmoid = 255 / (1 + np.exp(-4 * (x - 40) / 400))
    for name, expected in (("LINEAR_EXACT", exact), ("SIGMOID", sigmoid)):
        found = grey(ct(ramp(), WindowCenter=40, WindowWidth=400, VOILUTFunction=name)).ravel()
        assert np.abs(found - expected).max() <= 0.5


def test_rescale_comes_before_the_window() -> None:
    twice = ct(ramp(), RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    assert grey(twice).ravel()[532] == 128  # 2 · 532 − 1024 = 40


@pytest.mark.parametrize(
    ("changed", "inverted"),
    [
        ({"PhotometricInterpretation": "MONOCHROME1"}, True),
        ({"PresentationLUTShape": "INVERSE"}, True),
        ({"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}, True),  # once, not twice
        ({"PresentationLUTShape": "IDENTITY"}, False),
    ],
)
def test_inversion_comes_after_the_window(changed: dict[str, str], inverted: bool) -> None:
    plain = grey(ct(ramp(), WindowCenter=40, WindowWidth=400))
    found = grey(ct(ramp(), WindowCenter=40, WindowWidth=400, **changed))
    assert (found == (255 - plain if inverted else plain)).all()


def test_windows_at_the_edge_of_the_standard() -> None:
    x = ramp().ravel().astype(float) - 1024
    one = grey(ct(ramp(), WindowCenter=40, WindowWidth=1)).ravel()
    assert (one == np.where(x > 39.5, 255, 0)).all()
    falling = grey(ct(ramp(), RescaleSlope=-1, RescaleIntercept=1024, WindowCenter=-40, WindowWidth=400)).ravel()
    assert np.abs(falling - np.clip((-x + 40 + 0.5) / 399 + 0.5, 0, 1) * 255).max() <= 0.5


def test_values_of_ct_that_are_no_hounsfield_units_get_no_window_of_ct() -> None:
    """A picture of a screen has the Modality of what it shows; maps of blood flow state a Rescale Type."""
    picture = np.arange(256, dtype=np.uint8).reshape(16, 16)
    screen = ct(picture, RescaleSlope=None, RescaleIntercept=None)
    assert opened(screen).facts.window == STORED_RANGE
    assert (grey(screen) == picture).all()
    assert "its Rescale Intercept (0028,1052) is missing" in refusal(screen, "brain")
    flow = ct(ramp(), RescaleType=NAMES[0])
    assert opened(flow).facts.window == PERCENTILES
    assert "its Rescale Type (0028,1054) is not HU; give centre,width or auto" in refusal(flow, "lung")
    assert opened(ct(ramp(), RescaleType="HU")).facts.window == CT_SOFT


def test_windows_where_the_file_states_none() -> None:
    """CT has a meaning of its values; 8 bits are a picture already; else percentiles without padding."""
    bare = opened(ct(ramp()))
    assert bare.facts.window == CT_SOFT
    assert (np.asarray(bare.image)[..., 0] == grey(ct(ramp()), "soft")).all()
    picture = np.arange(256, dtype=np.uint8).reshape(16, 16)
    plain = opened(ct(picture, Modality="US", RescaleSlope=None, RescaleIntercept=None))
    assert plain.facts.window == STORED_RANGE
    assert (np.asarray(plain.image)[..., 0] == picture).all()
    values = np.full((40, 40), 2000, dtype=np.int16)
    values[:, 20:] = np.arange(800, dtype=np.int16).reshape(40, 20) + 100
    padded = np.where(values == 2000, np.int16(-2000), values)
    mr = {"Modality": "MR", "RescaleSlope": None, "RescaleIntercept": None}
    found = opened(ct(padded, PixelPaddingValue=-2000, **mr))
    assert found.facts.window == PERCENTILES
    padded[:5, :20], padded[5:9, :20] = -1990, -1995
    ranged = opened(ct(padded, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1990, **mr))
    assert (np.asarray(ranged.image) == np.asarray(found.image)).all()
    low, high = np.percentile(np.arange(800) + 100, [0.5, 99.5])
    expected = np.clip((padded[:, 20:] - low) / (high - low), 0, 1) * 255
    assert np.abs(np.asarray(found.image)[:, 20:, 0] - expected).max() <= 0.5


@pytest.mark.parametrize(
    ("window", "centre", "width"), [("brain", 40, 80), ("lung", -600, 1500), ("bone", 400, 1800), ("50,350", 50, 350)]
)
def test_a_window_that_is_asked_for_goes_over_the_files(window: str, centre: int, width: int) -> None:
    data = ct(ramp(), WindowCenter=1, WindowWidth=2)
    found = opened(data, window)
    x = ramp().astype(float) - 1024
    assert np.abs(np.asarray(found.image)[..., 0] - np.clip((x - centre) / width + 0.5, 0, 1) * 255).max() <= 0.5
    assert found.facts.window == ASKED
    assert found.digest != opened(data).digest == content_hash(saved(data))
    assert found.digest == content_hash(ImageInFile(saved(data), DecodeOptions(window=window)))


def table(values: list[int], bits: int, first: int = 0) -> Dataset:
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [len(values), first, bits], values
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    return item


def test_lookup_tables() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    voi = ct(pixels, VOILUTSequence=[table([4095 - 16 * i for i in range(256)], 12)], RescaleIntercept=0)
    assert opened(voi).facts.window == FROM_LUT
    assert grey(voi).ravel()[[0, 128, 255]].tolist() == [255, 127, 1]
    modality = ct(
        pixels, ModalityLUTSequence=[table([2 * i for i in range(256)], 16)], WindowCenter=256, WindowWidth=513
    )
    del modality.RescaleSlope, modality.RescaleIntercept
    assert grey(modality).ravel()[[0, 128, 255]].tolist() == [0, 128, 254]
    assert opened(modality).facts.window == FROM_FILE
    frame = Dataset()
    frame.FrameVOILUTSequence = [Dataset()]
    frame.FrameVOILUTSequence[0].VOILUTSequence = voi.VOILUTSequence
    assert (grey(ct(pixels, PerFrameFunctionalGroupsSequence=[frame], RescaleIntercept=0)) == grey(voi)).all()
    voi.VOILUTSequence[0].LUTDescriptor = [256, 0, 99]
    assert "VOI LUT Sequence (0028,3010) is damaged" in refusal(voi)


def test_colours() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    usual = {"Modality": "US", "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    usual |= {"RescaleSlope": None, "RescaleIntercept": None}
    assert (np.asarray(opened(ct(rgb, **usual)).image) == rgb).all()
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1))
    by_plane = ct(rgb, **{**usual, "PlanarConfiguration": 1}, PixelData=planes.tobytes())
    assert (np.asarray(opened(by_plane).image) == rgb).all()
    assert "is for grey images" in refusal(ct(rgb, **usual), "40,400")
    assert "its colours (3 samples, Photometric Interpretation (0028,0004) HSV) are not read" in refusal(
        ct(rgb, **{**usual, "PhotometricInterpretation": "HSV"})
    )


def with_palette(
    pixels: npt.NDArray[np.uint8], bits: int, colours: list[list[int]], segmented: bool = False
) -> Dataset:
    """A picture whose tables for red, green and blue hold words of 16 bits."""
    data = ct(
        pixels, Modality="US", PhotometricInterpretation="PALETTE COLOR", RescaleSlope=None, RescaleIntercept=None
    )
    for name, words in zip(("Red", "Green", "Blue"), colours, strict=True):
        setattr(data, f"{name}PaletteColorLookupTableDescriptor", [256, 0, bits])
        data[f"{name}PaletteColorLookupTableDescriptor"].VR = "US"
        kind = "Segmented" if segmented else ""
        setattr(data, f"{kind}{name}PaletteColorLookupTableData", np.array(words, "<u2").tobytes())
    return data


def test_palettes_of_16_bits() -> None:
    """The depth of their colours is that of the tables: a dark frame is as dark as it is in a film with bright ones."""
    dark = np.zeros((16, 16), dtype=np.uint8)
    rising = np.arange(256)
    high = [(rising * 256).tolist(), (rising[::-1] * 256).tolist(), [128] * 256]
    first = np.asarray(opened(with_palette(dark, 16, high)).image)
    assert first[0, 0].tolist() == [0, 255, 0]
    only_blue = np.asarray(opened(with_palette(dark, 16, [high[0], high[0], high[2]])).image)
    assert only_blue.max() == 0  # 128 of 65,535
    low = np.asarray(opened(with_palette(rising.astype(np.uint8).reshape(16, 16), 16, [rising.tolist()] * 3)).image)
    assert (low[..., 0].ravel() == rising).all()  # 8-bit colours in words of 16 bits


def test_one_sample_of_a_palette_is_not_one_channel() -> None:
    """Grey pictures are resized as one channel; these are colours, although each pixel is one sample."""
    rising = np.arange(256)
    high = [(rising * 256).tolist(), (rising[::-1] * 256).tolist(), [128] * 256]
    coloured = opened(with_palette(rising.astype(np.uint8).reshape(16, 16), 16, high))
    assert not coloured.grey
    assert opened(ct(ramp())).grey


def test_jpeg_of_12_bits_is_refused_by_name() -> None:
    """No decoder of the extra reads it; the file itself is whole."""
    file = get_testdata_file("JPGExtended.dcm")
    assert isinstance(file, str)
    assert "JPEG Extended with 12 bits is not read; decompress it first" in refusal(Path(file).read_bytes())


def test_palettes_in_segments() -> None:
    """One entry as it is, then 255 in a line (PS3.3 C.7.9.2)."""
    line = [0, 1, 0, 1, 255, 255 * 256]
    picture = np.arange(256, dtype=np.uint8).reshape(16, 16)
    found = np.asarray(opened(with_palette(picture, 16, [line] * 3, segmented=True)).image)
    assert (found == picture[..., None]).all()


def test_bits_beyond_those_stored_are_no_part_of_the_value() -> None:
    """Overlays of earlier versions of the standard stand in the high bits, or in the low ones."""
    pixels = ramp().astype(np.uint16)
    stated = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 40, "WindowWidth": 400}
    plain = grey(ct(pixels, **stated))
    assert (grey(ct(pixels | 0xF000, **stated)) == plain).all()
    assert (grey(ct(pixels << 4 | 0xF, **{**stated, "HighBit": 15})) == plain).all()
    assert (grey(ct(pixels << 2 | 0x4001, **{**stated, "HighBit": 13})) == plain).all()
    assert "end at bit 16 (High Bit (0028,0102))" in refusal(ct(pixels, **{**stated, "HighBit": 16}))
    assert "end at bit 5" in refusal(ct(pixels, **{**stated, "HighBit": 5}))
    packed = ct(pixels, **stated)
    packed.compress(JPEG2000Lossless, generate_instance_uid=False)
    packed.HighBit = 15
    assert "save it uncompressed with High Bit 11" in refusal(packed)


@pytest.mark.parametrize(("high", "shift"), [(11, 0), (15, 4)])
def test_signed_values_of_12_bits(high: int, shift: int) -> None:
    signed = (np.arange(4096) - 2048).reshape(64, 64).astype(np.int16)
    stated = {"RescaleIntercept": 0, "WindowCenter": 40, "WindowWidth": 400}
    stored = ((signed & 0xFFF) << shift).astype(np.int16)
    found = grey(ct(stored, BitsStored=12, HighBit=high, **stated))
    assert (found == grey(ct(signed, **stated))).all()


BARE = {
    "MR_small_implicit.dcm": True,
    "MR_small.dcm": True,
    "MR_small_bigendian.dcm": True,
    "SC_rgb_jpeg_gdcm.dcm": False,
}
"""Files of pydicom with an implicit, explicit and big-endian header, and JPEG lossless; whether they can do without meta header."""


@pytest.mark.parametrize("name", BARE)
def test_files_without_preamble_and_mark(name: str) -> None:
    """Old archives hold them, with the meta header or without."""
    content = Path(str(get_testdata_file(name, download=False))).read_bytes()
    (length,) = struct.unpack_from("<I", content, 140)
    picture = np.asarray(opened(content).image)
    assert (np.asarray(opened(content[132:]).image) == picture).all()
    without = content[144 + length :]
    if BARE[name]:
        assert (np.asarray(opened(without).image) == picture).all()
        assert "truncated" in refusal(without[:-200])
    else:
        assert "does not state how (Transfer Syntax UID (0002,0010)); export it again" in refusal(without)


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"\x08\0\x08",
        bytes(600),
        b"\x08\0" * 300,  # a label image
        b"\x08\0\x02\0\0\0\0\0" + bytes([0, 0, 0, 0, 64, 0, 64, 0, 24, 0]) + bytes(500),  # TGA with a name of 8 bytes
        b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + bytes(500),  # one element and no other
    ],
)
def test_other_files_are_not_taken_for_dicom(start: bytes) -> None:
    assert not dicom.DicomDecoder().recognizes(start[:512])


def test_frames_have_their_own_window_and_slope() -> None:
    def group(name: str, **values: Any) -> Dataset:
        item = Dataset()
        inner = Dataset()
        for key, value in values.items():
            setattr(inner, key, value)
        setattr(item, name, [inner])
        return item

    pixels = np.stack([ramp(), ramp()[::-1]])
    data = ct(pixels, RescaleSlope=None, RescaleIntercept=None)
    windows = [group("FrameVOILUTSequence", WindowCenter=c, WindowWidth=400) for c in (40, 240)]
    data.PerFrameFunctionalGroupsSequence = windows
    data.SharedFunctionalGroupsSequence = [
        group("PixelValueTransformationSequence", RescaleSlope=1, RescaleIntercept=-1024)
    ]
    assert (grey(data, frame=0) == grey(ct(ramp(), WindowCenter=40, WindowWidth=400))).all()
    assert (grey(data, frame=1)[::-1] == grey(ct(ramp(), WindowCenter=240, WindowWidth=400))).all()
    assert "frame 2 was requested, but the file has 2" in refusal(data, frame=2)


def test_pixels_that_are_not_square_become_so() -> None:
    data = ct(ramp(), PixelSpacing=[2.0, 1.0])
    assert opened(data).image.size == (64, 128)
    assert opened(ct(ramp(), PixelAspectRatio=[1, 2])).image.size == (128, 64)
    assert opened(ct(ramp(), PixelSpacing=[0.7, 0.7])).image.size == (64, 64)
    assert "more than twenty times as long as wide" in refusal(ct(ramp(), PixelSpacing=[30.0, 1.0]))


@pytest.mark.parametrize(
    ("name", "identical_to"),
    [
        ("MR_small_RLE.dcm", "MR_small.dcm"),
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm"),
        ("MR_small_bigendian.dcm", "MR_small.dcm"),
        ("MR_small_implicit.dcm", "MR_small.dcm"),
        ("SC_rgb_rle.dcm", "SC_rgb_jpeg_gdcm.dcm"),  # JPEG lossless
    ],
)
def test_lossless_compression_changes_nothing(name: str, identical_to: str) -> None:
    one, other = (
        np.asarray(open_image(Path(str(get_testdata_file(file, download=False)))).image)
        for file in (name, identical_to)
    )
    assert (one == other).all()


def test_damaged_data_end_no_process() -> None:
    """GDCM, which alone decodes JPEG lossless, ends its process on some of these."""
    content = Path(str(get_testdata_file("SC_rgb_jpeg_gdcm.dcm", download=False))).read_bytes()
    draw = np.random.default_rng(1)
    start = content.find(b"\xff\xd8")
    answers = set()
    for _ in range(60):
        damaged = bytearray(content)
        for place in draw.integers(start, len(content), 5):
            damaged[place] = draw.integers(256)
        try:
            answers.add(open_image(bytes(damaged)).image.size)
        except ImageError as error:
            answers.add(error.reason[:15])
    assert len(answers) > 1
    assert open_image(content).image.size == (100, 100)


def cut(data: Dataset, share: float) -> bytes:
    content = saved(data)
    return content[: int(len(content) * share)]


def test_faulty_files_are_one_line() -> None:
    assert "Rows (0028,0010) is missing" in refusal(ct(ramp(), Rows=None))
    assert "it states 0 rows" in refusal(ct(ramp(), Rows=0))
    assert "the file is truncated" in refusal(cut(ct(ramp()), 0.8))
    assert "holds no pixels" in refusal(ct(ramp(), PixelData=None))
    assert "Rescale Slope (0028,1053) is 0" in refusal(ct(ramp(), RescaleSlope=0))
    assert "Window Width (0028,1051) is 0" in refusal(ct(ramp(), WindowCenter=1, WindowWidth=0))
    assert "Window Width (0028,1051) is 0.5, which LINEAR" in refusal(ct(ramp(), WindowCenter=1, WindowWidth=0.5))
    assert "without a Window Width" in refusal(ct(ramp(), WindowCenter=1))
    assert "is in Hounsfield units of CT, but its Modality (0008,0060) is not CT" in refusal(
        ct(ramp(), Modality="MR"), "lung"
    )
    for kind in ("SEG", "SR", "RTDOSE"):
        assert f"no image to classify ({kind})" in refusal(ct(ramp(), Modality=kind))
    nan = saved(ct(ramp(), RescaleSlope="12345678")).replace(b"12345678", b"NaN     ")
    assert "Rescale Slope (0028,1053) is not a finite number" in refusal(nan)
    assert "Rescale Slope (0028,1053) is not a number" in refusal(nan.replace(b"NaN     ", b"DOE^JOHN"))
    assert "damaged" in refusal(b"\0" * 128 + b"DICM" + b"\xff" * 600)
    for name, values in (("PixelSpacing", [0, 1]), ("ImagerPixelSpacing", [1, -1]), ("PixelAspectRatio", [1, 0])):
        assert "is not two numbers above 0; correct it" in refusal(ct(ramp(), **{name: values}))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"])
@pytest.mark.parametrize("value", ["1e308", "-1e308", "1e-300"])
def test_numbers_of_absurd_size_are_refused_before_they_overflow(name: str, value: str) -> None:
    usual = {"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "SIGMOID"}
    line = refusal(ct(ramp(), **usual | {name: value}))
    assert "is no number from 1e-38 to 3e38 in size" in line
    assert dicom.described(name) in line


@pytest.mark.filterwarnings("error")
def test_large_numbers_that_can_be_computed_with_are() -> None:
    large = grey(ct(ramp(), RescaleSlope="1e38", RescaleIntercept="1e38", Modality="MR"))
    assert (large == grey(ct(ramp(), RescaleSlope=1, RescaleIntercept=0, Modality="MR"))).all()
    above = grey(ct(ramp(), RescaleSlope="1e30", RescaleIntercept=0, VOILUTSequence=[table([0, 50, 100, 255], 8)]))
    assert set(np.unique(above)) == {0, 255}  # the ends of the table
    doubles = ct(ramp(), PixelData=None, RescaleSlope=None, RescaleIntercept=None, Modality="MR", BitsAllocated=64)
    doubles.DoubleFloatPixelData = (np.linspace(-1, 1, 64 * 64) * 1e308).tobytes()
    assert "it holds values above 3.4e38" in refusal(doubles)


def test_zeros_that_say_nothing_are_read_as_if_they_were_absent() -> None:
    plain = grey(ct(ramp()))
    for name in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        assert (grey(ct(ramp(), **{name: [0, 0]})) == plain).all()
    assert opened(ct(ramp(), PixelSpacing=[0, 0], ImagerPixelSpacing=[2, 1])).image.size == (64, 128)
    assert (grey(ct(ramp(), NumberOfFrames=0)) == plain).all()
    unstated = opened(ct(ramp(), WindowCenter=0, WindowWidth=0))
    assert (np.asarray(unstated.image)[..., 0] == plain).all()
    assert unstated.facts.window == CT_SOFT


def test_refusals_quote_no_text_of_a_header() -> None:
    assert "its colours (1 samples, Photometric Interpretation (0028,0004) not known)" in refusal(
        ct(ramp(), PhotometricInterpretation="PLANTED")
    )
    assert "its Modality (0008,0060) is not CT" in refusal(ct(ramp(), Modality="PLANTED"), "lung")
    content = saved(ct(ramp()))
    known = b"1.2.840.10008.1.2.1\0"
    assert content.count(known) == 1
    for planted in (b"9.9.999.19431117.471", b"1.2.999.19431117.471", b"PLANTED JOHN 1943117"):
        assert "its Transfer Syntax UID (0002,0010) is not known" in refusal(content.replace(known, planted))


def test_bombs_are_refused_before_they_are_decoded() -> None:
    assert "it states 100,000 frames, more than the limit of 10,000" in refusal(ct(ramp(), NumberOfFrames=100_000))
    assert "65535 × 65535 pixels are more than the limit" in refusal(ct(ramp(), Rows=65535, Columns=65535))
    data = ct(ramp().astype(np.uint16), BitsStored=12, HighBit=11)
    data.compress(JPEG2000Lossless, generate_instance_uid=False)
    content = saved(data)
    place = content.find(b"\xff\x4f\xff\x51") + 8
    grown = content[:place] + (60_000).to_bytes(4, "big") * 2 + content[place + 8 :]
    assert "the header states 64 × 64 pixels, but the compressed frame 60000 × 60000" in refusal(grown)


def test_a_deflated_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ct(np.zeros((512, 512), dtype=np.int16))
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    content = saved(data)
    assert len(content) < 10_000
    assert opened(content).image.size == (512, 512)
    monkeypatch.setattr(dicom, "SMALL", 2**10)
    monkeypatch.setattr(dicom, "MAX_RATIO", 2)
    assert f"it inflates to more than {2 * len(content):,} bytes" in refusal(content)
    monkeypatch.setattr(dicom, "MAX_RATIO", 2000)
    assert opened(content).image.size == (512, 512)
    monkeypatch.setattr(dicom, "MAX_INFLATED", 2**18)
    assert "it inflates to more than 262,144 bytes" in refusal(content)


def test_a_missing_decoder_is_named_with_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    file = get_testdata_file("MR_small_jpeg_ls_lossless.dcm", download=False)
    monkeypatch.setattr(Decoder, "is_available", False)
    line = refusal(Path(str(file)).read_bytes())
    assert "1.2.840.10008.1.2.4.80 (JPEG-LS Lossless Image Compression) needs pyjpegls: pip install pyjpegls" in line
    assert "pip install 'biomedcoop[dicom]'" in line


def test_without_pydicom_the_extra_is_named() -> None:
    """In a process of its own, where pydicom cannot be imported."""
    file = get_testdata_file("CT_small.dcm", download=False)
    code = (
        "import sys; sys.modules['pydicom'] = None\n"
        "from pathlib import Path\n"
        "from biomedcoop.data.images.reading import open_image\n"
        f"open_image(Path({str(file)!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("CT_small.dcm: DICOM needs pydicom: pip install 'biomedcoop[dicom]'")


def test_what_is_told_of_a_file() -> None:
    named = opened(ct(ramp())).facts
    assert named.names_patient
    assert not named.burned_in
    assert not opened(ct(ramp(), PatientIdentityRemoved="YES")).facts.names_patient
    assert not opened(ct(ramp(), PatientName="", PatientID="")).facts.names_patient
    assert opened(ct(ramp(), Modality="US")).facts.burned_in
    assert not opened(ct(ramp(), Modality="US", BurnedInAnnotation="NO")).facts.burned_in
    assert opened(ct(ramp(), BurnedInAnnotation="YES")).facts.burned_in
    assert opened(ct(ramp(), ConversionType="WSD")).facts.burned_in  # a picture of a screen with CT
    rgb = {"Modality": "SM", "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    rgb |= {"RescaleSlope": None, "RescaleIntercept": None, "PatientName": "", "PatientID": ""}
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    path = Dataset()
    path.ICCProfile = b"\0" * 128
    for profile in ({"ICCProfile": path.ICCProfile}, {"OpticalPathSequence": [path]}):
        tally = Tally()
        tally.add("slide", opened(ct(colours, **rgb, **profile)).facts)
        assert tally.notes() == ["files with a colour profile (ICC), which is not applied: 1, first slide"]
    assert not opened(ct(colours, **rgb)).facts.icc_ignored
