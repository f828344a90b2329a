"""Check the sentences of a task: their text, their features in a backbone, and their accuracy on labelled images."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from biomedcoop.backbones.base import Backbone
from biomedcoop.classifier.fit import fit_plan, load_for
from biomedcoop.data.dataset import Dataset
from biomedcoop.evaluation.evaluate import evaluate
from biomedcoop.evaluation.sentences import CLOSE, PromptReport, closest_pairs, dropped_by_selection, outliers
from biomedcoop.progress import ProgressOption
from biomedcoop.prompts import check_sentences
from biomedcoop.prompts.advice import ways_to_get
from biomedcoop.prompts.checks import too_long, uneven
from biomedcoop.prompts.library import library_file
from biomedcoop.prompts.matching import match
from biomedcoop.prompts.sources import read_table
from biomedcoop.tasks.plan import plan_fit
from biomedcoop.tasks.request import FitRequest
from biomedcoop.tasks.sentences import modality_and_organ

if TYPE_CHECKING:
    import torch


def check_prompts(
    source: str | Path,
    *,
    data: Dataset | None = None,
    class_names: Sequence[str] | None = None,
    backbone: Backbone | str | os.PathLike[str] | None = "mini",
    split: str | None = None,
    threshold: float = 1.5,
    device: torch.device | str = "cpu",
    progress: ProgressOption = None,
) -> PromptReport:
    """Check the sentences of a task: their text, their features in a backbone, and their accuracy on labelled images.

    Args:
        source: "library:NAME" or a path; see :func:`biomedcoop.prompts.sources.read_table`.
        data: images of the task. Their classes must have sentences, and the sentence ensemble is tested on the images.
        class_names: classes of the task, if there is no ``data``; by default those of the source.
        backbone: backbone that encodes the sentences, or its name or folder; None to check the text only.
        split: split of ``data`` to test on; by default "val", or "train" if there is no "val". "test" is never a default.
        threshold: τ of the statistics-based selection, in standard deviations.
        device: device of a backbone that is given by name.
        progress: see :func:`biomedcoop.fit`.

    Raises:
        UserError: the source, the data or the backbone cannot be used.
    """
    kind, sign, name = str(source).partition(":")
    of_library = kind == "library" and bool(sign)
    table = library_file(name)["classes"] if of_library else read_table(source)
    wanted = data.class_names if data is not None else class_names or list(table)
    matched = match(wanted, table, near=str(source) if of_library else None)
    by_class = matched.by_class
    report = PromptReport(str(source), {name: len(sentences) for name, sentences in by_class.items()})
    report.missing, report.unused = matched.missing, matched.unused
    report.faults = check_sentences(by_class, wanted)
    if lengths := [len(s.split()) for sentences in by_class.values() for s in sentences]:
        report.words = (min(lengths), max(lengths))
    if report.missing:
        way = ways_to_get(wanted, *(modality_and_organ(data) if data is not None else ()))
        report.problems.append(f"no sentences for {', '.join(report.missing)}; {way}")
    report.warnings += [f"'{name}' uses the sentences of '{near}'" for name, near in matched.nearly.items()]
    if line := uneven(by_class):
        report.warnings.append(line)
    for fault in report.faults:
        line = f"{fault.class_name}: '{fault.sentence}' {fault.text}"
        (report.problems if fault.serious else report.warnings).append(line)
    if backbone is None or not by_class:
        return report

    import torch

    from biomedcoop.features.texts import encode_texts

    backbone = load_for(backbone, str(device))
    report.backbone = backbone.name
    counts = {name: backbone.token_counts(sentences) for name, sentences in by_class.items()}
    report.tokens = max(map(max, counts.values()))
    report.cut = too_long(by_class, counts, backbone.context_length)
    for name, sentence, tokens in report.cut:
        report.problems.append(
            f"{name}: '{sentence}' has {tokens} tokens, {backbone.name} reads {backbone.context_length}; shorten it"
        )
    flat = torch.from_numpy(encode_texts(backbone, [s for sentences in by_class.values() for s in sentences]))
    rows = np.cumsum([0, *map(len, by_class.values())])
    features = {name: flat[a:b] for name, a, b in zip(by_class, rows[:-1], rows[1:], strict=True)}
    report.closest = closest_pairs(features)
    report.outliers = outliers(by_class, features, threshold)
    for a, b, cosine in report.closest:
        if cosine > CLOSE:
            report.warnings.append(
                f"the sentences of '{a}' and '{b}' mean nearly the same to {backbone.name} ({cosine:.2f})"
            )
    if data is not None and not report.missing:
        _test_prompts(report, data, source, backbone, features, split, threshold, progress)
    return report


def _test_prompts(
    report: PromptReport,
    data: Dataset,
    source: str | Path,
    backbone: Backbone,
    features: Mapping[str, torch.Tensor],
    split: str | None,
    threshold: float,
    progress: ProgressOption,
) -> None:
    """Test the sentence ensemble and the class name alone on labelled images, and find the sentences that the selection drops."""
    import torch

    from biomedcoop.features.images import encode_images

    split = split or ("val" if data.counts("val").any() else "train")
    accuracy: dict[str, dict[str, Any]] = {}
    for label, request in (
        ("sentences", FitRequest(data=data, method="zero-shot-ensemble", shots=1, prompts=os.fspath(source))),
        ("class name", FitRequest(data=data, method="zero-shot", shots=1)),
    ):
        # the notes of the plan are not issued: the report holds all findings on the sentences
        plan = plan_fit(request, data)
        (classifier,) = fit_plan(plan, backbone)
        metrics = evaluate(classifier, data, split, progress=progress)
        accuracy[label] = {
            "accuracy": dataclasses.asdict(metrics.accuracy),
            "recall": {c.name: c.sensitivity.value for c in metrics.classes},
        }
        images = metrics.n_images
    fewest = min(report.counts.values())
    stacked = torch.stack([features[name][:fewest] for name in data.class_names])
    part = encode_images(backbone, data.part(split))
    report.images = f"{images} {split} images"
    report.accuracy = accuracy
    report.dropped = dropped_by_selection(torch.from_numpy(part), stacked, threshold)
    gain = accuracy["sentences"]["accuracy"]["value"] - accuracy["class name"]["accuracy"]["value"]
    if gain < 0:
        report.warnings.append(
            f"on {report.images} the sentences are right less often than the class name alone ({100 * gain:+.1f} points)"
        )
