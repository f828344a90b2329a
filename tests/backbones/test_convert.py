"""Pickled weights become safetensors with the same bits, or nothing changes."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from backbones.folders import BIN, WEIGHTS, use_bin
from biomedcoop.backbones import download, load_backbone, locate
from biomedcoop.backbones.convert import convert
from biomedcoop.errors import UserError
from hub_server import Hub

State = dict[str, torch.Tensor]


def refused(path: Path, **how: bool) -> str:
    with pytest.raises(UserError) as caught:
        convert(path, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_new_file_has_the_same_tensors_and_fingerprint(folder: Path, state: State) -> None:
    positions = {"text.transformer.embeddings.position_ids": torch.arange(64)[None]}
    use_bin(folder, {"state_dict": {**state, **positions}, "epoch": 3})
    before = load_backbone(folder).fingerprint
    assert convert(folder) == [folder / WEIGHTS]
    assert (folder / BIN).exists()
    (folder / "plain file").touch()
    assert (folder / WEIGHTS).stat().st_mode == (folder / "plain file").stat().st_mode  # others may read it too
    new = load_file(folder / WEIGHTS)
    assert new.keys() == {*state, *positions}
    assert all(torch.equal(new[key], value) and new[key].dtype == value.dtype for key, value in state.items())
    (folder / BIN).unlink()
    assert load_backbone(folder).fingerprint == before


def test_tensors_that_share_memory_or_hold_nan(tmp_path: Path) -> None:
    base = torch.arange(12, dtype=torch.float16).reshape(3, 4)
    odd = {"whole": base, "turned": base.T, "part": base[1:], "none": torch.tensor([float("nan"), -0.0])}
    torch.save(odd, tmp_path / "image_encoder(resnet50).pth")
    (new,) = convert(tmp_path)
    assert new.name == "image_encoder(resnet50).safetensors"
    assert all(torch.equal(value.isnan(), odd[key].isnan()) for key, value in load_file(new).items())
    assert torch.equal(load_file(new)["turned"], base.T)


def test_a_lone_tensor_gets_the_name_of_its_file(tmp_path: Path) -> None:
    torch.save(torch.nn.Parameter(torch.eye(3)), tmp_path / "text_projection_layer.pth")
    (new,) = convert(tmp_path / "text_projection_layer.pth", remove_old=True)
    assert torch.equal(load_file(new)["text_projection_layer"], torch.eye(3))
    assert [path.name for path in tmp_path.iterdir()] == ["text_projection_layer.safetensors"]


def test_converting_again_compares(folder: Path, state: State) -> None:
    use_bin(folder, state)
    convert(folder)
    before = (folder / WEIGHTS).stat().st_mtime_ns
    assert convert(folder, remove_old=True) == [folder / WEIGHTS]
    assert (folder / WEIGHTS).stat().st_mtime_ns == before
    assert not (folder / BIN).exists()
    key = min(state)
    torch.save({**state, key: state[key] + 1}, folder / BIN)
    assert refused(folder, remove_old=True) == (
        f"{folder / WEIGHTS} exists already and differs from {BIN} in '{key}'; remove one of them"
    )
    assert (folder / BIN).exists()


def test_a_converted_download_is_complete(hub: Hub) -> None:
    folder = download("biomedclip")
    before = load_backbone("biomedclip").fingerprint
    convert(folder, remove_old=True)
    assert locate("biomedclip") == folder
    assert load_backbone("biomedclip").fingerprint == before
    hub.asked.clear()
    download("biomedclip")
    assert not any(request.startswith("GET") for request in hub.asked)
    # weights of a later revision take the place of those converted from the earlier one
    torch.save({key: value + 1 for key, value in load_file(folder / WEIGHTS).items()}, folder.with_name("new.bin"))
    hub.files[BIN], hub.commit = folder.with_name("new.bin").read_bytes(), "f" * 40
    download("biomedclip")
    assert not (folder / WEIGHTS).exists()
    assert load_backbone("biomedclip").fingerprint != before


class Code:
    """A pickle that would run a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {Path.cwd() / 'ran'}",)


def test_what_cannot_be_converted(folder: Path, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"{folder}: it holds no .bin, .pth, .pt file, so there is nothing to convert" in refused(folder)
    assert "only .bin, .pth, .pt files are converted" in refused(folder / WEIGHTS)
    assert "neither a backbone nor a file nor a folder" in refused(folder / BIN)
    monkeypatch.chdir(tmp_path)
    use_bin(folder, {**state, "code": Code()})
    assert f"{folder / BIN}: refused, it holds more than tensors" in refused(folder, remove_old=True)
    assert not (tmp_path / "ran").exists()
    (folder / BIN).write_bytes(b"<html>Sign in</html>")
    assert str(folder / BIN) in refused(folder, remove_old=True)
    assert sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".safetensors")) == [BIN]


def test_a_full_disk_leaves_no_half_file(folder: Path, state: State) -> None:
    use_bin(folder, state)
    (folder / WEIGHTS).unlink(missing_ok=True)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
    try:
        line = refused(folder, remove_old=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert str(folder / WEIGHTS) in line
    assert (folder / BIN).exists()
    assert not (folder / WEIGHTS).exists()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
