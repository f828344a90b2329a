"""The output folder of a benchmark: the lines of finished runs, the record of the plan, and the lock of the running process.

``results.jsonl`` only grows: one write for the lines of a group, synchronised with the disk. A process that is killed in a write
leaves at most one cut line at the end, which counts as not written.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from biomedcoop.benchmark.protocol import OF_REPORT
from biomedcoop.errors import UserError
from biomedcoop.output import check_writable, explain, replace_file, write_atomically

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

RESULTS, PLAN, TESTS, SPEEDS, LOCK = "results.jsonl", "plan.json", "tests", "speeds.json", ".lock"

FINAL = ("done", "skipped")
"""States of runs that are not tried again."""


class Journal:
    """The output folder of a benchmark while a process works on it; a context manager that holds the folder's lock.

    Args:
        folder: the output folder; created if it does not exist.
        datasets: datasets that can be used now; a run that was not tested on one of them, because it was missing, is done again.

    Attributes:
        finished: names of the runs that need no more work; those that failed are tried again.
        counts: number of finished runs by state, of this process and those before it.

    Raises:
        UserError: another process works on the folder, it holds other files, or it cannot be written.
    """

    def __init__(self, folder: Path, datasets: Collection[str] = ()) -> None:
        self.folder, self.datasets = folder, frozenset(datasets)
        self.finished: set[str] = set()
        self.counts: Counter[str] = Counter()
        self._lock: int | None = None

    def __enter__(self) -> Journal:
        check_own(self.folder)
        check_writable(self.folder)
        self._lock = _locked(self.folder / LOCK)
        try:
            self._read()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _read(self) -> None:
        """Take up the lines of earlier processes; those of failed runs and a cut last line are removed from the file."""
        path = self.folder / RESULTS
        if not path.exists():
            return
        kept, size = [], 0
        for line in read_lines(path):
            if is_final(line, self.datasets):
                self._count(line)
                kept.append(as_text(line))
                size += len(kept[-1])
        if size != path.stat().st_size:
            replace_file(path, kept)

    def append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Add the lines of a group, except those of runs that are finished already.

        Raises:
            UserError: the disk is full or refuses.
        """
        new = [line for line in lines if line["run"] not in self.finished]
        if not new:
            return
        path = self.folder / RESULTS
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                content = b"".join(map(as_text, new))
                if os.write(descriptor, content) < len(content):
                    raise OSError(28, "the disk is full")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise explain(path, error) from error
        for line in new:
            self._count(line)

    def _count(self, line: Mapping[str, Any]) -> None:
        self.counts[line["status"]] += 1
        if line["status"] in FINAL:
            self.finished.add(line["run"])

    def keep_plan(self, plan: Mapping[str, Any]) -> None:
        """Write the record of the plan; what only the report reads of it replaces that of an earlier process.

        Raises:
            UserError: an earlier process followed another plan.
        """
        earlier = earlier_plan(self.folder, plan)
        if earlier is not None:
            kept = {key: {**earlier[key], **plan[key]} for key in ("datasets", "backbones", "precision")}
            plan = {**plan, **kept}
        if plan != earlier:
            write_atomically(self.folder / PLAN, json.dumps(plan, indent=1, ensure_ascii=False).encode() + b"\n")

    def keep_speeds(self, speeds: Mapping[str, Any]) -> None:
        """Write the measured speeds, so that the next call need not measure them.

        Args:
            speeds: dataclasses by name.
        """
        content = {name: dataclasses.asdict(speed) for name, speed in speeds.items()}
        write_atomically(self.folder / SPEEDS, json.dumps(content, indent=1).encode() + b"\n")

    def keep_test(self, file: str, content: Mapping[str, Any]) -> None:
        """Write what the statistics need of a test set."""
        folder = self.folder / TESTS
        folder.mkdir(exist_ok=True)
        if not (folder / file).exists():
            write_atomically(folder / file, json.dumps(content, ensure_ascii=False).encode() + b"\n")


def is_final(line: Mapping[str, Any], datasets: Collection[str]) -> bool:
    """Whether a run needs no more work.

    Args:
        datasets: datasets that can be used now.
    """
    return line["status"] in FINAL and not set(line.get("missing", ())) & set(datasets)


def as_text(line: Mapping[str, Any]) -> bytes:
    """A line of the results: JSON with sorted keys."""
    return json.dumps(line, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a ``results.jsonl``; a cut last line is left out.

    Raises:
        UserError: the file cannot be read, or another line is damaged.
    """
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, start=1):
                if not text.endswith(b"\n"):  # a process was killed while it wrote
                    return
                try:
                    line = json.loads(text)
                    if not isinstance(line["run"], str) or not isinstance(line["status"], str):
                        raise TypeError
                except (ValueError, TypeError, KeyError) as error:
                    raise UserError(
                        f"{path}: line {number} is damaged; delete that line, and the same command computes its run again"
                    ) from error
                yield line
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error


def read_plan(folder: Path) -> dict[str, Any]:
    """The record of the plan in an output folder.

    Raises:
        UserError: there is none, or it is damaged or of a newer version.
    """
    path = folder / PLAN
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        known = (
            isinstance(plan, dict)
            and {"format", "digest", "protocol", "datasets", "backbones", "precision"} <= plan.keys()
        )
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}); give the folder of a benchmark"
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); start again in a new folder") from error
    if not known or plan["format"] != FORMAT:
        raise UserError(f"{path} is not of the format {FORMAT} that this version reads; start again in a new folder")
    if isinstance(plan["precision"], str):  # earlier versions kept one for all backbones
        plan["precision"] = dict.fromkeys(plan["backbones"], plan["precision"])
    return dict(plan)


FORMAT = 1
"""Format of the output folder."""

GROWING = ("datasets", "methods", "variants", "backbones", "shots")
"""Keys of a protocol whose lists may become longer in one folder. Not the seeds: they train together and share their last bits."""

OF_PART = {"recipes": "methods", "tests": "datasets"}
"""Keys that say something of single methods or datasets: what they say of earlier ones must stay."""


def check_own(folder: Path) -> None:
    """Refuse a folder of other files.

    Raises:
        UserError: it is a file, or holds files that a benchmark does not write.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file; choose a folder")
    foreign = folder.is_dir() and not (folder / PLAN).exists() and _foreign(folder)
    if foreign:
        raise UserError(f"{folder} holds other files ('{foreign}') and no {PLAN}; choose a new folder")


def earlier_plan(folder: Path, plan: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record that an earlier process left in a folder; None if there is none.

    Raises:
        UserError: the earlier process followed another plan; see :func:`check_same`.
    """
    if not (folder / PLAN).exists():
        return None
    earlier = read_plan(folder)
    check_same(earlier, plan, folder)
    return earlier


def check_same(earlier: Mapping[str, Any], plan: Mapping[str, Any], folder: Path) -> None:
    """Refuse to continue results that were made in another way; a grid may grow (:data:`GROWING`).

    Raises:
        UserError: the message names the first difference.
    """

    def refuse(what: str) -> UserError:
        return UserError(f"{folder} holds results of {what}; choose a new folder with --out")

    if earlier["digest"] != plan["digest"]:
        other = next(_unlike(earlier["protocol"], plan["protocol"]), None)
        if other is not None:
            raise refuse(f"another protocol ({other})")
    for file, before, now in _differences(earlier.get("plugins", {}), plan["plugins"], "plug-in"):
        if before and now:
            raise UserError(f"{file} has changed since the results in {folder}; choose a new folder with --out")
        raise refuse(f"another setting: {file} was {'given, now it is not' if before else 'not given, now it is'}")
    for key in ("versions", "threads", "device"):
        for part, before, now in _differences(earlier.get(key), plan[key], key):
            raise refuse(f"another setting: {part} was {before}, now it is {now}")
    for name, value in plan["precision"].items():
        if (before := earlier["precision"].get(name, value)) != value:
            raise refuse(f"another setting: precision of {name} was {before}, now it is {value}")
    for key, what in (("backbones", "other weights of backbone"), ("datasets", "other images of dataset")):
        for name, value in plan[key].items():
            if earlier[key].get(name, value) != value:
                raise refuse(f"{what} {name}")


def _unlike(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What makes results of an earlier protocol useless for another one."""
    for key, value in now.items():
        before = earlier.get(key)
        if key in GROWING:
            gone = [item for item in before or () if item not in value]
            if gone:
                yield f"it has {key} {gone[0]['name'] if isinstance(gone[0], Mapping) else gone[0]}, this one has not"
        elif key in OF_PART:
            parts = earlier[OF_PART[key]]
            if any((before or {}).get(part) != value.get(part) for part in parts):
                yield f"other {key}"
        elif key not in OF_REPORT and before != value:
            yield f"other {key}"


def _differences(before: Any, now: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {**before, **now}:
            if before.get(key) != now.get(key):
                yield f"{name} {key}", before.get(key), now.get(key)
    elif before != now:
        yield name, before, now


def _foreign(folder: Path) -> str:
    """The name of a file that a benchmark does not write; empty if there is none."""
    return next((path.name for path in sorted(folder.iterdir()) if path.name not in (LOCK, TESTS)), "")


def _locked(path: Path) -> int:
    """An open descriptor of the lock file, locked until it is closed or the process ends.

    Raises:
        UserError: another process holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise UserError(
                f"{path.parent} is in use by {owner}; wait until it ends, or choose another folder with --out"
            ) from error
        except OSError:  # a file system without locks
            pass
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
    return descriptor
