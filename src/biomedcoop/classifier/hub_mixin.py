"""A classifier as the mixin of ``huggingface_hub`` knows models; imported when the hub is used.

The classifier itself is not derived from the mixin, which changes its objects and takes as long to import as many predictions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedcoop.classifier.artefact import write_into
from biomedcoop.hub import client

if TYPE_CHECKING:
    from huggingface_hub import ModelHubMixin

    from biomedcoop.classifier.classifier import Classifier
else:
    ModelHubMixin = client().ModelHubMixin


class HubClassifier(ModelHubMixin):
    """A classifier with the mixin's ``push_to_hub`` and ``from_pretrained``.

    Attributes:
        classifier: the classifier.
        place: where a reader of the model card finds it.
    """

    classifier: Classifier
    place: str

    @classmethod
    def of(cls, classifier: Classifier, place: str) -> HubClassifier:
        """Wrap a classifier."""
        model = cls()  # what a constructor is given, the mixin copies into a config.json
        model.classifier, model.place = classifier, place
        return model

    def _save_pretrained(self, save_directory: Path) -> None:
        write_into(self.classifier, save_directory, self.place)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, read: Callable[[str], Classifier], **_: Any) -> HubClassifier:  # type: ignore[override]
        return cls.of(read(model_id), model_id)
