"""The record of a benchmark: what its results depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from biomedcoop.benchmark.compute import Work
from biomedcoop.benchmark.journal import FORMAT
from biomedcoop.lazy import torch
from biomedcoop.version import __version__


def record_of(work: Work, fingerprints: Mapping[str, str]) -> dict[str, Any]:
    """The content of ``plan.json``.

    Args:
        fingerprints: name of a backbone -> fingerprint of its weights.
    """
    return {
        "format": FORMAT,
        "protocol": work.protocol.to_dict(),
        "digest": work.protocol.digest,
        "versions": versions(),
        "threads": work.threads,
        "device": work.device,
        "precision": work.precision,
        "plugins": {Path(file).name: hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in work.plugins},
        "backbones": dict(fingerprints),
        "datasets": {source.name: source.facts for source in work.sources.values() if source.facts},
        "names": {dataset: source.name for dataset, source in work.sources.items()},
        # runs that train together share their last bits: all seeds of a dataset, backbone, row and number of shots
        "runs_together": list(work.protocol.seeds),
    }


def versions() -> dict[str, str]:
    """The versions of the packages whose arithmetic decides the last bits of results."""
    return {"biomedcoop": __version__, "torch": str(torch.__version__), "numpy": np.__version__}
