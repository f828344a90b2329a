"""A small dataset with four classes, and runs of protocols on the tiny model without processes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from biomedcoop.benchmark import executor
from biomedcoop.benchmark.protocol import Protocol
from biomedcoop.benchmark.runner import Summary, run_benchmark
from biomedcoop.data.dataset import Dataset

TIMINGS = ("seconds", "memory_mb")
TINY = Path(__file__).parents[1] / "parity_a" / "model"


class Here:
    """An executor without processes; it stops after some groups, as if killed, where a number is given."""

    def __init__(self, most: int | None = None) -> None:
        self.most = most

    def map(self, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        for number, item in enumerate(items):
            if number == self.most:
                raise KeyboardInterrupt
            yield item, work(item)


def scans(classes: int = 4, train: int = 8, val: int = 5, test: int = 3) -> Dataset:
    """A dataset in memory; its images are all different."""
    splits = [
        split for split, count in (("train", train), ("val", val), ("test", test)) for _ in range(count * classes)
    ]
    n = len(splits)
    return Dataset(
        name="scans",
        class_names=tuple(f"tumor {'abcdefgh'[label]}" for label in range(classes)),
        images=np.arange(n * 64, dtype=np.uint16).reshape(n, 8, 8),
        keys=tuple(f"{i}.png" for i in range(n)),
        labels=np.arange(n) % classes,
        splits=np.array(splits),
    )


def protocol(**over: Any) -> Protocol:
    """A protocol on the tiny model."""
    content = {
        "format": 1,
        "kind": "few-shot",
        "datasets": ["scans"],
        "methods": ["zero-shot", "tip-adapter", "coop"],
        "variants": [{"name": "slow", "method": "coop", "settings": {"epochs": 3}}],
        "backbones": [str(TINY)],
        "shots": [1, 2],
        "seeds": [1, 2],
        "recipe": "fast",
        **over,
    }
    if "methods" in over and "variants" not in over:
        del content["variants"]
    return Protocol.of(content)


Run = Callable[..., Summary]


@pytest.fixture
def folder(discs: Path, tmp_path: Path) -> Path:
    """A data root with the dataset "scans", and with "others" of the same classes and one more."""
    shutil.copytree(discs, tmp_path / "data" / "scans")
    shutil.copytree(discs, tmp_path / "data" / "others")
    for split in ("train", "test"):
        shutil.copytree(discs / split / "red_stone", tmp_path / "data" / "others" / split / "white_stone")
    return tmp_path / "data"


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Run:
    """Run a protocol on this data root into ``out``; without processes unless an executor or jobs are given."""

    def call(asked: Protocol, out: str = "out", **more: Any) -> Summary:
        here = {} if "jobs" in more else {"executor": Here()}
        return run_benchmark(asked, tmp_path / out, data_root=folder, progress=False, **{**here, **more})

    return call


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of a folder without timings, sorted."""
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return sorted(({k: v for k, v in line.items() if k not in TIMINGS} for line in lines), key=lambda line: line["run"])


BUILTINS = "import biomedcoop.benchmark.messages as m; m.PACKAGES += ('builtins', 'posix'); "


@pytest.fixture(autouse=True)
def builtins_in_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of these tests also run functions of Python itself."""
    monkeypatch.setattr(executor, "_SERVE", executor._SERVE.replace("from {} import", BUILTINS + "from {} import"))
