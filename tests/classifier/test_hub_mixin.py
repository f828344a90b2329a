"""The wrapper that the mixin of ``huggingface_hub`` saves and loads."""

from __future__ import annotations

from pathlib import Path

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.classifier.hub_mixin import HubClassifier
from biomedcoop.hub import client


def test_saved_by_the_mixin_it_is_the_artefact_and_nothing_else(
    clf: bc.Classifier, tiny: Backbone, test_images: list[Path], tmp_path: Path
) -> None:
    model = HubClassifier.of(clf, "hf://ward/skin")
    assert isinstance(model, client().ModelHubMixin)
    assert model.save_pretrained(tmp_path) is None
    assert {path.name for path in tmp_path.iterdir()} == {"classifier.json", "model.safetensors", "README.md"}
    assert 'bc.load("hf://ward/skin")' in (tmp_path / "README.md").read_text()
    again = HubClassifier.from_pretrained(tmp_path, read=lambda folder: bc.load(folder, tiny)).classifier
    assert again.predict_proba(test_images).tobytes() == clf.predict_proba(test_images).tobytes()
