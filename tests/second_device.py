"""A second device without a GPU: tensors that claim another device than the CPU's, and refuse to meet its tensors.

Their content lies on the CPU and is exact, so that whole trainings run. The device is torch's "meta", which every build
knows. As on a GPU, an operation whose tensors lie on both devices is an error (a CPU tensor without dimensions aside), and NumPy
cannot read one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

NAME = "meta"

ACROSS = ("aten::copy_", "aten::_to_copy", "aten::index", "aten::index_put_")
"""Operations that a GPU does with tensors of the CPU too; indices are copied there."""


class Elsewhere(Tensor):
    """A tensor on the second device; ``content`` is the tensor on the CPU."""

    content: Tensor

    @staticmethod
    def __new__(cls, content: Tensor) -> Elsewhere:
        return Tensor._make_wrapper_subclass(  # type: ignore[no-any-return, attr-defined]
            cls,
            content.shape,
            strides=content.stride(),
            storage_offset=content.storage_offset(),
            dtype=content.dtype,
            device=NAME,
            requires_grad=content.requires_grad,
        )

    def __init__(self, content: Tensor) -> None:
        self.content = content

    def data_ptr(self) -> int:
        return self.content.data_ptr()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Elsewhere({self.content!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class TensorsOfValues(TorchFunctionMode):
    """Lets ``torch.tensor`` send values to the second device: for "meta" it would drop them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu").type == NAME:
            return func(*args, **{**kwargs, "device": "cpu"}).to(NAME)
        return func(*args, **kwargs)


class SecondDevice(TorchDispatchMode):
    """Makes the device "meta" a second device while it is active.

    Attributes:
        crossings: number of copies between the devices, and of values that the host read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.crossings = 0
        self.values = TensorsOfValues()

    def __enter__(self) -> SecondDevice:
        self.values.__enter__()
        # tensors of other classes have no views in inference mode
        self.mode, torch.inference_mode = torch.inference_mode, torch.no_grad  # type: ignore[misc, assignment]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.inference_mode = self.mode  # type: ignore[misc]
        self.values.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
        name = func.overloadpacket._qualified_op_name
        here, there = (any(isinstance(one, Elsewhere) is which for one in tensors) for which in (False, True))
        asked = kwargs.get("device")
        to = None if asked is None else torch.device(asked).type
        copies = name in ACROSS and here and there
        reads = name == "aten::_local_scalar_dense" and there
        self.crossings += copies or reads or (to == "cpu" and there) or (to == NAME and here)
        return run(func, args, kwargs)


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation on the contents; the result lies where the tensors lie, or where ``device`` says."""
    name = func.overloadpacket._qualified_op_name
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
    there = any(isinstance(one, Elsewhere) for one in tensors)
    strangers = [one for one in tensors if not isinstance(one, Elsewhere) and one.dim()]
    if there and strangers and name not in ACROSS:
        raise RuntimeError(
            f"{name}: tensors on both devices; the CPU's have the shapes {[list(s.shape) for s in strangers]}"
        )
    to = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type
    inner_args, inner = tree_map(lambda one: one.content if isinstance(one, Elsewhere) else one, (args, kwargs))
    if to == NAME:
        inner["device"] = "cpu"
    out = func(*inner_args, **inner)
    if to == "cpu" or not (there or to == NAME):
        return out
    wrapped = tree_map(lambda one: Elsewhere(one) if isinstance(one, Tensor) else one, out)
    return return_and_correct_aliasing(func, args, kwargs, wrapped)
