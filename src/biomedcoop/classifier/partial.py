"""Predictions of a long list that survive the end of their process: the same call continues behind the last one.

The rows wait in a hidden file beside the output, ``.NAME.partial``: a line of JSON that says what they depend on, then a line for
each row with the name, size and time of change of its image. A run that continues takes rows while the list still names the same
unchanged images, and predicts the rest. The file is removed when the output is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.classifier.predictions import Contents
from biomedcoop.data.images.sources import ImageInFile
from biomedcoop.data.readers.unlabelled import ListedImage
from biomedcoop.data.tables.writing import Row
from biomedcoop.output import lock_of
from biomedcoop.version import __version__

Listed = Path | ListedImage
Mark = list[Any]


def partial_file(out: Path) -> Path:
    """Where the rows of an unfinished output wait."""
    target = out.resolve()
    return target.with_name(f".{target.name}.partial")


def depends_on(classifier: Classifier, keep: Sequence[str], contents: Contents, batch: int | None) -> dict[str, Any]:
    """What the rows of :func:`biomedcoop.classifier.predictions.predict_rows` depend on beside the images, JSON values."""
    return {"classifier": content_of(classifier), "keep": list(keep), "contents": contents._asdict(), "batch": batch}


def content_of(classifier: Classifier) -> str:
    """SHA-256 of all that a classifier's answers depend on but the images: tensors, classes, backbone, precision and device."""
    found = hashlib.sha256()
    settings = sorted((name, str(value)) for name, value in classifier.settings.items())
    backbone = classifier.backbone
    facts = [classifier.class_names, classifier.method, settings, classifier.temperature, vars(classifier.reading)]
    facts += [backbone.fingerprint, backbone.precision, backbone.device.type, __version__]
    facts += [
        classifier.origin.sha256 if classifier.origin else None,
        classifier.domain is None,
        classifier.sets is None,
    ]
    found.update(json.dumps(facts).encode())
    for name, tensor in sorted(classifier.state.items()):
        found.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def continued(
    rows_of: Callable[[Iterator[Listed]], Iterable[Row]],
    images: Iterable[Listed],
    file: Path,
    depends: Mapping[str, Any],
    begun: Callable[[int], None] | None = None,
) -> Iterator[Row]:
    """The rows of ``rows_of(images)``; those that an earlier, unfinished call left in ``file`` are taken from there.

    Args:
        rows_of: predicts a row for each image, in order.
        file: see :func:`partial_file`. If another process writes it, or it cannot be written, this call does without.
        depends: JSON values that the rows depend on beside the images; rows left by a call with others are dropped.
        begun: called with the number of rows taken from the file, before the first one that is predicted.
    """
    rest, taken = iter(images), 0
    with _opened(file) as kept:
        if kept is None:
            yield from rows_of(rest)
            return
        head = json.dumps(depends, sort_keys=True).encode() + b"\n"
        end = len(head)
        if kept.readline() == head:
            while (line := kept.readline()).endswith(b"\n") and (image := next(rest, None)) is not None:
                stored = _read(line)
                # an image that could not be read may have been mended since
                if stored is None or stored["mark"] != _mark(image) or stored["row"].get("error"):
                    rest = itertools.chain([image], rest)
                    break
                yield stored["row"]
                taken, end = taken + 1, end + len(line)
        else:
            kept.seek(0)
            kept.write(head)
        kept.seek(end)
        kept.truncate()
        if begun is not None:
            begun(taken)
        marks: deque[Mark] = deque()

        def marked() -> Iterator[Listed]:
            for image in rest:
                marks.append(_mark(image))
                yield image

        for row in rows_of(marked()):
            kept.write(json.dumps({"mark": marks.popleft(), "row": row}).encode() + b"\n")
            kept.flush()
            yield row


def _mark(image: Listed) -> Mark:
    """What tells whether an image is still the same: name, cells beside it, and size and time of change of its file."""
    source = image if isinstance(image, Path) else image.file
    mark: Mark = [str(image), []] if isinstance(image, Path) else [image.path, list(image.kept.items())]
    file = source.file if isinstance(source, ImageInFile) else source
    with contextlib.suppress(OSError):
        found = file.stat() if isinstance(file, Path) else None
        mark += [found.st_size, found.st_mtime_ns] if found else []
    return json.loads(json.dumps(mark))  # type: ignore[no-any-return]


def _read(line: bytes) -> dict[str, Any] | None:
    try:
        stored = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(stored, dict) and isinstance(stored.get("row"), dict) and "mark" in stored
    return stored if whole else None


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """The open file, locked; None if another process has it or the file system refuses."""
    lock = None
    try:
        kept = file.open("r+b" if file.exists() else "w+b")
    except OSError:
        yield None
        return
    with kept:
        try:
            lock = lock_of(file)
        except BlockingIOError:
            yield None
            return
        try:
            yield kept
        finally:
            if lock is not None:
                os.close(lock)
