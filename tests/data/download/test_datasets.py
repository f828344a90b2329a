"""Download and preparation of a dataset, from a server on this machine that speaks the hub's protocol."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from biomedcoop.data import catalogue
from biomedcoop.data.catalogue import CatalogueEntry
from biomedcoop.data.download.archive import Limits
from biomedcoop.data.download.check import read_published
from biomedcoop.data.download.datasets import download_dataset, prepare_folder
from biomedcoop.data.readers.load import load_dataset
from biomedcoop.errors import UserError
from biomedcoop.output import tidy
from data.download.toy import KEYS, archive_content, image, split_content
from hub_server import Hub

pytestmark = pytest.mark.filterwarnings("ignore::biomedcoop.errors.Note")


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names(root: Path) -> list[str]:
    """What the data folder holds, without the lock file, which stays."""
    return sorted(path.name for path in root.iterdir() if path.name != ".BUSI.lock")


# -- download


def test_download_and_load(hub: Hub, root: Path) -> None:
    with pytest.warns(match=r"BUSI.zip and its content need 0.1 MB \(0.1 MB to download\); .* are free in"):
        check = download_dataset("busi")
    assert (check.place, check.images, check.missing, check.done) == (root / "BUSI", 12, (), "downloaded")
    assert names(root) == ["BUSI"]
    assert names(root / "BUSI") == ["BUSI", "split_BUSI.json"]
    assert (root / "BUSI" / "BUSI" / KEYS[5]).read_bytes() == image(5)
    data = load_dataset("busi")
    assert (data.name, len(data), data.counts("test").tolist()) == ("BUSI", 12, [1, 1, 1])
    assert data.class_names == ("benign tumor", "malignant tumor", "normal scan")
    # a second time nothing is fetched
    hub.asked.clear()
    assert download_dataset("BUSI").done == "already there"
    assert hub.asked == []


@pytest.mark.parametrize("above", ["", "BUSI/", "BUSI/BUSI/", "archive/BUSI/"])
def test_every_layout_is_found(above: str, hub: Hub, root: Path) -> None:
    more = {"BUSI/split_BUSI.json": split_content()} if above == "BUSI/BUSI/" else {}
    hub.files["BUSI.zip"] = archive_content(above, more)
    download_dataset("busi")
    assert len(load_dataset("busi")) == 12
    assert names(root) == ["BUSI"]


def test_a_broken_download_continues_and_a_wrong_one_starts_again(hub: Hub, root: Path) -> None:
    hub.files["BUSI.zip"] = archive_content(more={"BUSI/more.bin": os.urandom(30_000_000)})
    hub.trouble = {"GET BUSI.zip": "cut"}
    assert "try again, what arrived is kept" in refused(lambda: download_dataset("busi"))
    (part,) = names(root)
    assert part.endswith(".part")
    arrived = (root / part).stat().st_size
    assert arrived >= 10_000_000
    hub.trouble.clear()
    hub.ranges.clear()
    download_dataset("busi")
    assert f"bytes={arrived}-" in hub.ranges
    assert names(root) == ["BUSI"]


def test_other_bytes_than_the_hub_announced(hub: Hub, root: Path) -> None:
    hub.trouble = {"GET BUSI.zip": "wrong bytes"}
    assert "differs from the hub's checksum" in refused(lambda: download_dataset("busi"))
    assert names(root) == []


def test_a_newer_archive_on_the_hub_replaces_a_part_of_the_former(hub: Hub, root: Path) -> None:
    hub.trouble = {"GET BUSI.zip": "cut"}
    refused(lambda: download_dataset("busi"))
    hub.trouble.clear()
    hub.files["BUSI.zip"] = archive_content("BUSI/BUSI/")
    download_dataset("busi")
    assert names(root) == ["BUSI"]


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({"HEAD BUSI.zip": "404"}, "has no BUSI.zip; set HF_ENDPOINT to another mirror"),
        ({"HEAD BUSI.zip": "500"}, "500"),
        ({"GET BUSI.zip": "500"}, "500"),
        ({"GET published.json": "404"}, "split_BUSI.json cannot be downloaded from"),
        ({"GET published.json": "wrong bytes"}, "not the published split file of busi"),
    ],
)
def test_trouble_is_one_line_and_no_folder(trouble: dict[str, str], words: str, hub: Hub, root: Path) -> None:
    hub.trouble = trouble
    assert words in refused(lambda: download_dataset("busi"))
    assert not (root / "BUSI").exists()
    assert not [name for name in names(root) if name.startswith(".BUSI.new")]
    hub.trouble.clear()
    download_dataset("busi")


def test_no_server(entry: CatalogueEntry, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    line = refused(lambda: download_dataset("busi"))
    assert line.startswith("the hub cannot be asked about BUSI.zip of the Hugging Face dataset ")
    assert line.endswith(f"; try again, or put BUSI.zip into {root} and use offline=True")
    (root / "BUSI").mkdir()
    line = refused(lambda: prepare_folder(root / "BUSI"))
    assert line.startswith("the hub cannot be asked about split_BUSI.json of ")
    assert line.endswith(f"; try again, or put the file into {root}")


def test_a_dataset_that_needs_a_token(hub: Hub, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "hf_secret"
    assert "restricted" in refused(lambda: download_dataset("busi"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    download_dataset("busi")


def test_the_split_file_of_the_hub_comes_before_that_of_the_repository(hub: Hub, root: Path) -> None:
    hub.files["split_BUSI.json"] = split_content()
    download_dataset("busi")
    assert "GET split_BUSI.json" in hub.asked
    assert "GET published.json" not in hub.asked
    assert names(root) == ["BUSI"]


def test_an_archive_that_lies_there_already(hub: Hub, root: Path) -> None:
    root.mkdir()
    (root / "BUSI.zip").write_bytes(hub.files["BUSI.zip"])
    assert download_dataset("busi").done == "unpacked from BUSI.zip"
    assert "GET BUSI.zip" not in hub.asked
    assert names(root) == ["BUSI", "BUSI.zip"]
    shutil.rmtree(root / "BUSI")
    (root / "BUSI.zip").write_bytes(archive_content("other/"))
    assert "BUSI.zip differs from http" in refused(lambda: download_dataset("busi"))


def test_offline(hub: Hub, root: Path) -> None:
    assert "put BUSI.zip and split_BUSI.json there" in refused(lambda: download_dataset("busi", offline=True))
    (root / "BUSI.zip").write_bytes(hub.files["BUSI.zip"])
    assert "split_BUSI.json is not in" in refused(lambda: download_dataset("busi", offline=True))
    (root / "split_BUSI.json").write_bytes(split_content())
    with pytest.warns(match="not compared with the hub's checksum"):
        download_dataset("busi", offline=True)
    assert hub.asked == []
    assert len(load_dataset("busi")) == 12


def test_too_little_space(hub: Hub, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=1000))
    assert "but 1.0 kB are free; make room or choose another disk" in refused(lambda: download_dataset("busi"))
    assert "GET BUSI.zip" not in hub.asked


def test_an_archive_that_lacks_images_or_is_refused(hub: Hub, root: Path) -> None:
    assert "bomb" in refused(lambda: download_dataset("busi", limits=Limits(unpacked=1000)))
    assert names(root) == ["BUSI.zip"]
    (root / "BUSI.zip").unlink()
    hub.files["BUSI.zip"] = archive_content(more={"../out": b"x"})
    assert "a path that leaves the folder" in refused(lambda: download_dataset("busi"))
    assert not (root / "BUSI").exists()
    (root / "BUSI.zip").unlink()
    hub.files["BUSI.zip"] = archive_content().replace(b"00 (a)", b"77 (a)")
    assert "3 of 12 images of split_BUSI.json are not in it, the first is" in refused(lambda: download_dataset("busi"))
    assert names(root) == ["BUSI.zip"]


def test_a_dataset_without_a_known_split_file(
    hub: Hub, entry: CatalogueEntry, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = replace(entry, split_sha256=None, class_names=tuple(reversed(entry.class_names)), counts={"train": 7})
    monkeypatch.setattr(catalogue, "_entries", lambda: (turned,))
    check = download_dataset("busi")
    assert check.notes == (
        "busi: no SHA-256 of split_BUSI.json is known; the label order is that of the file: benign tumor, malignant tumor, "
        "normal scan",
        "busi: split_BUSI.json lists 6 train, 3 val, 3 test; the catalogue has 7 train",
    )
    assert load_dataset("busi").class_names == entry.class_names
    monkeypatch.setattr(catalogue, "_entries", lambda: (replace(turned, class_names=("cyst", "stone")),))
    assert "its classes (benign tumor, malignant tumor, normal scan) are not those" in refused(
        lambda: download_dataset("busi")
    )


def test_unknown_names(hub: Hub, root: Path) -> None:
    assert "did you mean busi?" in refused(lambda: download_dataset("bussi"))


KILLED = """
import sys
sys.path[:0] = {paths!r}
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from biomedcoop.data import catalogue
from biomedcoop.data.download import datasets
from data.download.toy import split_content
toy = replace(catalogue.find("busi"), split_sha256=sha256(split_content()).hexdigest())
catalogue._entries = lambda: (toy,)
datasets.SPLIT_URL = {url!r}
if {slow!r}:
    def slowly(*words):
        import time
        print("unpacking", flush=True)
        time.sleep(60)
    datasets.find_missing = datasets.check_folder = slowly
datasets.download_dataset("busi")
"""


@pytest.mark.parametrize("where", ["while downloading", "while unpacking"])
def test_a_killed_process_leaves_no_half_folder(where: str, hub: Hub, root: Path) -> None:
    hub.files["BUSI.zip"] = archive_content(more={"BUSI/more.bin": os.urandom(30_000_000)})
    url = f"{hub.address}/store/published.json"
    tests = str(Path(__file__).parents[2])
    script = KILLED.format(paths=[tests], url=url, slow=where == "while unpacking")
    if where == "while downloading":
        hub.trouble = {"GET BUSI.zip": "stall"}
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        if where == "while unpacking":
            assert process.stdout is not None
            assert process.stdout.readline() == b"unpacking\n"
        else:
            wait_until(lambda: any(path.stat().st_size > 10_000_000 for path in root.glob(".*.part")))
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (root / "BUSI").exists()
    hub.trouble.clear()
    hub.ranges.clear()
    download_dataset("busi")
    assert names(root) == (["BUSI"] if where == "while downloading" else ["BUSI", "BUSI.zip"])
    assert (where == "while downloading") == any(sent.startswith("bytes=") for sent in hub.ranges)
    tidy(root / "BUSI")
    assert len(load_dataset("busi")) == 12


def wait_until(happened: Callable[[], bool]) -> None:
    for _ in range(3000):
        if happened():
            return
        _sleep(0.01)
    raise AssertionError("it did not happen within 30 seconds")


_sleep = time.sleep  # as it is; the fixture of the hub takes the wait out of it


# -- preparation


@pytest.fixture
def images(root: Path) -> Path:
    """The images at their published place, without a split file."""
    for number, key in enumerate(KEYS):
        path = root / "BUSI" / "BUSI" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image(number))
    return root / "BUSI"


@pytest.mark.parametrize("place", ["BUSI", "", "images", "data/images"])
def test_a_complete_folder_gets_the_split_file(place: str, images: Path, hub: Hub) -> None:
    (images / "BUSI").rename(images / "moved")
    for child in sorted((images / "moved").iterdir()):
        (images / place).mkdir(parents=True, exist_ok=True)
        child.rename(images / place / child.name)
    (images / "moved").rmdir()
    before = sorted(images.rglob("*"))
    check = prepare_folder(images)
    assert (check.images, check.missing, check.done) == (12, (), "split file added")
    assert sorted(images.rglob("*")) == sorted([*before, images / "split_BUSI.json"])
    assert len(load_dataset("busi")) == 12
    assert prepare_folder(images).done == ""


def test_missing_and_empty_images_are_listed_and_nothing_is_written(images: Path, hub: Hub) -> None:
    (images / "BUSI" / KEYS[3]).unlink()
    (images / "BUSI" / KEYS[7]).write_bytes(b"")
    check = prepare_folder(images)
    assert set(check.missing) == {KEYS[3], KEYS[7]}
    assert check.sentence == f"busi: 2 of 12 images are missing in {images}"
    assert names(images) == ["BUSI"]
    assert json.loads(json.dumps(check.to_dict()))["complete"] is False
    assert "move it away and download again" in refused(lambda: download_dataset("busi"))


def test_another_split_file(images: Path, hub: Hub) -> None:
    (images / "split_BUSI.json").write_bytes(split_content().replace(b"\n", b"\r\n"))
    assert prepare_folder(images).missing == ()  # as Git on Windows writes it
    (images / "split.json").write_bytes(split_content())
    assert prepare_folder(images).notes == (
        "busi: split.json is read in place of split_BUSI.json; remove it for the published splits",
    )
    (images / "split_BUSI.json").write_bytes(split_content()[:-1] + b" }")
    assert "split_BUSI.json: not the published split file of busi" in refused(lambda: prepare_folder(images))


def test_a_folder_is_known_by_its_split_file_too(images: Path, entry: CatalogueEntry) -> None:
    moved = images.rename(images.parent / "mine")
    assert "rename it, for example to BUSI" in refused(lambda: prepare_folder(moved))
    (moved / "split_BUSI.json").write_bytes(split_content())
    assert prepare_folder(moved, offline=True).name == "busi"
    assert "there is no such folder" in refused(lambda: prepare_folder(images))


@pytest.mark.real_data
def test_the_published_split_files_are_those_of_the_catalogue() -> None:
    files = sorted(Path(os.environ["BIOMEDCOOP_SPLITS"]).glob("split_*.json.gz"))
    assert len(files) == 10
    for file in files:
        entry = catalogue.find(file.name.removeprefix("split_").removesuffix(".json.gz"))
        assert entry is not None
        listed, notes = read_published(entry, gzip.decompress(file.read_bytes()), file)
        assert notes == ()
        for split, numbers in entry.class_counts.items():
            found = Counter(line.label for line in listed if line.split == split)
            assert [found[label] for label in range(len(entry.class_names))] == numbers
        assert {line.label: line.class_name for line in listed} == dict(enumerate(entry.class_names))
