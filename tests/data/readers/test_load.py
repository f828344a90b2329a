from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from biomedcoop.data.readers import files
from biomedcoop.data.readers.files.table import read_table
from biomedcoop.data.readers.load import load_dataset
from biomedcoop.errors import UserError


def message(source: str | Path) -> str:
    with pytest.raises(UserError) as caught:
        load_dataset(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_path_as_text_relative_or_with_dots(class_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(class_folders / "cyst")
    assert load_dataset("..").name == "scans"
    monkeypatch.chdir(class_folders)
    assert load_dataset(".").name == "scans"
    monkeypatch.chdir(class_folders.parent)
    assert load_dataset("scans").keys == load_dataset(class_folders).keys


def test_the_draw_depends_on_the_seed_only(many_images: Path) -> None:
    splits = [load_dataset(many_images, seed=seed).splits.tolist() for seed in (1, 1, 2)]
    assert splits[0] == splits[1] != splits[2]


def test_a_test_split_is_drawn_from_enough_images_only(many_images: Path) -> None:
    for number in range(34, 40):
        (many_images / "cyst" / f"{number}.png").unlink()
    data = load_dataset(many_images)
    assert (data.counts("test").tolist(), data.test_drawn) == ([10, 12], True)
    assert data.notes == (
        "no test split was given: 22 of 74 training images were drawn as test (30 % of each class, seed 0)",
    )
    (many_images / "cyst" / "33.png").unlink()
    data = load_dataset(many_images)
    assert (data.counts("train").tolist(), data.test_drawn) == ([33, 40], False)
    assert data.notes == (
        "There is no test split, and class 'cyst' has only 33 images, too few to set some aside: 'biomedcoop train' and bc.train "
        "test by cross-validation",
    )


@pytest.mark.parametrize(
    ("patients", "words"),
    [
        (34, ""),
        (33, "'cyst' has only 33 groups (such as patients), too few"),
        (1, "only 1 group (such as a patient), too few"),
    ],
)
def test_the_images_of_a_group_count_as_one(many_images: Path, patients: int, words: str) -> None:
    cysts = [f"cyst/{n:02}.png,cyst,c{n % patients}" for n in range(40)]
    others = [f"normal_scan/{n:02}.png,normal," for n in range(40)]
    (many_images / "t.csv").write_text("\n".join(["path,label,group", *cysts, *others]))
    data = load_dataset(many_images / "t.csv")
    assert data.test_drawn == (not words)
    assert words in data.notes[-1]


def test_names_are_looked_up_in_the_data_folder(class_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIOMEDCOOP_DATA", str(class_folders.parent))
    monkeypatch.chdir(class_folders)
    assert load_dataset("scans").root == class_folders
    assert load_dataset("SCANS").root == class_folders
    for folder, asked in (("BUSI", "busi"), ("HAM10000", "dermamnist"), ("DermaMNIST", "ham10000")):
        class_folders.rename(class_folders.parent / folder)
        monkeypatch.chdir(class_folders.parent / folder)
        data = load_dataset(asked)
        assert data.name == folder
        told = [note for note in data.notes if note.startswith(f"{asked} was read from {folder}")]
        assert len(told) == (asked != folder.lower())
        (class_folders.parent / folder).rename(class_folders)


def test_unknown_names_get_near_matches_and_the_way_out(class_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(class_folders)
    monkeypatch.delenv("BIOMEDCOOP_DATA", raising=False)
    assert "(BIOMEDCOOP_DATA is not set): run 'biomedcoop datasets download busi'" in message("busi")
    assert "run 'biomedcoop datasets download pathmnist_224'" in message("pathmnist_224")
    assert "did you mean kvasir?" in message("kvasri")
    monkeypatch.setenv("BIOMEDCOOP_DATA", str(class_folders.parent))
    assert "did you mean scans?" in message("scnas")
    assert "give the path of a folder or file" in message("qqqqqqqq")
    assert "no folder or file 'qqqqqqqq' here, and no dataset of that name in " in message("qqqqqqqq")
    (class_folders / "Nowhere else.csv").write_text("path,label")
    assert "did you mean Nowhere else.csv?" in message("nowhere-else")
    monkeypatch.setenv("BIOMEDCOOP_DATA", str(class_folders / "none"))
    assert "which is not a folder" in message("busi")


@pytest.mark.parametrize("source", ["", " ", "/no/such/folder", "./nothing", "labels.csv", Path("busi")])
def test_paths_that_are_not_there(source: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "there is no such folder or file" in message(source) or "empty name" in message(source)


def test_a_file_that_is_no_dataset(class_folders: Path) -> None:
    assert (
        "not a dataset; give a folder of class folders, a zip archive of them, or a file with one of the endings .json"
        in message(class_folders / "cyst" / "1.png")
    )


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["busi", "btmri", "ham10000", "retina", "kneexray", "mednist"])
def test_the_collected_datasets(name: str) -> None:
    data = load_dataset(name)
    assert data.root == Path(os.environ["BIOMEDCOOP_DATA"]).absolute() / name
    assert data.notes == ()
    assert all(data.counts(split).all() for split in ("train", "val", "test"))


def test_a_table_of_one_class_or_with_gaps_can_be_tested_on(class_folders: Path) -> None:
    (class_folders / "one.csv").write_text("path,label\ncyst/1.png,cyst\n")
    assert load_dataset(class_folders / "one.csv", for_training=False).class_names == ("cyst",)
    (class_folders / "gap.csv").write_text("path,label\ncyst/1.png,0\nnormal_scan/1.png,2\n")
    data = load_dataset(class_folders / "gap.csv", for_training=False)
    assert (data.class_names, data.labels.tolist()) == (("class 0", "class 1", "class 2"), [0, 2])


def test_names_that_no_report_can_hold(class_folders: Path) -> None:
    for name in ("b\udce4.npz", "b\udce4.csv"):
        (class_folders / name).write_text("path,label\ncyst/1.png,cyst\nnormal_scan/1.png,normal\n")
        assert "the name is not UTF-8, so no table or report can hold it" in message(class_folders / name)
    shutil.copy(class_folders / name, class_folders / "t.csv")
    with pytest.raises(UserError, match="is not UTF-8"):
        load_dataset(class_folders, split_file=class_folders / "b\udce4.json")
    with pytest.raises(UserError, match=r"the dataset's name .* is not UTF-8"):
        read_table(class_folders / "b\udce4.csv")


def test_data_that_may_not_be_read(class_folders: Path) -> None:
    class_folders.chmod(0)
    root = os.geteuid() == 0
    try:
        if root:  # who may read everything
            os.seteuid(65534)
        assert "Permission denied); change its access rights" in message(class_folders)
    finally:
        if root:
            os.seteuid(0)
        class_folders.chmod(0o755)


def test_a_format_of_datasets_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "toy.py").write_text(
        "from biomedcoop.data.dataset import Dataset\n"
        "def read_toy(file, for_training=True, reading=None):\n"
        "    names = file.read_text().split()\n"
        "    keys = tuple(f'{name}.png' for name in names)\n"
        "    return Dataset(file.stem, names, keys, keys, range(len(names)), ['train'] * len(names))\n"
        "READERS = {'.toy': read_toy}\n"
    )
    (tmp_path / "words.toy").write_text("cyst stone")
    monkeypatch.setattr(files, "__path__", [*files.__path__, str(tmp_path / "more")])
    files.file_readers.cache_clear()
    try:
        assert load_dataset(tmp_path / "words.toy", for_training=False).class_names == ("cyst", "stone")
    finally:
        sys.modules.pop("biomedcoop.data.readers.files.toy")
        files.file_readers.cache_clear()


@pytest.mark.parametrize(("images", "words"), [(1, "with two, 'biomedcoop train'"), (2, "aside: 'biomedcoop train'")])
def test_a_class_of_one_image_is_trained_without_a_test(tmp_path: Path, images: int, words: str) -> None:
    for name in ("cyst", "stone"):
        (tmp_path / name).mkdir()
        for number in range(images):
            Image.new("L", (8, 8), 9 * number + len(name)).save(tmp_path / name / f"{number}.png")
    (note,) = (note for note in load_dataset(tmp_path).notes if "no test split" in note)
    assert words in note
    assert ("bc.fit, in Python, trains without a test" in note) == (images == 1)
