"""Any repository of the hub by its name, from a server on this machine that speaks the hub's protocol."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backbones.tiny_image_only import resnet_state, write_resnet
from biomedcoop.backbones import download, load_backbone, locate
from biomedcoop.backbones.registry import check_backbone
from biomedcoop.errors import UserError
from hub_server import COMMIT, Hub, serving

NAME = "hub:timm/resnet50.ours"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return write_resnet(tmp_path / "made", resnet_state())


@pytest.fixture
def hub(made: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A ResNet of timm with files that no loader reads."""
    files = {file.name: file.read_bytes() for file in made.iterdir()} | {
        "README.md": b"a model",
        "pytorch_model.bin": b"same",
    }
    for name in [name for name in os.environ if "proxy" in name.lower() or name.startswith("HF_")]:
        monkeypatch.delenv(name)
    with serving(Hub("timm/resnet50.ours", files, large={"model.safetensors"})) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # the hub's client waits between its attempts
        yield server


def refused(name: str = NAME, **how: bool | str) -> str:
    with pytest.raises(UserError) as caught:
        download(name, **how)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_repository_by_its_name(hub: Hub, made: Path, cache: Path, cli: Callable[..., Any]) -> None:
    assert locate(NAME) is None
    folder = cache / "backbones" / "hub" / "timm" / "resnet50.ours"
    with pytest.raises(UserError, match=f"put the files of {hub.address}/timm/resnet50.ours/tree/main into {folder}"):
        load_backbone(NAME)
    assert download(NAME) == folder == locate(NAME)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "source.json"]
    backbone = load_backbone(NAME)
    assert (backbone.name, backbone.fingerprint) == (NAME, load_backbone(made).fingerprint)
    assert [request for request in hub.asked if request.startswith("GET")] == [
        "GET config.json",
        "GET model.safetensors",
    ]
    listed = cli("backbones", "list", "--json").out
    assert NAME in listed
    assert COMMIT in listed
    assert "ok   file model.safetensors" in cli("backbones", "verify", NAME).out


def test_without_the_network(hub: Hub, cache: Path, tmp_path: Path) -> None:
    folder = cache / "backbones" / "hub" / "timm" / "resnet50.ours"
    put = f"put the files of {hub.address}/timm/resnet50.ours/tree/main into {folder}"
    line = refused(offline=True)
    assert line.startswith(
        f"{NAME} is not complete on this machine, and the network is off: there is no configuration ("
    )
    assert line.endswith(f"{put}, or leave offline=True and HF_HUB_OFFLINE out")
    hub.trouble = {"HEAD open_clip_config.json": "hang up"}
    assert refused().endswith(f"(HF_ENDPOINT={hub.address}); try again, or {put}")
    hub.trouble.clear()
    assert download(NAME) == folder
    hub.asked.clear()
    assert download(NAME, offline=True) == folder
    assert not hub.asked
    carried = Path(shutil.copytree(folder, tmp_path / "carried"))
    shutil.rmtree(folder)
    shutil.copytree(carried, folder, ignore=shutil.ignore_patterns("source.json"))
    assert download(NAME, offline=True) == folder  # files that were put there by hand
    assert load_backbone(NAME).image_size == 64


def test_what_the_hub_lacks(hub: Hub, cache: Path) -> None:
    assert "has no revision 'v9'" in refused(revision="v9")
    hub.files = {name: content for name, content in hub.files.items() if not name.endswith((".safetensors", ".bin"))}
    assert "no weights of a known layout (open_clip_model.safetensors, " in refused()
    hub.files = {}
    assert "no configuration of a known layout (open_clip_config.json, config.json)" in refused()
    hub.repository = "timm/another"
    line = refused()
    assert (
        f"there is no Hugging Face model timm/resnet50.ours at {hub.address}, or your account may not read it" in line
    )
    assert not list((cache / "backbones").rglob("*.json"))


@pytest.mark.parametrize("name", ["hub:", "hub:timm", "hub:/x", "hub:a/b/c", "hub:../x", "hub:a/..", "hub:a/b?c"])
def test_names_of_another_form(name: str) -> None:
    for use in (check_backbone, load_backbone, download):
        with pytest.raises(UserError, match="write it as hub:OWNER/NAME"):
            use(name)
