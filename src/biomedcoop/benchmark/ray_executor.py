"""The executor on a Ray cluster: ``--executor ray``.

The process that talks to the cluster is a child of this one (``ray_driver.py``): Ray ends the process that it runs in when the
cluster is lost, prints to its terminal, and reads its settings from the environment.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from threading import Timer
from types import TracebackType
from typing import Any

from biomedcoop.benchmark.executor import Item, Result, WorkerLost, start_child
from biomedcoop.benchmark.messages import receive, send
from biomedcoop.errors import UserError

AUTO, LOCAL = "auto", "local"

REACHABLE = 10.0
"""Seconds until an address counts as unreachable."""

CONNECTED = 60.0
"""Seconds until the connection to a cluster counts as failed; a cluster on this machine is started in them."""

ENDED = 15.0
"""Seconds that the child has to leave the cluster."""


@dataclass
class RayCluster:
    """Runs work as tasks of a Ray cluster; a context manager that is connected inside its block.

    Args:
        address: ``HOST:PORT`` of the head node; "auto" for the cluster that this machine belongs to; "local" for one that is
            started on this machine, on the loopback address, and ends with the block.
        cores, gpus: what each task occupies.

    Attributes:
        slots: number of tasks that the cluster's nodes could run at once when the block began.

    Raises:
        UserError: Ray is not installed, or the cluster cannot be reached or has no node of this size.
    """

    address: str = AUTO
    cores: int = 1
    gpus: int = 0
    slots: int = field(default=0, init=False)
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def __enter__(self) -> RayCluster:
        if find_spec("ray") is None:
            raise UserError("--executor ray needs Ray, which is not installed; run: pip install 'biomedcoop[ray]'")
        _check_reachable(self.address)
        # no usage statistics, also from a cluster that is started here; set before Ray is imported
        environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
        # what Ray starts asks for this token, but Ray does not show it by itself
        if (Path.home() / ".ray" / "auth_token").is_file():
            environment.setdefault("RAY_AUTH_MODE", "token")
        if self.address == LOCAL:
            # Ray's servers then listen on the loopback address alone
            environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        self._child = start_child("biomedcoop.benchmark.ray_driver", env=environment, stderr=subprocess.DEVNULL)
        late = Timer(CONNECTED, self._child.kill)
        late.start()
        try:
            self._ask(self.address, self.cores, self.gpus)
            (self.slots,) = self._answers(f"cannot connect to the Ray cluster at {self.address}")
            if not self.slots:
                size = f"{self.cores} cores" + " and a GPU" * bool(self.gpus)
                raise UserError(
                    f"the Ray cluster at {self.address} has no node with {size}; start one with 'ray start'"
                )
        except BaseException:
            self.__exit__(None, None, None)
            raise
        finally:
            late.cancel()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if (child := self._child) is None:
            return
        self._child = None
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(OSError):
            child.stdin.close()  # the child leaves the cluster, which ends its tasks
        try:
            child.wait(ENDED)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result | WorkerLost]]:
        """See :class:`biomedcoop.benchmark.executor.Executor`.

        The work travels once to each node. An item whose process ends is tried again, up to three times.

        Raises:
            UserError: the cluster was lost.
        """
        listed = list(items)
        self._ask(work, listed)
        for index, result in self._answers(f"lost the Ray cluster at {self.address}"):
            yield listed[index], result

    def everywhere(self, work: Callable[[], Result]) -> dict[str, Result | WorkerLost]:
        """Call a function on every node that can run tasks; returns node -> its result.

        Raises:
            UserError: the cluster was lost.
        """
        self._ask(work, None)
        return dict(self._answers(f"lost the Ray cluster at {self.address}"))

    def _ask(self, *request: Any) -> None:
        assert self._child is not None, "use the cluster in a with block"
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer will say so
            send(self._child.stdin, request)

    def _answers(self, failed: str) -> Iterator[Any]:
        """The answers to a request."""
        assert self._child is not None
        assert self._child.stdout is not None
        try:
            while True:
                kind, value = receive(self._child.stdout)
                if kind == "end":
                    return
                if kind == "failed":
                    raise _cluster_error(failed, value.partition(". ")[0].rstrip("."))
                yield value
        except (OSError, EOFError) as error:
            raise _cluster_error(failed, "it does not answer") from error


def _cluster_error(failed: str, reason: str) -> UserError:
    if failed.startswith("lost"):
        return UserError(
            f"{failed}: {reason}; finished runs are kept, and the same command continues once a cluster is up"
        )
    return UserError(
        f"{failed}: {reason}; start it with 'ray start --head', or give --address HOST:PORT of its head node"
    )


def _check_reachable(address: str) -> None:
    """Refuse an address that nothing listens on: Ray itself would try for a minute.

    Raises:
        UserError: it is no address, or no connection is possible.
    """
    if address in (AUTO, LOCAL) or "://" in address:
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) >= 2**16:
        raise UserError(f"--address '{address}' is no address; give HOST:PORT, {AUTO} or {LOCAL}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHABLE).close()
    except OSError as error:
        raise _cluster_error(
            f"cannot connect to the Ray cluster at {address}", (error.strerror or str(error)).lower()
        ) from error
