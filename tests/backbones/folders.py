"""Folders in open_clip layout that tests spoil, and the line that refuses them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from biomedcoop.backbones import load_backbone
from biomedcoop.errors import UserError

WEIGHTS, BIN = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"


def refusal(folder: Path) -> str:
    """The one line that loading ``folder`` is refused with."""
    with pytest.raises(UserError) as caught:
        load_backbone(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def use_bin(folder: Path, content: object, **how: bool) -> Path:
    """Replace the weights by a pickled file of ``content``; returns the file."""
    (folder / WEIGHTS).unlink(missing_ok=True)
    torch.save(content, folder / BIN, **how)
    return folder / BIN


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    """Rewrite a JSON file after ``change`` has edited its content in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
