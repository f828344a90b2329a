"""A reader of the pickles inside PyTorch checkpoints that imports nothing and calls nothing that a file names.

``torch.load(weights_only=True)`` refuses checkpoints that also hold a learning-rate scheduler, and Python's own unpickler imports
and calls what the file says. This reader interprets the instructions of protocol 2, the one that ``torch.save`` writes, and knows
a fixed list of names. Containers become plain ones, tensors become descriptions of their place in the file, and optimisers and
schedulers become empty stand-ins. Any other name or instruction is refused before anything is built from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pickletools import genops
from typing import Any, NamedTuple

MOST_DIMENSIONS = 16

DTYPES = {
    "torch FloatStorage": "float32",
    "torch DoubleStorage": "float64",
    "torch HalfStorage": "float16",
    "torch BFloat16Storage": "bfloat16",
    "torch LongStorage": "int64",
    "torch IntStorage": "int32",
    "torch ByteStorage": "uint8",
    "torch BoolStorage": "bool",
}
"""Name of a kind of storage -> name of its torch dtype."""

INERT = (
    "torch.optim.sgd SGD",
    "torch.optim.lr_scheduler CosineAnnealingLR",
    "dassl.optim.lr_scheduler ConstantWarmupScheduler",
)
"""Classes whose objects become :class:`Inert`: those of the published training."""

DICT = ("__builtin__ dict", "builtins dict")


class Refused(ValueError):
    """A pickle that holds more than data; the message says what, without the file's name."""


class Storage(NamedTuple):
    """A block of numbers in the file: its key, the name of its torch dtype, and how many numbers it holds."""

    key: str
    dtype: str
    numel: int


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor as a view of a storage; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Inert:
    """Stands for an object of a known class; what the file says about it is dropped."""

    name: str


class Name(NamedTuple):
    """A name in the file that stands for code: text, never the thing itself."""

    name: str


def read_pickle(content: bytes) -> Any:
    """The value that a pickle describes, with :class:`StoredTensor` for tensors and :class:`Inert` for known objects.

    Args:
        content: the pickle; ``torch.save`` calls it ``data.pkl``.

    Raises:
        Refused: an unknown name or instruction, a tensor outside its storage, or damaged content.

    Example:
        >>> import pickle
        >>> from biomedcoop.backbones.restricted_pickle import read_pickle
        >>> read_pickle(pickle.dumps({"epoch": 100}, protocol=2))
        {'epoch': 100}
        >>> read_pickle(pickle.dumps(eval, protocol=2))
        Traceback (most recent call last):
            ...
        biomedcoop.backbones.restricted_pickle.Refused: it names the code '__builtin__.eval'
    """
    reader = _Reader()
    try:
        for opcode, argument, _ in genops(content):
            if opcode.name == "STOP":
                return reader.result()
            reader.step(opcode.name, argument)
    except Refused:
        raise
    # what damaged instructions make the standard library and the stack raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise Refused(f"its list of contents is damaged ({type(error).__name__})") from error
    raise Refused("its list of contents is cut off")


class _Reader:
    """The stack machine of the pickle format, without the instructions that ``torch.save`` does not write."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []  # the stacks below each open mark
        self.memo: dict[int, Any] = {}

    def result(self) -> Any:
        if len(self.stack) != 1 or self.marked:
            raise Refused("its list of contents is damaged (values left over)")
        return self.stack[0]

    def step(self, name: str, argument: Any) -> None:
        if name in VALUES:
            self.push(argument)
        elif name in CONSTANTS:
            self.push(CONSTANTS[name]())
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.push(self.memo[argument])
        elif name in STEPS:
            STEPS[name](self)
        elif name == "GLOBAL":
            self.push(known(argument))
        elif name != "PROTO" or argument != 2:
            raise Refused(f"it holds the instruction {name}, which no checkpoint needs")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise Refused("it appends to something that is no list")
        target.extend(items)

    def update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise Refused("it adds entries to something that is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # of other keys, the hash of a deeply nested tuple alone could end the process
            if type(key) not in (str, int, StoredTensor):
                raise Refused(f"it has a key of the kind {type(key).__name__}")
            target[key] = value

    def persistent(self) -> None:
        (identity,) = self.pop(1)
        self.push(storage(identity))

    def reduce(self) -> None:
        function, arguments = self.pop(2)
        self.push(call(function, arguments))

    def new(self) -> None:
        kind, arguments = self.pop(2)
        if type(kind) is not Name or kind.name not in INERT or arguments != ():
            raise Refused("it makes an object of a kind that is not known")
        self.push(Inert(kind.name))

    def build(self) -> None:
        target, _ = self.pop(2)
        if type(target) not in (dict, Inert):  # OrderedDict keeps attributes, optimisers their state; neither is of use
            raise Refused("it sets the state of something other than an optimiser or scheduler")
        self.push(target)


VALUES = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE")
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
STEPS: dict[str, Callable[[_Reader], None]] = {
    "MARK": _Reader.mark,
    "TUPLE": lambda reader: reader.push(tuple(reader.since_mark())),
    "TUPLE1": lambda reader: reader.push(tuple(reader.pop(1))),
    "TUPLE2": lambda reader: reader.push(tuple(reader.pop(2))),
    "TUPLE3": lambda reader: reader.push(tuple(reader.pop(3))),
    "APPEND": lambda reader: reader.extend(reader.pop(1)),
    "APPENDS": lambda reader: reader.extend(reader.since_mark()),
    "SETITEM": lambda reader: reader.update(reader.pop(2)),
    "SETITEMS": lambda reader: reader.update(reader.since_mark()),
    "BINPERSID": _Reader.persistent,
    "REDUCE": _Reader.reduce,
    "NEWOBJ": _Reader.new,
    "BUILD": _Reader.build,
}


def known(name: str) -> Name:
    """A name that a checkpoint may hold, "module attribute".

    Raises:
        Refused: any other name.
    """
    if name not in (*DTYPES, *INERT, *DICT, *CALLS):
        raise Refused(f"it names the code '{'.'.join(name.split(' ', 1))[:100]!s}'")
    return Name(name)


def call(function: object, arguments: object) -> Any:
    """What one of the functions and containers of :data:`CALLS` would give, built by this module."""
    if type(function) is not Name or function.name not in CALLS or type(arguments) is not tuple:
        raise Refused("it calls something that is not known")
    return CALLS[function.name](*arguments)


def empty(*arguments: Any) -> dict[Any, Any]:
    """An OrderedDict, or a defaultdict of dicts, as a plain dict."""
    if arguments not in ((), *((Name(name),) for name in DICT)):
        raise Refused("it fills a container in an unusual way")
    return {}


def storage(identity: Any) -> Storage:
    """The storage that a persistent id names: ("storage", kind, key, device, numel)."""
    if type(identity) is not tuple or len(identity) != 5 or identity[0] != "storage":
        raise Refused("it refers to something other than a block of numbers")
    _, kind, key, _, numel = identity
    if type(kind) is not Name or kind.name not in DTYPES or type(key) is not str or not key.isascii():
        raise Refused("it refers to a block of numbers of an unknown kind")
    if not key.isdigit() or type(numel) is not int or numel < 0:
        raise Refused("it refers to a block of numbers in an unusual way")
    return Storage(key, DTYPES[kind.name], numel)


def tensor(block: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> StoredTensor:
    """A tensor of ``torch._utils._rebuild_tensor_v2``; the other arguments concern gradients.

    Raises:
        Refused: it is larger than its storage, or reaches beyond it.
    """
    sizes_ok = type(shape) is tuple and type(stride) is tuple and len(shape) == len(stride) <= MOST_DIMENSIONS
    if (
        type(block) is not Storage
        or not sizes_ok
        or any(type(n) is not int or n < 0 for n in (offset, *shape, *stride))
    ):
        raise Refused("it describes a tensor in an unusual way")
    numel, last = 1, offset
    for n, step in zip(shape, stride, strict=True):
        numel, last = numel * n, last + (n - 1) * step
    if numel and (numel > block.numel or last >= block.numel):
        raise Refused(f"a tensor of the shape {list(shape)} reaches beyond its {block.numel} numbers")
    return StoredTensor(block, offset, shape, stride)


def parameter(data: Any, *_: Any) -> StoredTensor:
    """A parameter of ``torch._utils._rebuild_parameter``: its tensor."""
    if type(data) is not StoredTensor:
        raise Refused("it describes a parameter in an unusual way")
    return data


CALLS: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": empty,
    "collections defaultdict": empty,
    "torch._utils _rebuild_tensor_v2": tensor,
    "torch._utils _rebuild_parameter": parameter,
}
"""Names that a file may call -> what is built in their place."""
