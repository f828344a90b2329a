"""What a request may cost, and how it is refused beyond that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from biomedcoop.threads import available_cores


@dataclass(frozen=True)
class Limits:
    """Bounds of one server.

    Attributes:
        request_bytes: largest body of a request, and largest unpacked size of all zip archives in it, bytes.
        images: largest number of images in a request; each frame counts as one.
        pixels: largest number of pixels of an image, checked in its header before it is decoded.
        seconds: longest time for the answer, waiting included, and longest time for the upload, s each.
        queue: number of requests that may wait besides those that are answered.
        workers: number of requests that are answered at once.
        training_bytes: largest body of a training, bytes.
        training_images: largest number of images of a training.
    """

    request_bytes: int = 2**26
    images: int = 64
    pixels: int = 2**25
    seconds: float = 60.0
    queue: int = 16
    workers: int = field(default_factory=available_cores)
    training_bytes: int = 2**28
    training_images: int = 2000


class RefusedRequest(Exception):
    """A request that is not answered.

    Attributes:
        status: HTTP status, 4xx.
        reason: one line that says what is wrong and how to mend it.
        headers: headers of the answer.
    """

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, dict(headers or {})


class RefusedFile(RefusedRequest):
    """A request that is not answered because of one of its files.

    Attributes:
        name: name of the file.
        fault: what is wrong with it, and how to mend it.
    """

    def __init__(self, status: int, name: str, fault: str) -> None:
        super().__init__(status, f"{name}: {fault}")
        self.name, self.fault = name, fault
