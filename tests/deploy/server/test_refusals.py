"""Requests that are refused, each with one line that says how to mend it."""

from __future__ import annotations

import io
import socket
import struct
import threading
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedcoop.deploy.server.limits import Limits
from deploy.server.client import Client, Start, form, line_of
from dicom_files import ct, ramp, write

SMALL = Limits(request_bytes=2**20, images=5, pixels=10_000, workers=1, queue=0)


@pytest.fixture(scope="module")
def small(start: Start) -> Client:
    """A server with low limits."""
    return start(SMALL)


def packed(*members: tuple[str, bytes]) -> tuple[str, bytes]:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return "scans.zip", content.getvalue()


def huge_png(side: int) -> bytes:
    """A valid header of a picture of side × side pixels, and a few bytes of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_forms_that_are_none(small: Client, scans: list[Path]) -> None:
    whole = form(scans[:1])
    kind = "multipart/form-data; boundary=edge"
    cut = small.ask("POST", "/predict", whole[:-40], Content_Type=kind)
    assert "truncated" in line_of(cut, 400)
    other = small.ask("POST", "/predict", whole, Content_Type="multipart/form-data; boundary=other")
    assert "boundary" in line_of(other, 400)
    assert "boundary" in line_of(small.ask("POST", "/predict", whole, Content_Type="multipart/form-data"), 400)
    long = f"multipart/form-data; boundary={300 * 'a'}"
    assert "boundary" in line_of(small.ask("POST", "/predict", whole, Content_Type=long), 400)
    for kind in ("application/json", "text/html; charset=utf-8", "", "application/x-www-form-urlencoded"):
        assert "content type" in line_of(small.ask("POST", "/predict", b"{}", Content_Type=kind), 415)
    assert "holds no image" in small.refused(422, "/predict")
    assert "holds no image" in line_of(small.ask("POST", "/predict", b"", Content_Type="image/png"), 422)
    assert "empty" in small.refused(422, "/predict", ("a.png", b""))
    assert "headers" in small.refused(400, "/predict", ("x" * 5000, b"a"))


def test_files_that_are_no_images(small: Client, tmp_path: Path) -> None:
    assert "not an image" in small.refused(415, "/predict", ("a.png", b"MZ\x90 a program"))
    assert "volumes are not read" in small.refused(415, "/predict", ("a.nrrd", b"NRRD0004\n" + bytes(600)))
    broken = bytearray(packed(("a.png", b"x" * 99))[1])
    broken[broken.find(b"PK\x01\x02")] = 0
    assert "damaged" in small.refused(422, "/predict", ("a.zip", bytes(broken)))
    assert "truncated" in small.refused(422, "/predict", ("a.zip", packed(("a.png", b"x" * 99))[1][:-30]))
    deflated = ct(ramp())
    deflated.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    assert "deflated" in small.refused(415, "/predict", write(tmp_path / "deflated.dcm", deflated))


def test_too_much_of_anything(small: Client, scans: list[Path], tmp_path: Path) -> None:
    assert "more than 1 MiB" in small.refused(413, "/predict", ("a.png", bytes(2**20 + 1)))
    assert "more than 5 files" in small.refused(413, "/predict", *scans[:6])
    members = [(f"{number}.png", scans[0].read_bytes()) for number in range(6)]
    assert "more than 5 images" in small.refused(413, "/predict", packed(*members))
    assert "pixels" in small.refused(413, "/predict", ("a.png", huge_png(101)))
    assert "pixels" in small.refused(413, "/predict", ("a.png", huge_png(2**31 - 1)))
    film = write(tmp_path / "film.dcm", ct(np.stack([ramp()] * 6)))
    assert "frames count" in small.refused(413, "/predict", film)
    assert small.send("/predict?frame=middle", film).status == 200


def test_a_chunked_body_has_no_stated_length(small: Client) -> None:
    pieces = (bytes(2**16) for _ in range(20))
    reply = small.ask("POST", "/predict", pieces, Content_Type="image/png")
    assert "more than 1 MiB" in line_of(reply, 413)


def test_entries_that_leave_an_archive(small: Client, scans: list[Path]) -> None:
    image = scans[0].read_bytes()
    for name in ("../a.png", "/a.png", "a\\..\\..\\b.png"):
        line = small.refused(422, "/predict", packed(("good.png", image), (name, image)))
        assert "scans.zip: an entry has a path that leaves the archive; do not use it" in line


def test_zip_bombs(small: Client) -> None:
    bomb = packed(("a.png", bytes(50 * 2**20)))
    assert len(bomb[1]) < 2**20
    assert "unpacks to more than 1 MiB" in small.refused(413, "/predict", bomb)
    nested = packed(("a.zip", bomb[1]))
    line = "scans.zip/a.zip: a zip archive inside another is not read; send the files in it"
    assert line in small.refused(415, "/predict", nested)
    many = bytearray(packed(("a.png", b"x"))[1])
    end = many.rfind(b"PK\x05\x06")
    many[end + 12 : end + 16] = struct.pack("<I", 2**23)  # a table of contents of 8 MiB
    assert "too many entries" in small.refused(413, "/predict", ("a.zip", bytes(many)))


def test_a_header_of_100_000_frames(client: Client, tmp_path: Path) -> None:
    film = write(tmp_path / "film.dcm", ct(ramp(), NumberOfFrames=100_000))
    assert "100,000 frames, more than the limit" in client.refused(422, "/predict", film)


def test_parameters(small: Client, scans: list[Path]) -> None:
    assert "window" in small.refused(422, "/predict?window=bones", scans[0])
    assert "frame" in small.refused(422, "/predict?frame=-1", scans[0])
    assert "skip_bad" in small.refused(422, "/predict?skip_bad=perhaps", scans[0])
    assert "no map" in small.refused(422, "/explain?map=x-ray", scans[0])
    said = small.refused(422, "/predict?modle=run", scans[0])
    assert said == "no parameter 'modle'; did you mean model?"
    assert "did you mean skip_bad?" in small.refused(422, "/predict?skip_bda=true", scans[0])
    assert "no parameter 'skip_bad'" in small.refused(422, "/explain?skip_bad=true", scans[0])
    assert "is given 2 times" in small.refused(422, "/predict?model=discs&model=same", scans[0])
    for address in ("/models", "/health", "/metrics", "/train", "/", "/docs"):
        assert line_of(small.get(f"{address}?q=1"), 422) == "no parameter 'q'; known: none"
    field = form(scans[:1]).replace(b"; filename=", b"; filenam=")
    reply = small.ask("POST", "/predict", field, Content_Type="multipart/form-data; boundary=edge")
    assert "the form's field 'file' is no file" in line_of(reply, 422)
    assert line_of(small.ask("PUT", "/predict"), 405)
    assert line_of(small.get("/predictions"), 404)


def take_place(client: Client, number: int) -> socket.socket:
    """Begin the upload that takes the place of this number, from 1."""
    slow = socket.create_connection(("127.0.0.1", client.port))
    slow.sendall(
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 999\r\n\r\n\x89PNG"
    )
    for _ in range(100):
        if f"biomedcoop_requests_inside {number}" in client.get("/metrics").content.decode():
            return slow
        time.sleep(0.01)
    raise AssertionError("its place is not taken")


def test_a_queue_of_one_lets_one_wait_besides_those_that_are_answered(start: Start, scans: list[Path]) -> None:
    own = start(Limits(workers=2, queue=1))
    slow = [take_place(own, 1), take_place(own, 2)]
    assert own.send("/predict", scans[0]).status == 200
    slow.append(take_place(own, 3))
    line = line_of(own.send("/predict", scans[0]), 429)
    assert line == "all places are taken (requests answered at once: 2, waiting besides: 1); try again soon"
    for one in slow:
        one.close()


def test_the_queue_is_bounded_and_slow_uploads_end(start: Start, scans: list[Path]) -> None:
    own = start(Limits(workers=1, queue=0, seconds=1.0))
    slow = take_place(own, 1)
    full = own.send("/predict", scans[0])
    assert (
        line_of(full, 429) == "all places are taken (requests answered at once: 1, waiting besides: 0); try again soon"
    )
    assert full.headers["retry-after"] == "1"
    assert slow.recv(99).startswith(b"HTTP/1.1 408")
    slow.close()
    assert own.send("/predict", scans[0]).status == 200


def test_an_answer_that_takes_too_long(start: Start, scans: list[Path]) -> None:
    own = start(Limits(workers=1, queue=8, seconds=0.05, images=500))
    big = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (2500, 2500, 3), dtype=np.uint8)).save(big, "BMP")
    reply = own.send("/predict", *[("a.bmp", big.getvalue())] * 3)
    assert "took longer than 0.05 s" in line_of(reply, 408)


def test_several_clients_at_once_get_their_own_answers(start: Start, scans: list[Path]) -> None:
    own = start(Limits(workers=2, queue=16))
    alone = [own.send("/predict", scan).json["predictions"][0]["probabilities"] for scan in scans[:6]]
    found: dict[int, list[object]] = {}

    def ask(number: int) -> None:
        found[number] = [own.send("/predict", scan).json["predictions"][0]["probabilities"] for scan in scans[:6]]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [alone] * 4
