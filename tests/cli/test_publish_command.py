"""``publish``, and commands on a model of the Hugging Face hub, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.deploy.server.models import load_models
from biomedcoop.hub import client
from hub_server import OpenHub, open_hub

NAME = "ward/skin"
TOKEN = "hf_secretsecret"
TINY = Path(__file__).parents[1] / "parity_a" / "model"

Cli = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenHub]:
    with open_hub(NAME, TOKEN, tmp_path, monkeypatch) as server:
        yield server


@pytest.fixture(scope="module")
def model(discs: Path, tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "model"
    bc.fit(bc.load_dataset(discs), "simpleshot", tiny, shots=8).save(folder)
    return folder


def test_publish_then_use_by_name(cli: Cli, hub: OpenHub, model: Path, discs: Path, tmp_path: Path) -> None:
    published = cli("publish", model, NAME, "--backbone", TINY)
    assert (published.status, published.out) == (0, f"hf://{NAME}@{hub.commit}\n")
    assert TOKEN not in published.out + published.err
    name, tail = f"hf://{NAME}", ("--backbone", TINY)
    assert cli("predict", name, discs / "test", *tail).out == cli("predict", model, discs / "test", *tail).out
    assert cli("suggest", discs / "test", "--model", name, "--images", 2, *tail).status == 0
    (served,) = load_models([Path(name)], str(TINY))
    assert (served.name, served.changed) == ("skin", False)
    picture = next((discs / "test").rglob("*.png"))
    assert cli("explain", picture, "--model", name, "--out", tmp_path / "maps", *tail).status == 0
    assert TOKEN.encode() not in b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_quiet_shows_no_bar_of_the_hubs_client(
    cli: Cli, hub: OpenHub, model: Path, discs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of an upload nor of a download."""
    monkeypatch.setenv("TQDM_POSITION", "-1")  # bars without a terminal
    client().utils.enable_progress_bars()
    tail = ("--backbone", TINY, "--quiet")
    assert cli("publish", model, NAME, *tail).err == ""
    assert cli("predict", f"hf://{NAME}", discs / "test", *tail).err == ""
    client().utils.enable_progress_bars()


def test_publish_again(cli: Cli, refused: Refused, hub: OpenHub, model: Path) -> None:
    tail = ("--backbone", TINY, "--public")
    assert json.loads(cli("publish", model, NAME, *tail, "--json").out)["name"] == f"hf://{NAME}@{hub.commit}"
    assert hub.public
    assert "exists already; choose another name or pass --overwrite" in refused("publish", model, NAME, *tail)
    assert "is public; pass --public" in refused("publish", model, NAME, "--backbone", TINY, "--overwrite")
    assert cli("publish", model, NAME, *tail, "--overwrite").status == 0


def test_one_line(refused: Refused, hub: OpenHub, model: Path, discs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "write it as hf://owner/name" in refused("publish", model, "skin", "--backbone", TINY)
    assert "there is no Hugging Face model ward/other" in refused("predict", "hf://ward/other", discs)
    assert "write it as hf://owner/name" in refused("predict", "hf://skin", discs)
    monkeypatch.delenv("HF_TOKEN")
    assert "run 'hf auth login', or set HF_TOKEN" in refused("publish", model, NAME, "--backbone", TINY)
