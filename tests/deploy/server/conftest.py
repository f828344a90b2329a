"""A server in a thread of this process, on a free port of the loopback address, and a client."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.deploy.server.app import make_app
from biomedcoop.deploy.server.guard import LOOPBACK, Guard
from biomedcoop.deploy.server.limits import Limits
from biomedcoop.deploy.server.models import Models, ServedModel
from biomedcoop.deploy.server.protocol import Protocol
from biomedcoop.deploy.server.training import Trainings
from deploy.server.client import Client, Start


@pytest.fixture(scope="session")
def start(clf_served: bc.Classifier) -> Iterator[Start]:
    """Start servers, which end with the tests."""
    running: list[tuple[Any, threading.Thread, Trainings]] = []

    def begin(
        limits: Limits | None = None, token: str | None = None, hosts: tuple[str, ...] | None = LOOPBACK, **more: Any
    ) -> Client:
        limits = limits or Limits(workers=2)
        models = Models(ServedModel(name, more.get("classifier", clf_served)) for name in more.get("names", ("discs",)))
        trainings = Trainings(models, limits, more.get("reason"))
        app = make_app(models, limits, Guard(token, hosts), trainings)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False, http=Protocol))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        running.append((server, thread, trainings))
        return Client(server.servers[0].sockets[0].getsockname()[1])

    yield begin
    for server, thread, trainings in running:
        server.should_exit = True
        trainings.close()
        thread.join()


@pytest.fixture(scope="session")
def client(start: Start) -> Client:
    """A server that no test changes."""
    return start()


@pytest.fixture(scope="session")
def clf_served(discs: Path, tiny: Backbone) -> bc.Classifier:
    """With prediction sets, and able to tell images unlike its training images."""
    return bc.fit(bc.load_dataset(discs), "simpleshot", tiny, shots=16, alpha=0.2)


@pytest.fixture(scope="session")
def scans(discs: Path) -> list[Path]:
    return sorted((discs / "test").rglob("*.png"))
