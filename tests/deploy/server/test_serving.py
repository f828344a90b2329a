"""What the server answers: the same as the classifier, in every form of a request."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import socket
import struct
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import biomedcoop as bc
from biomedcoop.deploy.server.limits import Limits
from biomedcoop.deploy.server.models import load_models
from biomedcoop.deploy.server.protocol import NO_REQUEST
from deploy.server.client import Client, Start, form, line_of
from dicom_files import NAMES, ct, ramp, write


def probabilities(row: dict[str, Any]) -> list[float]:
    return list(row["probabilities"].values())


def test_an_image_gets_the_classifiers_answer(client: Client, clf_served: bc.Classifier, scans: list[Path]) -> None:
    answer = client.send("/predict", scans[0]).json
    (row,) = answer["predictions"]
    (known,) = clf_served.predict_stream([scans[0]])
    assert answer["model"] == "discs"
    assert row["name"] == scans[0].name
    assert probabilities(row) == pytest.approx(known.probabilities.tolist(), abs=1e-6)
    assert row["prediction"] == clf_served.predict([scans[0]])[0]
    assert row["unlike_training"] == known.unlike_training
    assert tuple(row["set"]) == clf_served.predict_sets([scans[0]])[0]
    assert row["abstain"] == (len(row["set"]) != 1)


def test_many_images_keep_their_order(client: Client, clf_served: bc.Classifier, scans: list[Path]) -> None:
    rows = client.send("/predict", *scans).json["predictions"]
    assert [probabilities(row) for row in rows] == [
        pytest.approx(p, abs=1e-6) for p in clf_served.predict_proba(scans).tolist()
    ]


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream"])
def test_the_body_may_be_the_image(client: Client, scans: list[Path], kind: str) -> None:
    body = client.ask("POST", "/predict", scans[3].read_bytes(), Content_Type=kind).json["predictions"]
    (row,) = client.send("/predict", scans[3]).json["predictions"]
    assert body == [{**row, "name": "image"}]


def test_a_zip_archive_counts_as_its_images(client: Client, scans: list[Path]) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("notes.txt", "no image")
        archive.writestr("__MACOSX/a.png", "no image")
        for scan in scans[:2]:
            archive.write(scan, f"study/{scan.name}")
    answer = client.send("/predict", ("scans.zip", packed.getvalue())).json
    assert [row["name"] for row in answer["predictions"]] == [f"scans.zip/study/{scan.name}" for scan in scans[:2]]
    assert answer["files_left_out"] == 1
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("inner.zip", zip_of(scans[:1])[1])
        archive.write(scans[0], "last.png")
    rows = client.send("/predict?skip_bad=true", ("scans.zip", packed.getvalue())).json["predictions"]
    assert [row.get("error") for row in rows[-2:]] == [
        "a zip archive inside another is not read; send the files in it",
        None,
    ]
    plain = client.send("/predict", *scans[:2]).json["predictions"]
    assert [probabilities(row) for row in answer["predictions"]] == [probabilities(row) for row in plain]


def test_frames_and_windows_of_dicom(client: Client, tmp_path: Path) -> None:
    film = write(tmp_path / "film.dcm", ct(np.stack([ramp(), ramp()[::-1], ramp().T])))
    rows = client.send("/predict", film).json["predictions"]
    assert [row["name"] for row in rows] == ["film.dcm#0", "film.dcm#1", "film.dcm#2"]
    (middle,) = client.send("/predict?frame=middle", film).json["predictions"]
    assert middle == rows[1]
    (lung,) = client.send("/predict?frame=1&window=lung", film).json["predictions"]
    assert probabilities(lung) != probabilities(middle)
    assert "frame 7 was asked for, but it has 3" in client.refused(422, "/predict?frame=7", film)


def test_a_bad_image_is_a_refusal_or_a_row(client: Client, scans: list[Path]) -> None:
    cut = ("cut.png", scans[0].read_bytes()[:400])
    assert client.refused(422, "/predict", scans[1], cut).startswith("cut.png: the file is truncated")
    rows = client.send("/predict?skip_bad=true", scans[1], cut).json["predictions"]
    assert "prediction" in rows[0]
    assert rows[1]["error"].startswith("the file is truncated")


def test_skip_bad_goes_on_after_files_that_cannot_be_used(start: Start, scans: list[Path], tmp_path: Path) -> None:
    """Of another type, too large, empty, without the frame; what breaks a limit of the whole request still refuses it."""
    own = start(Limits(pixels=100_000, images=6, workers=1))
    large = io.BytesIO()
    Image.new("L", (400, 400)).save(large, "PNG")
    film = write(tmp_path / "film.dcm", ct(np.stack([ramp()] * 2)))
    bad = [("a.png", b"MZ a program"), ("b.png", large.getvalue()), ("c.png", b""), ("d.zip", b"PK\x03\x04"), film]
    rows = own.send("/predict?skip_bad=true&frame=3", *bad, scans[0]).json["predictions"]
    assert [row["name"] for row in rows] == ["a.png", "b.png", "c.png", "d.zip", "film.dcm", scans[0].name]
    begins = ["not an image", "it has more pixels", "the file is empty", "the zip archive is truncated", "frame 3 was"]
    for row, begin in zip(rows[:-1], begins, strict=True):
        assert row["error"].startswith(begin), row
    (alone,) = own.send("/predict", scans[0]).json["predictions"]
    assert rows[-1] == alone
    many = [(f"{number}.png", scans[0].read_bytes()) for number in range(7)]
    assert "more than 6 files" in own.refused(413, "/predict?skip_bad=true", *many)


def test_notes_come_with_the_answer(client: Client, scans: list[Path], tmp_path: Path) -> None:
    """As ``predict`` gives them, without the names of files, which may be those of patients."""
    scan = write(tmp_path / "Plantedname.dcm", ct(ramp()))
    assert client.send("/predict", scans[0]).json["notes"] == []
    notes = client.send("/predict?frame=5&window=lung", scan).json["notes"]
    for said in ("files that name a patient: 1; ", "frame 5 is chosen, but some files have a single frame"):
        assert any(said in note for note in notes), said
    assert not [word for word in (*NAMES, "Plantedname") if word in str(notes)]
    assert any("frame 5 is chosen" in note for note in client.send("/explain?frame=5", scans[0]).json["notes"])


def test_a_folder_that_no_longer_holds_what_was_loaded(clf_served: bc.Classifier, parity: Path, tmp_path: Path) -> None:
    clf_served.save(tmp_path / "run")
    (model,) = load_models([tmp_path / "run"], str(parity / "model"))
    assert not model.changed
    for name in ("classifier.json", "model.safetensors"):
        file = tmp_path / "run" / name
        before = file.read_bytes()
        changed = bytearray(before)
        changed[-5] ^= 1
        for content in (bytes(changed), before[:-9], b"null", b""):
            file.write_bytes(content)
            assert model.changed, (name, content[:4])
            assert model.to_dict()["changed_on_disk"]
        file.write_bytes(before)
        assert not model.changed
    (tmp_path / "run").rename(tmp_path / "moved")
    assert model.changed


def test_an_explanation(client: Client, clf_served: bc.Classifier, scans: list[Path]) -> None:
    answer = client.send("/explain?class=red+stone", scans[0]).json
    (known,) = bc.saliency(clf_served, scans[0], "red stone", progress=False)
    overlay = Image.open(io.BytesIO(base64.b64decode(answer["overlay"].removeprefix("data:image/png;base64,"))))
    assert np.array_equal(np.asarray(overlay), known.overlay())
    assert {name: answer[name] for name in known.to_dict()} == known.to_dict()
    assert np.allclose(np.array(answer["values"], dtype=float), known.values, atol=6e-4, equal_nan=True)
    assert answer["sentences"]["predicted"]["most"][0]["text"]
    assert "no class 'gallstone'" in client.refused(422, "/explain?class=gallstone", scans[0])
    said = client.refused(413, "/explain", *scans[:2])
    assert said == "the request holds more than one image; send one at a time"
    assert "one is explained at a time" in client.refused(413, "/explain", zip_of(scans[:2]))


def zip_of(files: list[Path]) -> tuple[str, bytes]:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in files:
            archive.write(file, file.name)
    return "some.zip", packed.getvalue()


def test_models_are_told_apart(start: Start, scans: list[Path]) -> None:
    client = start(names=("discs", "same"))
    models = client.get("/models").json["models"]
    assert [model["name"] for model in models] == ["discs", "same"]
    assert models[0]["classes"] == ["blue cyst", "green tumor", "red stone"]
    assert client.send("/predict?model=same", scans[0]).json["model"] == "same"
    assert client.refused(404, "/predict?model=disc", scans[0]) == "no model 'disc'; did you mean discs?"
    said = client.refused(422, "/predict", scans[0])
    assert said == "several models are served; choose one with ?model=NAME: discs, same"
    assert "no model is loaded" in start(names=()).refused(404, "/predict", scans[0])


def test_counters_for_prometheus(start: Start, scans: list[Path]) -> None:
    own = start()
    own.send("/predict", *scans[:3])
    own.get("/no/such/address")
    text = own.get("/metrics").content.decode()
    assert 'biomedcoop_requests_total{path="/predict",status="200"} 1' in text
    assert 'biomedcoop_requests_total{path="other",status="404"} 1' in text
    assert 'biomedcoop_images_total{model="discs"} 3' in text
    assert 'biomedcoop_request_seconds_bucket{path="/predict",le="+Inf"} 1' in text
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) .+|\w+(\{.*\})? [\d.]+", line), line


def test_no_page_names_another_host(client: Client) -> None:
    seen = ["/", "/docs"]
    for address in seen:
        reply = client.get(address)
        assert reply.status == 200
        assert not re.search(r"(https?:)?//[\w.]+\.", reply.content.decode().replace("// ", "")), address
        assert reply.headers["content-security-policy"].startswith("default-src 'none'")
        seen += [a for a in re.findall(r'(?:src|href)="(/pages/[^"]+)"', reply.content.decode()) if a not in seen]
    assert len(seen) > 4
    assert {"/predict", "/explain", "/models", "/health", "/metrics"} <= set(client.get("/openapi.json").json["paths"])


_written: list[str] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _written is not None and event == "open" and not isinstance(arguments[0], int):
        mode, flags = arguments[1], arguments[2]
        if (mode and set(mode) & set("wax+")) or (isinstance(flags, int) and flags & 3):
            _written.append(str(arguments[0]))


def test_nothing_is_written(client: Client, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Every file that is opened for writing, named or not, raises an event of the interpreter."""
    global _written
    noise = np.random.default_rng(0).integers(0, 256, (1100, 1100, 3), dtype=np.uint8)
    large = tmp_path / "Plantedname.png"
    Image.fromarray(noise).save(large, compress_level=0)
    scan = write(tmp_path / "Plantedfile.dcm", ct(ramp()))
    assert large.stat().st_size > 3_000_000  # form parsers write files above 1 MB to a disk
    client.send("/explain", large)  # the features of the sentences may go into the store, at the first explanation
    sys.addaudithook(_watch)
    _written = []
    try:
        (tmp_path / "control").write_bytes(b"")
        for path in ("/predict", "/explain"):
            for files in ([large], [scan], [zip_of([large])]):
                assert client.send(path, *files).status == 200
        client.refused(422, "/predict", ("cut.dcm", scan.read_bytes()[:-3000]))
    finally:
        written, _written = _written, None
    assert written == [str(tmp_path / "control")]
    said = "".join(capfd.readouterr()) + client.get("/metrics").content.decode()
    assert not [word for word in (*NAMES, "Plantedname", "Plantedfile") if word in said]


FORM = "multipart/form-data; boundary=edge"


def begun(client: Client, body: bytes, kind: str, length: str) -> socket.socket:
    """A connection on which a request has been sent as far as the body goes."""
    sent = socket.create_connection(("127.0.0.1", client.port), timeout=30)
    head = f"POST /predict?skip_bad=true HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n{length}\r\n\r\n"
    sent.sendall(head.encode() + body)
    return sent


def half_closed(client: Client, body: bytes, kind: str, length: str) -> tuple[bytes, Any]:
    """Head and content for a client that closes its sending half after a body, and reads until the server closes."""
    with begun(client, body, kind, length) as sent:
        sent.shutdown(socket.SHUT_WR)
        head, _, content = b"".join(iter(lambda: sent.recv(2**16), b"")).partition(b"\r\n\r\n")
        return head, json.loads(content)


def counted(client: Client, status: int) -> bool:
    """Whether /predict has been answered once with this status, and never with 500; waits for it."""
    end, text = time.monotonic() + 5, ""
    while f'path="/predict",status="{status}"}} 1\n' not in text and time.monotonic() < end:
        text = client.get("/metrics").content.decode()
    return f'path="/predict",status="{status}"}} 1\n' in text and 'status="500"' not in text


@pytest.mark.parametrize("padding", [0, 2**21], ids=["one packet", "more than is read ahead"])
def test_a_client_that_closes_its_sending_half_is_answered(client: Client, scans: list[Path], padding: int) -> None:
    body, begin = form([scans[0], ("large.png", bytes(padding))]), time.monotonic()
    head, answer = half_closed(client, body, FORM, f"Content-Length: {len(body)}")
    assert time.monotonic() - begin < 5  # the connection is not kept for a further request
    assert head.startswith(b"HTTP/1.1 200 ")
    assert len(answer["predictions"]) == 2


@pytest.mark.parametrize(
    ("kind", "length"),
    [
        ("image/png", "Content-Length: 5000"),
        (FORM, "Content-Length: 5000"),
        ("image/png", "Transfer-Encoding: chunked"),
    ],
)
def test_a_truncated_upload_is_answered(start: Start, scans: list[Path], kind: str, length: str) -> None:
    small, body = start(Limits(workers=1, queue=0)), form(scans[:1])[:200]
    head, answer = half_closed(small, b"fff\r\n" + body if "chunked" in length else body, kind, length)
    assert head.startswith(b"HTTP/1.1 400 ")
    assert answer == {"error": "the upload is truncated; send it again"}
    assert counted(small, 400)
    assert small.send("/predict", scans[0]).status == 200


@pytest.mark.parametrize(
    ("sent", "closes"),
    [
        (b"GARBAGE\r\n\r\n", False),
        (b"GET /health HTTP/1.1\r\nHost: local", True),
        (
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n",
            False,
        ),
    ],
    ids=["no request", "half a header", "bad chunk"],
)
def test_what_is_no_request_is_refused_as_all_is(start: Start, sent: bytes, closes: bool) -> None:
    own = start()
    with socket.create_connection(("127.0.0.1", own.port), timeout=10) as connection:
        connection.sendall(sent)
        if closes:
            connection.shutdown(socket.SHUT_WR)
        head, _, content = connection.recv(2**12).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(content) == NO_REQUEST
    assert 'status="500"' not in own.get("/metrics").content.decode()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The lines of the package's log; a command that has run in this process keeps them to itself."""
    monkeypatch.setattr(logging.getLogger("biomedcoop"), "propagate", True)
    return lambda: [record.getMessage() for record in caplog.records if record.name.startswith("biomedcoop")]


def test_a_client_that_hangs_up_frees_its_place(start: Start, scans: list[Path], said: Callable[[], list[str]]) -> None:
    small = start(Limits(workers=1, queue=0))
    with begun(small, form(scans[:1])[:200], FORM, "Content-Length: 5000") as sent:
        while b"biomedcoop_requests_inside 1" not in small.get("/metrics").content:
            time.sleep(0.005)
        sent.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # the close resets the connection
    assert counted(small, 499)
    assert small.send("/predict", scans[0]).status == 200
    assert said() == []


def test_a_fault_is_one_line(start: Start, said: Callable[[], list[str]]) -> None:
    """Its answer and its log say where it is, and repeat nothing of the request."""
    own = start(classifier=None)
    reply = own.get("/models", X_Secret="Plantedname")
    assert re.fullmatch(r"a fault of the server \(AttributeError at models.py:\d+\); see its log", line_of(reply, 500))
    assert reply.headers["content-security-policy"].startswith("default-src 'none'")
    end = time.monotonic() + 5  # the answer is sent first, then the line is logged and the answer counted
    while 'path="/models",status="500"} 1\n' not in own.get("/metrics").content.decode():
        assert time.monotonic() < end
    (line,) = said()
    assert re.fullmatch(r"AttributeError in /models at models.py:\d+", line)


@pytest.mark.parametrize(
    "path", ["/", "/health", "/models", "/metrics", "/pages/page.js", "/no/such/address", "/predict"]
)
def test_head_is_get_without_a_body(client: Client, path: str) -> None:
    probe, whole = client.ask("HEAD", path), client.get(path)
    assert (probe.status, probe.content) == (whole.status, b"")
    assert probe.headers["content-type"] == whole.headers["content-type"]


def test_a_file_name_in_the_extended_form(client: Client, scans: list[Path]) -> None:
    for star, name in {
        "filename*=UTF-8''%c3%a4%20b.png": "ä b.png",
        "filename*=iso-8859-1'en'%e4.png": "ä.png",
        "filename=\"plain.png\"; filename*=UTF-8''other.png": "plain.png",
    }.items():
        body = form(scans[:1]).replace(f'filename="{scans[0].name}"'.encode(), star.encode())
        (row,) = client.ask("POST", "/predict", body, Content_Type=FORM).json["predictions"]
        assert row["name"] == name
