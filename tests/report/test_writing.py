"""The files of a report: equal in every folder, read back as written, images named in one of them only."""

from __future__ import annotations

import csv
import json

import pytest

from biomedcoop.errors import UserError
from biomedcoop.evaluation.metrics import Metrics
from biomedcoop.report.markdown import render
from biomedcoop.report.writing import write_report


def test_files_are_identical_between_folders(run_report, tmp_path):
    for name in "ab":
        assert write_report(run_report, tmp_path / name) == tmp_path / name / "report.md"
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert files == ["confusion.png", "metrics.json", "predictions.csv", "report.md"]
    for name in files:
        content = (tmp_path / "a" / name).read_bytes()
        assert content == (tmp_path / "b" / name).read_bytes()
        assert str(tmp_path).encode() not in content
    assert (tmp_path / "a" / "report.md").read_text() == render(run_report)


def test_metrics_json_reads_back(run_report, rows, tmp_path):
    write_report(run_report, tmp_path)
    read = json.loads((tmp_path / "metrics.json").read_text())
    assert list(read["rows"]) == list(rows)
    assert (read["dataset"], read["method"], read["shots"], read["seed"]) == ("busi", "biomedcoop", 16, 1)
    assert (read["backbone"], read["fingerprint"]) == ("mini", "3f2a9c")
    assert read["settings"] == run_report.settings
    assert read["counts"]["train"] == [262, 126, 80]
    assert read["recipe"] == "general"
    assert read["verdict"] == [{"kind": found.kind, "text": found.text} for found in run_report.verdict]
    assert read["changed_answers"]["zero-shot"] == run_report.comparison.differences["zero-shot"].changed
    again = Metrics.from_dict(read["rows"]["biomedcoop"])
    assert again.accuracy.value == pytest.approx(rows["biomedcoop"].accuracy.value, abs=1e-6)
    assert again.confusion == rows["biomedcoop"].confusion


def test_predictions_have_a_row_per_image(run_report, tmp_path):
    write_report(run_report, tmp_path)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    found = run_report.comparison.predictions
    p = found.probabilities["biomedcoop"]
    assert [row["path"] for row in read] == list(found.keys)
    assert [row["truth"] for row in read] == [found.class_names[k] for k in found.labels]
    assert [row["prediction"] for row in read] == [found.class_names[k] for k in p.argmax(1)]
    in_json = json.loads((tmp_path / "metrics.json").read_text())["predictions"]
    assert [{key: str(value) for key, value in row.items()} for row in in_json] == [
        {key: value for key, value in row.items() if key != "path"} for row in read
    ]
    assert [[float(row[f"p_{name}"]) for name in found.class_names] for row in read] == pytest.approx(p, abs=1e-6)


def test_a_folder_that_cannot_be_made_is_named(run_report, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match=r"cannot make the folder .*taken"):
        write_report(run_report, tmp_path / "taken")
