"""``torch`` and ``torch.nn.functional`` on first use: importing them takes seconds, and describing a method needs neither."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["F", "torch"]

if TYPE_CHECKING:
    import torch
    from torch.nn import functional as F
else:

    class _OnFirstUse:
        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            value = getattr(import_module(self._name), attribute)
            setattr(self, attribute, value)  # the next use is an ordinary attribute's
            return value

    torch, F = _OnFirstUse("torch"), _OnFirstUse("torch.nn.functional")
