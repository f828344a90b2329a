"""The queue of a server: so many requests are answered at once, so many more wait, and all others are refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from biomedcoop.deploy.server.limits import Limits, RefusedRequest

Out = TypeVar("Out")


class Deadline:
    """The moment at which an answer comes too late; ``check`` between the steps of the work."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.end = seconds, time.monotonic() + seconds

    def check(self) -> None:
        """
        Raises:
            RefusedRequest: the time is over.
        """
        if time.monotonic() > self.end:
            raise RefusedRequest(
                408, f"the answer took longer than {self.seconds:g} s; send fewer images", {"Retry-After": "5"}
            )


class Work:
    """Runs the work of requests in threads.

    Attributes:
        inside: requests between their first byte and their answer.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits, self.inside = limits, 0
        self._pool = ThreadPoolExecutor(limits.workers, "biomedcoop")

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place for one request, from before its body is read, so that bodies cannot fill the memory.

        Raises:
            RefusedRequest: all places are taken.
        """
        workers, queue = self.limits.workers, self.limits.queue
        if self.inside >= workers + queue:
            places = f"requests answered at once: {workers}, waiting besides: {queue}"
            raise RefusedRequest(429, f"all places are taken ({places}); try again soon", {"Retry-After": "1"})
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    async def run(self, work: Callable[[Deadline], Out]) -> Out:
        """Run work in a thread; it gets the deadline, which counts from now, and checks it.

        A thread cannot be ended from outside: work that overruns its time holds its thread until the next check, and its client is
        answered at once.

        Raises:
            RefusedRequest: it takes too long.
        """
        deadline = Deadline(self.limits.seconds)

        def started() -> Out:
            deadline.check()
            return work(deadline)

        future = self._pool.submit(started)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.limits.seconds)
        except (TimeoutError, asyncio.TimeoutError):
            future.cancel()
            deadline.end = 0.0
            deadline.check()
            raise
