"""The shipped backbone, and a count of the passes through the tiny one."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import pytest
import torch

from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.features import passes as image_pass


@pytest.fixture(scope="module")
def mini() -> Backbone:
    return load_backbone("mini")


@pytest.fixture
def passes(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every pass through the tiny model's towers, in order; eight images to a pass."""
    monkeypatch.setattr(image_pass, "image_batch", lambda backbone: 8)
    monkeypatch.setattr(image_pass, "_alone", WeakKeyDictionary())  # as in a new process
    rows: list[int] = []
    for name in ("encode_image", "encode_text_embeddings"):
        real = getattr(tiny, name)

        def counted(first: torch.Tensor, *rest: torch.Tensor, real=real) -> torch.Tensor:  # type: ignore[no-untyped-def]
            rows.append(len(first))
            return real(first, *rest)  # type: ignore[no-any-return]

        monkeypatch.setattr(tiny, name, counted)
    return rows
