"""Where a classifier was read from, so that it can be read again later."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from biomedcoop.classifier.classifier import Classifier


@dataclass(frozen=True)
class Origin:
    """The artefact that a classifier is, and the classes it was given since.

    Attributes:
        folder: absolute path of the artefact.
        sha256: checksum of its description, which covers its tensors.
        backbone: name or absolute path of its backbone, if it was given; None for the name in the artefact.
        prompts: sentences that :meth:`Classifier.for_classes` was given, a name or an absolute path; None if the classes are those
            of the artefact.
    """

    folder: str
    sha256: str
    backbone: str | None = None
    prompts: str | None = None


def with_origin(classifier: Classifier, origin: Origin) -> Classifier:
    """The same classifier, which knows where it was read from."""
    same = dataclasses.replace(classifier)
    object.__setattr__(same, "origin", origin)
    return same
