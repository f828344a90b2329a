"""Which images of DICOM files are taken, in which order, of which patient."""

from __future__ import annotations

import io
import logging
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread

import biomedcoop as bc
from biomedcoop.data.images.decoders.base import DecodeOptions
from biomedcoop.data.images.reading import read_image
from biomedcoop.data.images.sources import ImageInFile
from biomedcoop.data.images.stacks import Reading, facts_of, patient_groups, split_frame, taken_from
from biomedcoop.data.readers.unlabelled import ListedImage, find_images
from biomedcoop.errors import ImageError, UserError
from dicom_files import NAMES, ct, ramp, series, write


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return write(tmp_path / "film.dcm", ct(np.stack([ramp() + np.int16(n) for n in range(5)]), Modality="US"))


def of_class(uid: str, data: Dataset) -> Dataset:
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = uid
    return data


def names(given: list[Path], **reading: str) -> list[str]:
    """What prediction is asked about, by name."""
    found = find_images(given, reading=Reading(**reading))
    return [Path(one.path if isinstance(one, ListedImage) else one).name for one in found]


def test_frames_of_a_file(film: Path) -> None:
    assert names([film]) == [f"film.dcm#{number}" for number in range(5)]
    assert names([film], frame="middle") == ["film.dcm#2"]
    assert names([film], frame="4") == ["film.dcm#4"]
    assert names([Path(f"{film}#3")]) == ["film.dcm#3"]
    with pytest.raises(UserError, match=r"film.dcm: frame 5 was asked for, but it has 5 frames, numbered from 0"):
        names([film], frame="5")


def test_a_table_may_list_frames(film: Path) -> None:
    table = film.parent / "list.csv"
    table.write_text("path,label,site\nfilm.dcm#1,a,x\nfilm.dcm#2,b,y\n")
    assert names([table]) == ["film.dcm#1", "film.dcm#2"]
    data = bc.load_dataset(table, for_training=False)
    assert data.images == [ImageInFile(film, DecodeOptions(frame)) for frame in (1, 2)]
    write(film.parent / "still.dcm", ct(ramp()))
    table.write_text("path,label,site\nstill.dcm,b,y\nfilm.dcm,a,x\n")
    whole = bc.load_dataset(table, for_training=False, window="300,800")
    assert whole.keys == ("still.dcm", *(f"film.dcm#{frame}" for frame in range(5)))
    assert whole.images[5] == ImageInFile(film, DecodeOptions(4, "300,800"))
    assert whole.subgroups["site"].tolist() == ["y", *"xxxxx"]


def test_slices_stand_in_the_order_of_their_place(tmp_path: Path) -> None:
    files = series(tmp_path, "one", 5)
    assert names([tmp_path]) == [file.name for file in reversed(files)]
    assert names([tmp_path], frame="middle") == [files[2].name]
    assert names([tmp_path], frame="0") == [files[4].name]
    table = tmp_path.parent / "listed.csv"
    table.write_text("path\n" + "\n".join(str(file) for file in files))
    assert names([table], frame="middle") == [file.name for file in files]  # the user lists each


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    files = series(tmp_path, "one", 4)
    files[1].unlink()
    series(tmp_path / "other", "two", 2)
    (tmp_path / "copy.dcm").write_bytes(files[0].read_bytes())
    write(tmp_path / "report.dcm", ct(ramp(), Modality="SR"))
    write(tmp_path / "scout.dcm", ct(ramp(), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    contours = "1.2.840.10008.5.1.4.1.1.481.3"
    write(tmp_path / "structure", of_class(contours, ct(ramp(), Rows=None, PixelData=None)))
    for number in range(2):
        write(tmp_path / f"second{number}.dcm", ct(ramp(), SeriesInstanceUID="1.2.3.9", InstanceNumber=number))
    told: list[str] = []
    found = list(find_images([tmp_path], tell=told.append))
    assert len(found) == 3 + 2 + 2
    assert told == [
        "DICOM files left out, copies of another file (same SOP Instance UID and pixels): 1",
        "DICOM files left out, no images to classify (SR): 1",
        "DICOM files left out, scouts (localizers): 1",
        "DICOM files left out, no images to classify (no pixels): 1",
        "folders with several DICOM series: 1; the series of a folder stand one after another (the first folder: 3, 2 images)",
        "series with missing or uneven slices: 1; look at them",
    ]
    (tmp_path / "reports").mkdir()
    (tmp_path / "report.dcm").rename(tmp_path / "reports" / "report.dcm")
    with pytest.raises(UserError, match=r"holds no image that can be used \(.*\(SR\): 1"):
        list(find_images([tmp_path / "reports"]))


@pytest.mark.parametrize("kind", ["without rows", "without pixels", "cut in its header", "cut in its pixels"])
def test_a_damaged_image_is_refused_alone_in_a_folder_and_in_an_archive(kind: str, tmp_path: Path) -> None:
    write(tmp_path / "in" / "good.dcm", ct(ramp()))
    lacking = {"without rows": {"Rows": None}, "without pixels": {"PixelData": None}}
    file = write(tmp_path / "in" / "worse.dcm", ct(ramp(), **lacking.get(kind, {})))
    if kind.startswith("cut"):
        file.write_bytes(file.read_bytes()[: 500 if "header" in kind else 2000])
    archive = tmp_path / "in.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for one in ("good.dcm", "worse.dcm"):
            packed.write(tmp_path / "in" / one, one)
    told: list[str] = []
    for given in (file, tmp_path / "in", archive):
        found = list(find_images([given], tell=told.append))
        assert [str(one).rpartition("/")[2] for one in found][-1] == "worse.dcm"
        with pytest.raises(ImageError, match=r"worse.dcm: .*; copy it again or remove it"):
            read_image(found[-1])  # type: ignore[arg-type]
    assert not told


def test_an_object_without_pixels_of_a_maker_is_no_image(tmp_path: Path) -> None:
    file = write(tmp_path / "a.dcm", of_class("1.3.12.2.1107.5.9.1", ct(ramp(), Rows=None, PixelData=None)))
    with pytest.raises(ImageError, match=r"it is no image to classify \(no pixels\); leave it out"):
        read_image(file)
    with pytest.raises(UserError, match=r"no images to classify \(no pixels\): 1"):
        list(find_images([tmp_path]))


def test_files_with_one_identifier_are_copies_only_if_their_pixels_are_equal(tmp_path: Path) -> None:
    files = series(tmp_path, "one", 4)
    for number, file in enumerate(files):
        data = dcmread(file)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
        data.PatientComments = str(number)
        write(file, data)
    (tmp_path / "A.dcm").write_bytes(files[0].read_bytes()[:-100])  # comes first, and must not stand for the whole file
    write(tmp_path / "IM0009", dcmread(files[0]))
    told: list[str] = []
    found = list(find_images([tmp_path], tell=told.append))
    assert {str(one) for one in found} == {str(tmp_path / "A.dcm"), *map(str, files)}
    assert told == [
        "DICOM files left out, copies of another file (same SOP Instance UID and pixels): 1",
        "DICOM files with the SOP Instance UID of another file, but other pixels: 5; all are used",
    ]


def test_images_of_a_patient_stay_together(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for patient in ("p1", "p2"):
            series(tmp_path / label / f"{patient}{label}", patient + label, 2)
    data = bc.load_dataset(tmp_path, for_training=False)
    assert data.groups is not None
    assert len(set(data.groups)) == 4
    assert all(len(set(data.groups[i : i + 2])) == 1 for i in range(0, 8, 2))
    assert all(group.startswith("patient-") for group in data.groups)
    again = bc.load_dataset(tmp_path, for_training=False)
    assert again.groups is not None
    assert (again.groups == data.groups).all()
    assert "images of one patient stay together, as the DICOM files name it (4 groups)" in data.notes
    assert not [note for note in data.notes if "are not used" in note]  # the folders are the patients


def test_images_without_a_patient_among_others_are_counted(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for patient in ("p1", "p2"):
            series(tmp_path / label / (patient + label), patient + label, 1)
    for number in range(3):
        Image.new("L", (40, 40), number).save(tmp_path / "a" / f"{number}.png")
    (note,) = bc.load_dataset(tmp_path, for_training=False).notes
    assert note.endswith("as the DICOM files name it (4 groups); images without a patient, each by itself: 3")


def test_one_patient_in_all_files_leaves_the_folders_to_the_user(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for exam in ("e1", "e2" if label == "a" else "e3"):
            write(tmp_path / label / exam / "1.dcm", ct(ramp()))
    notes = bc.load_dataset(tmp_path, for_training=False).notes
    assert "the DICOM files name one patient or none, so that images are not grouped" in notes
    assert any("(e1, e2, …: 3) are not used; if they are patients, give a table" in note for note in notes)


def test_groups_are_salted_with_all_files(tmp_path: Path) -> None:
    """Likely patient numbers cannot be tried out against a group, nor two datasets be joined by it."""
    files = [series(tmp_path / str(n), f"{n}", 1)[0] for n in range(3)]
    three, _ = patient_groups([facts_of(file) for file in files])
    two, _ = patient_groups([facts_of(file) for file in files[:2]])
    assert three is not None
    assert two is not None
    assert not set(three) & set(two)


def test_without_patient_numbers_the_study_is_the_group(tmp_path: Path) -> None:
    for name in ("a", "b"):
        series(tmp_path / name, "ANONYMOUS", 2)
    data = bc.load_dataset(tmp_path, for_training=False)
    assert data.groups is not None
    assert [group.partition("-")[0] for group in data.groups] == ["study"] * 4
    (tmp_path / "table.csv").write_text("path,label,group\na/IM0000,a,one\nb/IM0000,b,one\n")
    table = bc.load_dataset(tmp_path / "table.csv", for_training=False)
    assert table.groups is not None
    assert table.groups.tolist() == ["one", "one"]  # the table's own groups go first


def test_view_and_side_give_results_by_subgroup(tmp_path: Path) -> None:
    """Only the usual terms, because other text could be anything, such as a name."""
    stated = [
        {"ViewPosition": "PA", "Laterality": "L"},
        {"ViewPosition": "AP", "Laterality": "R", "ImageLaterality": "L"},
        {"ViewPosition": NAMES[4]},
        {"ViewPosition": "pa", "Laterality": ""},
    ]
    for number, attributes in enumerate(stated):
        series(tmp_path / "ab"[number % 2] / str(number), f"p{number}", 1, **attributes)
    data = bc.load_dataset(tmp_path, for_training=False)
    found = dict(zip([key.split("/")[1] for key in data.keys], data.subgroups["view"], strict=True))
    assert found == {"0": "PA", "1": "AP", "2": "", "3": "PA"}
    assert set(data.subgroups) == {"view"}  # one side alone divides nothing
    assert "results are also given by view, as the DICOM files state it" in data.notes
    table = tmp_path / "list.csv"
    table.write_text("path,label,view,site\na/0/IM0000,a,front,x\nb/1/IM0000,b,back,y\n")
    assert bc.load_dataset(table, for_training=False).subgroups["view"].tolist() == ["front", "back"]


def test_folders_of_files_without_mark_and_ending(tmp_path: Path) -> None:
    marked = series(tmp_path / "new", "one", 3)
    for file in marked:
        content = file.read_bytes()
        (tmp_path / "old").mkdir(exist_ok=True)
        (tmp_path / "old" / file.name).write_bytes(content[132:])
    assert names([tmp_path / "old"]) == [file.name for file in reversed(marked)]


def test_one_image_in_python_is_one_image(film: Path) -> None:
    with pytest.raises(UserError, match=r"it holds 5 images; name one, e.g. 'film.dcm#2'"):
        list(Reading().sources(film))
    assert list(Reading().sources(f"{film}#2")) == [ImageInFile(film, DecodeOptions(2))]
    assert list(Reading("300,800", "middle").sources([film])) == [ImageInFile(film, DecodeOptions(2, "300,800"))]
    (source,) = Reading("300,800", "1").sources(film.read_bytes())
    assert isinstance(source, ImageInFile)
    assert source.options == DecodeOptions(1, "300,800")
    with pytest.raises(UserError, match=r"^image in memory: it holds 5 images; give frame='middle' to the estimator"):
        list(Reading().sources(film.read_bytes()))
    assert list(Reading().sources(ImageInFile(film.read_bytes()))) == [
        ImageInFile(film.read_bytes())
    ]  # a frame by itself


def test_other_images_do_not_depend_on_a_window(discs: Path) -> None:
    image = next(discs.rglob("*.png"))
    assert list(Reading("lung").sources([image, image.read_bytes()])) == [image, image.read_bytes()]
    assert taken_from([image], Reading("lung"))[0][0].source == image
    assert bc.load_dataset(discs, window="lung").reading is None


def test_a_file_may_really_have_the_name_of_a_frame(tmp_path: Path) -> None:
    (tmp_path / "a#1").touch()
    assert split_frame(tmp_path / "a#1") == (tmp_path / "a#1", None)
    assert split_frame(tmp_path / "b#1") == (tmp_path / "b", 1)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"window": "brian"}, "no window 'brian'; did you mean brain?"),
        ({"window": "40"}, "no window '40'; give auto"),
        ({"window": "40,0"}, "the width above 0"),
        ({"window": "nan,1"}, "must be finite"),
        ({"window": 3}, "window=3 must be auto"),
        ({"frame": "-1"}, "frame='-1' must be all, middle, or the number"),
        ({"frame": "1.5"}, "must be all, middle"),
    ],
)
def test_options_that_cannot_be_used(values: dict[str, str], line: str) -> None:
    with pytest.raises(UserError) as caught:
        Reading(**values)
    assert line in str(caught.value)


def test_spellings_of_a_window() -> None:
    assert {Reading(window).window for window in ("40,400", " 40.0, 400 ", "4e1,400")} == {"40,400"}
    assert Reading("LUNG", "007") == Reading("lung", "7")


def test_facts_hold_no_name(tmp_path: Path) -> None:
    """Of the identifiers, those that group and order images are kept, as they are stored; no name is read."""
    text = repr(facts_of(write(tmp_path / "a.dcm", ct(ramp()))))
    assert not any(name in text for name in NAMES if name != "PLANTED-ID-4711")


TEXTS = (
    *("InstanceNumber", "NumberOfFrames", "ImagePositionPatient", "WindowCenter", "WindowWidth", "RescaleSlope"),
    *("ImageType", "ViewPosition", "ImageLaterality", "Modality", "PhotometricInterpretation", "VOILUTFunction"),
    *("StudyInstanceUID", "PixelRepresentation", "SpecificCharacterSet", "SOPClassUID", "WindowCenterWidthExplanation"),
)


@pytest.mark.parametrize("name", TEXTS)
def test_no_warning_or_error_quotes_a_header(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """pydicom warns of values that it cannot use, and its words quote them."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    data, number = ct(ramp(), InstanceNumber=1), tag_for_keyword(name)
    assert number is not None
    planted = b"planted, John 7 "
    element = RawDataElement(Tag(number), dictionary_VR(number), len(planted), planted, 0, False, True)
    data._dict[element.tag] = element
    file = write(tmp_path / "a.dcm", data)
    assert not [text for text in said_of(file, caplog) if "planted" in text]


def said_of(file: Path, log: pytest.LogCaptureFixture) -> list[str]:
    """Errors, warnings and log lines about a file."""
    log.clear()
    told = []
    with warnings.catch_warnings(record=True) as said, log.at_level(logging.INFO):
        warnings.simplefilter("always")
        for look in (lambda: taken_from([file], Reading()), lambda: read_image(file, "a.dcm")):
            try:
                look()
            except UserError as error:
                told.append(str(error))
    return [*told, *(str(one.message) for one in said), *log.messages]


def test_no_warning_or_error_quotes_the_elements_before_the_header(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged length makes one element of the file meta of many, with names in them."""
    content = bytearray(write(tmp_path / "a.dcm", ct(ramp())).read_bytes())
    place = content.find(b"\x02\0\x10\0UI")
    content[place + 6 : place + 8] = (600).to_bytes(2, "little")
    (tmp_path / "a.dcm").write_bytes(content)
    said = said_of(tmp_path / "a.dcm", caplog)
    assert len(said) == 1
    assert not any(name in said[0] for name in NAMES)


def test_pydicom_warns_its_own_users_as_ever(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = write(tmp_path / "a.dcm", ct(ramp())).read_bytes()
    read_image(content)
    spoilt = content.replace(b"1.2.3.1.1", b"x.2.3.1.1")
    read_image(spoilt)
    with pytest.warns(UserWarning, match="Invalid value for VR UI: 'x.2.3.1.1'") as said:
        print(dcmread(io.BytesIO(spoilt)).SeriesInstanceUID)
    assert Path(said[0].filename).name == "valuerep.py"  # as without this package
    assert "Invalid value" in caplog.text
