"""``torch`` and ``torch.nn.functional``, imported on first use: the import takes seconds, and many commands need neither."""

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
            setattr(self, attribute, value)  # later uses find an ordinary attribute
            return value

    torch, F = _OnFirstUse("torch"), _OnFirstUse("torch.nn.functional")
