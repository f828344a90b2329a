"""Published checkpoints from a server on this machine that speaks the hub's protocol, and the words that name one."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from biomedcoop.backbones.base import Backbone
from biomedcoop.classifier.import_published import import_published
from biomedcoop.classifier.published_source import REPOSITORY, Origin, find_source, origin_of
from biomedcoop.errors import UserError
from biomedcoop.hub import client
from hub_server import COMMIT, Hub, serving
from published_layout import write_biomedcoop

NAMES = ("glioma tumor", "meningioma tumor", "pituitary tumor", "normal brain")
RUN = "BiomedCoOp_BiomedCLIP/nctx4_cscFalse_ctpend/seed1/prompt_learner"
FEW_SHOT = f"few_shot/btmri/shots_16/{RUN}/model.pth.tar-100"
BASE = f"base2new/train_base/btmri/shots_16/{RUN}/model.pth.tar-50"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the package and an empty one of the hub's client, without the proxies of this machine."""
    for name in [name for name in os.environ if "proxy" in name.lower() or name.startswith("HF_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(client().constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the hub's client waits between its attempts
    return tmp_path / "cache" / "published"


@pytest.fixture
def hub(tiny: Backbone, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The authors' repository with two checkpoints of the tiny model."""
    context = torch.randn(4, tiny.token_dim, generator=torch.Generator().manual_seed(0))
    files = {
        name: write_biomedcoop(tmp_path / "made" / name, tiny, names, context).read_bytes()
        for name, names in ((FEW_SHOT, NAMES), (BASE, NAMES[:2]))
    }
    with serving(Hub(REPOSITORY, files, large=files)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server


def refused(source: str = "hub:btmri/16/1") -> str:
    """The one line that the download is refused with."""
    with pytest.raises(UserError) as caught:
        find_source(source).fetch(progress=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def by_hand(address: str, cache: Path) -> str:
    """How a user does without the download."""
    folder, _, name = FEW_SHOT.rpartition("/")
    return f"put {name} from {address}/{REPOSITORY}/tree/main/{folder} into {cache / folder}"


def test_download_and_import(hub: Hub, cache: Path, tiny: Backbone) -> None:
    imported = import_published("hub:btmri/16/1", backbone=tiny, progress=False)
    assert (imported.method, imported.class_names) == ("biomedcoop", NAMES)
    assert (cache / FEW_SHOT).read_bytes() == hub.files[FEW_SHOT]
    of_base = import_published("hub:base2new/btmri/16/1", backbone=tiny, progress=False)
    assert of_base.class_names == NAMES[:2]
    # what is here is not asked for again
    hub.asked.clear()
    assert import_published("hub:btmri/16/1", backbone=tiny, progress=False).class_names == NAMES
    assert hub.asked == []


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({"HEAD model.pth.tar-100": "404"}, "(404)"),
        ({"HEAD model.pth.tar-100": "500"}, "500"),
        ({"HEAD model.pth.tar-100": "hang up"}, "disconnected"),
        ({"HEAD model.pth.tar-100": "page"}, "the answer is not that of a Hugging Face hub"),
        ({"GET model.pth.tar-100": "page"}, "a web page came in place of model.pth.tar-100"),
        ({"GET model.pth.tar-100": "cut"}, "cannot be downloaded from"),
        ({"GET model.pth.tar-100": "wrong bytes"}, "differs from the hub's checksum"),
    ],
)
def test_trouble_is_one_line_and_no_checkpoint(hub: Hub, cache: Path, trouble: dict[str, str], words: str) -> None:
    hub.trouble = trouble
    line = refused()
    assert words in line
    assert FEW_SHOT in line
    if words not in ("(404)", "differs from the hub's checksum"):
        assert line.endswith(f"; or {by_hand(hub.address, cache)}") or line.endswith(
            f", or {by_hand(hub.address, cache)}"
        )
        assert f"HF_ENDPOINT={hub.address}" in line
    assert not (cache / FEW_SHOT).exists()
    hub.trouble.clear()
    find_source("hub:btmri/16/1").fetch(progress=False)  # nothing of the trouble was kept
    assert (cache / FEW_SHOT).read_bytes() == hub.files[FEW_SHOT]


def test_a_missing_backbone_is_told_before_the_download(hub: Hub) -> None:
    with pytest.raises(UserError, match="backbone 'biomedclip' is not on this machine"):
        import_published("hub:btmri/16/1")
    assert hub.asked == []


def test_a_dead_server_is_told_at_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    line = refused()
    assert f"(HF_ENDPOINT={address})" in line
    assert line.endswith(f"; try again, or {by_hand(address, cache)}")
    assert waits == []
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    monkeypatch.setenv("HTTP_PROXY", address.replace("//", "//user:secret@"))
    line = refused()
    assert f"(HF_ENDPOINT=http://hub.invalid HTTP_PROXY={address})" in line
    assert "secret" not in line


def test_with_the_network_switched_off(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client().constants, "HF_HUB_OFFLINE", True)
    put = by_hand(hub.address, cache)
    assert refused() == (
        f"{FEW_SHOT} is not on this machine, and the network is off; {put}, or leave HF_HUB_OFFLINE out"
    )
    # the cache of the hub's client is looked into
    place = cache.parents[1] / "hf" / "hub" / f"models--{REPOSITORY.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT)
    cached = place / "snapshots" / COMMIT / FEW_SHOT
    cached.parent.mkdir(parents=True)
    cached.write_bytes(hub.files[FEW_SHOT])
    find_source("hub:btmri/16/1").fetch(progress=False)
    assert (cache / FEW_SHOT).read_bytes() == hub.files[FEW_SHOT]
    # and what lies in its place, from there or by hand, needs neither
    shutil.rmtree(place)
    find_source("hub:btmri/16/1").fetch(progress=False)
    assert hub.asked == []


def test_by_command_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch, parity: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    words = ["hub:btmri/16/1", "--out", tmp_path / "a", "--backbone", parity / "model"]
    status, out, err = cli("import-published", *words)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: the hub cannot be asked about {FEW_SHOT} of the Hugging Face model {REPOSITORY}: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("hub:busi", "is not of the form hub:DATASET/SHOTS/SEED"),
        ("hub:busi/16", "is not of the form"),
        ("hub:busi/16/x", "is not of the form"),
        ("hub:../16/1", "no dataset '..' of the benchmark"),
        ("hub:bussi/16/1", "no dataset 'bussi' of the benchmark; did you mean busi?"),
        ("hub:base2new/btmri/4/1", "give hub:base2new/btmri/16/1"),
        (
            "hub:busi/3/1",
            "the paper's runs have 1, 2, 4, 8 or 16 shots and seed 1, 2 or 3; give such a one, e.g. hub:busi/16/1",
        ),
        ("hub:busi/16/9", "1, 2, 4, 8 or 16 shots and seed 1, 2 or 3"),
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
