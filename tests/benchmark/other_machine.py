"""A cluster without Ray: its only node is this process with a cache folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from biomedcoop.benchmark.ray_executor import RayCluster


class OtherMachine(RayCluster):
    def __init__(self, cache: Path) -> None:
        super().__init__()
        self.cache, self.slots = cache, 1
        self.worked: list[Any] = []

    def map(self, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        for item in items:
            self.worked.append(item)
            yield item, self.there(lambda item=item: work(item))  # type: ignore[misc]

    def everywhere(self, work: Callable[[], Any]) -> dict[str, Any]:
        return {"10.0.0.7": self.there(work)}

    def there(self, work: Callable[[], Any]) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BIOMEDCOOP_CACHE", str(self.cache))
            return work()
