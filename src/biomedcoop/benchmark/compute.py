"""Compute a group: train its runs together, score each on the test sets, and give a line for each run."""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from biomedcoop.benchmark.plan import Group, TestSet, plan_group, sentences_of, test_sets, trained_part
from biomedcoop.benchmark.protocol import Protocol
from biomedcoop.benchmark.sources import Source, read_source
from biomedcoop.data.names import fold
from biomedcoop.errors import UserError
from biomedcoop.evaluation.metrics import values_of
from biomedcoop.lazy import torch
from biomedcoop.methods import Method, load_plugin
from biomedcoop.tasks.build import build_task, task_without_images
from biomedcoop.threads import torch_threads

if TYPE_CHECKING:
    from torch import Tensor

    from biomedcoop.backbones.base import Backbone
    from biomedcoop.methods.base import State

METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced_accuracy",
    "macro_f1": "macro_f1",
    "ece": "calibration_error",
}
"""Name in the results -> name among the metrics of the package."""


@dataclass(frozen=True)
class Work:
    """What every group needs; it travels to the processes that compute.

    Attributes:
        sources: the datasets by their names in the protocol.
        threads: threads that share an operation of a fit; the last bits of the results can depend on it.
        device: of the backbones, as resolved: never "auto".
        precision: of each backbone of the protocol, as resolved; float32 for one that is not named.
        plugins: files with methods of the user.
    """

    protocol: Protocol
    sources: Mapping[str, Source]
    threads: int = 1
    device: str = "cpu"
    precision: Mapping[str, str] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()

    def load(self, backbone: str) -> Backbone:
        """A backbone; a process keeps the last one."""
        return _loaded(backbone, self.device, self.precision.get(backbone, "float32"))


class Computed(NamedTuple):
    """The lines of a group, and the seconds that it took altogether."""

    lines: list[dict[str, Any]]
    seconds: float


class Trained(NamedTuple):
    """One run after training."""

    method: Method
    settings: Any
    state: State
    backbone: Backbone
    class_names: Sequence[str]


class Unable(Exception):
    """The method cannot do what the protocol asks for; the runs are skipped."""


def compute_group(work: Work, group: Group) -> Computed:
    """Compute a group. Whatever goes wrong in it becomes the reason in its lines, so that the rest of the grid goes on."""
    begin = time.perf_counter()
    try:
        for file in work.plugins:
            load_plugin(file)
        with torch_threads(work.threads):
            lines = _lines(work, group)
    except Unable as error:
        lines = group.lines("skipped", reason=str(error))
    except UserError as error:
        lines = group.lines("failed", reason=str(error))
    except Exception as error:  # of any kind: code of plug-ins, memory, a damaged disk
        lines = group.lines("failed", reason=f"{type(error).__name__}: {error}")
    return Computed(lines, time.perf_counter() - begin)


def _lines(work: Work, group: Group) -> list[dict[str, Any]]:
    source, backbone, method = work.sources[group.dataset], work.load(group.backbone), group.method
    assert source.place is not None
    data = read_source(source.place, source.trained)
    try:
        plan = trained_part(work.protocol, plan_group(work.protocol, group, data))
    except UserError as error:
        raise Unable(str(error)) from error
    task = build_task(plan, backbone)
    tested = [
        (test, _test_features(work, test, group.backbone))
        for test in test_sets(work.protocol, work.sources, group.dataset)
    ]
    lacking = {
        work.sources[name].name for name in work.protocol.tested_on(group.dataset) if not work.sources[name].place
    }
    without = {"missing": sorted(lacking)} if lacking else {}
    memory = Peak()
    begin = time.perf_counter()
    states = method.fit(task, plan.settings, group.seeds)
    values = []
    for state, draw in zip(states, plan.draws, strict=True):
        run = Trained(method, plan.settings, state, method.adapted(state, backbone), plan.data.class_names)
        scores, untested = _scores(work, run, tested)
        parameters = method.n_learned(state)
        values.append({"tests": scores, "parameters": parameters, **without})
        if group.kind == "realistic" and group.shots:
            there = set(plan.data.labels[draw].tolist())
            values[-1]["absent_classes"] = [n for label, n in enumerate(plan.data.class_names) if label not in there]
        if untested:
            values[-1]["untested"] = untested
    share = (time.perf_counter() - begin) / len(states)
    cost = {"seconds": round(share, 4), "memory_mb": memory.mebibytes()}
    return group.lines("done", [{**one, **cost} for one in values])


def _scores(
    work: Work, run: Trained, tested: Sequence[tuple[TestSet, Tensor]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Values of a run on each test set, and the reason for each test set that the method cannot be scored on."""
    scores, untested = {}, {}
    for test, features in tested:
        try:
            state, columns = _answering(work, run, test)
        except UserError as error:
            if len(tested) == 1 or work.protocol.kind == "base-to-novel":
                raise Unable(str(error)) from error
            untested[test.key] = str(error)
            continue
        own = run.backbone
        if state is not run.state and run.method.abilities.changes_towers:
            own = run.method.adapted(state, own.original)  # its image tower may depend on the classes
        if own.frozen is not None:
            features = _own_test_features(work, test, own)
        with torch.inference_mode():
            # on the CPU, where the tensors of a state are, as a classifier does; a method that needs a GPU moves them itself
            logits = run.method.logits(state, features, own)[:, columns]
            scores[test.key] = score_line(logits.float().softmax(-1).numpy(), test)
    return scores, untested


def _answering(work: Work, run: Trained, test: TestSet) -> tuple[State, list[int]]:
    """The state that answers for the classes of a test set, and the columns of its logits.

    Where all of them were trained, it is the trained state with these columns; else the method takes them as new classes.

    Raises:
        UserError: the method cannot take new classes.
    """
    method, names = run.method, test.class_names
    place = {fold(name): column for column, name in enumerate(run.class_names)}
    if all(fold(name) in place for name in names):
        return run.state, [place[fold(name)] for name in names]
    if not method.abilities.retargets:
        new = next(name for name in names if fold(name) not in place)
        raise UserError(f"{method.name} learns classes from images and has none of {new!r}")
    words = None
    if method.abilities.uses_sentences and not method.abilities.uses_images:
        by_class = sentences_of(work.protocol, test.data).by_class
        words = [by_class[label] for label in test.classes]
    task = task_without_images(run.backbone.original, names, words)
    return method.retarget(run.state, task, run.settings), list(range(len(names)))


def score_line(probabilities: npt.NDArray[np.float32], test: TestSet) -> dict[str, Any]:
    """The values of one run on a test set, for its line in the results.

    Args:
        probabilities: float32 [N, C].
    """
    labels = test.labels
    values = values_of(probabilities, labels, test.class_names)
    right = np.packbits(probabilities.argmax(1) == labels)
    scores = {name: _rounded(values[metric]) for name, metric in METRICS.items()}
    return {"images": len(labels), **scores, "right": base64.b64encode(right.tobytes()).decode()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _test_features(work: Work, test: TestSet, backbone: str) -> Tensor:
    """Raw features [N, E] of a test set."""
    source = work.sources[test.dataset]
    assert source.place is not None
    precision = work.precision.get(backbone, "float32")
    features, row = _all_test_features(source.place, source.trained, backbone, work.device, precision)
    return features[row[test.positions]]


def _own_test_features(work: Work, test: TestSet, backbone: Backbone) -> Tensor:
    """Raw features [N, E] of a test set from towers that a run has trained."""
    from biomedcoop.features.images import encode_images

    source = work.sources[test.dataset]
    assert source.place is not None
    return torch.from_numpy(encode_images(backbone, read_source(source.place, source.trained).select(test.positions)))


@lru_cache(maxsize=4)
def _all_test_features(
    place: Path, trained: bool, backbone: str, device: str, precision: str
) -> tuple[Tensor, npt.NDArray[np.int64]]:
    """Raw features [N, E] of all test images of a dataset, and the row of each image of the dataset."""
    from biomedcoop.benchmark.sources import test_positions
    from biomedcoop.features.images import encode_images

    data = read_source(place, trained)
    tested = test_positions(data)
    row = np.full(len(data), -1, dtype=np.int64)
    row[tested] = np.arange(len(tested))
    return torch.from_numpy(encode_images(_loaded(backbone, device, precision), data.select(tested))), row


@lru_cache(maxsize=1)
def _loaded(backbone: str, device: str, precision: str) -> Backbone:
    from biomedcoop.backbones import load_backbone

    return load_backbone(backbone, device=device, precision=precision)


class Peak:
    """The most memory that this process has had since the object was made, or since it started where the system cannot tell."""

    def __init__(self) -> None:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return

    def mebibytes(self) -> int | None:
        """None on a system that does not tell."""
        try:
            status = Path("/proc/self/status").read_text()
        except OSError:
            return _peak_since_start()
        return next((int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM:")), None)


def _peak_since_start() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak // 2**20 if sys.platform == "darwin" else peak // 2**10)
