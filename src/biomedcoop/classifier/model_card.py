"""The model card of an artefact, generated from its description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from biomedcoop.classifier.card_header import MEASURES, card_header, licence_of


def model_card(description: Mapping[str, Any], place: str = "this/folder") -> str:
    """Markdown for ``README.md`` beside the tensors, with the header that the Hugging Face hub reads.

    Args:
        description: the content of ``classifier.json``.
        place: what a reader of the card gives to :func:`biomedcoop.load`.
    """
    facts, backbone = description["facts"], description["backbone"]
    licence = licence_of(backbone["name"])
    names = ", ".join(description["class_names"])
    shots, plugin = facts.get("shots"), description.get("plugin")
    number = {None: "none", "all": "the whole training split", "unknown": "an unknown number"}
    mean = " on average" if facts.get("sampling") == "realistic" else ""
    images = number.get(shots, f"{shots} per class{mean}")
    seed = facts.get("seed")
    size, crop = (description["preprocessing"][key] for key in ("image_size", "crop"))
    kept = "not included; what training changed in it is" if facts.get("changes_towers") else "frozen, not included"
    resized = f"short edge resized to {size} px (bicubic), centre crop"
    if crop == "none":
        resized = f"squashed to {size} × {size} px (bicubic)"
    lines = [
        *card_header(description),
        "",
        f"# {description['method']} classifier: {facts.get('dataset') or 'a dataset without a name'}",
        "",
        "**Not a medical device.** For research; not for diagnosis or treatment.",
        "",
    ]
    if facts.get("simulated"):
        lines += ["**Trained on simulated images**: a program drew them; they show no patient.", ""]
    lines += [
        f"- Classes: {names}",
        f"- Method: {description['method']}" + (f", from the plug-in {plugin} (not included)" if plugin else ""),
        f"- Backbone ({kept}): {backbone['name']}, fingerprint `{backbone['fingerprint']}`",
        f"- Licence: that of the backbone's weights{f' ({licence})' if licence else ''}; the training images may set further terms",
        f"- Training images: {images}" + ("" if seed is None else f"; seed {seed}"),
        *(
            [f"- Imported from: {imported['file']}, SHA-256 {imported['sha256']}"]
            if (imported := facts.get("imported"))
            else []
        ),
        *([f"- {chosen}"] if (chosen := facts.get("chosen")) and chosen not in facts["notes"] else []),
        f"- Sentences: {facts.get('sentences') or 'none'}",
        *([f"- Written by: biomedcoop {version}"] if (version := description.get("biomedcoop_version")) else []),
        f"- Input: RGB, {resized}",
        "",
    ]
    if description.get("domain"):
        lines[-1:] = [
            "- Also included: the mean feature of each class's training images, to tell images that are unlike them",
            "",
        ]
    if results := facts.get("test"):
        lines += [
            f"## Test results ({results['n_images']} images, 95 % bootstrap interval)",
            "",
            "| measure | value | interval |",
        ]
        lines += ["|---|--:|--:|"]
        for key, (name, _) in MEASURES.items():
            if (e := results.get(key)) is not None:
                value = "–" if e["value"] is None else f"{100 * e['value']:.1f} %"
                interval = "–" if e["low"] is None else f"{100 * e['low']:.1f}–{100 * e['high']:.1f} %"
                lines += [f"| {name} | {value} | {interval} |"]
        if cautions := results.get("notes"):
            lines += ["", *(f"- {caution}" for caution in cautions)]
        lines += [""]
    lines += ["## Use", "", "```python", "import biomedcoop as bc", "", f'clf = bc.load("{place}")']
    lines += ['clf.predict_proba(["image.png"])  # columns: ' + names, "```", ""]
    lines += ["## Settings", "", "| setting | value |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in description["settings"].items()]
    if notes := facts.get("notes"):
        lines += ["", *(f"- {note}" for note in notes)]
    if (temperature := description.get("temperature", 1.0)) != 1:
        calibration = f"Logits are divided by a temperature of {temperature:g}."
    else:
        calibration = "Probabilities are not calibrated after training"
        calibration += "; check the expected calibration error in the report."
    return "\n".join([*lines, "", calibration]) + "\n"
