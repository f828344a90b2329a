"""Names of backbones, folders and devices. Downloads are tested in ``test_fetch.py``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from biomedcoop.backbones import load_backbone, locate
from biomedcoop.backbones.catalogue import BACKBONES
from biomedcoop.backbones.registry import automatic_device
from biomedcoop.errors import UserError


def test_mini_is_always_there() -> None:
    folder = locate("mini")
    assert folder is not None
    backbone = load_backbone("mini")
    assert (backbone.name, backbone.device.type, backbone.dtype) == ("mini", "cpu", torch.float32)
    assert backbone.fingerprint == load_backbone(folder).fingerprint


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bimedclip", "did you mean biomedclip"),
        ("minni", "did you mean mini?"),
        ("resnet", f"known: {', '.join(BACKBONES)}"),
    ],
)
def test_unknown_names(name: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_backbone(name)
    assert str(caught.value).startswith(f"no backbone '{name}': neither a known name nor a folder; {words}")


def test_a_folder_is_named_by_its_last_part(parity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(parity / "model", tmp_path / "ours")
    assert load_backbone(tmp_path / "ours").name == "ours"
    assert load_backbone(f"{tmp_path}/ours/").name == "ours"
    monkeypatch.chdir(tmp_path / "ours")
    assert load_backbone(".").name == "ours"


def test_a_folder_with_the_name_of_a_backbone_is_offered(
    parity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "biomedclip").symlink_to(parity / "model")
    with pytest.raises(UserError, match=r"not on this machine; .*, or give the folder here as \./biomedclip$"):
        load_backbone("biomedclip")
    assert load_backbone("./biomedclip").embed_dim == 48


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
