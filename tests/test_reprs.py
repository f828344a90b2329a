"""What a notebook or a debugger shows of a value: its facts, in one line or a few."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

import pytest

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.evaluation.alarms import Finding, Verdict
from biomedcoop.evaluation.bootstrap import Estimate
from biomedcoop.tasks.request import FitRequest, TrainRequest

CLASSES = "3 classes: blue cyst, green tumor, red stone"


@pytest.fixture(scope="module")
def data(discs: Path) -> bc.Dataset:
    return bc.load_dataset(discs)


def test_datasets(data: bc.Dataset) -> None:
    assert repr(data) == f"Dataset('scans', 102 images (train 72, test 30), {CLASSES})"
    grouped = replace(data, groups=[f"P{i % 3}" for i in range(len(data))], simulated=True)
    assert "(train 72, test 30), 3 groups, simulated, 3 classes" in repr(grouped)
    assert repr(data.select([])) == f"Dataset('scans', 0 images, {CLASSES})"
    many = replace(data, class_names=[f"long name {i}" for i in range(400)])
    assert "400 classes: long name 0, long name 1," in repr(many)
    assert repr(many).endswith(" …)")
    assert len(repr(many)) < 200


def cells(table: str) -> list[list[str]]:
    """The cells of a table in HTML, row by row."""
    rows = re.findall(r"<tr>(.*?)</tr>", table)
    return [[html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in rows]


def test_datasets_in_a_notebook(data: bc.Dataset) -> None:
    noted = replace(data, notes=["<b> was read as one class"])
    shown = noted._repr_html_()
    assert "<h3>scans: 102 images</h3><p>&lt;b&gt; was read as one class</p>" in shown
    header, *rows = cells(shown)
    assert header == ["class", "train", "test"]
    expected = zip(data.class_names, data.counts("train"), data.counts("test"), strict=True)
    assert rows == [*([name, str(train), str(test)] for name, train, test in expected), ["all", "72", "30"]]


def test_classifiers_metrics_and_backbones(data: bc.Dataset, tiny: Backbone) -> None:
    clf = bc.fit(data, "tip-adapter", tiny, shots=2)
    about = "method='tip-adapter', backbone='model'"
    assert repr(clf) == f"Classifier({about}, dataset='scans', shots=2, seed=1, {CLASSES})"
    assert repr(replace(clf, facts={})) == f"Classifier({about}, {CLASSES})"
    fingerprint = tiny.fingerprint[:8]
    assert repr(tiny).startswith("OpenClipBackbone('model', 32 px, embed_dim=")
    assert repr(tiny).endswith(f"device='cpu', precision='float32', fingerprint='{fingerprint}')")
    metrics = bc.evaluate(clf, data, n_bootstrap=40)
    first, *others = repr(metrics).splitlines()
    assert first == f"Metrics(30 images, {CLASSES}; 95 % intervals)"
    assert others[0] == f"  accuracy           {metrics.accuracy}"
    assert len(others) < 8
    of_all, of_each = (cells(table) for table in metrics._repr_html_().split("<h3>Each class</h3>"))
    assert of_all[:2] == [["metric", "value"], ["accuracy", str(metrics.accuracy)]]
    assert of_each[0] == ["class", "sensitivity", "specificity", "precision", "AUROC"]
    assert [row[:2] for row in of_each[1:]] == [[c.name, str(c.sensitivity)] for c in metrics.classes]
    assert repr(metrics.classes[0]).startswith("ClassMetrics('blue cyst', 10 images, sensitivity ")


def test_estimates() -> None:
    estimates = Estimate(1 / 3, 0.25, 0.5), Estimate(0.5, None, None), Estimate(None, None, None)
    assert list(map(repr, estimates)) == ["Estimate(0.333 (0.250–0.500))", "Estimate(0.500)", "Estimate(–)"]


def test_reports(discs: Path, tiny: Backbone, tmp_path: Path) -> None:
    report = bc.train(discs, tmp_path / "run", backbone=tiny, method="tip-adapter", shots=2, n_bootstrap=40, html=False)
    first, headline, *rows = repr(report).splitlines()
    assert first == "RunReport(tip-adapter on scans, backbone='model', shots=2; 30 test images)"
    (told,) = (finding for finding in report.verdict if finding.kind == "headline")
    assert headline == f"  {told.text}"
    assert "<p>Not a medical device.</p>" in report._repr_html_()
    assert [row.split("  ")[1] for row in rows] == list(report.rows)
    assert rows[0] == f"  tip-adapter     accuracy {report.metrics.accuracy}"


def test_requests_show_what_differs_from_the_defaults(data: bc.Dataset, tiny: Backbone) -> None:
    shown = "method='auto', backbone='mini', shots=None, seeds=(1,)"
    assert repr(FitRequest(data=data, recipe="fast")) == f"FitRequest(data={data!r}, {shown}, recipe='fast')"
    request = TrainRequest(data="scans", backbone=tiny, settings={"budget": 3}, n_bootstrap=40)
    assert repr(request) == (
        f"TrainRequest(data='scans', {shown.replace(repr('mini'), repr(tiny))}, settings={{'budget': 3}}, "
        "compare=None, n_bootstrap=40)"
    )


def test_a_verdict_prints_as_sentences() -> None:
    verdict = Verdict(
        [Finding("headline", "coop is better.", alarm=False), Finding("few test images", "Only 4 images.")]
    )
    assert repr(verdict) == str(verdict) == "headline: coop is better.\n! few test images: Only 4 images."
    assert repr(verdict[0]) == "headline: coop is better."
