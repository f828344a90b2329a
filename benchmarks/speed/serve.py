"""Load on ``biomedcoop serve`` at the loopback address, beside the same images predicted in one process without a server.

    python -m benchmarks.speed.serve [--requests 10000] [--seconds 600] [--clients 1,2,4]

A classifier on mini is fitted on simulated scans and served by a process of its own. Clients send one PNG of 224 px in each
request, and keep their connection. It stops after that many requests in total, or that many seconds. Memory is the resident
memory of the server, after the first tenth of the requests and at the end.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from io import BytesIO
from pathlib import Path

import biomedcoop as bc
from benchmarks.command import positive, start
from biomedcoop.data.images.reading import read_image
from biomedcoop.data.images.sources import ImageSource
from biomedcoop.errors import UserError
from biomedcoop.report.table import Table

LOOPBACK = "127.0.0.1"
ALONE = 60
"""Images for the figure without a server."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=positive, default=10_000)
    parser.add_argument("--seconds", type=positive, default=600)
    parser.add_argument("--clients", default="1,2,4")
    args = parser.parse_args()
    counts = [positive(text) for text in args.clients.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        data = bc.load_dataset("simulated:breast-ultrasound?train=8&val=0&test=10")
        classifier = bc.fit(data, "simpleshot", shots=8, progress=False)
        classifier.save(model)
        images = [_png(image) for image in data.part("test").images]
        rows = [_in_process(classifier, images)]
        rows += _served(model, images, args.requests, args.seconds, counts)
    columns = ("", "requests", "p50, ms", "p95, ms", "images per s", "memory at the start, MiB", "at the end, MiB")
    print(Table(columns, rows).markdown())


def _png(image: ImageSource) -> bytes:
    content = BytesIO()
    read_image(image).save(content, "PNG")
    return content.getvalue()


def _in_process(classifier: bc.Classifier, images: list[bytes]) -> tuple[str, ...]:
    classifier.predict_proba(images[:1])
    times = []
    for number in range(ALONE):
        begin = time.perf_counter()
        classifier.predict_proba(images[number % len(images)], progress=False)
        times.append(time.perf_counter() - begin)
    return ("in process, one image at a time", str(ALONE), *_figures(times, sum(times)), "", "")


def _figures(times: list[float], wall: float) -> tuple[str, str, str]:
    p50, p95 = statistics.median(times), statistics.quantiles(times, n=20)[-1]
    return f"{1000 * p50:.0f}", f"{1000 * p95:.0f}", f"{len(times) / wall:.1f}"


def _served(model: Path, images: list[bytes], requests: int, seconds: int, counts: list[int]) -> list[tuple[str, ...]]:
    command = [sys.executable, "-m", "biomedcoop", "serve", str(model), "--port", "0", "--no-training"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        port = next((int(f[1]) for line in server.stderr if (f := re.search(rf"http://{LOOPBACK}:(\d+)", line))), None)
        if port is None:
            raise UserError("the server has not started; run 'biomedcoop serve' to see why")
        return [
            _load(server.pid, port, images, requests // len(counts), seconds / len(counts), clients)
            for clients in counts
        ]
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def _load(pid: int, port: int, images: list[bytes], requests: int, seconds: float, clients: int) -> tuple[str, ...]:
    """One row: so many clients, each with one request at a time."""
    times: list[float] = []
    lock, begun, end = threading.Lock(), iter(range(requests)), time.perf_counter() + seconds
    memory: list[float] = []

    def ask() -> None:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=120)
        while True:
            with lock:
                number = next(begun, None)
            begin = time.perf_counter()
            if number is None or begin > end:
                break
            connection.request("POST", "/predict", images[number % len(images)], {"Content-Type": "image/png"})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                raise UserError(f"the server answers {answer.status}: {content.decode()[:200]}")
            with lock:
                times.append(time.perf_counter() - begin)
                if len(times) == max(1, requests // 10):
                    memory.append(_resident(pid))
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - begin
    first = f"{memory[0]:.0f}" if memory else "–"
    name = f"served, {clients} client{'' if clients == 1 else 's'}"
    return (name, str(len(times)), *_figures(times, wall), first, f"{_resident(pid):.0f}")


def _resident(pid: int) -> float:
    """Resident memory of a process, MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    start(main)
