"""Names of backbones, and the download of one from a server on this machine that speaks the Hugging Face hub's protocol.

The download runs in a process of its own, because the hub's client reads its address once, when it is imported.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from biomedcoop.backbones import BACKBONES, download, load_backbone, locate
from biomedcoop.backbones.registry import automatic_device
from biomedcoop.errors import UserError
from hub_server import Hub, serving

WEIGHTS = "open_clip_pytorch_model.bin"


@pytest.fixture
def hub(parity: Path, tmp_path: Path) -> Iterator[Hub]:
    """The tiny model under the file names of BiomedCLIP's repository: weights as ``.bin``, no ``config.json``."""
    torch.save(load_file(parity / "model" / "open_clip_model.safetensors"), tmp_path / WEIGHTS)
    entry = BACKBONES["biomedclip"]
    (source,) = entry.sources
    files = {file: (parity / "model" / file).read_bytes() for file in entry.files if file != WEIGHTS}
    weights = (tmp_path / WEIGHTS).read_bytes()
    with serving(Hub(source.repo, {file: files.get(file, weights) for file in entry.files})) as server:
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, for this process and those it starts."""
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


FETCH = """
import time
time.sleep = lambda seconds: None  # the hub's client would wait between its attempts
from biomedcoop.backbones import download, locate
from biomedcoop.errors import UserError
try:
    print("fetched", download("biomedclip"))
except UserError as error:
    print("refused", str(error))
print("located", locate("biomedclip"))
"""


def fetch(address: str, tmp_path: Path, **more: str) -> tuple[str, str]:
    """Run ``download("biomedclip")``; returns what came of it and where the backbone is then, a line each."""
    kept = {key: value for key, value in os.environ.items() if "proxy" not in key.lower() and not key.startswith("HF_")}
    environment = {**kept, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), **more}
    done = subprocess.run([sys.executable, "-c", FETCH], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    outcome, located = done.stdout.splitlines()
    return outcome, located


def assert_refused(outcome: str, located: str, *words: str) -> None:
    assert outcome.startswith("refused 'biomedclip' cannot be downloaded from microsoft/BiomedCLIP")
    assert outcome.endswith("; try again, files that arrived are kept")
    assert located == "located None"
    for word in words:
        assert word.lower() in outcome.lower()


def test_download(hub: Hub, tmp_path: Path, cache: Path) -> None:
    assert locate("biomedclip") is None
    with pytest.raises(UserError, match="'biomedclip' is not on this machine; run 'biomedcoop backbones download"):
        load_backbone("biomedclip")
    folder = cache / "backbones" / "biomedclip"
    assert fetch(hub.address, tmp_path) == (f"fetched {folder}", f"located {folder}")
    for file, content in hub.files.items():
        assert (folder / file).read_bytes() == content
    backbone = load_backbone("biomedclip")
    by_hand = tmp_path / "by hand"
    by_hand.mkdir()
    for file, content in hub.files.items():
        (by_hand / file).write_bytes(content)
    assert backbone.name == "biomedclip"
    assert backbone.fingerprint == load_backbone(by_hand).fingerprint
    # nothing but these files is asked for
    assert hub.asked == [f"{verb} {file}" for file in hub.files for verb in ("HEAD", "GET")]
    # a second time nothing is fetched
    hub.asked.clear()
    assert fetch(hub.address, tmp_path)[0] == f"fetched {folder}"
    assert all(request.startswith("HEAD") for request in hub.asked)


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({"HEAD vocab.txt": "404"}, "404"),
        ({"HEAD open_clip_pytorch_model.bin": "500"}, "500"),
        ({"HEAD tokenizer.json": "hang up"}, "disconnected"),
        ({"GET vocab.txt": "404"}, "404"),
        ({"GET open_clip_pytorch_model.bin": "500"}, "500"),
        ({"GET tokenizer.json": "hang up"}, "disconnected"),
    ],
)
def test_trouble_is_one_line_and_no_backbone(hub: Hub, tmp_path: Path, trouble: dict[str, str], words: str) -> None:
    hub.trouble = trouble
    assert_refused(*fetch(hub.address, tmp_path), words)


def test_a_half_fetched_folder_is_no_backbone_and_is_completed_later(hub: Hub, tmp_path: Path, cache: Path) -> None:
    # the weights come first and whole, the next file breaks off in the middle whenever it is asked for
    hub.trouble = {"GET tokenizer.json": "cut"}
    hub.files["tokenizer.json"] += b" " * 400_000
    assert_refused(*fetch(hub.address, tmp_path), "expected")
    folder = cache / "backbones" / "biomedclip"
    assert (folder / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert not (folder / "tokenizer.json").exists()
    with pytest.raises(UserError, match="not on this machine"):
        load_backbone("biomedclip")
    hub.trouble.clear()
    hub.asked.clear()
    assert fetch(hub.address, tmp_path)[0] == f"fetched {folder}"
    assert f"GET {WEIGHTS}" not in hub.asked  # what arrived is kept
    assert load_backbone("biomedclip").embed_dim == 48


def test_without_a_server_or_with_the_hub_switched_off(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert_refused(*fetch(address, tmp_path), "refused")
    assert_refused(*fetch(address, tmp_path, HF_HUB_OFFLINE="1"), "HF_HUB_OFFLINE")


def test_a_cache_that_cannot_be_written(hub: Hub, tmp_path: Path, cache: Path) -> None:
    cache.write_text("a file where a folder should be")
    assert_refused(*fetch(hub.address, tmp_path), str(cache))


# -- names


def test_mini_is_always_there() -> None:
    folder = locate("mini")
    assert folder is not None
    backbone = load_backbone("mini")
    assert (backbone.name, backbone.device.type, backbone.dtype) == ("mini", "cpu", torch.float32)
    assert backbone.fingerprint == load_backbone(folder).fingerprint


@pytest.mark.parametrize(
    ("name", "words"),
    [("bimedclip", "did you mean biomedclip?"), ("minni", "did you mean mini?"), ("resnet", "known: mini, biomedclip")],
)
def test_unknown_names(name: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_backbone(name)
    assert str(caught.value) == f"no backbone '{name}': neither a known name nor a folder; {words}"


def test_a_folder_is_named_by_its_last_part(parity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(parity / "model", tmp_path / "ours")
    assert load_backbone(tmp_path / "ours").name == "ours"
    assert load_backbone(f"{tmp_path}/ours/").name == "ours"
    monkeypatch.chdir(tmp_path / "ours")
    assert load_backbone(".").name == "ours"


def test_a_file_is_no_backbone(parity: Path) -> None:
    with pytest.raises(UserError, match="neither a known name nor a folder"):
        load_backbone(parity / "classes.json")


UNAVAILABLE = [
    *([] if torch.cuda.is_available() else ["cuda"]),
    *([] if torch.backends.mps.is_available() else ["mps"]),
    "vulkan",
    "hpu",
]


@pytest.mark.parametrize("device", ["gpu", "cpu:x", "", *UNAVAILABLE])
def test_devices_that_cannot_be_used(device: str, parity: Path) -> None:
    with pytest.raises(UserError, match=f"device '{device}' (is not known|cannot be used: .*); choose cpu") as caught:
        load_backbone(parity / "model", device=device)
    assert "\n" not in str(caught.value)


def test_auto_is_a_device_that_works(parity: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usable = [name for name in ("cuda", "mps", "cpu") if name == "cpu" or name not in UNAVAILABLE]
    assert load_backbone(parity / "model", device="auto").device.type == usable[0]
    # a GPU that PyTorch finds and that cannot compute is passed over
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    if "cuda" in UNAVAILABLE:
        assert automatic_device().type == usable[0]


@pytest.mark.parametrize("name", ["mini", "biomedclap", ""])
def test_nothing_to_download(name: str) -> None:
    with pytest.raises(UserError, match=f"'{name}' cannot be downloaded; choose biomedclip"):
        download(name)
