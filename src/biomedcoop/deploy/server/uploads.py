"""The files of a request's body. They stay in memory: the form parsers of web frameworks write large files to a disk."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from biomedcoop.deploy.server.limits import RefusedRequest

if TYPE_CHECKING:
    from starlette.requests import Request

RAW = ("application/dicom", "application/zip", "application/x-zip-compressed", "application/octet-stream")
"""Types of a body that is one file, besides ``image/…``."""

FORM = "multipart/form-data"

MOST_HEADER = 4096
"""Largest size of the headers of a part of a form, bytes."""


CUT_SHORT = "biomedcoop.cut_short"
"""Extension of a request's scope: the client has closed its sending half within the body, and can still read an answer."""

_EXTENDED_NAME = re.compile(r";\s*filename\*\s*=\s*(utf-8|iso-8859-1)'[^']*'([^;\s]*)", re.IGNORECASE)
"""A file name that is given in the form of RFC 5987 alone."""


class Upload(NamedTuple):
    """A file of a request: its name as the client gives it, and its bytes."""

    name: str
    content: bytes


async def read_uploads(request: Request, most_bytes: int, most_files: int, seconds: float) -> list[Upload]:
    """Read the files of a request: those of a form, or the body itself.

    Raises:
        RefusedRequest: too many bytes or files, too slow, truncated, or of another type.
    """
    kind, options = _content_type(request)
    if kind != FORM and kind not in RAW and not kind.startswith("image/"):
        raise RefusedRequest(
            415, f"the content type {kind[:80] or '(none)'} is not read; send {FORM}, image/…, {', '.join(RAW[:2])}"
        )
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > most_bytes:
        raise _too_large(most_bytes)
    taken = _Form(options, most_files) if kind == FORM else _Body()
    try:
        await asyncio.wait_for(_fill(request, taken, most_bytes), seconds)
    except (TimeoutError, asyncio.TimeoutError):
        raise RefusedRequest(408, f"the upload took longer than {seconds:g} s; send fewer or smaller images") from None
    return taken.files()


async def _fill(request: Request, taken: _Form | _Body, most_bytes: int) -> None:
    from starlette.requests import ClientDisconnect

    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > most_bytes:
                raise _too_large(most_bytes)
            if chunk:
                taken.feed(chunk)
    except ClientDisconnect:
        raise RefusedRequest(499, "the client hung up") from None  # for the counters; nobody reads it
    if CUT_SHORT in request.scope.get("extensions", ()):
        raise RefusedRequest(400, "the upload is truncated; send it again")


def _too_large(most: int) -> RefusedRequest:
    return RefusedRequest(413, f"the request has more than {most / 2**20:g} MiB; send fewer or smaller images")


def _content_type(request: Request) -> tuple[str, dict[bytes, bytes]]:
    from python_multipart.multipart import parse_options_header

    kind, options = parse_options_header(request.headers.get("content-type", ""))
    return kind.decode("latin-1").lower(), options


class _Body:
    """A body that is one file."""

    def __init__(self) -> None:
        self.content = bytearray()

    def feed(self, chunk: bytes) -> None:
        self.content += chunk

    def files(self) -> list[Upload]:
        return [Upload("image", bytes(self.content))] if self.content else []


class _Form:
    """The files of a form."""

    def __init__(self, options: dict[bytes, bytes], most_files: int) -> None:
        from python_multipart import MultipartParser
        from python_multipart.exceptions import FormParserError

        if not options.get(b"boundary"):
            raise RefusedRequest(400, f"the content type {FORM} has no boundary; let the client write the header")
        self.most_files, self.ended = most_files, False
        self.header, self.value, self.name, self.field = bytearray(), bytearray(), "", ""
        self.content: bytearray | None = None
        self.found: list[Upload] = []
        try:
            self.parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._begin,
                    "on_header_field": lambda data, start, end: self._grow(self.header, data[start:end]),
                    "on_header_value": lambda data, start, end: self._grow(self.value, data[start:end]),
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._data,
                    "on_part_end": self._end,
                    "on_end": self._finish,
                },
            )
        except FormParserError:
            raise RefusedRequest(
                400, f"the content type {FORM} has too long a boundary; let the client write the header"
            ) from None

    def feed(self, chunk: bytes) -> None:
        from python_multipart.exceptions import FormParserError

        try:
            self.parser.write(chunk)
        except FormParserError:
            raise RefusedRequest(
                400, f"the body is not {FORM} with the stated boundary and short headers; send it again"
            ) from None

    def files(self) -> list[Upload]:
        if not self.ended:
            raise RefusedRequest(400, "the upload is truncated (the form has no end); send it again")
        return self.found

    def _begin(self) -> None:
        self.header, self.value, self.name, self.field, self.content = bytearray(), bytearray(), "", "", None

    def _grow(self, text: bytearray, more: bytes) -> None:
        text += more
        if len(text) > MOST_HEADER:
            raise RefusedRequest(400, f"the form has headers of more than {MOST_HEADER} bytes; shorten the file name")

    def _header_end(self) -> None:
        from python_multipart.multipart import parse_options_header

        if bytes(self.header).lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self.value))
            self.field = options.get(b"name", b"").decode("utf-8", "replace")
            if b"filename" in options:
                self.name = options[b"filename"].decode("utf-8", "replace")
                self.content = bytearray()
            elif extended := _EXTENDED_NAME.search(self.value.decode("latin-1")):  # the parser leaves it out
                self.name = unquote(extended[2], extended[1], "replace")
                self.content = bytearray()
        self.header, self.value = bytearray(), bytearray()

    def _headers_finished(self) -> None:
        if self.content is None:
            raise RefusedRequest(
                422,
                f"the form's field '{self.field[:80]}' is no file; parameters stand in the address, as in ?window=lung",
            )
        if len(self.found) == self.most_files:
            if self.most_files == 1:
                raise RefusedRequest(413, "the request holds more than one image; send one at a time")
            raise RefusedRequest(413, f"the request holds more than {self.most_files} files; send fewer at once")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self.content is not None:
            self.content += data[start:end]

    def _end(self) -> None:
        if self.content is not None:
            self.found.append(Upload(self.name or "image", bytes(self.content)))
        self.content = None

    def _finish(self) -> None:
        self.ended = True
