"""The check of a backbone: files as the hub has them, a fingerprint, and features that are what features must be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from biomedcoop.backbones.catalogue import converted_name
from biomedcoop.backbones.registry import is_name, load_backbone, locate
from biomedcoop.backbones.source import SOURCE, read_source
from biomedcoop.hub.files import matches
from biomedcoop.lazy import F, torch
from biomedcoop.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from biomedcoop.backbones.base import Backbone

TEXTS = ("a photo of a cyst.", "an X-ray of the chest of a patient with a fluid-filled space beside the left lung.")
"""Two texts of different lengths, so that padding counts."""

TOLERANCE = 1e-4
"""Largest difference of a unit feature in another batch: matrix products of another size add up in another order."""


@dataclass(frozen=True)
class Check:
    """One check of a backbone.

    Attributes:
        what: what was checked: "files" or "file NAME", "fingerprint", "features", "batches" or "second load".
        passed: whether it passed.
        detail: what was found, in words.
    """

    what: str
    passed: bool
    detail: str


def verify(name_or_path: str, progress: Progress | None = None) -> Iterator[Check]:
    """Check a backbone, file by file and then by its features; the first check that fails is the last.

    The features are those of a fixed synthetic image and of two texts.

    Args:
        name_or_path: as for :func:`biomedcoop.backbones.load_backbone`.
        progress: reports the comparison with checksums.

    Raises:
        UserError: the backbone is not on this machine or cannot be loaded.

    Example:
        >>> from biomedcoop.backbones.verify import verify
        >>> [check.what for check in verify("mini") if check.passed]
        ['files', 'fingerprint', 'features', 'batches', 'second load']
    """
    folder = locate(str(name_or_path)) if is_name(str(name_or_path)) else Path(name_or_path)
    if folder is not None and folder.is_dir():
        for check in _files(folder, progress):
            yield check
            if not check.passed:
                return
    backbone = load_backbone(name_or_path)
    yield Check("fingerprint", True, backbone.fingerprint)
    fingerprint, features = backbone.fingerprint, _features(backbone)
    for check in (_finite(features), _batches(backbone, features)):
        yield check
        if not check.passed:
            return
    del backbone  # two large models need not be in memory together
    again = load_backbone(name_or_path)
    same = again.fingerprint == fingerprint and torch.equal(features, _features(again))
    yield Check("second load", same, "the same bits" if same else "other bits; check the memory of this machine")


def _files(folder: Path, progress: Progress | None) -> Iterator[Check]:
    """Each file against what the hub said when it was downloaded."""
    known = read_source(folder)
    if not known:
        yield Check("files", True, f"not compared: {SOURCE}, which 'backbones download' writes, is not in {folder}")
    for name, file in known.items():
        path = folder / name
        what = f"file {name}"
        if path.is_file():
            passed = matches(path, file, progress)
            of = f"{file.repository} at {file.commit[:12]}" if file.repository else "'backbones convert'"
            remedy = f"remove {path} and " + ("download again" if file.repository else "convert again")
            yield Check(what, passed, f"as from {of}" if passed else f"differs from what came from {of}; {remedy}")
        elif converted_name(name) == name or not (folder / converted_name(name)).is_file():
            yield Check(what, False, f"{path} is missing, {SOURCE} lists it; download or convert again")


def image(size: int) -> npt.NDArray[np.uint8]:
    """A fixed synthetic image: waves with noise, uint8 [size, size, 3]."""
    y, x = np.mgrid[:size, :size] / size
    waves = np.stack([np.sin(9 * x + 5 * y), np.cos(7 * x * y), np.sin(11 * (x - 0.5) ** 2 + 3 * y)], axis=2)
    noise = np.random.default_rng(0).uniform(-16, 16, waves.shape)
    return (128 + 100 * waves + noise).clip(0, 255).astype(np.uint8)


def _features(backbone: Backbone) -> Tensor:
    """Unit features of the image and of the texts, each in a pass of its own: [3, E], or [1, E] without a text tower."""
    first = image(backbone.image_size)
    rows = [_encode_images(backbone, first[None])]
    if backbone.has_text_tower:
        rows += [_encode_texts(backbone, text) for text in TEXTS]
    return torch.cat(rows)


def _encode_images(backbone: Backbone, crops: npt.NDArray[np.uint8]) -> Tensor:
    with torch.inference_mode():
        return F.normalize(backbone.encode_image(backbone.normalize(crops)).float(), dim=-1)


def _encode_texts(backbone: Backbone, *texts: str) -> Tensor:
    with torch.inference_mode():
        return F.normalize(backbone.encode_text(texts).float(), dim=-1)


def _finite(features: Tensor) -> Check:
    if not bool(((features.norm(dim=1) - 1).abs() < TOLERANCE).all()):  # a comparison with NaN is false
        return Check("features", False, "not finite, or zero; the weights are damaged")
    cosines = ", ".join(f"{cosine:.4f}" for cosine in (features[1:] @ features[0]).tolist())
    between = f"; cosines of an image with {len(TEXTS)} texts: {cosines}" if cosines else "; no text tower"
    return Check("features", True, f"finite and of length 1{between}")


def _batches(backbone: Backbone, features: Tensor) -> Check:
    """One image or text alone against the same among three."""
    first = image(backbone.image_size)
    rows = [_encode_images(backbone, np.stack([first, first[::-1], first[:, ::-1]]))[:1]]
    if backbone.has_text_tower:
        rows.append(_encode_texts(backbone, *TEXTS, TEXTS[0])[:2])
    largest = float((torch.cat(rows) - features).abs().max())
    good = largest < TOLERANCE
    return Check("batches", good, f"1 and 3 agree within {largest:.1e}" + ("" if good else f", limit {TOLERANCE:g}"))
