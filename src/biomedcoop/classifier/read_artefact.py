"""Read an artefact; refuse a newer format, another backbone, and a changed or truncated file."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from biomedcoop.classifier.artefact import AGAIN, DESCRIPTION, FORMAT_VERSION, TENSORS, checksum
from biomedcoop.classifier.classifier import Classifier
from biomedcoop.classifier.domain import Domain
from biomedcoop.classifier.on_hub import from_hub, is_hub_name
from biomedcoop.classifier.origin import Origin, with_origin
from biomedcoop.classifier.sets import PredictionSets
from biomedcoop.errors import UserError
from biomedcoop.tasks import options
from biomedcoop.version import __version__

if TYPE_CHECKING:
    import torch

    from biomedcoop.backbones.base import Backbone

THIS_VERSION = f"biomedcoop {__version__}"


def load(
    folder: str | os.PathLike[str],
    backbone: Backbone | str | os.PathLike[str] | None = None,
    *,
    device: torch.device | str = "cpu",
    precision: str = "float32",
) -> Classifier:
    """Read a classifier and load its backbone.

    Args:
        folder: an artefact, or a run folder with an artefact in ``model``; or "hf://owner/name" or "hf://owner/name@revision", a
            classifier on the Hugging Face hub, see :func:`biomedcoop.classifier.on_hub.downloaded`.
        backbone: a loaded backbone, or the name or folder of one; by default the name in the artefact.
        device: device of a backbone that is not loaded yet.
        precision: precision of its image tower, if it is not loaded yet; see :func:`biomedcoop.load_backbone`.

    Raises:
        UserError: the folder is not an artefact, or the artefact is damaged, has a newer format, or belongs to another backbone.

    Example:
        >>> import biomedcoop as bc
        >>> data = bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=1")
        >>> bc.fit(data, method="zero-shot").save("model")
        >>> bc.load("model").predict_proba(list(data.part("test").images)).shape
        (3, 3)
    """
    from biomedcoop.backbones import load_backbone
    from biomedcoop.backbones.registry import EARLIER_WEIGHTS, check_precision, find_backbone, is_name, usable_device
    from biomedcoop.methods import get_method
    from biomedcoop.methods.settings import RENAMED_SETTINGS

    if not isinstance(folder, (str, os.PathLike)):
        raise UserError(f"{folder!r} is not a path; give the folder of a saved classifier")
    if is_hub_name(folder):
        return from_hub(folder, partial(load, backbone=backbone, device=device, precision=precision))
    path = Path(folder)
    if not (path / DESCRIPTION).is_file() and (path / "model" / DESCRIPTION).is_file():
        path = path / "model"
    description = _description(path)
    state = _tensors(path, description)
    domain = _domain(state, path / TENSORS)
    sets = _sets(state, description, path / TENSORS)
    try:
        get_method(description["method"])
    except UserError as error:
        if "plugin" not in description:
            raise UserError(
                f"{path}{_written_by(description)} needs a method that {THIS_VERSION} lacks: {error}; upgrade biomedcoop"
            ) from error
        raise UserError(
            f"{path} needs the method '{description['method']}' of the plug-in {description['plugin']}; give its file with "
            "--plugin, install its package, or import it in Python first"
        ) from error
    wanted = description["backbone"]
    given = backbone if isinstance(backbone, (str, os.PathLike)) else None
    if backbone is None or isinstance(backbone, (str, os.PathLike)):
        check_precision(precision)
        usable_device(device)
        name_or_folder = os.fspath(backbone if backbone is not None else wanted["name"])
        try:
            find_backbone(name_or_folder)
        except UserError as error:
            raise UserError(
                f"{path} needs the backbone '{wanted['name']}': {error} (or name its folder with --backbone)"
            ) from error
        backbone = load_backbone(name_or_folder, device=device, precision=precision)
    if backbone.fingerprint != wanted["fingerprint"]:
        if version := EARLIER_WEIGHTS.get(wanted["fingerprint"]):
            raise UserError(
                f"{path} needs the weights of '{wanted['name']}' that version {version} shipped, not '{backbone.name}' "
                f"{backbone.fingerprint[:8]}; name their folder (src/biomedcoop/backbones/{wanted['name']} of that version) with "
                "--backbone, or train again"
            )
        raise UserError(
            f"{path} was trained on the backbone '{wanted['name']}' {wanted['fingerprint'][:8]}, not on "
            f"'{backbone.name}' {backbone.fingerprint[:8]}; name the right backbone with --backbone, or train again"
        )
    try:
        backbone = get_method(description["method"]).adapted(state, backbone)
    except KeyError as error:
        raise UserError(f"{path / TENSORS}: damaged ({error} is missing or unknown); {AGAIN}") from error
    except ValueError as error:
        raise UserError(f"{path / TENSORS}: damaged ({error}); {AGAIN}") from error
    classifier = Classifier(
        tuple(description["class_names"]),
        description["method"],
        state,
        backbone,
        {RENAMED_SETTINGS.get(name, name): value for name, value in description["settings"].items()},
        description["facts"],
        float(description.get("temperature", 1.0)),
        domain,
        sets,
    )
    _try_out(classifier, path / TENSORS)
    named = None if given is None else os.fspath(given) if is_name(os.fspath(given)) else str(Path(given).absolute())
    return with_origin(classifier, Origin(str(path.absolute()), description["sha256"], named))


def load_again(origin: Origin, class_names: tuple[str, ...]) -> Classifier:
    """The classifier of these classes that was read from an artefact.

    Raises:
        UserError: see :func:`load`; or another artefact is in its place.
    """
    classifier = load(origin.folder, origin.backbone)
    assert classifier.origin is not None
    if classifier.origin.sha256 != origin.sha256:
        raise UserError(f"{origin.folder}: another model is here now; evaluate again")
    return classifier if origin.prompts is None else classifier.for_classes(class_names, origin.prompts)


def _domain(state: dict[str, Any], file: Path) -> Domain | None:
    try:
        return Domain.take_from(state)
    except KeyError as error:
        raise UserError(f"{file}: damaged ({error} is missing); {AGAIN}") from error


def _sets(state: dict[str, Any], description: dict[str, Any], file: Path) -> PredictionSets | None:
    try:
        sets = PredictionSets.take_from(state, description.get("sets"))
        if sets is not None:
            options.score("score", sets.score)
            options.alpha("alpha", sets.alpha)
        return sets
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{file}: damaged (its prediction sets: {error}); {AGAIN}") from error


def _try_out(classifier: Classifier, file: Path) -> None:
    """Refuse tensors that do not give a probability for each class; one test prediction shows this for every method."""
    c, e = len(classifier.class_names), classifier.backbone.embed_dim
    try:
        ones = np.ones((1, e), dtype=np.float32)
        shape = classifier.probabilities(ones).shape
        if classifier.domain is not None:
            classifier.domain.unlike(ones)
        if classifier.sets is not None:
            classifier.members(ones)
    except KeyError as error:
        raise UserError(f"{file}: damaged ({error} is missing); {AGAIN}") from error
    except UserError:  # in the code of a plug-in
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        raise UserError(f"{file}: damaged (tensors that do not fit together); {AGAIN}") from error
    if shape != (1, c):
        raise UserError(f"{file}: damaged (its tensors are for {shape[-1]} classes, {DESCRIPTION} names {c}); {AGAIN}")


def _written_by(description: Mapping[str, Any]) -> str:
    """The version that wrote an artefact, for an error line; empty for the first artefacts, which do not name it."""
    version = description.get("biomedcoop_version")
    return f" (written by biomedcoop {version})" if isinstance(version, str) else ""


def _description(path: Path) -> dict[str, Any]:
    file = path / DESCRIPTION
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
        version = description["format_version"]
    except (FileNotFoundError, NotADirectoryError) as error:
        if not path.exists():
            raise UserError(f"{path}: there is no such folder; give the folder that train wrote") from error
        raise UserError(
            f"{path} is not a saved classifier: it has no {DESCRIPTION}; give the folder that train wrote"
        ) from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{file}: damaged ({type(error).__name__}); {AGAIN}") from error
    if type(version) is not int or version < 1:
        raise UserError(f"{file}: damaged (format_version is {version!r}); {AGAIN}")
    if version > FORMAT_VERSION:
        raise UserError(
            f"{path}{_written_by(description)} has format {version}, {THIS_VERSION} reads up to format {FORMAT_VERSION}; "
            "upgrade biomedcoop"
        )
    want = {
        "method": str,
        "class_names": list,
        "backbone": dict,
        "settings": dict,
        "facts": dict,
        "tensors_sha256": str,
    }
    for key, kind in want.items():
        if not isinstance(description.get(key), kind):
            raise UserError(f"{file}: damaged ('{key}' is missing or wrong); {AGAIN}")
    names = description["class_names"]
    if len(names) < 2 or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise UserError(f"{file}: damaged ('class_names' is not a list of different names); {AGAIN}")
    if not all(isinstance(description["backbone"].get(key), str) for key in ("name", "fingerprint")):
        raise UserError(f"{file}: damaged ('backbone' is incomplete); {AGAIN}")
    temperature = description.get("temperature", 1.0)
    if type(temperature) not in (int, float) or not (0 < temperature < math.inf):
        raise UserError(f"{file}: damaged ('temperature' is {temperature!r}, not a number above 0); {AGAIN}")
    if description.get("sha256") != checksum(description):
        raise UserError(f"{file}: damaged or edited (its checksum does not fit its content); {AGAIN}")
    return dict(description)


def _tensors(path: Path, description: dict[str, Any]) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    file = path / TENSORS
    try:
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != description["tensors_sha256"]:
            raise UserError(f"{file}: damaged (its checksum is not the one in {DESCRIPTION}); {AGAIN}")
        state = from_bytes(content)
    except FileNotFoundError as error:
        raise UserError(f"{file} is missing; {AGAIN}") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error
    except SafetensorError as error:
        raise UserError(f"{file}: not a safetensors file; {AGAIN}") from error
    for name, tensor in state.items():
        if not bool(tensor.isfinite().all()):
            raise UserError(f"{file}: '{name}' holds values that are not finite; {AGAIN}")
    return state
