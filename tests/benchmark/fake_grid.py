"""Output folders of benchmarks that never ran: answers drawn from a known truth.

Each image has a difficulty that all methods share, alike within a group of related images; a method is right where its skill
exceeds the difficulty and a little noise of the run.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SKILL = {"zero-shot": 0.42, "linear-probe": 0.55, "coop": 0.56, "kgcoop": 0.54, "biomedcoop": 0.62}
CLASSES = ("benign tumor", "malignant tumor", "normal scan", "cyst")

Skill = Callable[[str, str, int], float]
Status = Callable[[Mapping[str, Any]], str | None]


def skill(name: str, dataset: str, shots: int) -> float:
    """Accuracy that a row has in the long run: it grows with the shots, and datasets differ."""
    base = SKILL.get(name, 0.6)
    growth = 0.0 if name == "zero-shot" else 0.05 * np.log2(max(shots, 1))
    return float(np.clip(base + growth + 0.04 * (sum(map(ord, dataset)) % 5 - 2), 0.02, 0.98))


def write_grid(
    folder: Path,
    *,
    kind: str = "few-shot",
    datasets: Mapping[str, int] | Sequence[str] = ("busi", "btmri", "scans"),
    methods: Sequence[str] = ("zero-shot", "linear-probe", "coop", "biomedcoop"),
    variants: Sequence[Mapping[str, Any]] = (),
    backbones: Sequence[str] = ("mini",),
    shots: Sequence[int] = (1, 4, 16),
    seeds: Sequence[int] = (1, 2, 3),
    tests: Mapping[str, Sequence[str]] | None = None,
    truth: Skill = skill,
    status: Status = lambda run: None,
    noise: float = 0.05,
    **protocol: Any,
) -> Path:
    """Write ``plan.json``, ``tests/`` and ``results.jsonl``.

    Args:
        datasets: names, or names with numbers of test images.
        truth: (row, scored set, shots) -> accuracy in the long run.
        status: of a run: None for done, "missing" for no line, or "failed"/"skipped" with ": reason".
        noise: standard deviation of what a run adds to the difficulties.
    """
    images = dict(datasets) if isinstance(datasets, Mapping) else dict.fromkeys(datasets, 120)
    content = {
        **{"kind": kind, "title": f"A {kind} benchmark", "datasets": list(images), "methods": list(methods)},
        **{"variants": list(variants), "backbones": list(backbones), "shots": list(shots), "seeds": list(seeds)},
        **{"recipe": "paper", "recipes": {}, "prompts": "auto", "unused_sentences": False, "groups": {}},
        **{"reference": "biomedcoop", "tests": {k: list(v) for k, v in (tests or {}).items()}, **protocol},
    }
    (folder / "tests").mkdir(parents=True)
    plan = {"format": 1, "versions": {"biomedcoop": "0.1.0"}, "protocol": content}
    (folder / "plan.json").write_text(json.dumps(plan))
    difficulty: dict[str, np.ndarray] = {}

    def scored_sets(dataset: str) -> list[str]:
        if kind == "base-to-novel":
            return [f"{dataset} base", f"{dataset} novel"]
        return [dataset, *(tests or {}).get(dataset, ())]

    for test in dict.fromkeys(name for dataset in images for name in scored_sets(dataset)):
        n = images.get(test.split(" ")[0], 120)
        n = n // 2 if kind == "base-to-novel" else n
        rng = np.random.default_rng(sum(map(ord, test)))
        groups = rng.integers(0, max(1, n // 3), n)
        by_group = rng.random(max(1, n // 3))
        difficulty[test] = np.clip(by_group[groups] + rng.normal(0, 0.1, n), 0, 1)
        facts = {"labels": (np.arange(n) % len(CLASSES)).tolist(), "classes": CLASSES, "groups": groups.tolist()}
        (folder / "tests" / f"{test.replace(' ', '-')}.json").write_text(json.dumps(facts))

    lines = []
    rows = [(method, None) for method in methods] + [(v["method"], v["name"]) for v in variants]
    for dataset in images:
        for backbone in backbones:
            for method, variant in rows:
                without = method.startswith("zero-shot")
                for k in (0,) if without else shots:
                    for seed in seeds[:1] if without else seeds:
                        run = {
                            **{
                                "run": f"{kind}/{dataset}/{backbone}/{variant or method}/{k}/{seed}",
                                "dataset": dataset,
                            },
                            **{"backbone": backbone, "method": method, "variant": variant, "recipe": "paper"},
                            **{"shots": k, "seed": seed, "status": "done"},
                        }
                        found = status(run)
                        if found == "missing":
                            continue
                        if found is not None:
                            run["status"], _, run["reason"] = found.partition(": ")
                            lines.append(json.dumps(run, sort_keys=True))
                            continue
                        rng = np.random.default_rng([seed, k, *map(ord, (variant or method) + backbone + dataset)])
                        run["tests"] = {}
                        for test in scored_sets(dataset):
                            hard = difficulty[test] + rng.normal(0, noise, len(difficulty[test]))
                            run["tests"][test] = metrics(hard < truth(variant or method, test, k))
                        run |= {"parameters": 0 if without else 3072, "memory_mb": 500 + k}
                        run["seconds"] = 0.1 if without else 1.5 + 0.1 * k
                        lines.append(json.dumps(run, sort_keys=True))
    (folder / "results.jsonl").write_text("".join(line + "\n" for line in lines))
    return folder


def metrics(right: np.ndarray) -> dict[str, Any]:
    """The metrics of a scored set as a run's line holds them."""
    accuracy = float(right.mean())
    return {
        **{
            "images": len(right),
            "accuracy": accuracy,
            "balanced_accuracy": max(0.0, accuracy - 0.01),
            "macro_f1": max(0.0, accuracy - 0.02),
        },
        **{"ece": 0.1, "right": base64.b64encode(np.packbits(right).tobytes()).decode()},
    }
