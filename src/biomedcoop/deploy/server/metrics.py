"""Counters of a server in Prometheus' text format, https://prometheus.io/docs/instrumenting/exposition_formats/."""

from __future__ import annotations

from collections import Counter
from threading import Lock

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the classes of answering times, s."""


class Metrics:
    """Counts answers, images and times; several threads may count at once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._answers: Counter[tuple[str, int]] = Counter()
        self._images: Counter[str] = Counter()
        self._times: dict[str, list[float]] = {}
        self._buckets: dict[str, list[int]] = {}

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count an answer.

        Args:
            path: one of the server's addresses, so that clients cannot add lines.
        """
        with self._lock:
            self._answers[path, status] += 1
            total = self._times.setdefault(path, [0.0, 0.0])
            total[0] += seconds
            total[1] += 1
            counts = self._buckets.setdefault(path, [0] * len(BUCKETS))
            for place, bound in enumerate(BUCKETS):
                counts[place] += seconds <= bound

    def predicted(self, model: str, images: int) -> None:
        """Count the images that a model has predicted."""
        with self._lock:
            self._images[model] += images

    def text(self, waiting: int) -> str:
        """All counters.

        Args:
            waiting: requests that are in the server now.
        """
        with self._lock:
            lines = ["# HELP biomedcoop_requests_total Answers by address and HTTP status."]
            lines.append("# TYPE biomedcoop_requests_total counter")
            for (path, status), count in sorted(self._answers.items()):
                lines.append(f'biomedcoop_requests_total{{path="{path}",status="{status}"}} {count}')
            lines.append("# HELP biomedcoop_images_total Predicted images by model.")
            lines.append("# TYPE biomedcoop_images_total counter")
            for model, count in sorted(self._images.items()):
                lines.append(f'biomedcoop_images_total{{model="{_escaped(model)}"}} {count}')
            lines.append("# HELP biomedcoop_requests_inside Requests between their first byte and their answer.")
            lines.append("# TYPE biomedcoop_requests_inside gauge")
            lines.append(f"biomedcoop_requests_inside {waiting}")
            lines.append("# HELP biomedcoop_request_seconds Time to answer.")
            lines.append("# TYPE biomedcoop_request_seconds histogram")
            for path, (seconds, times) in sorted(self._times.items()):
                for bound, below in zip(BUCKETS, self._buckets[path], strict=True):
                    lines.append(f'biomedcoop_request_seconds_bucket{{path="{path}",le="{bound:g}"}} {below}')
                lines.append(f'biomedcoop_request_seconds_bucket{{path="{path}",le="+Inf"}} {times:.0f}')
                lines.append(f'biomedcoop_request_seconds_sum{{path="{path}"}} {seconds:.6f}')
                lines.append(f'biomedcoop_request_seconds_count{{path="{path}"}} {times:.0f}')
        return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
