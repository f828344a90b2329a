"""The nodes of a cluster before the work: weights that a node lacks travel there, and every node is compared with this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from biomedcoop.backbones import locate
from biomedcoop.backbones.catalogue import ZEROED_PATCHES
from biomedcoop.backbones.registry import folder_of, is_name
from biomedcoop.benchmark.compute import Work
from biomedcoop.benchmark.prepare import find_backbones
from biomedcoop.benchmark.ray_executor import RayCluster
from biomedcoop.benchmark.record import versions
from biomedcoop.benchmark.sources import draw_simulated, facts_of, read_source
from biomedcoop.errors import UserError
from biomedcoop.output import new_folder


def prepare_nodes(work: Work, record: Mapping[str, Any], cluster: RayCluster) -> None:
    """Bring every node the weights and simulated datasets that it lacks, and compare it with this machine.

    Args:
        record: see :func:`biomedcoop.benchmark.record.record_of`.

    Raises:
        UserError: a node has other versions, images or weights.
    """
    for name in {backbone for backbone in work.protocol.backbones if is_name(backbone)}:
        folder = locate(name)
        if folder is not None and any(cluster.everywhere(partial(_lacks, name)).values()):
            files = {file.name: np.fromfile(file, np.uint8) for file in folder.iterdir() if file.is_file()}
            _refuse_faults(cluster.everywhere(partial(_receive, name, files)))
    _refuse_faults(cluster.everywhere(NodeCheck(work, record)))


def _refuse_faults(faults: Mapping[str, object]) -> None:
    for node, fault in faults.items():
        if fault:
            raise UserError(f"node {node}: {fault}")


def _lacks(name: str) -> bool:
    """Whether the machine that this is called on lacks a named backbone."""
    return locate(name) is None


def _receive(name: str, files: Mapping[str, npt.NDArray[np.uint8]]) -> str:
    """Keep the files of a backbone in the cache folder of the machine that this is called on; returns what went wrong."""
    try:
        if _lacks(name):
            with new_folder(folder_of(name.removesuffix(ZEROED_PATCHES)), mark=next(iter(files))) as folder:
                for file, content in files.items():
                    content.tofile(folder / file)
    except UserError as error:  # of two nodes that share the folder one may have been faster
        return str(error) if _lacks(name) else ""
    return ""


@dataclass(frozen=True)
class NodeCheck:
    """Compares a node with the machine that the benchmark was started on; called on the node."""

    work: Work
    record: Mapping[str, Any]

    def __call__(self) -> str:
        """What is wrong with the node; empty if nothing is."""
        try:
            return next(self._faults(), "")
        except (UserError, OSError) as error:
            return str(error)

    def _faults(self) -> Iterator[str]:
        for name, version in versions().items():
            if version != (here := self.record["versions"][name]):
                yield f"{name} is {version} there and {here} here; install the same version"
        for file in self.work.plugins:
            if not Path(file).is_file():
                yield f"plug-in {file} is not there; copy it to the same path"
        for dataset, source in self.work.sources.items():
            if source.place is None:
                continue
            draw_simulated(dataset, source.place)
            if not source.place.exists():
                yield f"dataset {source.name}: {source.place} is not there; put the images at the same path on all nodes"
            if facts_of(read_source(source.place, source.trained)) != source.facts:
                yield f"dataset {source.name}: {source.place} holds other images there; copy the same ones"
        reasons, fingerprints = find_backbones(self.work)
        for backbone, fingerprint in self.record["backbones"].items():
            if fingerprints.get(backbone) != fingerprint:
                why = next((reason for name, reason in reasons.items() if reason and Path(name).name == backbone), "")
                yield f"backbone {backbone}: {why or 'other weights there; copy the same ones'}"
