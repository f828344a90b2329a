"""Decoding by GDCM in a process of its own, because damaged JPEG data can make GDCM end the process that it runs in.

The child starts with the first such image (half a second) and stays; it reads requests from a pipe and ends when the pipe closes.
"""

from __future__ import annotations

import io
import json
import math
import os
import struct
import subprocess
import sys
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

_REQUEST = struct.Struct(">QQ")
_SERVE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from biomedcoop.data.images.apart import serve; serve()"
)

_lock = Lock()
_child: subprocess.Popen[bytes] | None = None


def decode(content: bytes, frame: int) -> npt.NDArray[Any]:
    """Stored values of a frame of a DICOM file, as pydicom's ``pixel_array`` gives them.

    Raises:
        RuntimeError: it cannot be decoded.
    """
    global _child
    with _lock:
        if _child is None or _child.poll() is not None:
            _child = subprocess.Popen(
                [sys.executable, "-c", _SERVE, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        assert _child.stdin is not None
        assert _child.stdout is not None
        try:
            _child.stdin.writelines([_REQUEST.pack(len(content), frame), content])
            _child.stdin.flush()
            answer = json.loads(_child.stdout.readline())
            if "error" in answer:
                raise RuntimeError(answer["error"])
            kind, shape = np.dtype(answer["dtype"]), tuple(answer["shape"])
            values = _child.stdout.read(kind.itemsize * math.prod(shape))
            return np.frombuffer(values, dtype=kind).reshape(shape)
        except (OSError, ValueError) as error:  # the child is gone
            _child.kill()
            _child = None
            raise RuntimeError("the decoder ended") from error


def serve() -> None:
    """The loop of the child."""
    from pydicom import dcmread
    from pydicom.errors import BytesLengthException, InvalidDicomError
    from pydicom.pixels import pixel_array

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what GDCM prints is no answer
    while len(head := sys.stdin.buffer.read(_REQUEST.size)) == _REQUEST.size:
        size, frame = _REQUEST.unpack(head)
        content = sys.stdin.buffer.read(size)
        try:
            values = np.ascontiguousarray(
                pixel_array(dcmread(io.BytesIO(content), force=True), index=frame, decoding_plugin="gdcm")
            )
            answer: dict[str, Any] = {"dtype": values.dtype.str, "shape": values.shape}
            body = values.tobytes()
        except (
            *(ValueError, TypeError, RuntimeError, AttributeError, KeyError, IndexError, OSError, EOFError),
            *(BytesLengthException, InvalidDicomError, struct.error, OverflowError, NotImplementedError),
        ) as error:
            answer, body = {"error": type(error).__name__}, b""
        answers.writelines([json.dumps(answer).encode() + b"\n", body])
        answers.flush()
