"""Commands on a user's own images and models open no connection; a name on the hub does."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]

TINY = ("--backbone", Path(__file__).parents[1] / "parity_a" / "model")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Hosts that this process has tried to reach; none is reached."""
    hosts: list[object] = []
    connect = socket.socket.connect

    def refuse(host: object, *_: object, **__: object) -> Any:
        hosts.append(host)
        raise OSError("no network in this test")

    def local_only(own: socket.socket, address: Any) -> None:
        connect(own, address) if own.family == socket.AF_UNIX else refuse(address)

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", local_only)
    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return hosts


def test_only_names_on_the_hub_use_the_network(
    cli: Cli, asked: list[object], discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the hub's client waits between its attempts
    run, test, image = tmp_path / "run", discs / "test", next((discs / "test").rglob("*.png"))
    for words in (
        ("datasets", "check", discs),
        (
            "train",
            "--data",
            discs,
            "--out",
            run,
            "--method",
            "simpleshot",
            "--compare",
            "none",
            "--n-bootstrap",
            40,
            *TINY,
        ),
        ("predict", run, test, "--out", tmp_path / "p.csv", *TINY),
        ("explain", image, "--model", run, "--out", tmp_path / "maps", *TINY),
        ("suggest", test, "--model", run, *TINY),
    ):
        result = cli(*words)
        assert result.status == 0, (words, result.err)
    assert asked == []
    assert cli("predict", "hf://ward/skin", image, *TINY).status == 2
    assert "huggingface.co" in str(asked)
