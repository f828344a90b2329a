"""``biomedcoop backbones``: what a user sees."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backbones.tiny_transformers_clip import write_transformers
from biomedcoop.backbones import BACKBONES
from biomedcoop.backbones.registry import check_place
from biomedcoop.errors import UserError

Cli = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture
def folder(parity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model where BiomedCLIP belongs, put there by hand."""
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path))
    monkeypatch.setitem(BACKBONES, "biomedclip", replace(BACKBONES["biomedclip"], model=None))  # type: ignore[arg-type]
    return Path(shutil.copytree(parity / "model", tmp_path / "backbones" / "biomedclip"))


def test_list(cli: Cli, folder: Path) -> None:
    told = cli("backbones", "list")
    assert all(name in told.out for name in BACKBONES)
    assert "download NAME" in told.err
    facts = {one["name"]: one for one in json.loads(cli("backbones", "list", "--json").out)}
    one = facts["biomedclip"]
    assert (one["ready"], one["folder"], one["licence"], one["commits"]) == (True, str(folder), "MIT", [])
    assert one["bytes"] == sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    (folder / "vocab.txt").unlink()
    assert "no (784 MB to download)" in cli("backbones", "list").out
    assert {name for name, one in facts.items() if not one["hub"]} == {"mini"}


def test_verify(cli: Cli, folder: Path, refused: Refused) -> None:
    told = cli("backbones", "verify", "biomedclip")
    assert told.status == 0
    assert [line.partition(":")[0] for line in told.out.splitlines()] == [
        "ok   files",
        "ok   fingerprint",
        "ok   features",
        "ok   batches",
        "ok   second load",
    ]
    assert [one["what"] for one in json.loads(cli("backbones", "verify", folder, "--json").out)] == [
        "files",
        "fingerprint",
        "features",
        "batches",
        "second load",
    ]
    (folder / "source.json").write_text('{"files": {"vocab.txt": {}}}')
    assert "source.json: it cannot be read" in refused("backbones", "verify", "biomedclip")


def test_another_model_under_a_known_name(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parity: Path
) -> None:
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path))
    own = Path(shutil.copytree(parity / "model", tmp_path / "backbones" / "biomedclip"))
    names = BACKBONES["biomedclip"].files
    for name in {*names[2:]} - {path.name for path in own.iterdir()}:
        (own / name).touch()
    for words in (
        ["backbones", "verify", "biomedclip"],
        ["embed", parity, "--backbone", "biomedclip", "--out", "a.npz"],
    ):
        done = cli(*words)
        line = done.err.splitlines()[-1]
        assert (done.status, line.startswith(f"error: {own} holds ")) == (2, True), done
        assert "MB, but 'biomedclip' stands for BiomedCLIP (784 MB); move the folder elsewhere and give it" in line
    told = cli("backbones", "list", "--json")
    one = {one["name"]: one for one in json.loads(told.out)}["biomedclip"]
    assert (one["ready"], one["folder"]) == (False, str(own))
    assert "stands for BiomedCLIP" in one["problem"]
    assert "stands for BiomedCLIP" in cli("backbones", "list").err
    # of a size that may be right: the sizes of the towers tell
    with (own / "filling").open("wb") as file:
        file.truncate(784_000_000)
    err = cli("backbones", "verify", "biomedclip").err
    assert "holds a model of other sizes (input " in err
    assert "stands for BiomedCLIP (input 224 px, first kernel 16 px, joint width 512, text width 768)" in err
    # of another layout
    write_transformers(own)
    (own / "open_clip_config.json").unlink()
    (own / "open_clip_model.safetensors").unlink()
    with pytest.raises(UserError, match="holds a model in the layout 'clip-transformers', but 'biomedclip' stands for"):
        check_place("biomedclip", own)


def test_convert(cli: Cli, folder: Path, refused: Refused) -> None:
    import torch
    from safetensors.torch import load_file

    new, old = folder / "open_clip_model.safetensors", folder / "open_clip_pytorch_model.bin"
    torch.save(load_file(new), old)
    new.unlink()
    assert (
        cli("backbones", "convert", "biomedclip", "--remove-old").out == f"converted to {new}, all tensors are equal\n"
    )
    assert (new.exists(), old.exists()) == (True, False)
    assert "nothing to convert" in refused("backbones", "convert", folder)
    assert "'mini' comes with this package as safetensors, so there is nothing to convert" in refused(
        "backbones", "convert", "mini"
    )
    assert "did you mean biomedclip" in refused("backbones", "convert", "biomedclp")
    assert "run 'biomedcoop backbones download pmc-clip'" in refused("backbones", "convert", "pmc-clip")


def test_an_open_clip_folder_without_its_configuration(cli: Cli, folder: Path) -> None:
    (folder / "open_clip_config.json").unlink()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    assert f"{folder}: open_clip_config.json is missing" in cli("backbones", "verify", folder).err


def test_offline(refused: Refused, folder: Path) -> None:
    (folder / "vocab.txt").unlink()
    line = refused("backbones", "download", "biomedclip", "--offline")
    assert "vocab.txt from https://" in line
    assert line.endswith(f"into {folder}")
