"""Downloads from a server on this machine that speaks the Hugging Face hub's protocol: whole, verified, or one clear line."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from biomedcoop.backbones import BACKBONES, download, load_backbone, locate
from biomedcoop.backbones.catalogue import Entry, HubFiles
from biomedcoop.backbones.source import read_source
from biomedcoop.errors import UserError
from hub_server import COMMIT, Hub

WEIGHTS = "open_clip_pytorch_model.bin"
REPO = "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"

_sleep = time.sleep  # as it is; the fixture of the hub takes the wait out of it


@pytest.fixture
def folder(cache: Path) -> Path:
    """Where the files of the backbone belong."""
    return cache / "backbones" / "biomedclip"


def refused(**how: str | bool) -> str:
    """The one line that the download is refused with."""
    with pytest.raises(UserError) as caught:
        download("biomedclip", **how)  # type: ignore[arg-type]
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 900  # addresses and folders are long
    return line


def left_over(folder: Path) -> list[str]:
    """What lies beside the backbone's folder, without the lock file, which stays."""
    return sorted(path.name for path in folder.parent.iterdir() if not path.name.endswith(".lock"))


# -- what a download does


def test_download(hub: Hub, folder: Path, tmp_path: Path) -> None:
    assert locate("biomedclip") is None
    with pytest.raises(UserError, match="'biomedclip' is not on this machine; run 'biomedcoop backbones download"):
        load_backbone("biomedclip")
    assert download("biomedclip") == folder == locate("biomedclip")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "source.json"} == hub.files
    assert left_over(folder) == ["biomedclip"]
    by_hand = Path(shutil.copytree(folder, tmp_path / "by hand", ignore=shutil.ignore_patterns("source.json")))
    backbone = load_backbone("biomedclip")
    assert (backbone.name, backbone.fingerprint) == ("biomedclip", load_backbone(by_hand).fingerprint)
    # nothing but these files is asked for, each once
    assert sorted(hub.asked) == sorted(f"{verb} {file}" for file in hub.files for verb in ("HEAD", "GET"))
    # a second time nothing is fetched and nothing is written
    hub.asked.clear()
    before = [path.stat().st_mtime_ns for path in folder.iterdir()]
    download("biomedclip")
    assert hub.asked == [f"HEAD {file}" for file in BACKBONES["biomedclip"].files]
    assert [path.stat().st_mtime_ns for path in folder.iterdir()] == before


def test_what_the_hub_said_stands_beside_the_weights(hub: Hub, folder: Path) -> None:
    download("biomedclip")
    file = read_source(folder)[WEIGHTS]
    assert (file.repository, file.kind, file.commit, file.size) == (REPO, "model", COMMIT, len(hub.files[WEIGHTS]))
    assert file.checksum == hashlib.sha256(hub.files[WEIGHTS]).hexdigest()
    assert file.url == f"{hub.address}/{REPO}/resolve/{COMMIT}/{WEIGHTS}"
    (folder / "source.json").write_text("{")
    assert f"{folder / 'source.json'}: it cannot be read" in refused()


def test_large_files_lie_on_another_host_which_is_told_no_token(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "hf_secret"
    page = f"{hub.address}/{REPO}"
    assert (
        f"access to the Hugging Face model {REPO} is restricted: accept its terms at {page} and set HF_TOKEN"
        in refused()
    )
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    download("biomedclip")
    assert hub.told == []


def test_a_revision_is_pinned_while_files_arrive(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    download("biomedclip", revision=COMMIT)
    assert {file.commit for file in read_source(folder).values()} == {COMMIT}
    old = (folder / "vocab.txt").read_bytes()
    hub.commit, hub.files["vocab.txt"] = "f" * 40, old + b"more\n"
    assert f"model {REPO} has no revision '{COMMIT}'; give a branch, a tag or a whole commit" in refused(
        revision=COMMIT
    )
    hub.asked.clear()
    download("biomedclip")  # files of the earlier download are replaced, those that did not change stay
    assert [request for request in hub.asked if request.startswith("GET")] == ["GET vocab.txt"]
    assert (folder / "vocab.txt").read_bytes() == old + b"more\n"
    assert {file.commit for file in read_source(folder).values()} == {"f" * 40}


def test_a_broken_download_continues(hub: Hub, folder: Path) -> None:
    hub.files[WEIGHTS] = os.urandom(25_000_000)
    hub.trouble = {f"GET {WEIGHTS}": "cut"}
    line = refused()
    place = f"{hub.address}/{REPO}/resolve/{COMMIT}/{WEIGHTS}"
    assert re.search(
        f"{WEIGHTS} cannot be downloaded from {place}: the connection ended after [0-9,]+ of 25,000,000 bytes", line
    )
    assert f"try again, what arrived is kept; or put the file into {folder}" in line
    assert locate("biomedclip") is None
    assert not folder.exists()
    hub.trouble.clear()
    hub.ranges.clear()
    hub.asked.clear()
    download("biomedclip")
    assert any(sent.startswith("bytes=") for sent in hub.ranges)
    assert "GET open_clip_config.json" not in hub.asked  # it was whole
    assert (folder / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert left_over(folder) == ["biomedclip"]


def test_a_killed_process_leaves_no_half_backbone(hub: Hub, folder: Path) -> None:
    hub.files[WEIGHTS] = os.urandom(25_000_000)
    hub.trouble = {f"GET {WEIGHTS}": "stall"}
    script = "from biomedcoop.backbones import download; download('biomedclip')"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_until(
            lambda: any(p.stat().st_size >= 10_000_000 for p in folder.parent.glob(".biomedclip.download/.*.part"))
        )
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert locate("biomedclip") is None
    hub.trouble.clear()
    hub.ranges.clear()
    download("biomedclip")
    assert any(sent.startswith("bytes=") for sent in hub.ranges)
    assert (folder / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def wait_until(happened: Callable[[], bool]) -> None:
    for _ in range(3000):
        if happened():
            return
        _sleep(0.01)
    raise AssertionError("it did not happen within 30 seconds")


# -- what can go wrong


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({"HEAD vocab.txt": "404"}, "has no vocab.txt (404) at revision"),
        ({f"HEAD {WEIGHTS}": "500"}, f"the hub cannot be asked about {WEIGHTS} of the Hugging Face model {REPO}: "),
        ({"HEAD tokenizer.json": "hang up"}, "disconnected"),
        ({"GET vocab.txt": "404"}, "404"),
        ({f"GET {WEIGHTS}": "500"}, "try again; or put the file into"),
        ({"GET tokenizer.json": "hang up"}, "disconnected"),
        ({f"GET {WEIGHTS}": "wrong bytes"}, "differs from the hub's checksum"),
        ({"HEAD open_clip_config.json": "page"}, "open_clip_config.json: the answer is not that of a Hugging Face hub"),
        (
            {f"GET {WEIGHTS}": "page"},
            f"/{WEIGHTS}: a web page came in place of {WEIGHTS}, perhaps of a proxy or a login page",
        ),
    ],
)
def test_trouble_is_one_line_and_no_backbone(hub: Hub, folder: Path, trouble: dict[str, str], words: str) -> None:
    hub.trouble = trouble
    assert words in refused()
    assert locate("biomedclip") is None
    hub.trouble.clear()
    download("biomedclip")  # nothing of the trouble was kept
    assert load_backbone("biomedclip").embed_dim == 48


def test_without_a_server_the_line_names_files_address_and_folder(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    folder.mkdir(parents=True)
    for file in hub.files:
        if file not in (WEIGHTS, "vocab.txt"):
            (folder / file).write_bytes(hub.files[file])
    assert f"(HF_ENDPOINT={address})" in refused()
    put = f"put {WEIGHTS}, vocab.txt from {address}/{REPO}/tree/main into {folder}"
    assert refused().endswith(f"; try again, or {put}")
    with pytest.raises(UserError) as caught:
        load_backbone("biomedclip")
    assert str(caught.value).endswith(f"with access to the internet, or {put}")
    for file in hub.files:
        (folder / file).write_bytes(hub.files[file])
    assert refused().endswith("; try again, or use offline=True: all files are here")
    assert download("biomedclip", offline=True) == folder


def test_wrong_file_in_place(hub: Hub, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(b"of another model")
    line = refused()
    assert (
        f"{folder / WEIGHTS} is not the file at {hub.address}/{REPO}/resolve/{COMMIT}/{WEIGHTS} (16 bytes, expected "
        in line
    )
    assert line.endswith("remove it and try again")
    assert (folder / WEIGHTS).read_bytes() == b"of another model"
    (folder / WEIGHTS).unlink()
    download("biomedclip")


def test_too_little_space(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=1000))
    assert "are free; make room or set BIOMEDCOOP_CACHE to another folder" in refused()
    assert not any(request.startswith("GET") for request in hub.asked)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_disk_that_is_full(hub: Hub, folder: Path) -> None:
    arrivals = folder.with_name(".biomedclip.download")
    arrivals.mkdir(parents=True)
    (arrivals / f".{WEIGHTS}.{hub.checksum(WEIGHTS)[:12]}.part").symlink_to("/dev/full")
    assert f"{arrivals}: the disk is full; make room and try again; or put the file into {folder}" in refused()
    assert locate("biomedclip") is None


def test_a_cache_that_cannot_be_written(hub: Hub, cache: Path) -> None:
    cache.write_text("a file where a folder should be")
    line = refused()
    assert str(cache) in line
    assert "BIOMEDCOOP_CACHE" in line


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mini", "'mini' is part of this package, so there is nothing to download"),
        ("biomedclp", "no backbone 'biomedclp' to download; did you mean biomedclip"),
        ("", "no backbone '' to download; known: biomedclip, "),
    ],
)
def test_nothing_to_download(name: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        download(name)
    assert words in str(caught.value)


def test_a_revision_of_two_repositories(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = (HubFiles("a/b", ("x",)), HubFiles("a/c", ("y",), "dataset"))
    monkeypatch.setitem(BACKBONES, "two", Entry("two", sources))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="'two' comes from 2 repositories, so it has no single revision"):
        download("two", revision="main")


# -- without the network


def fill_hub_cache(hub: Hub, cache: Path, names: list[str]) -> Path:
    """The hub's own cache, as its client fills it: files by checksum, and links to them by commit."""
    place = cache.parent / "hf" / "hub" / f"models--{REPO.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT)
    (place / "snapshots" / COMMIT).mkdir(parents=True)
    (place / "blobs").mkdir()
    for name in names:
        (place / "blobs" / hub.checksum(name)).write_bytes(hub.files[name])
        (place / "snapshots" / COMMIT / name).symlink_to(place / "blobs" / hub.checksum(name))
    return place


def test_offline_takes_what_is_in_the_hubs_cache(hub: Hub, cache: Path, folder: Path) -> None:
    fill_hub_cache(hub, cache, [name for name in hub.files if name != "vocab.txt"])
    put = f"put vocab.txt from {hub.address}/{REPO}/tree/main into {folder}"
    assert refused(offline=True) == f"biomedclip is not complete on this machine, and the network is off; {put}"
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_bytes(hub.files["vocab.txt"])
    download("biomedclip", offline=True)
    assert hub.asked == []
    assert {file.commit for file in read_source(folder).values()} == {COMMIT}
    assert load_backbone("biomedclip").embed_dim == 48
    assert "put open_clip_config.json, " in refused(offline=True, revision="e" * 40)


def test_the_hubs_cache_spares_a_download(hub: Hub, cache: Path, folder: Path) -> None:
    place = fill_hub_cache(hub, cache, [WEIGHTS])
    download("biomedclip")
    assert f"GET {WEIGHTS}" not in hub.asked
    assert not (folder / WEIGHTS).is_symlink()
    shutil.rmtree(folder)
    (place / "blobs" / hub.checksum(WEIGHTS)).write_bytes(b"damaged")
    assert f"{WEIGHTS} in the hub's cache is damaged; remove it" in refused(offline=True)
    download("biomedclip")
    assert (folder / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_variables_of_the_hubs_client(hub: Hub, cache: Path, folder: Path, tmp_path: Path) -> None:
    """Its cache and its switch are read when it is imported, so a process of its own is needed."""
    fill_hub_cache(hub, cache, list(hub.files))
    command = [sys.executable, "-m", "biomedcoop", "backbones", "download", "biomedclip", "--json"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "elsewhere")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "the network is off; put open_clip_config.json" in done.stderr
    environment["HF_HOME"] = str(tmp_path / "hf")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert json.loads(done.stdout) == {"name": "biomedclip", "folder": str(folder)}
    assert hub.asked == []


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:9"])
def test_a_hub_without_an_address_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    assert refused().startswith(f"HF_ENDPOINT is '{address}'; give it an address")
    assert not folder.exists()


def test_a_proxy_of_the_system_is_used(hub: Hub, folder: Path) -> None:
    command = [sys.executable, "-m", "biomedcoop", "backbones", "download", "biomedclip", "--quiet"]
    environment = {**os.environ, "HF_ENDPOINT": "http://hub.invalid", "HTTP_PROXY": hub.address}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == f"biomedclip is in {folder}\n", done.stderr
    assert read_source(folder)[WEIGHTS].url.startswith("http://hub.invalid/")
