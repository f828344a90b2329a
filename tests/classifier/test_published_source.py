"""Published checkpoints from a server on this machine that speaks the hub's protocol, and the words that name one.

A download runs in a process of its own, because the hub's client reads its address once, when it is imported.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from biomedcoop.backbones.base import Backbone
from biomedcoop.classifier.published_source import REPOSITORY, Origin, find_source, origin_of
from biomedcoop.errors import UserError
from hub_server import Hub, serving
from published_layout import write_biomedcoop

NAMES = ("glioma tumor", "meningioma tumor", "pituitary tumor", "normal brain")
RUN = "BiomedCoOp_BiomedCLIP/nctx4_cscFalse_ctpend/seed1/prompt_learner"
FEW_SHOT = f"few_shot/btmri/shots_16/{RUN}/model.pth.tar-100"
BASE = f"base2new/train_base/btmri/shots_16/{RUN}/model.pth.tar-50"


@pytest.fixture
def hub(tiny: Backbone, tmp_path: Path) -> Iterator[Hub]:
    """The authors' repository with two checkpoints of the tiny model."""
    context = torch.randn(4, tiny.token_dim, generator=torch.Generator().manual_seed(0))
    files = {
        name: write_biomedcoop(tmp_path / "made" / name, tiny, names, context).read_bytes()
        for name, names in ((FEW_SHOT, NAMES), (BASE, NAMES[:2]))
    }
    with serving(Hub(REPOSITORY, files, large=files)) as server:
        yield server


def command(tmp_path: Path, address: str, *words: object, **more: str) -> subprocess.CompletedProcess[str]:
    """Run ``biomedcoop import-published``; its client does not wait between attempts."""
    kept = {key: value for key, value in os.environ.items() if "proxy" not in key.lower() and not key.startswith("HF_")}
    own = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "BIOMEDCOOP_CACHE": str(tmp_path / "cache")}
    start = "import time; time.sleep = lambda seconds: None; from biomedcoop.cli import main; main()"
    line = [sys.executable, "-c", start, "import-published", *map(str, words), "--quiet"]
    return subprocess.run(line, env={**kept, **own, **more}, capture_output=True, text=True, timeout=120, check=False)


def test_download_and_import(hub: Hub, tmp_path: Path, parity: Path) -> None:
    tiny = parity / "model"
    done = command(tmp_path, hub.address, "hub:btmri/16/1", "--out", tmp_path / "a", "--backbone", tiny)
    assert done.stdout == f"biomedcoop on model, 4 classes: {', '.join(NAMES)}: in {tmp_path / 'a'}\n", done.stderr
    assert (tmp_path / "cache" / "published" / FEW_SHOT).read_bytes() == hub.files[FEW_SHOT]
    done = command(tmp_path, hub.address, "hub:base2new/btmri/16/1", "--out", tmp_path / "b", "--backbone", tiny)
    assert done.stdout.startswith("biomedcoop on model, 2 classes: glioma tumor, meningioma tumor: in "), done.stderr
    # what is here is not fetched again
    hub.asked.clear()
    again = command(tmp_path, hub.address, "hub:btmri/16/1", "--out", tmp_path / "c", "--backbone", tiny)
    assert again.returncode == 0
    assert not [request for request in hub.asked if request.startswith("GET")]


@pytest.mark.parametrize(
    ("trouble", "words"),
    [("404", "404"), ("500", "500"), ("hang up", "disconnected"), ("cut", "")],
)
def test_trouble_is_one_line_and_leaves_nothing(
    hub: Hub, tmp_path: Path, parity: Path, trouble: str, words: str
) -> None:
    hub.trouble = {"GET model.pth.tar-100" if trouble == "cut" else "HEAD model.pth.tar-100": trouble}
    done = command(tmp_path, hub.address, "hub:btmri/16/1", "--out", tmp_path / "a", "--backbone", parity / "model")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {FEW_SHOT} cannot be downloaded from {REPOSITORY}: ")
    place = tmp_path / "cache" / "published" / FEW_SHOT
    assert done.stderr.endswith(f"; try again, or put the file at {place} by hand\n")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr.lower()
    assert not (tmp_path / "a").exists()
    assert not place.exists()


def test_a_missing_backbone_is_told_before_the_download(hub: Hub, tmp_path: Path) -> None:
    done = command(tmp_path, hub.address, "hub:btmri/16/1", "--out", tmp_path / "a")
    assert "backbone 'biomedclip' is not on this machine" in done.stderr
    assert hub.asked == []


def test_without_a_server_or_with_the_hub_switched_off(hub: Hub, tmp_path: Path, parity: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    words = ["hub:btmri/16/1", "--out", tmp_path / "a", "--backbone", parity / "model"]
    assert "cannot be downloaded" in command(tmp_path, address, *words).stderr
    assert "cannot be downloaded" in command(tmp_path, address, *words, HF_HUB_OFFLINE="1").stderr
    # a file that was put there by hand needs no network
    place = tmp_path / "cache" / "published" / FEW_SHOT
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(hub.files[FEW_SHOT])
    by_hand = command(tmp_path, address, *words, HF_HUB_OFFLINE="1")
    assert by_hand.returncode == 0, by_hand.stderr


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("hub:busi", "is not of the form hub:DATASET/SHOTS/SEED"),
        ("hub:busi/16", "is not of the form"),
        ("hub:busi/16/x", "is not of the form"),
        ("hub:../16/1", "no dataset '..' of the benchmark"),
        ("hub:bussi/16/1", "no dataset 'bussi' of the benchmark; did you mean busi?"),
        ("hub:base2new/btmri/4/1", "give hub:base2new/btmri/16/1"),
    ],
)
def test_sources_that_name_no_checkpoint(source: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        find_source(source)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("path", "origin"),
    [
        (FEW_SHOT, Origin("btmri", 16, 1, "biomedcoop")),
        (BASE, Origin("btmri", 16, 1, "biomedcoop", base=True)),
        ("out/busi/shots_1/ProGrad_BiomedCLIP/nctx4/seed3/model.pth.tar-100", Origin("busi", 1, 3, "prograd")),
        ("out/busi/shots_1/Other_BiomedCLIP/nctx4/seed3/prompt_learner/x", Origin("busi", 1, 3)),
        ("model.pth.tar-100", Origin()),
    ],
)
def test_what_a_path_says(path: str, origin: Origin) -> None:
    assert origin_of(Path(path)) == origin
