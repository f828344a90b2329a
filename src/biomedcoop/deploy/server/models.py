"""The classifiers of a server, by name. They stay as they were loaded, whatever becomes of their folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from biomedcoop.backbones.base import Backbone
from biomedcoop.classifier import Classifier, load
from biomedcoop.classifier.artefact import DESCRIPTION, TENSORS, checksum
from biomedcoop.data.names import list_names
from biomedcoop.deploy.server.limits import RefusedRequest
from biomedcoop.errors import UserError, nearest
from biomedcoop.features.passes import warm_up


@dataclass(frozen=True)
class ServedModel:
    """A classifier and its name.

    Attributes:
        trained_here: it was trained on the page and is in memory alone.
    """

    name: str
    classifier: Classifier
    trained_here: bool = False

    @property
    def changed(self) -> bool:
        """Whether its folder no longer holds the artefact that was loaded."""
        origin = self.classifier.origin
        if self.trained_here or origin is None:
            return False
        folder = Path(origin.folder)
        try:
            found = [(folder / name).stat() for name in (DESCRIPTION, TENSORS)]
        except OSError:
            return True
        stamps = tuple((one.st_mtime_ns, one.st_ctime_ns, one.st_size) for one in found)
        return not _holds(folder, origin.sha256, stamps)

    def to_dict(self) -> dict[str, Any]:
        """What a client may know of it; no path."""
        own = self.classifier
        return {
            "name": self.name,
            "method": own.method,
            "backbone": own.backbone.name,
            "classes": list(own.class_names),
            "prediction_sets": own.sets is not None,
            "knows_unlike_images": own.domain is not None,
            "window": own.reading.window,
            "frame": own.reading.frame,
            "changed_on_disk": self.changed,
            "trained_here": self.trained_here,
        }


@lru_cache(maxsize=256)
def _holds(folder: Path, sha256: str, _: tuple[tuple[int, ...], ...]) -> bool:
    """Whether a folder holds the artefact with this checksum; read again only when a size or a time of its files has changed."""
    try:
        content = json.loads((folder / DESCRIPTION).read_bytes())
        same = isinstance(content, dict) and content.get("sha256") == sha256 == checksum(content)
        return same and hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest() == content["tensors_sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


class Models:
    """All classifiers of a server. Its only one, or the only one it was started with, answers requests that name none."""

    def __init__(self, models: Iterable[ServedModel]) -> None:
        self._lock, self._models = Lock(), {model.name: model for model in models}

    def __iter__(self) -> Any:
        with self._lock:
            return iter(list(self._models.values()))

    def named(self, name: str | None) -> ServedModel:
        """
        Raises:
            RefusedRequest: there is no such model, or none is named and there are several.
        """
        with self._lock:
            if name in self._models:
                return self._models[name]
            known = list(self._models)
            # a training on the page must not change what a program gets
            started = [model for model in self._models.values() if not model.trained_here] or list(
                self._models.values()
            )
        if name is None:
            if len(started) == 1:
                return started[0]
            if not known:
                raise RefusedRequest(404, "no model is loaded; train one first, or start the server with one")
            raise RefusedRequest(
                422, f"several models are served; choose one with ?model=NAME: {', '.join(known)[:150]}"
            )
        raise RefusedRequest(404, f"no model '{name[:80]}'; {nearest(name[:80], known)}")

    def add(self, model: ServedModel) -> None:
        with self._lock:
            self._models[model.name] = model

    def remove(self, name: str) -> None:
        with self._lock:
            self._models.pop(name, None)


def load_models(
    folders: Iterable[Path], backbone: str | None = None, device: str = "cpu", precision: str = "float32"
) -> Models:
    """Load classifiers, ready to answer; those of one backbone share it.

    Args:
        backbone: see :func:`biomedcoop.load`; it is that of all of them.

    Raises:
        UserError: a folder is no artefact, or two have one name.
    """
    loaded: dict[str, ServedModel] = {}
    backbones: list[Backbone] = []
    for folder in folders:
        place = folder.resolve()
        name = place.parent.name if place.name == "model" else place.name
        if name in loaded:
            raise UserError(f"two models are named '{name}'; rename one of the folders")
        classifier = _load(folder, backbones, backbone, device, precision)
        loaded[name] = ServedModel(name, classifier)
    for own in {id(own.image_tower): own for own in (model.classifier.backbone for model in loaded.values())}.values():
        warm_up(own)
    return Models(loaded.values())


def _load(folder: Path, backbones: list[Backbone], named: str | None, device: str, precision: str) -> Classifier:
    for backbone in backbones:
        try:
            return load(folder, backbone)
        except UserError:  # it belongs to another backbone, or is damaged, which the next line reports
            continue
    classifier = load(folder, named, device=device, precision=precision)
    backbones.append(classifier.backbone.original)
    return classifier


def described(classifier: Classifier) -> str:
    """One line on a classifier for the terminal."""
    return f"{classifier.method} on {classifier.backbone.name}, {list_names(classifier.class_names)}"
