"""Where a published checkpoint is: a file or folder on this machine, or the authors' repository on the Hugging Face hub.

The published code writes ``<dataset>/shots_<K>/<Trainer>_<model>/<options>/seed<S>/prompt_learner/model.pth.tar-<epoch>``, and
the authors' repository keeps these paths. A path of that form tells what trained the file.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from biomedcoop.backbones.catalogue import HubFiles
from biomedcoop.backbones.registry import by_hand
from biomedcoop.data.catalogue import CatalogueEntry, entries
from biomedcoop.data.readers.named import user_path
from biomedcoop.errors import UserError, nearest, notify
from biomedcoop.hub import client
from biomedcoop.hub.files import bytes_left, check_space, fetch, find_hub_file, in_cache, in_words, is_offline
from biomedcoop.output import cache_root, check_writable, new_file

REPOSITORY = "TahaKoleilat/BiomedCoOp"
HUB, NOVEL = "hub:", "base2new"
FORM = f"{HUB}DATASET/SHOTS/SEED or {HUB}{NOVEL}/DATASET/16/SEED, e.g. {HUB}busi/16/1"
FILES = ("model.pth.tar-*", "model-best.pth.tar")
"""Names of checkpoints in a folder of the published code."""

SHOTS, SEEDS = (1, 2, 4, 8, 16), (1, 2, 3)
"""The runs of the paper."""

METHODS = {name.lower(): name.lower() for name in ("BiomedCoOp", "CoOp", "CoCoOp", "KgCoOp", "ProGrad")}
"""Trainer in a path, lower case -> method."""

LAYOUT = re.compile(
    r"(?:(?P<part>train_base)/)?(?P<dataset>[^/]+)/shots_(?P<shots>\d+)/(?P<trainer>[A-Za-z]+)_[^/]+/[^/]+/seed(?P<seed>\d+)"
    r"/(?:prompt_learner/)?[^/]+$"
)


@dataclass(frozen=True)
class Origin:
    """What the path of a checkpoint says about its training; None for what it does not say.

    Attributes:
        dataset: name of the dataset.
        shots: training images per class.
        seed: random seed.
        method: name of the method.
        base: trained on the base classes only, the first half of the dataset's.
    """

    dataset: str | None = None
    shots: int | None = None
    seed: int | None = None
    method: str | None = None
    base: bool = False


@dataclass(frozen=True)
class Source:
    """A checkpoint that the user names.

    Attributes:
        path: the file on this machine, or where a download will put it.
        hub_file: its path in the authors' repository; None for a local file.
    """

    path: Path
    hub_file: str | None = None

    @property
    def origin(self) -> Origin:
        """What the path says about the training."""
        return origin_of(self.path)

    def fetch(self, *, progress: bool = True) -> None:
        """Download the file, unless it is on this machine: under its path, or in the cache of the hub's client.

        Args:
            progress: show the hub's progress bar on stderr.

        Raises:
            UserError: no connection, no such file in the repository, a wrong checksum, too little space.
        """
        if self.hub_file is None or self.path.is_file():
            return
        client(progress)
        put = by_hand([HubFiles(REPOSITORY, (self.hub_file,))], self.path.parent)
        cached = in_cache(REPOSITORY, "model", self.hub_file, "main")
        if cached is None and is_offline():
            raise UserError(
                f"{self.hub_file} is not on this machine, and the network is off; {put}, or leave HF_HUB_OFFLINE out"
            )
        try:
            check_writable(self.path.parent)
        except UserError as error:
            raise UserError(f"{error} with BIOMEDCOOP_CACHE") from error
        if cached is not None:
            with new_file(self.path) as temporary:
                shutil.copyfile(cached, temporary)
            return
        file = find_hub_file(REPOSITORY, self.hub_file, f"try again, or {put}", kind="model")
        if file is None:
            page = HubFiles(REPOSITORY, ()).page
            raise UserError(f"the hub has no {self.hub_file} (404) in {REPOSITORY}; {page} lists what there is")
        left = bytes_left(file, self.path)
        check_space(self.path.parent, left, f"{file.base} needs", "set BIOMEDCOOP_CACHE to another folder")
        notify([f"{file.base} needs {in_words(left)} in {self.path.parent}"])
        fetch(file, self.path, instead=put)


def find_source(source: str | os.PathLike[str]) -> Source:
    """The checkpoint that the user names, before any download.

    Args:
        source: a file, a folder with one checkpoint, or ``hub:DATASET/SHOTS/SEED``.

    Raises:
        UserError: there is no such file, the folder holds several, or the words name no checkpoint.
    """
    text = os.fspath(user_path(source))
    if text.startswith(HUB):
        file = _hub_file(text)
        return Source(hub_folder() / file, file)
    return Source(_local_file(Path(text)))


def hub_folder() -> Path:
    """Where downloads of the authors' repository lie, under their paths there."""
    return cache_root() / "published"


def origin_of(path: Path) -> Origin:
    """What the path of a checkpoint says about its training.

    Example:
        >>> from pathlib import Path
        >>> from biomedcoop.classifier.published_source import origin_of
        >>> origin_of(Path("busi/shots_16/CoOp_BiomedCLIP/nctx4_cscFalse_ctpend/seed1/prompt_learner/model.pth.tar-100"))
        Origin(dataset='busi', shots=16, seed=1, method='coop', base=False)
    """
    found = LAYOUT.search(path.absolute().as_posix())
    if found is None:
        return Origin()
    method = METHODS.get(found["trainer"].lower())
    return Origin(found["dataset"], int(found["shots"]), int(found["seed"]), method, found["part"] is not None)


def _local_file(path: Path) -> Path:
    if not path.is_dir():
        if not path.exists():
            raise UserError(f"{path}: there is no such file; give a model.pth.tar file, its folder, or {FORM}")
        return path
    found = sorted(file for place in (path, path / "prompt_learner") for name in FILES for file in place.glob(name))
    if not found:
        raise UserError(f"{path}: has no {FILES[0]}; give the file itself, or {FORM}")
    if len(found) > 1:
        raise UserError(
            f"{path}: holds {len(found)} checkpoints, {', '.join(f.name for f in found[:4])}; give one file"
        )
    return found[0]


def _hub_file(text: str) -> str:
    """Path in the authors' repository of ``hub:DATASET/SHOTS/SEED``."""
    parts = text.removeprefix(HUB).strip("/").split("/")
    novel = parts[0] == NOVEL
    dataset, *numbers = parts[novel:]
    if len(numbers) != 2 or not all(re.fullmatch(r"[1-9]\d{0,3}", number) for number in numbers):
        raise UserError(f"'{text}' is not of the form {FORM}")
    shots, seed = map(int, numbers)
    known = [entry.name for entry in entries()]
    if dataset not in known:
        raise UserError(f"'{text}': no dataset '{dataset}' of the benchmark; {nearest(dataset, known)}")
    if novel and shots != 16:
        raise UserError(f"'{text}': base-to-novel checkpoints have 16 shots; give {HUB}{NOVEL}/{dataset}/16/{seed}")
    if shots not in SHOTS or seed not in SEEDS:
        raise UserError(
            f"'{text}': the paper's runs have 1, 2, 4, 8 or 16 shots and seed 1, 2 or 3; give such a one, e.g. {HUB}{dataset}/16/1"
        )
    place, epoch = (f"{NOVEL}/train_base", 50) if novel else ("few_shot", 100)
    run = f"BiomedCoOp_BiomedCLIP/nctx4_cscFalse_ctpend/seed{seed}/prompt_learner"
    return f"{place}/{dataset}/shots_{shots}/{run}/model.pth.tar-{epoch}"


def entry_of(origin: Origin) -> CatalogueEntry | None:
    """The benchmark dataset that a checkpoint was trained on, if its path names one."""
    return next((entry for entry in entries() if entry.name == origin.dataset), None)
