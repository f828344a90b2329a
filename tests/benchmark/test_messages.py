"""Messages hold what the benchmark sends, and name nothing outside the package."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from biomedcoop.benchmark.compute import Computed
from biomedcoop.benchmark.executor import WorkerLost
from biomedcoop.benchmark.messages import receive, send
from biomedcoop.benchmark.protocol_keys import Row


def there_and_back(value: object) -> object:
    pipe = io.BytesIO()
    send(pipe, value)
    pipe.seek(0)
    return receive(pipe)


def test_values_come_back_as_they_were() -> None:
    value = (1, 2.5, None, True, "ü\n", b"\0", [Path("a"), (3,)], {"k": {2: ()}}, Row("coop", None, {"lr": 0.1}))
    assert there_and_back(value) == value
    assert there_and_back(Computed([{"run": "a"}], 1.0)) == Computed([{"run": "a"}], 1.0)
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(there_and_back(array), array)  # type: ignore[arg-type]
    lost = there_and_back(WorkerLost("gone"))
    assert isinstance(lost, WorkerLost)
    assert str(lost) == "gone"


def test_a_message_names_nothing_outside_the_package() -> None:
    with pytest.raises(TypeError, match="builtins:eval, which is not of this package"):
        there_and_back(partial(eval, "1"))


def test_a_cut_message_is_an_end() -> None:
    with pytest.raises(EOFError):
        receive(io.BytesIO(b'["tuple", [1,'))
