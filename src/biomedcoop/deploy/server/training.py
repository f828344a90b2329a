"""Trainings that the page asks for: one at a time, in a thread, from images in a private folder that is deleted at the end."""

from __future__ import annotations

import os
import secrets
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath
from threading import Event, Lock, Thread
from typing import Any

from biomedcoop.api import train
from biomedcoop.classifier import load
from biomedcoop.data.download.archive import parts_of
from biomedcoop.data.images.decoders import find_decoder
from biomedcoop.data.images.decoders.base import START_BYTES
from biomedcoop.data.images.decoders.volume import VolumeDecoder
from biomedcoop.data.readers.folder_names import is_visible
from biomedcoop.deploy.server.images import check_pixels
from biomedcoop.deploy.server.limits import Limits, RefusedRequest
from biomedcoop.deploy.server.models import Models, ServedModel
from biomedcoop.deploy.server.uploads import Upload
from biomedcoop.errors import UserError
from biomedcoop.features.passes import warm_up
from biomedcoop.methods import all_methods

KEPT = 3
"""Number of trainings whose report and model stay in memory; an older one goes, and its model with it."""

FOLDER = "biomedcoop-training-"
"""Start of the name of the folder that holds the images of a training."""

LONGEST_NAME, LONGEST_PART = 1000, 200
"""Largest sizes of the path of an uploaded file and of each name in it, bytes; file systems hold little more."""

RUNNING, DONE, FAILED, STOPPED = "running", "done", "failed", "stopped"


class _Stopped(Exception):
    """The user or the server ends the training."""


@dataclass
class Training:
    """A training and what came of it.

    Attributes:
        name: name of its model.
        key: its name in addresses, 128 random bits, because its report is opened without a token.
        state: "running", "done", "failed" or "stopped".
        stage, steps, total: what it does now, and how far that is; a total of 0 means that it is not known.
        error: why it failed.
        verdict: what the report says first, a sentence each.
        left_out: uploaded files that are no images.
        report: the page ``report.html``.
        model: the artefact as a zip archive.
    """

    name: str
    key: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: str = RUNNING
    stage: str = "reading"
    steps: int = 0
    total: int = 0
    error: str | None = None
    verdict: tuple[str, ...] = ()
    left_out: int = 0
    report: bytes = b""
    model: bytes = b""
    stop: Event = field(default_factory=Event)

    def tell(self, stage: str, done: int, total: int) -> None:
        """Callback for the progress of the training; it also ends it."""
        if self.stop.is_set():
            raise _Stopped
        self.stage, self.steps, self.total = stage, done, total

    def to_dict(self) -> dict[str, Any]:
        """Its state as JSON values."""
        names = ("name", "key", "state", "stage", "steps", "total", "error", "left_out")
        return {**{name: getattr(self, name) for name in names}, "verdict": list(self.verdict)}


class Trainings:
    """All trainings of a server; only one runs.

    Args:
        models: where trained classifiers are added.
        reason: why nothing may be trained; None if it may.
    """

    def __init__(self, models: Models, limits: Limits, reason: str | None = None) -> None:
        self.models, self.limits, self.reason = models, limits, reason
        self._all: dict[str, Training] = {}
        self._lock, self._reserved = Lock(), False
        self._thread: Thread | None = None

    def reserve(self) -> None:
        """Take the one place, before the images are read.

        Raises:
            RefusedRequest: it is taken, or nothing may be trained.
        """
        if self.reason is not None:
            raise RefusedRequest(403, self.reason)
        with self._lock:
            if self._reserved:
                raise RefusedRequest(409, "a training is running; wait for its end, or stop it")
            self._reserved = True

    def release(self) -> None:
        """Give the place back."""
        with self._lock:
            self._reserved = False

    def start(self, uploads: list[Upload], name: str, options: Mapping[str, Any]) -> Training:
        """Begin a training in the reserved place, which it gives back at its end.

        Args:
            uploads: images; their names are paths in a folder that is read as ``train`` reads one: "class/…/file", or
                "split/class/…/file".
            options: see :class:`biomedcoop.tasks.request.TrainRequest`.

        Raises:
            RefusedRequest: the images cannot be used, or the name is that of a model of the server's start.
        """
        if any(model.name == name and not model.trained_here for model in self.models):
            raise RefusedRequest(409, f"the server was started with a model '{name}'; choose another name")
        files, left_out = _sorted_out(uploads, self.limits)
        training = Training(name, left_out=left_out)
        with self._lock:
            self._all[training.key] = training
            for key in list(self._all)[:-KEPT]:
                old = self._all.pop(key)
                if old.name not in {one.name for one in self._all.values()}:
                    self.models.remove(old.name)
            self._thread = Thread(target=self._run, args=(training, files, dict(options)), name="training")
        self._thread.start()
        return training

    def named(self, key: str) -> Training:
        """
        Raises:
            RefusedRequest: there is no such training.
        """
        with self._lock:
            if key in self._all:
                return self._all[key]
        raise RefusedRequest(404, "there is no such training; the server keeps the last three, until it stops")

    def close(self) -> None:
        """Stop what runs, and wait until its folder is deleted."""
        for training in list(self._all.values()):
            training.stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, training: Training, files: list[Upload], options: dict[str, Any]) -> None:
        place = ""
        try:
            with tempfile.TemporaryDirectory(prefix=FOLDER) as place:  # for this user alone
                data = Path(place) / training.name
                for name, content in files:
                    training.tell("reading", 0, 0)
                    file = data / name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with file.open("xb") as written:  # a second file where letters' case makes no difference
                        written.write(content)
                files.clear()
                run = Path(place) / "run"
                report = train(data, run, progress=training.tell, **options)
                training.verdict = tuple(finding.text for finding in report.verdict if finding.kind != "next")
                training.report = (run / "report.html").read_bytes()
                training.model = _zipped(run / "model", training.name)
                classifier = load(run / "model")
                warm_up(classifier.backbone)
                self.models.add(ServedModel(training.name, classifier, trained_here=True))
            training.state = DONE
        except _Stopped:
            training.state = STOPPED
        except UserError as error:
            training.state, training.error = FAILED, str(error).replace(f"{place}{os.sep}", "")
        except FileExistsError:
            training.state, training.error = FAILED, "two files differ only in the case of letters; rename one"
        except OSError as error:
            training.state, training.error = (
                FAILED,
                f"{error.strerror or type(error).__name__}; make room in the temporary folder",
            )
        except Exception as error:
            training.state, training.error = FAILED, f"a fault of the server ({type(error).__name__})"
        finally:
            self.release()


def method_names() -> list[str]:
    """Names of the methods to choose from, the default first."""
    return sorted(all_methods(), key=lambda name: (name != "auto", name))


def _sorted_out(uploads: Sequence[Upload], limits: Limits) -> tuple[list[Upload], int]:
    """The images under safe relative names, and the number of other files. The reader of folders says which folders are classes."""
    files: dict[str, Upload] = {}
    left_out = 0
    for upload in uploads:
        decoder = find_decoder(upload.content[:START_BYTES])
        if decoder is None or isinstance(decoder, VolumeDecoder):
            left_out += 1
            continue
        parts = parts_of(upload.name)
        if isinstance(parts, str) or not upload.name.isprintable():
            fault = parts if isinstance(parts, str) else "a name with control characters"
            raise RefusedRequest(422, f"'{upload.name[:80]}' is {fault}; name the files class/file")
        if len(parts) < 2:
            raise RefusedRequest(422, f"{upload.name}: its class is missing; name the files class/file")
        if len(upload.name.encode()) > LONGEST_NAME or max(len(part.encode()) for part in parts) > LONGEST_PART:
            raise RefusedRequest(422, f"'{upload.name[:80]}…' is too long for the name of a file; shorten it")
        if not all(map(is_visible, parts)):
            left_out += 1
            continue
        check_pixels(upload, decoder, limits)
        name = "/".join(parts)
        if name in files:
            raise RefusedRequest(422, f"two files are named {name}; rename one")
        files[name] = Upload(name, upload.content)
    for name in files:
        if both := next((str(above) for above in PurePosixPath(name).parents if str(above) in files), None):
            raise RefusedRequest(422, f"{both} is a file and a folder; rename one")
    if not files:
        raise RefusedRequest(422, "the request holds no image; send a folder with one folder of images for each class")
    return list(files.values()), left_out


def _zipped(folder: Path, name: str) -> bytes:
    content = BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, PurePosixPath(name) / file.relative_to(folder).as_posix())
    return content.getvalue()
