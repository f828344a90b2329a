"""The process that talks to a Ray cluster; ``ray_executor.py`` starts it and asks it through a pipe.

Ray is imported inside functions, because it is an extra.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any, BinaryIO

from biomedcoop.benchmark.executor import WorkerLost, pipe_of_answers
from biomedcoop.benchmark.messages import receive, send

TRIES = 4
"""Processes that an item may end before it counts as lost."""


def serve(requests: BinaryIO) -> None:
    """Connect to a cluster and do what is asked for, until the pipe closes."""
    import ray

    answers = pipe_of_answers()

    def answer(kind: str, value: Any) -> None:
        send(answers, (kind, value))

    asked: SimpleQueue[Any] = SimpleQueue()
    Thread(target=_listen, args=(requests, asked), daemon=True).start()
    try:
        address, cores, gpus = _next(asked)
        new = {"include_dashboard": False} if address == "local" else {}
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **new)
        cluster = Cluster(cores, gpus)
        answer("value", sum(cluster.slots().values()))
        answer("end", None)
        while True:
            work, items = _next(asked)
            for value in cluster.everywhere(work) if items is None else cluster.map(work, items):
                answer("value", value)
            answer("end", None)
    except BrokenPipeError:
        os._exit(0)
    except Exception as error:  # of any kind: what Ray raises when it cannot connect differs from version to version
        answer("failed", one_line(error))
        ray.shutdown()


def _listen(requests: BinaryIO, asked: SimpleQueue[Any]) -> None:
    """Pass requests on; when the pipe closes, leave the cluster, whatever is being done."""
    import ray

    try:
        while True:
            asked.put(receive(requests))
    except EOFError:
        ray.shutdown()
        os._exit(0)
    except Exception as error:  # of any kind: the request names something that only the other process knows
        asked.put(error)


def _next(asked: SimpleQueue[Any]) -> Any:
    request = asked.get()
    if isinstance(request, Exception):
        raise request
    return request


class Cluster:
    """A connected cluster.

    Args:
        cores, gpus: what each task occupies.
    """

    def __init__(self, cores: int, gpus: int) -> None:
        import ray

        self.needs = {"CPU": cores, **({"GPU": gpus} if gpus else {})}
        # the cluster would run a lost task again with no word; here the tries are counted, also those that lacked memory
        self.task = ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=0)(_call)
        self.visit = ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=0)(_visit)

    def slots(self) -> dict[str, int]:
        """Id of a node -> the number of tasks that it can run at once, without nodes that can run none."""
        import ray

        found = {
            node["NodeID"]: int(min(node["Resources"].get(name, 0) // needed for name, needed in self.needs.items()))
            for node in ray.nodes()
            if node["Alive"]
        }
        return {node: count for node, count in found.items() if count}

    def map(self, work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """(number of an item, its result), in any order."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        shared = ray.put(work)
        ended: SimpleQueue[Any] = SimpleQueue()

        def start(index: int, tries: int) -> None:
            future = self.task.remote(shared, items[index]).future()
            future.add_done_callback(lambda done: ended.put((index, tries, done)))

        for index in range(len(items)):
            start(index, 1)
        left = len(items)
        while left:
            index, tries, done = ended.get()
            error = done.exception()
            if isinstance(error, RayError) and not isinstance(error, RayTaskError) and tries < TRIES:
                start(index, tries + 1)
                continue
            left -= 1
            yield index, done.result() if error is None else WorkerLost(one_line(error))

    def everywhere(self, work: Callable[[], Any]) -> Iterator[tuple[str, Any]]:
        """(a node's address and the start of its id, the result of the function there)."""
        import ray
        from ray.exceptions import RayError
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        names = {node["NodeID"]: f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})" for node in ray.nodes()}
        shared = ray.put(work)
        there = {node: NodeAffinitySchedulingStrategy(node, soft=False) for node in self.slots()}
        tasks = {node: self.visit.options(scheduling_strategy=place).remote(shared) for node, place in there.items()}
        for node, task in tasks.items():
            try:
                yield names[node], ray.get(task)
            except RayError as error:
                yield names[node], WorkerLost(one_line(error))


def _call(work: Callable[[Any], Any], item: Any) -> Any:
    return work(item)


def _visit(work: Callable[[], Any]) -> Any:
    return work()


def one_line(error: BaseException) -> str:
    """An error of Ray in one short line; of an error inside a task, what was raised there."""
    from ray.exceptions import RayTaskError

    cause = error.cause if isinstance(error, RayTaskError) and isinstance(error.cause, Exception) else error
    text = " ".join(str(cause).split()) or type(cause).__name__
    return text if len(text) < 300 else text[:297] + "..."
