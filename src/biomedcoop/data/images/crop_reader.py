"""Read image files and cut crops: in threads of this process or, for many files on many cores, in worker processes.

Pillow releases the interpreter lock while it decodes, copies and resizes, so a few threads keep a few cores busy. It holds the
lock for about one of the eight milliseconds that a file of 500 px takes, so more than a handful of threads do not help. On more
cores, each thread hands its files to a worker process. A worker is a plain child process that reads requests from a pipe. It
needs no guard in the user's script and is never forked from a process with threads. It ends when the pipe closes, even if
this process is killed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from biomedcoop.data.images.crops import Crops, Resize, resize_and_crop
from biomedcoop.data.images.decoders.base import DecodeOptions
from biomedcoop.data.images.facts import ImageFacts
from biomedcoop.data.images.reading import open_image
from biomedcoop.data.images.sources import ImageInFile, ImageSource
from biomedcoop.errors import ImageError, UserError
from biomedcoop.threads import available_cores

Crop = npt.NDArray[np.uint8]

MANY_FILES = 500
"""Number of files read before worker processes start: each worker takes half a second and 60 MB of memory."""

MANY_CORES = 8
"""Minimum number of cores for which worker processes help; threads alone keep fewer cores busy."""

_SERVE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from biomedcoop.data.images.crop_reader import serve; "
    "serve(sys.stdin.buffer, sys.stdout.buffer)"
)


def default_workers() -> int:
    """Default number of worker processes: one per core with many cores, else 0; 0 if no interpreter can be started."""
    startable = bool(sys.executable) and not getattr(sys, "frozen", False)
    return available_cores() if startable and available_cores() >= MANY_CORES else 0


class ReadImage(NamedTuple):
    """The result of reading an image: crops, each uint8 [S, S, 3], the content hash, and facts about the image."""

    crops: list[Crop]
    digest: bytes
    facts: ImageFacts


class CropReader:
    """Reads crops; several threads may call it at once. As a context manager it ends its workers on exit.

    Args:
        size: edge of the crops in pixels.
        workers: number of worker processes; 0 for none. By default one for each core if there are at least
            :data:`MANY_CORES`; they start after :data:`MANY_FILES` files.
        resize: how a whole image becomes a square; see :data:`biomedcoop.data.images.crops.Resize`.
    """

    def __init__(self, size: int, workers: int | None = None, resize: Resize = "shortest") -> None:
        self.size, self.resize = size, resize
        self.workers = workers if workers is not None else default_workers()
        self.threads = max(2, self.workers, min(available_cores(), MANY_CORES))
        self._files_before_workers = MANY_FILES if workers is None else 0
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._all: list[_Worker] = []
        self._lock = Lock()

    def __call__(
        self, source: ImageSource, where: str | None = None, crops: Crops | None = None, numbers: Sequence[int] = (0,)
    ) -> ReadImage:
        """Crops of an image.

        Args:
            crops, numbers: the random crops to cut; by default only the centre crop.

        Raises:
            ImageError: the image cannot be read.
            UserError: a worker process was ended from outside.
        """
        stored = ImageInFile(source) if isinstance(source, (Path, bytes)) else source
        if not isinstance(stored, ImageInFile) or (worker := self._worker()) is None:
            return _read(source, where, self.size, self.resize, crops, numbers)
        try:
            return worker.ask(stored, where, self.size, self.resize, crops, numbers)
        finally:
            self._idle.put(worker)

    def _worker(self) -> _Worker | None:
        if not self.workers:
            return None
        with self._lock:
            if self._files_before_workers:
                self._files_before_workers -= 1
                return None
            if len(self._all) < self.workers and self._idle.empty():
                self._all.append(_Worker())
                return self._all[-1]
        return self._idle.get()

    def __enter__(self) -> CropReader:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._all:
            worker.end()


class _Worker:
    """One child process and the pipes to it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C at the terminal goes to this process alone, which then ends its workers
            start_new_session=True,
        )

    def ask(
        self,
        source: ImageInFile,
        where: str | None,
        size: int,
        resize: Resize,
        crops: Crops | None,
        numbers: Sequence[int],
    ) -> ReadImage:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        family = None if crops is None else [crops.smallest, crops.flip]
        content = source.file if isinstance(source.file, bytes) else b""
        # the path, or the number of bytes that follow the request
        given = str(source.file) if isinstance(source.file, Path) else len(content)
        try:
            asked = [given, vars(source.options), where, size, resize, family, list(numbers)]
            request = json.dumps(asked).encode() + b"\n"
            self.process.stdin.writelines([request, content])
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
            shape = 0 if "error" in answer else len(numbers), size, size, 3
            pixels = np.frombuffer(self.process.stdout.read(math.prod(shape)), dtype=np.uint8).reshape(shape)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{where or given}: the worker process that read it was ended from outside, perhaps for lack of memory; "
                "start again: images encoded so far are kept"
            ) from error
        if "error" in answer:
            raise ImageError(*answer["error"])
        return ReadImage(list(pixels), bytes.fromhex(answer["digest"]), ImageFacts(*answer["facts"]))

    def end(self) -> None:
        # killed, because a worker whose pipe closes would first finish its image
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        self.process.wait()


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """The loop of a worker process: answer requests until they end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # the package checks the pixel limit itself, with its own message
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
    warnings.filterwarnings("ignore", module="pydicom")
    for line in requests:
        given, options, where, size, resize, family, numbers = json.loads(line)
        file = Path(given) if isinstance(given, str) else requests.read(given)
        source = ImageInFile(file, DecodeOptions(**options))
        try:
            crops, digest, facts = _read(source, where, size, resize, family and Crops(*family), numbers)
            head, body = {"digest": digest.hex(), "facts": list(facts)}, [crop.tobytes() for crop in crops]
        except ImageError as error:
            head, body = {"error": [error.where, error.reason]}, []
        try:
            answers.writelines([json.dumps(head).encode() + b"\n", *body])
            answers.flush()
        except BrokenPipeError:
            os._exit(0)


def _read(
    source: ImageSource, where: str | None, size: int, resize: Resize, crops: Crops | None, numbers: Sequence[int]
) -> ReadImage:
    opened = open_image(source, where)
    # three equal channels are resized once
    image = opened.image.getchannel(0) if opened.grey else opened.image
    if crops is None:
        found = [resize_and_crop(image, size, resize)]
    else:
        found = [crops.cut(image, size, opened.digest, number) for number in numbers]
    return ReadImage(found, opened.digest, opened.facts)
