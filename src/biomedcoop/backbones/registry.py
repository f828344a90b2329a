"""Named backbones on this machine: in the package or in the user's cache folder; found and loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from biomedcoop.backbones import open_clip_names
from biomedcoop.backbones.catalogue import (
    BACKBONES,
    HUB,
    ZEROED_PATCHES,
    HubFiles,
    converted_name,
    local_name,
    repository,
)
from biomedcoop.errors import UserError, nearest
from biomedcoop.output import cache_root

if TYPE_CHECKING:
    import torch

    from biomedcoop.backbones.base import Backbone


EARLIER_WEIGHTS = {"05723fd37558d6ba528b28e5da82028b": "0.1"}
"""Fingerprint of weights that this package once shipped -> the version that shipped them."""

PRECISIONS = ("float32", "bfloat16", "int8", "auto")

AUTO = "auto"
"""Device that stands for the best one of this machine."""


def locate(name: str) -> Path | None:
    """Folder that holds the files of a named backbone; None if it has to be downloaded first.

    Weights converted to safetensors stand in place of those that the hub has; see :mod:`biomedcoop.backbones.convert`.
    """
    name = name.removesuffix(ZEROED_PATCHES)
    if name not in BACKBONES:
        folder = folder_of(name)
        return folder if folder.is_dir() else None
    entry = BACKBONES[name]
    if not entry.sources:
        return Path(__file__).parent / name
    folder = folder_of(name)
    return None if missing_files(entry.sources, folder) else folder


def folder_of(name: str) -> Path:
    """Where the files of a named backbone belong that is not part of the package; they need not be there."""
    if name.startswith(open_clip_names.PREFIX):
        return weights_root().joinpath("open_clip", *open_clip_names.parts(name))
    if name.startswith(HUB):
        return weights_root().joinpath("hub", *repository(name).split("/"))
    return weights_root() / name


def check_place(name: str, folder: Path) -> None:
    """Refuse a folder of a named backbone that cannot hold it, by its layout and size, without reading weights.

    Raises:
        UserError: it holds another model, or its configuration cannot be read.
    """
    from biomedcoop.backbones.families import family

    entry = BACKBONES.get(name.removesuffix(ZEROED_PATCHES))
    if entry is None or entry.model is None:
        return
    if (kind := family(folder)) not in entry.model.families:
        raise _another_model(name, folder, f"a model in the layout '{kind}'", f"'{entry.model.families[0]}'")
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) / 1e6
    if entry.megabytes is not None and size < 0.4 * entry.megabytes:  # in half precision it has half the size
        raise _another_model(name, folder, f"{size:.1f} MB", f"{entry.megabytes} MB")


def check_model(name: str, folder: Path, backbone: Backbone) -> None:
    """Refuse a loaded model whose sizes are not those of its name.

    Raises:
        UserError: the sizes differ.
    """
    from torch import nn

    entry = BACKBONES.get(name.removesuffix(ZEROED_PATCHES))
    if entry is None or entry.model is None:
        return
    first = next(layer for layer in backbone.image_tower.modules() if isinstance(layer, nn.Conv2d))
    text = backbone.token_dim if backbone.has_text_tower else 0
    here = replace(
        entry.model,
        image_size=backbone.image_size,
        patch=first.kernel_size[0],
        embed_dim=backbone.embed_dim,
        token_dim=text,
    )
    if here != entry.model:
        raise _another_model(name, folder, f"a model of other sizes ({here.sizes})", entry.model.sizes)


def _another_model(name: str, folder: Path, here: str, there: str) -> UserError:
    name = name.removesuffix(ZEROED_PATCHES)
    return UserError(
        f"{folder} holds {here}, but '{name}' stands for {BACKBONES[name].title.partition(':')[0]} ({there}); move the folder "
        f"elsewhere and give it as --backbone, or 'biomedcoop backbones download {name}'"
    )


def found() -> list[str]:
    """The backbones on this machine that no catalogue lists: repositories of the hub and models of open_clip, by name."""
    kinds = {"hub": HUB, "open_clip": open_clip_names.PREFIX}
    folders = [(kind, folder) for kind in kinds for folder in sorted((weights_root() / kind).glob("[!.]*/[!.]*"))]
    return [f"{kinds[kind]}{folder.parent.name}/{folder.name}" for kind, folder in folders if folder.is_dir()]


def missing_files(sources: Iterable[HubFiles], folder: Path) -> list[HubFiles]:
    """What of the files is not in a folder, neither as published nor converted to safetensors; empty if all are there."""

    def lacks(file: str) -> bool:
        name = local_name(file)
        return not (folder / name).is_file() and not (folder / converted_name(name)).is_file()

    missing = [replace(source, files=tuple(filter(lacks, source.files))) for source in sources]
    return [source for source in missing if source.files]


def by_hand(missing: Iterable[HubFiles], folder: Path) -> str:
    """End of an error line: which files a user can carry here, from which address into which folder."""
    of_pages = (f"{', '.join(map(local_name, source.files))} from {source.page}" for source in missing)
    return f"put {' and '.join(of_pages)} into {folder}"


def _or_by_hand(name: str) -> str:
    """What a user can do in place of a download; empty for a model of open_clip, which is exported and not only copied."""
    name = name.removesuffix(ZEROED_PATCHES)
    if name.startswith(HUB):
        return f", or put the files of {HubFiles(repository(name), ()).page} into {folder_of(name)}"
    if name not in BACKBONES:
        return ""
    folder = folder_of(name)
    return f", or {by_hand(missing_files(BACKBONES[name].sources, folder), folder)}"


def weights_root() -> Path:
    """``backbones`` in the user's cache folder; see :func:`biomedcoop.output.cache_root`."""
    return cache_root() / "backbones"


def load_backbone(
    name_or_path: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    dtype: torch.dtype | None = None,
) -> Backbone:
    """Load a frozen vision-language model.

    Args:
        name_or_path: "mini", another name of :data:`BACKBONES`, "hub:<owner>/<name>", "open_clip:<model>/<pretrained>", or the
            folder of a model (docs/backbones.md). "+zeroed-patches" behind it overwrites four tokens of a ViT, as the code of
            Biomed-DPT does.
        device: a torch device, e.g. "cpu" or "cuda", or "auto" (:func:`automatic_device`).
        precision: of the image tower: "float32", "bfloat16", "int8" (on a CPU), or "auto", which measures and chooses bfloat16
            where it is at least 1.5 times as fast. Features are float32 in any case; the feature store keeps those of each
            precision apart.
        dtype: precision of the text tower, and of the gradients that pass through it; float32 by default.

    Raises:
        UserError: unknown name (the message offers near ones), missing or damaged files, unknown precision.

    Example:
        >>> import biomedcoop as bc
        >>> backbone = bc.load_backbone("mini")
        >>> backbone.encode_text(["a scan of a cyst.", "a scan of a stone."]).shape
        torch.Size([2, 768])
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise UserError(f"{name_or_path!r} is not the name or the folder of a backbone; e.g. 'mini'")
    name = os.fspath(name_or_path)
    folder = find_backbone(name)
    import torch

    from biomedcoop.backbones.families import load_folder
    from biomedcoop.backbones.precision import set_precision
    from biomedcoop.backbones.zeroed_patches import zero_patches
    from biomedcoop.threads import torch_threads

    check_precision(precision)
    target = usable_device(device)
    own_name = name.removesuffix(ZEROED_PATCHES) if is_name(name) else folder.resolve().name
    text_dtype = dtype or torch.float32
    if is_name(name):
        check_place(name, folder)
    with torch_threads(1):  # torch cannot share work among threads in a process forked from one that has done so
        backbone = load_folder(folder, own_name, target, text_dtype)
    if is_name(name):
        check_model(name, folder, backbone)
    if name.endswith(ZEROED_PATCHES):
        zero_patches(backbone)
    set_precision(backbone, precision)
    return backbone


def has_text_tower(backbone: Backbone | str | os.PathLike[str]) -> bool:
    """Whether a backbone has a text tower, without loading it; True where that cannot be told, as the loading then says why.

    Args:
        backbone: a loaded backbone, or a name or folder as for :func:`load_backbone`.
    """
    from biomedcoop.backbones.families import IMAGE_ONLY, family

    if not isinstance(backbone, (str, os.PathLike)):
        return backbone.has_text_tower
    name = os.fspath(backbone)
    folder = locate(name) if is_name(name) else Path(name.removesuffix(ZEROED_PATCHES))
    try:
        return folder is None or family(folder) not in IMAGE_ONLY
    except UserError:
        return True


def check_precision(name: str) -> None:
    """Refuse an unknown precision.

    Raises:
        UserError: it is not one of :data:`PRECISIONS`.
    """
    if name not in PRECISIONS:
        raise UserError(f"precision '{name}' is not known; choose {', '.join(PRECISIONS)}")


def is_name(text: str) -> bool:
    """Whether a text names a backbone: an entry of :data:`BACKBONES`, a repository of the hub, or a model of open_clip.

    Raises:
        UserError: a name of the hub or of open_clip that lacks a part.
    """
    text = text.removesuffix(ZEROED_PATCHES)
    if text.startswith((HUB, open_clip_names.PREFIX)):
        folder_of(text)
        return True
    return text in BACKBONES


def check_backbone(name: str) -> None:
    """Refuse a text that neither names a backbone nor is a folder.

    Raises:
        UserError: the message offers near names.
    """
    if not is_name(name) and not Path(name.removesuffix(ZEROED_PATCHES)).is_dir():
        raise UserError(f"no backbone '{name}': neither a known name nor a folder; {nearest(name, BACKBONES)}")


def find_backbone(name: str) -> Path:
    """The folder of a backbone, by its name or path.

    Raises:
        UserError: there is none, or it must be downloaded first, or a package that the download needs is missing.
    """
    check_backbone(name)
    if not is_name(name):
        return Path(name.removesuffix(ZEROED_PATCHES))
    if (folder := locate(name)) is None:
        if name.startswith(open_clip_names.PREFIX):
            open_clip_names.open_clip(name.removesuffix(ZEROED_PATCHES))
        here = f", or give the folder here as .{os.sep}{name}" if Path(name).is_dir() else ""
        raise UserError(
            f"backbone '{name}' is not on this machine; run 'biomedcoop backbones download {name}' with access to the "
            f"internet{_or_by_hand(name)}{here}"
        )
    return folder


def usable_device(device: torch.device | str) -> torch.device:
    """A torch device that can compute on this machine; "auto" is the one of :func:`automatic_device`.

    Raises:
        UserError: the name is unknown, or this machine or this build of torch lacks the device.

    Example:
        >>> usable_device("cpu")
        device(type='cpu')
    """
    import torch

    if device == AUTO:
        return automatic_device()
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"device {str(device)!r} is not known; choose cpu, cuda, cuda:1, mps or auto") from error
    missing = {
        "cuda": None
        if torch.cuda.is_available()
        else "this build of PyTorch finds no NVIDIA or AMD GPU that it can use",
        "mps": None
        if torch.backends.mps.is_available()
        else "this build of PyTorch finds no Apple GPU that it can use",
    }
    reason = missing.get(target.type)
    if reason is None:
        try:
            torch.ones(1, device=target).sum().item()
            return target
        # what torch raises depends on the kind of device and on how torch was built
        except (RuntimeError, AssertionError, ImportError) as error:
            reason = (str(error).splitlines() or ["not available"])[0].partition(". ")[0].partition("; ")[0]
    raise UserError(f"device '{device}' cannot be used: {reason}; choose cpu or auto")


def automatic_device() -> torch.device:
    """The device that "auto" stands for: "cuda" if this machine has such a GPU that works, else "mps" (Apple), else "cpu"."""
    import torch

    for name in ("cuda", "mps"):
        with suppress(UserError):
            return usable_device(name)
    return torch.device("cpu")
