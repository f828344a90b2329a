"""``biomedcoop backbones``: what a user sees."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from biomedcoop.backbones import BACKBONES

Cli = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture
def folder(parity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model where BiomedCLIP belongs, put there by hand."""
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path))
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


def test_convert(cli: Cli, folder: Path, refused: Refused) -> None:
    import torch
    from safetensors.torch import load_file

    new, old = folder / "open_clip_model.safetensors", folder / "open_clip_pytorch_model.bin"
    torch.save(load_file(new), old)
    new.unlink()
    assert cli("backbones", "convert", "biomedclip", "--remove-old").out == f"{new} holds the same tensors\n"
    assert (new.exists(), old.exists()) == (True, False)
    assert "nothing to convert" in refused("backbones", "convert", folder)


def test_offline(refused: Refused, folder: Path) -> None:
    (folder / "vocab.txt").unlink()
    line = refused("backbones", "download", "biomedclip", "--offline")
    assert "vocab.txt from https://" in line
    assert line.endswith(f"into {folder}")
