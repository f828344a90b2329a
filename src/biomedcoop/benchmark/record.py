"""The record of a benchmark: what its results depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from biomedcoop.benchmark.compute import Work
from biomedcoop.benchmark.journal import FORMAT, PLAN, read_plan
from biomedcoop.benchmark.plan import backbone_name
from biomedcoop.benchmark.protocol import Protocol
from biomedcoop.errors import UserError
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
        "precision": {backbone_name(one): value for one, value in work.precision.items()},
        "plugins": {Path(file).name: hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in work.plugins},
        "backbones": dict(fingerprints),
        "datasets": {source.name: source.facts for source in work.sources.values() if source.facts},
        "names": {dataset: source.name for dataset, source in work.sources.items()},
        # runs that train together share their last bits: all seeds of a dataset, backbone, row and number of shots
        "runs_together": list(work.protocol.seeds),
    }


def resolved_device(device: str, out: Path) -> str:
    """The device for all processes: "auto" is that of the earlier call in the folder, else the one that this machine chooses.

    Raises:
        UserError: the plan in the folder cannot be read.
    """
    from biomedcoop.backbones.registry import AUTO, automatic_device

    if device != AUTO:
        return device
    return str(read_plan(out)["device"]) if (out / PLAN).is_file() else str(automatic_device())


def resolved_precisions(protocol: Protocol, device: str, precision: str, out: Path) -> dict[str, str]:
    """The precision of each backbone: "auto" is that of the earlier call in the folder, else what is worth it on this machine.

    A backbone that cannot be loaded has float32; its runs fail with the reason.

    Raises:
        UserError: the plan in the folder cannot be read.
    """
    from biomedcoop.backbones import load_backbone

    if precision != "auto":
        return dict.fromkeys(protocol.backbones, precision)
    earlier = read_plan(out)["precision"] if (out / PLAN).is_file() else {}
    found = {}
    for backbone in protocol.backbones:
        found[backbone] = earlier.get(backbone_name(backbone), "float32")
        if backbone_name(backbone) not in earlier:
            with suppress(UserError):
                found[backbone] = load_backbone(backbone, device=device, precision=precision).precision
    return found


def versions() -> dict[str, str]:
    """The versions of the packages whose arithmetic decides the last bits of results."""
    return {"biomedcoop": __version__, "torch": str(torch.__version__), "numpy": np.__version__}
