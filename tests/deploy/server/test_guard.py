"""Who may ask: tokens, names of the server, pages of others; and starts that are refused."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from biomedcoop.deploy.server.run import SHORTEST_TOKEN, TOKEN, Address, guard_for, read_token
from biomedcoop.errors import UserError
from deploy.server.client import Client, Start, line_of

SECRET = "a-token-of-the-tests-0123"


@pytest.fixture(scope="module")
def closed(start: Start) -> Client:
    """A server as beyond loopback: with a token, under any name."""
    return start(token=SECRET, hosts=None, reason="this server does not train")


def test_without_the_token_nothing_is_told(closed: Client, scans: list[Path]) -> None:
    for path in ("/models", "/metrics", "/train", "/train/x", "/openapi.json"):
        assert "a token is needed" in line_of(closed.get(path), 401)
    assert closed.get("/models").headers["www-authenticate"] == "Bearer"
    assert "a token is needed" in closed.refused(401, "/predict", scans[0])
    for wrong in ("Bearer ", "Bearer x", f"Basic {SECRET}", SECRET, f"Bearer {SECRET}x", "Bearer \xe9"):
        assert closed.get("/models", Authorization=wrong).status == 401
    assert set(closed.get("/health").json) == {"status", "version"}
    for page in ("/", "/docs", "/pages/page.js"):
        assert closed.get(page).status == 200


def test_with_the_token_everything_works(closed: Client, scans: list[Path]) -> None:
    for path in ("/models", "/openapi.json"):
        assert closed.get(path, Authorization=f"Bearer {SECRET}").status == 200
    assert closed.send("/predict", scans[0], Authorization=f"bearer {SECRET}").status == 200
    assert closed.get("/health", Authorization=f"Bearer {SECRET}").json["changed_on_disk"] == []
    reply = closed.send("/train", scans[0], Authorization=f"Bearer {SECRET}")
    assert line_of(reply, 403) == "this server does not train"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST"])
def test_names_of_this_machine(client: Client, host: str) -> None:
    assert client.get("/models", Host=host).status == 200


@pytest.mark.parametrize("host", ["attacker.example", "localhost.attacker.example", "127.0.0.2", "", "[::1"])
def test_a_name_that_leads_here_from_elsewhere(client: Client, host: str) -> None:
    for path in ("/models", "/", "/health"):
        assert "is not served" in line_of(client.get(path, Host=host), 403)


def test_a_page_of_others_cannot_ask(client: Client, scans: list[Path]) -> None:
    for origin in (
        "https://attacker.example",
        "null",
        "http://localhost:1",
        f"{client.url}.attacker.example",
        "http://[",
        "//\u00bd",
    ):
        assert "another address" in line_of(client.send("/predict", scans[0], Origin=origin), 403)
    assert "another address" in line_of(client.send("/predict", scans[0], Sec_Fetch_Site="cross-site"), 403)
    assert client.send("/predict", scans[0], Origin=client.url).status == 200


def test_a_token_is_needed_beyond_loopback(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    assert "a token is needed: set BIOMEDCOOP_TOKEN" in refused("serve", "model", "--host", "0.0.0.0")
    assert "a token is needed" in refused("serve", "model", "--allow-host", "scans.example")
    short = tmp_path / "token"
    short.write_text("short\n")
    line = refused("serve", "model", "--token-file", short)
    assert f"at least {SHORTEST_TOKEN} characters" in line
    assert "short\n" not in line
    assert "none does not exist; write the token" in refused("serve", "model", "--token-file", tmp_path / "none")
    assert "cannot be read (IsADirectoryError)" in refused("serve", "model", "--token-file", tmp_path)
    monkeypatch.setenv(TOKEN, SECRET)
    assert read_token(None) == SECRET
    assert guard_for(Address("0.0.0.0"), SECRET).knows(f"Bearer {SECRET}")
    with pytest.raises(UserError, match="reached from other machines"):
        guard_for(Address("192.0.2.1"), None)


def test_starts_that_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused("serve", tmp_path, "--port", port)
        assert line == f"error: port {port} is in use; choose another with --port, or 0 for any free one"
    assert "cannot listen on" in refused(
        "serve", tmp_path, "--host", "no.such.host.invalid", "--token-file", _token(tmp_path)
    )
    assert "not a saved classifier" in refused("serve", tmp_path, "--port", 0)
    assert "name at least one model" in refused("serve", "--no-training")


def _token(folder: Path) -> Path:
    file = folder / "secret"
    file.write_text(SECRET)
    return file
