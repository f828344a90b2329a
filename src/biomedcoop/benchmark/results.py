"""The output folder of a benchmark, read without images or backbone.

``plan.json`` holds the protocol as resolved, ``results.jsonl`` one line for each finished run, ``tests/`` the labels and the groups
of related images of every scored set.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from biomedcoop.data.simulate.load import PREFIX
from biomedcoop.errors import UserError
from biomedcoop.evaluation.bootstrap import Floats

FORMAT = 1
PLAN, RESULTS, TESTS = "plan.json", "results.jsonl", "tests"
ROUNDED = 0.001
"""How much an accuracy may differ from the share of right answers, because it is rounded."""
NO_SHOTS = 0
"""The shots of a method that uses no training image."""


class TableRow(NamedTuple):
    """A row of the tables: a method, or a variant of it with other settings, on a backbone."""

    backbone: str
    method: str
    variant: str | None = None

    @property
    def name(self) -> str:
        """The variant's name, or the method's; no two rows of a backbone share one."""
        return self.variant or self.method


@dataclass(frozen=True)
class Run:
    """A line of ``results.jsonl``.

    Attributes:
        status: "done", "failed" or "skipped"; the last two with a ``reason``.
        untested: scored set that the method could not be tested on -> reason.
        tests: name of a scored set ("busi", "busi base") -> its metrics and the right answers.
        parameters: number of trained parameters.
        absent_classes: classes that a realistic draw has no image of; None if that is not recorded.
        seconds, memory_mb: cost of the run, if measured.
    """

    row: TableRow
    dataset: str
    shots: int
    seed: int
    status: str
    reason: str
    tests: Mapping[str, Mapping[str, Any]]
    untested: Mapping[str, str]
    parameters: int | None
    seconds: float | None
    memory_mb: float | None
    absent_classes: tuple[str, ...] | None = None

    def right(self, test: str) -> Floats:
        """1 for each correctly classified image of a scored set, else 0; [N]."""
        scored = self.tests[test]
        packed = np.frombuffer(base64.b64decode(scored["right"]), dtype=np.uint8)
        return np.unpackbits(packed, count=scored["images"]).astype(np.float64)


@dataclass(frozen=True)
class TestSet:
    """A scored set: labels [N], names of the classes, and the group of related images of each image [N] (None: no groups)."""

    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    groups: npt.NDArray[np.int64] | None


@dataclass(frozen=True)
class BenchmarkResults:
    """What an output folder holds.

    Attributes:
        plan: content of ``plan.json``; its ``names`` hold the name in the results of each dataset of the protocol.
        runs: the finished runs, in the order of the file; the last line about a run counts.
        tests: name of a scored set -> its labels and groups.
    """

    plan: Mapping[str, Any]
    runs: tuple[Run, ...]
    tests: Mapping[str, TestSet]

    @property
    def protocol(self) -> Mapping[str, Any]:
        """The protocol as resolved, with the keys of a protocol file."""
        return dict(self.plan["protocol"])

    @property
    def kind(self) -> str:
        """ "few-shot", "base-to-novel", "cross-dataset" or "realistic"."""
        return str(self.protocol["kind"])

    @property
    def shots(self) -> tuple[int, ...]:
        """Images per class, ascending."""
        return tuple(sorted(self.protocol["shots"]))

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.protocol["seeds"])

    @property
    def reference(self) -> str | None:
        """Name of the row that differences are taken against."""
        return self.protocol.get("reference")

    @cached_property
    def datasets(self) -> tuple[str, ...]:
        """The datasets trained on, in the order of the protocol."""
        planned = [self.name_of(dataset) for dataset in self.protocol["datasets"]]
        return tuple(dict.fromkeys([*planned, *(run.dataset for run in self.runs)]))

    @cached_property
    def rows(self) -> tuple[TableRow, ...]:
        """Methods and variants of each backbone, in the order of the protocol."""
        backbones = [Path(name).name for name in self.protocol.get("backbones", ())]
        methods: list[tuple[str, str | None]] = [(name, None) for name in self.protocol["methods"]]
        methods += [(variant["method"], variant["name"]) for variant in self.protocol.get("variants", ())]
        planned = [TableRow(backbone, *method) for backbone in backbones for method in methods]
        return tuple(dict.fromkeys([*planned, *(run.row for run in self.runs)]))

    @cached_property
    def backbones(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.backbone for row in self.rows))

    @cached_property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Collections of datasets that are averaged apart; without any, all datasets are one."""
        named = {name: tuple(map(self.name_of, of)) for name, of in self.protocol.get("groups", {}).items()}
        return named or {"all datasets": self.datasets}

    @cached_property
    def _found(self) -> dict[tuple[TableRow, str, int], dict[int, Run]]:
        found: dict[tuple[TableRow, str, int], dict[int, Run]] = {}
        for run in self.runs:
            found.setdefault((run.row, run.dataset, run.shots), {})[run.seed] = run
        return found

    def of(self, row: TableRow, dataset: str, shots: int) -> dict[int, Run]:
        """Seed -> run of a row on a dataset, finished or not; a method without training images has one run for all shots."""
        return self._found.get((row, dataset, shots)) or self._found.get((row, dataset, NO_SHOTS)) or {}

    def name_of(self, dataset: str) -> str:
        """The name in the results of a dataset of the protocol, which may be a path."""
        return str(self.plan.get("names", {}).get(dataset, Path(dataset).name))

    @cached_property
    def simulated(self) -> frozenset[str]:
        """Names of the simulated datasets."""
        return frozenset(self.name_of(dataset) for dataset in self.asked if dataset.startswith(PREFIX))

    @property
    def asked(self) -> tuple[str, ...]:
        """The datasets to train or to test on, as they stand in the protocol."""
        tests = self.protocol.get("tests", {}).values()
        return tuple(dict.fromkeys([*self.protocol["datasets"], *(other for others in tests for other in others)]))

    def settings(self, row: TableRow) -> dict[str, Any]:
        """The settings that a variant changes; none for a method."""
        for variant in self.protocol.get("variants", ()):
            if (variant["method"], variant["name"]) == (row.method, row.variant):
                return dict(variant.get("settings", {}))
        return {}


def read_results(folder: str | Path) -> BenchmarkResults:
    """Read the output folder of a benchmark; the grid need not be finished.

    Args:
        folder: the folder that ``biomedcoop benchmark`` wrote.

    Returns:
        The plan, the finished runs and the scored sets. A last line that a kill cut short is left out.

    Raises:
        UserError: the folder is no output folder, is of another version, or a file in it is damaged.
    """
    folder = Path(folder)
    if not (folder / PLAN).is_file():
        raise UserError(f"{folder} holds no {PLAN}; name the output folder of 'biomedcoop benchmark'")
    plan = _json(folder / PLAN)
    if not isinstance(plan, dict) or plan.get("format") != FORMAT or not isinstance(plan.get("protocol"), dict):
        made = plan.get("format") if isinstance(plan, dict) else None
        raise UserError(
            f"{folder / PLAN} has format {made}, this version reads {FORMAT}; run the benchmark into a new folder"
        )
    lacking = [key for key in ("kind", "datasets", "methods", "shots", "seeds") if key not in plan["protocol"]]
    if lacking:
        raise UserError(f"{folder / PLAN}: the protocol has no '{lacking[0]}'; run the benchmark into a new folder")
    runs = _runs(folder / RESULTS)
    scored = sorted({test for run in runs for test in run.tests})
    tests = {test: _test_set(folder / TESTS, test) for test in scored}
    for run in runs:
        for test, values in run.tests.items():
            if values["images"] != len(tests[test].labels):
                raise UserError(
                    f"{folder / RESULTS}: a run on {run.dataset} scored {values['images']} images of '{test}', {TESTS}/ has "
                    f"{len(tests[test].labels)}; run the benchmark into a new folder"
                )
    return BenchmarkResults(plan, runs, tests)


def _runs(path: Path) -> tuple[Run, ...]:
    if not path.is_file():
        return ()
    runs: dict[tuple[TableRow, str, int, int], Run] = {}
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if number == len(lines):  # a whole line ends with a line break
            continue
        try:
            run = _run(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}, line {number} is no run ({error}); remove the line and continue the benchmark"
            ) from error
        place = (run.row, run.dataset, run.shots, run.seed)
        runs.pop(place, None)
        runs[place] = run
    return tuple(runs.values())


def _run(line: Mapping[str, Any]) -> Run:
    if line["status"] not in ("done", "failed", "skipped"):
        raise ValueError(f"status {line['status']!r}")
    tests = dict(line.get("tests") or {}) if line["status"] == "done" else {}
    for test, values in tests.items():
        _check_scores(test, values)
    missing = line.get("absent_classes")
    return Run(
        row=TableRow(str(line["backbone"]), str(line["method"]), line.get("variant")),
        dataset=str(line["dataset"]),
        shots=int(line["shots"]),
        seed=int(line["seed"]),
        status=str(line["status"]),
        reason=str(line.get("reason") or ""),
        tests=tests,
        untested=dict(line.get("untested") or {}),
        parameters=line.get("parameters"),
        seconds=line.get("seconds"),
        memory_mb=line.get("memory_mb"),
        absent_classes=None if missing is None else tuple(missing),
    )


def _check_scores(test: str, values: Mapping[str, Any]) -> None:
    """Refuse metrics that are no shares, and right answers that do not fit the number of images or the accuracy."""
    for metric in ("accuracy", "balanced_accuracy", "macro_f1", "ece"):
        value = values["accuracy"] if metric == "accuracy" else values.get(metric, 0.0)
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{metric} {value} of '{test}' is not between 0 and 1")
    images = values["images"]
    try:
        packed = np.frombuffer(base64.b64decode(values["right"], validate=True), dtype=np.uint8)
    except ValueError:  # Python's words differ by version
        raise ValueError(f"'right' of '{test}' is no base64 text") from None
    if images < 1 or len(packed) != (images + 7) // 8:
        raise ValueError(f"'right' of '{test}' holds {len(packed)} bytes for {images} images")
    if abs(np.unpackbits(packed, count=images).mean() - values["accuracy"]) > ROUNDED:
        raise ValueError(f"accuracy {values['accuracy']} of '{test}' is not the share of right answers")


def _test_set(folder: Path, test: str) -> TestSet:
    path = folder / f"{test.replace(' ', '-')}.json"
    if not path.is_file():
        raise UserError(f"{folder} has no file for the scored set '{test}'; run the benchmark into a new folder")
    content = _json(path)
    try:
        labels, groups = np.asarray(content["labels"], dtype=np.int64), content.get("groups")
        units = None if groups is None else np.asarray(groups, dtype=np.int64)
        test_set = TestSet(labels, tuple(content["classes"]), units)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); run the benchmark into a new folder") from error
    if units is not None and len(units) != len(labels):
        raise UserError(f"{path}: {len(units)} groups for {len(labels)} labels; run the benchmark into a new folder")
    return test_set


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}); run the benchmark into a new folder") from error
