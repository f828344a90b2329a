"""The main job on collected images (folder named by BIOMEDCOOP_DATA) with the shipped backbone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import biomedcoop as bc

pytestmark = pytest.mark.real_data


def test_train_evaluate_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path / "cache"))
    report = bc.train(
        "btmri",
        tmp_path / "run",
        method="biomedcoop",
        recipe="paper",
        settings={"epochs": 20},
        n_bootstrap=200,
        html=False,
    )
    assert report.settings["sccm_weight"] == 0.5, "the published weights of the dataset are used"
    rows = json.loads((tmp_path / "run" / "metrics.json").read_text())["rows"]
    assert rows["biomedcoop"]["n_images"] == 451
    assert rows["biomedcoop"]["accuracy"]["value"] > rows["majority class"]["accuracy"]["high"]

    classifier = bc.load(tmp_path / "run")
    data = bc.load_dataset("btmri")
    again = bc.evaluate(classifier, data, n_bootstrap=40)
    assert again.accuracy.value == pytest.approx(rows["biomedcoop"]["accuracy"]["value"], abs=1e-6)
    names = classifier.predict([data.images[i] for i in data.indices("test")[:5]])
    assert set(names) <= set(data.class_names)


@pytest.mark.parametrize("name", ["busi", "ham10000", "retina", "kneexray", "lungcolon", "mednist", "bccd_cells"])
def test_every_dataset_reads_and_has_sentences(name: str) -> None:
    from biomedcoop.data.catalogue import find
    from biomedcoop.prompts import sentences_for

    data = bc.load_dataset(name)
    entry = find(data.name, data.class_names)
    sentences = sentences_for(data.class_names, entry.name if entry else data.name, "library")
    assert [len(texts) for texts in sentences.by_class] == [50] * len(data.class_names)
