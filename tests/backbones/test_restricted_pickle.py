"""Pickles that carry code are refused, and nothing in them runs; each would create a file if it did."""

from __future__ import annotations

import builtins
import collections
import contextlib
import functools
import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from biomedcoop.backbones.restricted_pickle import DTYPES, Inert, Refused, StoredTensor, read_pickle

PROTO, STOP = b"\x80\x02", b"."
EMPTY = b")"


def text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word.encode())) + word.encode()


def name(of: str) -> bytes:
    """The instruction GLOBAL: "module attribute"."""
    return b"c" + of.replace(" ", "\n").encode() + b"\n"


class Runs:
    """Pickled, it calls a function when it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """The file that the code in a pickle would create."""
    return tmp_path / "it ran"


def refusal(content: bytes, trace: Path) -> str:
    with pytest.raises(Refused) as caught:
        read_pickle(content)
    assert not trace.exists()
    return str(caught.value)


def crafted(trace: Path) -> dict[str, bytes]:
    """Pickles that create the file ``trace`` when Python's own unpickler reads them."""
    code = f"open({str(trace)!r}, 'w').close()"
    direct = {
        "os.system": Runs(os.system, f"touch '{trace}'"),
        "eval": Runs(builtins.eval, code),
        "exec": Runs(builtins.exec, code),
        "open": Runs(builtins.open, str(trace), "w"),
        "in a list": [1, {"state_dict": Runs(builtins.eval, code)}],
        "in a tensor's place": {"state_dict": {"ctx": Runs(builtins.exec, code)}},
        "partial": Runs(functools.partial(builtins.eval, code)),
        "nested pickle": Runs(pickle.loads, pickle.dumps(Runs(builtins.eval, code))),
        "os.mkdir": Runs(os.mkdir, str(trace)),
        "defaultdict": collections.defaultdict(functools.partial(builtins.eval, code)),
    }
    made = {label: pickle.dumps(value, protocol=2) for label, value in direct.items()}
    run = text(code) + b"\x85R"  # TUPLE1, REDUCE
    # the name goes into the memo first and comes from there to be called
    made["memo"] = PROTO + name("__builtin__ eval") + b"q\x00" + b"0" + b"h\x00" + run + STOP
    # the name is made of text, which only later protocols allow
    made["stack global"] = PROTO + text("builtins") + text("eval") + b"\x93" + run + STOP
    # the old form of a call: INST, and OBJ
    made["inst"] = PROTO + b"(" + text(code) + b"i__builtin__\neval\n" + STOP
    made["obj"] = PROTO + b"(" + name("__builtin__ eval") + text(code) + b"o" + STOP
    # a harmless object whose state is made by a call
    made["build"] = PROTO + name("torch.optim.sgd SGD") + EMPTY + b"\x81" + name("__builtin__ eval") + run + b"b" + STOP
    made["dotted"] = PROTO + name("torch._utils _rebuild_tensor_v2.__globals__") + STOP
    return made


LABELS = list(crafted(Path("x")))


@pytest.mark.parametrize("label", LABELS)
def test_code_is_refused_and_does_not_run(label: str, trace: Path) -> None:
    assert refusal(crafted(trace)[label], trace)


@pytest.mark.parametrize("label", ["os.system", "eval", "in a list", "nested pickle", "memo", "stack global", "build"])
def test_the_crafted_pickles_would_run_elsewhere(label: str, trace: Path) -> None:
    """Without this, the test above could pass with pickles that do nothing."""
    read = pickle.Unpickler(io.BytesIO(crafted(trace)[label]))
    # after the call, the rest need not fit together
    with contextlib.suppress(TypeError, AttributeError, pickle.UnpicklingError):
        read.load()
    assert trace.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps(eval, protocol=2), "names the code '__builtin__.eval'"),
        (pickle.dumps({"a": 1}, protocol=4), "instruction PROTO"),
        (PROTO + b"}", "damaged"),
        (b"", "damaged"),
        (b"\x00\x01 no pickle", "damaged"),
        (PROTO + b"h\x05" + STOP, "damaged (KeyError)"),
        (PROTO + b"u" + STOP, "damaged (IndexError)"),
        (PROTO + b"R" + STOP, "damaged"),
        (PROTO + b"]]" + STOP, "values left over"),
        (PROTO + b"](K\x01s" + STOP, "damaged"),
        (PROTO + b"}K\x01a" + STOP, "appends to something that is no list"),
        (PROTO + b"]K\x01K\x02s" + STOP, "adds entries to something that is no dict"),
        # a key that is a tuple: its hash is computed over all that it holds
        (PROTO + b"})\x85K\x01s" + STOP, "a key of the kind tuple"),
        # a call of an object that the file has made itself
        (PROTO + name("torch.optim.sgd SGD") + EMPTY + b"\x81" + EMPTY + b"R" + STOP, "calls something that is not known"),
        (PROTO + name("torch.optim.sgd SGD") + EMPTY + b"R" + STOP, "calls something that is not known"),
        (PROTO + name("torch FloatStorage") + EMPTY + b"\x81" + STOP, "makes an object of a kind that is not known"),
        (PROTO + name("torch.optim.sgd SGD") + b"K\x01\x85\x81" + STOP, "makes an object of a kind that is not known"),
        # the state of a class, a function, a list: where attributes could be replaced
        (PROTO + name("torch.optim.sgd SGD") + b"}b" + STOP, "sets the state of something other"),
        (PROTO + name("torch._utils _rebuild_tensor_v2") + b"}b" + STOP, "sets the state of something other"),
        (PROTO + b"]}b" + STOP, "sets the state of something other"),
        (PROTO + name("collections OrderedDict") + b"]\x85R" + STOP, "fills a container in an unusual way"),
        (PROTO + name("collections defaultdict") + name("torch.optim.sgd SGD") + b"\x85R" + STOP, "fills a container"),
        # persistent ids of other forms
        (PROTO + text("storage") + b"Q" + STOP, "something other than a block of numbers"),
        (PROTO + b"(" + text("module") + b"K\x00K\x00K\x00K\x00tQ" + STOP, "something other than a block"),
    ],
)  # fmt: skip
def test_what_no_checkpoint_holds(content: bytes, words: str, trace: Path) -> None:
    assert words in refusal(content, trace)


def whole(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)


def block(kind: str = "torch FloatStorage", key: str = "0", numel: int = 12) -> bytes:
    return b"(" + text("storage") + name(kind) + text(key) + text("cpu") + whole(numel) + b"tQ"


def tensor(offset: int, shape: list[int], stride: list[int], numel: int = 12, **more: str) -> bytes:
    sizes = [b"(" + b"".join(map(whole, numbers)) + b"t" for numbers in (shape, stride)]
    arguments = block(numel=numel, **more) + whole(offset) + b"".join(sizes) + b"\x89N"
    return PROTO + name("torch._utils _rebuild_tensor_v2") + b"(" + arguments + b"tR" + STOP


def test_a_tensor_is_a_view_of_its_storage() -> None:
    stored = read_pickle(tensor(2, [2, 3], [5, 1]))
    assert type(stored) is StoredTensor
    assert (stored.storage, stored.offset, stored.shape, stored.stride) == (("0", "float32", 12), 2, (2, 3), (5, 1))


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [(0, [13], [1]), (12, [1], [1]), (3, [2, 3], [8, 1]), (0, [1000], [0]), (0, [4, 4], [0, 1]), (9, [2], [5])],
)
def test_a_tensor_beyond_its_storage(offset: int, shape: list[int], stride: list[int], trace: Path) -> None:
    assert "reaches beyond its 12 numbers" in refusal(tensor(offset, shape, stride), trace)


@pytest.mark.parametrize(
    "content",
    [
        tensor(-1, [2], [1]),
        tensor(0, [-2], [1]),
        tensor(0, [2], [-1]),
        tensor(0, [2, 2], [1]),
        tensor(0, [1] * 17, [1] * 17),
        tensor(0, [1], [1], numel=-12),
        tensor(0, [1], [1], key="../0"),
        tensor(0, [1], [1], key="²"),
        tensor(0, [1], [1], kind="torch.optim.sgd SGD"),
        PROTO + name("torch._utils _rebuild_tensor_v2") + EMPTY + b"R" + STOP,
        PROTO + name("torch._utils _rebuild_tensor_v2") + b"(K\x00K\x00))\x89NtR" + STOP,
        PROTO + name("torch._utils _rebuild_parameter") + b"(K\x00\x89NtR" + STOP,
    ],
)
def test_unusual_tensors(content: bytes, trace: Path) -> None:
    assert refusal(content, trace)


def test_known_objects_are_empty_stand_ins() -> None:
    found = read_pickle(PROTO + name("torch.optim.sgd SGD") + EMPTY + b"\x81}" + text("step") + b"K\x01sb" + STOP)
    assert type(found) is Inert
    assert vars(found) == {"name": "torch.optim.sgd SGD"}


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_kinds_of_storages_are_those_of_torch() -> None:
    for kind, dtype in DTYPES.items():
        assert getattr(torch, kind.removeprefix("torch "))().dtype is getattr(torch, dtype)


def test_random_changes_of_a_pickle_never_run_code_or_raise_anything_else(trace: Path) -> None:
    content = bytearray(crafted(trace)["in a list"])
    generator = torch.Generator().manual_seed(0)
    for _ in range(3000):
        changed = bytearray(content)
        for place, value in torch.randint(0, 256, (2, 2), generator=generator).tolist():
            changed[place % len(changed)] = value
        with contextlib.suppress(Refused):
            read_pickle(bytes(changed))
        assert not trace.exists()
