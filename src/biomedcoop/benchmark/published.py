"""The paper's numbers, and whether a benchmark has the paper's settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from biomedcoop.benchmark.results import BenchmarkResults, TableRow
from biomedcoop.data import catalogue

BACKBONE = "biomedclip"
RECIPE = {"few-shot": "paper", "base-to-novel": "paper-novel"}


def published(kind: str) -> Mapping[str, Any]:
    """The published means of a protocol in percent: method -> shots -> accuracy, or method -> base, novel and HM.

    Example:
        >>> published("few-shot")["biomedcoop"]["16"]
        72.42
    """
    return dict(_content()["means"].get(kind, {}))


def published_by_dataset() -> Mapping[str, Sequence[float]]:
    """BiomedCoOp with 16 shots: dataset -> published mean and standard deviation over seeds, percent."""
    return dict(_content()["biomedcoop_16"])


def source() -> str:
    """Where the numbers come from."""
    return str(_content()["source"])


def differing(results: BenchmarkResults, row: TableRow, dataset: str | None = None) -> tuple[str, ...]:
    """In what a row's settings differ from the paper's, each difference in words; empty if in nothing.

    Args:
        dataset: judge this dataset alone; None judges the means over all datasets of the paper.
    """
    return tuple(_reasons(results, row, dataset))


def _reasons(results: BenchmarkResults, row: TableRow, dataset: str | None) -> Iterator[str]:
    protocol, content = results.protocol, _content()
    if results.kind not in content["means"]:
        yield "the paper has no such protocol"
    if row.backbone != BACKBONE:
        yield f"the backbone is {row.backbone}, the paper's is {BACKBONE}"
    if row.variant is not None:
        yield "its settings are not the paper's"
    recipe = protocol.get("recipes", {}).get(row.method, protocol.get("recipe", "paper"))
    if recipe not in ("paper", RECIPE.get(results.kind)):
        yield f"the recipe of {row.method} is {recipe}, not the paper's"
    if protocol.get("unused_sentences") or protocol.get("prompts", "auto") != "auto":
        yield "the sentences are not the paper's"
    if sorted(results.seeds) != content["seeds"]:
        yield f"the seeds are {', '.join(map(str, results.seeds))}, the paper's 1, 2, 3"
    wanted = content["datasets"].get(results.kind, [])
    if dataset is None and sorted(results.datasets) != sorted(wanted):
        yield f"the datasets are not the paper's {len(wanted)}"
    if dataset is None and results.simulated:
        yield f"simulated datasets: {', '.join(sorted(results.simulated))}"
    for name in [dataset] if dataset is not None else [name for name in wanted if name in results.datasets]:
        entry = catalogue.find(name)
        if entry is None:
            yield f"{name} is no dataset of the paper"
            continue
        scored = [len(test.labels) for key, test in results.tests.items() if key.split(" ")[0] == name]
        if not scored:
            yield f"{name} has no results"
        elif sum(scored) != entry.counts["test"]:
            yield f"{name} has {sum(scored):,} test images, the paper {entry.counts['test']:,}"


@cache
def _content() -> dict[str, Any]:
    return dict(json.loads(resources.files(__package__).joinpath("published.json").read_text(encoding="utf-8")))
