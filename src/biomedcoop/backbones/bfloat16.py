"""Whether this CPU computes in bfloat16."""

from __future__ import annotations

import torch


def has_bfloat16() -> bool:
    """Whether oneDNN computes in bfloat16 on this CPU; without it, PyTorch's own loops for bfloat16 are many times slower."""
    has_library = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_library and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
