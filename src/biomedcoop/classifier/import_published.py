"""Import a checkpoint of the published code: its learned context becomes a classifier of this package.

The context is encoded with the class names on the frozen backbone, as after a training here. Nothing in the file is run
(:mod:`biomedcoop.backbones.restricted_pickle`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.torch_archive import open_archive
from biomedcoop.classifier.classifier import Classifier
from biomedcoop.classifier.fit import load_for
from biomedcoop.classifier.new_classes import checked_class_names
from biomedcoop.classifier.published_checkpoint import PublishedCheckpoint
from biomedcoop.classifier.published_checks import check_class_names, tower_note
from biomedcoop.classifier.published_source import Origin, entry_of, find_source
from biomedcoop.data.catalogue import CatalogueEntry, find
from biomedcoop.data.readers.load import read_dataset
from biomedcoop.data.readers.named import user_path
from biomedcoop.data.sampling.few_shot import base_novel_classes
from biomedcoop.errors import UserError, notify
from biomedcoop.methods import get_method
from biomedcoop.methods.context import ClassPrompts, state_from
from biomedcoop.tasks.build import task_without_images

if TYPE_CHECKING:
    import torch

WORDS = 4
"""Number of vectors that the published code starts from the words "a photo of a"; any other number starts at random."""


def import_published(
    source: str | os.PathLike[str],
    class_names: Sequence[str] | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
    backbone: Backbone | str | os.PathLike[str] = "biomedclip",
    method: str | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Classifier:
    """Make a classifier from a checkpoint of the published code (BiomedCoOp, CoOp, CoCoOp, KgCoOp or ProGrad).

    The file is read without running anything in it. Its copies of frozen tensors are compared with the backbone and with the class
    names. Warnings (:class:`biomedcoop.errors.Note`) tell what the file does not say, and where its copies differ.

    Args:
        source: a ``model.pth.tar`` file, the folder that holds it, or ``hub:DATASET/SHOTS/SEED`` for a file of the authors'
            repository on the Hugging Face hub, which is downloaded.
        class_names: C names in label order. By default those of ``data``, else those of the dataset in the path.
        data: name of a dataset in the catalogue, or path or name of a dataset, for its class names.
        backbone: the frozen model that the checkpoint was trained on; it must be on this machine.
        method: method that trained it, where neither the path nor the tensors tell.
        device: device of a backbone that is not loaded yet.
        progress: show the download on stderr.

    Returns:
        The classifier; it can be saved, tested and explained like one that was trained here.

    Raises:
        UserError: the file cannot be had or read or holds code; it belongs to another backbone or to other class names.

    Example:
        >>> import biomedcoop as bc
        >>> import torch
        >>> checkpoint = {"state_dict": {"prompt_learner.ctx": torch.zeros(4, 384)}, "epoch": 100}
        >>> torch.save(checkpoint, "model.pth.tar-100")
        >>> bc.import_published("model.pth.tar-100", ["cyst", "stone"], backbone="mini")
        Classifier(method='biomedcoop', backbone='mini', shots='unknown', 2 classes: cyst, stone)
    """
    found = find_source(source)
    origin = found.origin
    names, entry = _named_classes(class_names, data, origin)
    loaded = load_for(backbone, str(device))  # before a long download
    found.fetch(progress=progress)
    with open_archive(found.path) as archive:
        checkpoint = PublishedCheckpoint(archive)
        name, unsure = checkpoint.method(method or origin.method)
        learned = checkpoint.learned(name, loaded)
        names, told = check_class_names(checkpoint, loaded, names)
        notes = [
            *(
                []
                if told
                else [
                    "The checkpoint does not hold the words of its classes, so their names and order are not checked."
                ]
            ),
            *([f"Read as {name}: files of coop and prograd are alike; --method names another one."] if unsure else []),
            *([note] if (note := tower_note(checkpoint, loaded)) else []),
        ]
    kind, context = get_method(name), learned["context"]
    count, own = context.shape[-2], context.dim() == 3
    if own and len(context) != len(names):
        raise UserError(
            f"{found.path}: has contexts for {len(context)} classes, not {len(names)}; name its classes with --classes"
        )
    recipe = "paper-novel" if origin.base else "paper"
    known: dict[str, Any] = {"n_context": count, "context_init": "words" if count == WORDS else "random"}
    if own:
        known["class_specific"] = True
    if checkpoint.epochs is not None:
        known["epochs"] = checkpoint.epochs
    settings = kind.settings(known, recipe, entry.name if entry else None)
    task = task_without_images(loaded, names)
    # no class is new, so each can have a context of its own
    state = (
        state_from(ClassPrompts(loaded, names, settings), context) if own else kind.retarget(learned, task, settings)
    )
    notify(notes)
    notes.append(
        "Imported from a checkpoint of the published code. It does not hold its training settings, so those shown are the "
        "published ones, nor its training images, so a test cannot tell whether it meets them."
    )
    facts = {**_facts(found.path, origin, entry), "recipe": recipe, "notes": notes}
    return Classifier(names, name, state, loaded, dataclasses.asdict(settings), facts)


def _named_classes(
    class_names: Sequence[str] | None, data: str | os.PathLike[str] | None, origin: Origin
) -> tuple[tuple[str, ...] | None, CatalogueEntry | None]:
    """The class names that the user or the path gives, and their dataset in the catalogue, if it is one."""
    if class_names is not None:
        if data is not None:
            raise UserError("both the class names and data are given; give one of them")
        names = checked_class_names(class_names)
        return names, find(origin.dataset, names) if origin.dataset else None
    if data is None:
        entry = entry_of(origin)
    elif user_path(data).exists() or (entry := find(os.fspath(data))) is None:
        read = read_dataset(os.fspath(data), for_training=False)
        return read.class_names, find(read.name, read.class_names)
    if entry is None:
        return None, None
    kept = base_novel_classes(len(entry.class_names))[0] if origin.base else range(len(entry.class_names))
    return tuple(entry.class_names[label] for label in kept), entry


def _facts(path: Path, origin: Origin, entry: CatalogueEntry | None) -> dict[str, Any]:
    """What is known of the training, for the artefact; of the path, the file's name alone."""
    of_dataset = {} if entry is None else {"dataset": entry.name, "benchmark_dataset": entry.name}
    of_images = {} if entry is None else {"modality": entry.modality, "organ": entry.organ}
    return {
        **of_dataset,
        **of_images,
        "shots": "unknown" if origin.shots is None else origin.shots,
        **({} if origin.seed is None else {"seed": origin.seed}),
        "published_settings": entry is not None,
        "imported": {"file": path.name, "sha256": _sha256(path)},
    }


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
