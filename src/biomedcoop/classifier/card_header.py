"""The header of a model card: what the Hugging Face hub reads of it, in YAML.

The fields are those of the hub's model card specification. Each value is written as JSON, which YAML reads as it stands, so that no
class name or dataset name can break out of its field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from biomedcoop.backbones.catalogue import BACKBONES, HUB
from biomedcoop.data.catalogue import find

MEASURES = {
    "accuracy": ("accuracy", "accuracy"),
    "balanced_accuracy": ("balanced accuracy", "balanced_accuracy"),
    "macro_f1": ("macro-F1", "f1"),
    "auroc": ("AUROC", "roc_auc"),
}
"""Measures of a card: their titles, and their names on the hub."""

LICENCES = {
    "Apache-2.0 AND CC-BY-SA-4.0": "cc-by-sa-4.0",
    "Apache-2.0": "apache-2.0",
    "MIT": "mit",
}
"""The hub's names of licences, by those of the catalogue of backbones."""


def card_header(description: Mapping[str, Any]) -> list[str]:
    """Lines of the header, with the ``---`` around them.

    Args:
        description: the content of ``classifier.json``.
    """
    facts, backbone = description["facts"], description["backbone"]["name"]
    tags = ["biomedcoop", "medical", "few-shot", description["method"]]
    fields: dict[str, Any] = {
        "library_name": "biomedcoop",
        "pipeline_tag": "image-classification",
        **_licence(backbone),
        **({} if (base := _base_model(backbone)) is None else {"base_model": base}),
        "tags": list(dict.fromkeys([*tags, *(["simulated"] if facts.get("simulated") else [])])),
    }
    entry = find(facts.get("dataset") or "", description["class_names"])
    hub_dataset = entry.hub_dataset if entry is not None else ""
    if hub_dataset:
        fields["datasets"] = [hub_dataset]
    measured = {
        key: value for key in MEASURES if (value := (facts.get("test") or {}).get(key, {}).get("value")) is not None
    }
    if measured:
        fields["metrics"] = [MEASURES[key][1] for key in measured]
        fields["model-index"] = [_results(description, hub_dataset, measured)]
    return ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items()), "---"]


def licence_of(backbone: str) -> str:
    """The licence of a backbone's weights, which a classifier carries too; an empty text where it is not known."""
    entry = BACKBONES.get(backbone)
    return entry.licence if entry else ""


def _licence(backbone: str) -> dict[str, str]:
    words = licence_of(backbone) or "that of the backbone"
    if words in LICENCES:
        return {"license": LICENCES[words]}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")}


def _base_model(backbone: str) -> str | None:
    """The backbone's repository on the hub; None for one that is not published there."""
    if backbone.startswith(HUB):
        return backbone.removeprefix(HUB)
    entry = BACKBONES.get(backbone)
    models = [source.repo for source in entry.sources if source.kind == "model"] if entry else []
    return models[0] if models else None


def _results(description: Mapping[str, Any], hub_dataset: str, measured: Mapping[str, float]) -> dict[str, Any]:
    """An entry of "model-index": shares between 0 and 1."""
    name = description["facts"].get("dataset") or "a dataset without a name"
    return {
        "name": f"{description['method']} on {name}",
        "results": [
            {
                "task": {"type": "image-classification"},
                "dataset": {"type": hub_dataset or "imagefolder", "name": name},
                "metrics": [
                    {"type": MEASURES[key][1], "name": MEASURES[key][0], "value": round(value, 4)}
                    for key, value in measured.items()
                ],
            }
        ],
    }
