"""Start the server: the address, the token, and a stop that lets requests end."""

from __future__ import annotations

import errno
import logging
import os
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from biomedcoop.deploy.server.guard import LOOPBACK, Guard
from biomedcoop.deploy.server.limits import Limits
from biomedcoop.errors import UserError

TOKEN = "BIOMEDCOOP_TOKEN"
"""Environment variable that holds the token."""

SHORTEST_TOKEN = 16
"""Smallest number of characters of a token."""


@dataclass(frozen=True)
class Address:
    """Where the server listens.

    Attributes:
        host: address or name of an interface.
        port: 0 takes any that is free.
        hosts: further names under which it is reached, such as that of a proxy.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    hosts: tuple[str, ...] = ()

    @property
    def beyond_loopback(self) -> bool:
        """Whether others than the users of this machine may reach it."""
        return self.host not in LOOPBACK or bool(self.hosts)


def check_installed() -> None:
    """
    Raises:
        UserError: the extra ``app`` is missing.
    """
    missing = [name for name in ("fastapi", "uvicorn", "python_multipart") if find_spec(name) is None]
    if missing:
        raise UserError(f"the server needs {', '.join(missing)}: pip install 'biomedcoop[app]'")


def guard_for(address: Address, token: str | None) -> Guard:
    """
    Raises:
        UserError: a token is needed.
    """
    if token is None and address.beyond_loopback:
        raise UserError(
            f"{address.host if address.host not in LOOPBACK else address.hosts[0]} is reached from other machines, so that a token "
            f"is needed: set {TOKEN}, or give --token-file FILE"
        )
    return Guard(
        token, None if address.host not in LOOPBACK else (*LOOPBACK, *(name.lower() for name in address.hosts))
    )


def read_token(file: Path | None) -> str | None:
    """The token of a file, else of the environment; None without either.

    Raises:
        UserError: it cannot be read, or is too short.
    """
    if file is not None:
        try:
            token, where = file.read_text(encoding="utf-8").strip(), str(file)
        except FileNotFoundError as error:
            raise UserError(f"{file} does not exist; write the token into it as one line of text") from error
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{file}: the token cannot be read ({type(error).__name__}); write it as one line of text"
            ) from error
    elif TOKEN in os.environ:
        token, where = os.environ[TOKEN].strip(), TOKEN
    else:
        return None
    if len(token) < SHORTEST_TOKEN or not token.isprintable() or not token.isascii() or " " in token:
        raise UserError(
            f"{where}: a token has at least {SHORTEST_TOKEN} characters and no spaces, e.g. from: openssl rand -hex 32"
        )
    return token


@contextmanager
def _one_line(address: Address) -> Iterator[None]:
    """
    Raises:
        UserError: the port is in use, or there is no such address.
    """
    try:
        yield
    except (OSError, OverflowError) as error:
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise UserError(
                f"port {address.port} is in use; choose another with --port, or 0 for any free one"
            ) from error
        raise UserError(
            f"cannot listen on {address.host}:{address.port} ({error}); choose another with --host"
        ) from error


def bind(address: Address) -> socket.socket:
    """A socket that holds the address and does not listen yet, so that nobody waits for an answer while models load.

    Raises:
        UserError: the port is in use, or there is no such address.
    """
    with _one_line(address):
        family, kind, protocol, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(place)
    return bound


def serve(
    folders: Sequence[Path],
    address: Address,
    limits: Limits,
    guard: Guard,
    *,
    trains: bool | None = None,
    backbone: str | None = None,
    device: str = "cpu",
    precision: str = "float32",
    started: Callable[[str], None] | None = None,
) -> None:
    """Answer requests until SIGTERM or Ctrl-C; requests that have begun are answered first.

    One process with threads: torch computes outside the interpreter lock, so threads use all cores and share the weights.

    Args:
        folders: the classifiers to serve.
        trains: whether the page may train; None allows it on loopback alone.
        started: called with a line for each classifier, and with the server's address.

    Raises:
        UserError: the address cannot be used, or a classifier cannot be read.
    """
    tell = started or (lambda _: None)
    try:
        import uvicorn

        from biomedcoop.deploy.server.app import make_app
        from biomedcoop.deploy.server.models import described, load_models
        from biomedcoop.deploy.server.protocol import Protocol
        from biomedcoop.deploy.server.training import Trainings

        allowed = not address.beyond_loopback if trains is None else trains
        if not folders and not allowed:
            raise UserError("name at least one model to serve, or let the page train one with --training")
        bound = bind(address)
        models = load_models(folders, backbone, device, precision)
        for model in models:
            tell(f"{model.name}: {described(model.classifier)}")
        if not folders:
            tell("no model is served yet; the page can train one")
        off = None if allowed else "this server does not train; start it with --training"
        trainings = Trainings(models, limits, off)
        config = uvicorn.Config(
            make_app(models, limits, guard, trainings),
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            http=Protocol,
            ws="none",
            timeout_keep_alive=15,
            timeout_graceful_shutdown=int(2 * limits.seconds),
            proxy_headers=False,
        )
        with _one_line(address):
            bound.listen(128)
    except KeyboardInterrupt:
        tell("stopped before it began to answer requests")
        return
    # what libraries log and warn of may quote a request; a record that no handler takes would be printed
    logging.getLogger().addHandler(logging.NullHandler())
    warnings.simplefilter("ignore")  # what the package notes of single images stands in answers and reports
    host, port = bound.getsockname()[:2]
    tell(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}, docs at /docs; Ctrl-C ends it")
    try:
        with suppress(KeyboardInterrupt):  # uvicorn repeats the signal that ended it
            uvicorn.Server(config).run(sockets=[bound])
    finally:
        trainings.close()
    tell("stopped; all requests that had begun are answered")
