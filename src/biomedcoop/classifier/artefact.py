"""The artefact: a folder with ``classifier.json``, ``model.safetensors`` and a model card ``README.md``.

The artefact of a text-based method takes a few kB, most of it the sentences that it was trained with. It holds no image, no path
and no pickle; of the training images, it holds the mean feature of each class (``domain.py``). ``read_artefact.py`` reads it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedcoop.classifier.model_card import model_card
from biomedcoop.data.images.crops import Resize
from biomedcoop.output import check_new_folder, new_folder
from biomedcoop.version import __version__

if TYPE_CHECKING:
    from biomedcoop.classifier.classifier import Classifier

FORMAT_VERSION = 1
DESCRIPTION, TENSORS, CARD = "classifier.json", "model.safetensors", "README.md"
RESIZES: Mapping[Resize, Mapping[str, str]] = {
    "shortest": {"resize": "short edge, bicubic", "crop": "centre"},
    "squash": {"resize": "whole image to a square, bicubic", "crop": "none"},
}
AGAIN = "copy or train the classifier again"


def check_artefact_folder(folder: Path, overwrite: bool) -> None:
    """Check before long work that :func:`save` can write a folder.

    Raises:
        UserError: it exists and is not an artefact to overwrite, or it cannot be written.
    """
    check_new_folder(folder, overwrite, DESCRIPTION, (DESCRIPTION, TENSORS, CARD))


def save(classifier: Classifier, folder: Path, *, overwrite: bool = False) -> None:
    """Write a classifier to a new folder; after an error nothing is left behind.

    Raises:
        UserError: the folder exists and is not an artefact to overwrite, or it cannot be written.
    """
    with new_folder(folder, overwrite=overwrite, mark=DESCRIPTION, contents=(DESCRIPTION, TENSORS, CARD)) as new:
        write_into(classifier, new)


def write_into(classifier: Classifier, folder: Path, place: str = "this/folder") -> None:
    """Write the artefact's three files into an existing folder.

    Args:
        place: where a reader of the model card finds them.
    """
    for name, content in _files_of(classifier, place).items():
        (folder / name).write_bytes(content)


def _files_of(classifier: Classifier, place: str) -> dict[str, bytes]:
    """The artefact's three files, content by name."""
    from safetensors.torch import save as to_bytes

    from biomedcoop.methods import get_method
    from biomedcoop.methods.plugin_code import plugin_of

    domain = {} if classifier.domain is None else classifier.domain.tensors()
    # copies, because tensors of a plug-in may share memory, which the format refuses
    sets = {} if classifier.sets is None else classifier.sets.tensors()
    copies = {key: value.detach().clone().contiguous() for key, value in {**classifier.state, **domain, **sets}.items()}
    tensors = to_bytes(copies)
    backbone, plugin = classifier.backbone.original, plugin_of(get_method(classifier.method))
    description: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "biomedcoop_version": __version__,
        "method": classifier.method,
        **({} if plugin is None else {"plugin": plugin}),
        "class_names": list(classifier.class_names),
        "backbone": {"name": backbone.name, "fingerprint": backbone.fingerprint},
        "preprocessing": {
            **RESIZES[backbone.resize],
            "image_size": backbone.image_size,
            "mean": list(backbone.mean),
            "std": list(backbone.std),
        },
        "settings": dict(classifier.settings),
        **({} if classifier.temperature == 1 else {"temperature": classifier.temperature}),
        "facts": dict(classifier.facts),
        "domain": classifier.domain is not None,
        **({} if classifier.sets is None else {"sets": classifier.sets.description()}),
        "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
    }
    description["sha256"] = checksum(description)
    return {
        TENSORS: tensors,
        DESCRIPTION: f"{json.dumps(description, indent=1, ensure_ascii=False)}\n".encode(),
        CARD: model_card(description, place).encode(),
    }


def checksum(description: Mapping[str, Any]) -> str:
    """SHA-256 of a description without its own checksum; it reveals class names or an order changed by hand."""
    content = {key: value for key, value in description.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
