"""The check of a backbone finds damaged files, damaged weights, and weights that are not there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from backbones.folders import WEIGHTS
from biomedcoop.backbones import download, load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.convert import convert
from biomedcoop.backbones.verify import Check, verify
from biomedcoop.errors import UserError
from hub_server import COMMIT, Hub

BIN = "open_clip_pytorch_model.bin"


def checks(backbone: object) -> dict[str, Check]:
    return {check.what: check for check in verify(str(backbone))}


def test_a_download_passes(hub: Hub) -> None:
    folder = download("biomedclip")
    found = checks("biomedclip")
    assert all(check.passed for check in found.values())
    files = {f"file {name}" for name in hub.files}
    assert set(found) == files | {"fingerprint", "features", "batches", "second load"}
    assert found[f"file {BIN}"].detail.endswith(f"at {COMMIT[:12]}")
    assert found["fingerprint"].detail == load_backbone(folder).fingerprint


@pytest.mark.parametrize("kind", ["tiny", "tiny_clip_vit", "tiny_clip_resnet", "tiny_lite"])
def test_every_family_passes(kind: str, request: pytest.FixtureRequest, tmp_path: Path, parity: Path) -> None:
    backbone: Backbone = request.getfixturevalue(kind)
    place = {"tiny": parity / "model"}
    if kind not in place:  # folders of the fixtures are named by the backbone
        base: Path = request.getfixturevalue("tmp_path_factory").getbasetemp()
        place[kind] = next(path for path in base.glob(f"*/{backbone.name}") if fits(path, backbone))
    assert list(checks(place[kind])) == ["files", "fingerprint", "features", "batches", "second load"]
    assert all(check.passed for check in checks(place[kind]).values())


def fits(folder: Path, backbone: Backbone) -> bool:
    """Whether it is the folder that a backbone was loaded from; other tests spoil copies of the same name."""
    try:
        return load_backbone(folder).fingerprint == backbone.fingerprint
    except UserError:
        return False


def test_a_file_with_a_flipped_byte_or_without_its_end(hub: Hub) -> None:
    folder = download("biomedclip")
    content = bytearray(hub.files[BIN])
    content[len(content) // 2] ^= 1
    for spoilt in (bytes(content), bytes(content[:-1])):
        (folder / BIN).write_bytes(spoilt)
        *_, last = checks("biomedclip").values()
        assert (last.what, last.passed) == (f"file {BIN}", False)
        assert last.detail.endswith(f"remove {folder / BIN} and download again")
    (folder / BIN).unlink()
    *_, last = checks(folder).values()
    assert f"{folder / BIN} is missing, source.json lists it" in last.detail
    download("biomedclip")
    assert all(check.passed for check in checks("biomedclip").values())


def test_converted_weights_are_checked_too(hub: Hub) -> None:
    folder = download("biomedclip")
    before = load_backbone("biomedclip").fingerprint
    convert(folder, remove_old=True)
    found = checks("biomedclip")
    assert all(check.passed for check in found.values())
    assert found[f"file {WEIGHTS}"].detail == "as from 'backbones convert'"
    assert found["fingerprint"].detail == before
    with (folder / WEIGHTS).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    *_, last = checks("biomedclip").values()
    assert (last.what, last.passed) == (f"file {WEIGHTS}", False)


def test_weights_that_give_no_features(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    save_file(
        {**state, "visual.head.proj.weight": torch.zeros_like(state["visual.head.proj.weight"])}, folder / WEIGHTS
    )
    *_, last = checks(folder).values()
    assert last == Check("features", False, "not finite, or zero; the weights are damaged")


def test_features_that_depend_on_their_neighbours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = Backbone.encode_image
    monkeypatch.setattr(Backbone, "encode_image", lambda self, pixels: encode(self, pixels) + len(pixels))
    *_, last = checks(folder).values()
    assert (last.what, last.passed) == ("batches", False)


def test_weights_that_change_between_two_loads(folder: Path) -> None:
    following = verify(str(folder))
    for check in following:
        if check.what == "batches":
            state = load_file(folder / WEIGHTS)
            save_file({key: value * 2 for key, value in state.items()}, folder / WEIGHTS)
    assert (check.what, check.passed) == ("second load", False)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("biomedclip", "is not on this machine"),
        ("bimedclip", "did you mean biomedclip or pubmedclip?"),
        ("{}", "has no open_clip_config"),
    ],
)
def test_nothing_to_verify(name: str, words: str, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        checks(name.format(tmp_path))
