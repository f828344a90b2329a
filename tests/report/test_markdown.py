"""What report.md says, and that it says the same of the same run."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from biomedcoop.errors import UserError
from biomedcoop.evaluation.bootstrap import Estimate
from biomedcoop.evaluation.metrics import Metrics, score
from biomedcoop.evaluation.wording import percent
from biomedcoop.report.markdown import escape, render, write_report
from biomedcoop.report.run import DatasetSummary


def test_the_summary_has_the_numbers(run_report, rows):
    text = render(run_report)
    summary = text.split("\n\n")[1]
    assert "trained on 16 images per class (48 in total)" in summary
    assert "3 classes of breast ultrasound images" in summary
    assert "On 150 test images" in summary
    for name, m in rows.items():
        assert name in summary
        assert f"{100 * m.accuracy.value:.1f} %" in summary
        assert f"{100 * m.accuracy.low:.1f}–{100 * m.accuracy.high:.1f} %" in summary
    assert f"a difference of {100 * run_report.differences['zero-shot'].value:+.1f} points" in summary
    assert "cannot tell the two apart" not in summary
    assert "\n\nNot a medical device.\n\n" in text


def test_the_tables_have_the_numbers(run_report, rows):
    text = render(run_report)
    for name, m in rows.items():
        cells = [m.accuracy, m.balanced_accuracy, m.macro_f1, m.auroc, m.calibration_error]
        assert f"| {name} | {' | '.join(map(percent, cells))} |" in text
    for c, counts in zip(rows["biomedcoop"].classes, rows["biomedcoop"].confusion, strict=True):
        cells = [c.sensitivity, c.specificity, c.precision, c.auroc]
        assert f"| {c.name} | {c.support} | {' | '.join(map(percent, cells))} |" in text
        assert f"| {c.name} | {' | '.join(map(str, counts))} |" in text
    assert "| all | 468 | 150 |" in text
    assert "| tau | 1.5 |" in text
    assert "| lambdas | \\[1.0, 2.0\\] |" in text
    assert "| torch | 2.4.0 |" in text


def test_notes_command_and_figure_are_in_it(run_report):
    text = render(run_report)
    for part in (
        "- One image was skipped.",
        "- The split was drawn with seed 0.",
        run_report.command,
        "(confusion.png)",
    ):
        assert part in text


def test_simulated_images_are_labelled_at_the_top(run_report):
    assert "imulated" not in render(run_report)
    simulated = replace(run_report, dataset=replace(run_report.dataset, simulated=True))
    assert render(simulated).split("\n\n")[1].startswith("> **Simulated images.**")


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (
            [0] * 20 + [1] * 14 + [2] * 6 + [0] * 3 + [2] * 17,
            ("“b” and “c”", "6 of 20 “b” images", "0 of 20 “c” images"),
        ),
        (
            [0] * 20 + [1] * 19 + [2] * 1 + [1] * 4 + [2] * 16,
            ("“c” and “b”", "4 of 20 “c” images", "1 of 20 “b” images"),
        ),
    ],
)
def test_the_most_confused_pair_is_named_worse_direction_first(run_report, answers, words):
    m = score(np.eye(3)[answers], np.repeat([0, 1, 2], 20), ["a", "b", "c"], n_bootstrap=20)
    text = render(replace(run_report, rows={"biomedcoop": m}))
    assert f"confused most often are {words[0]}: {words[1]} were taken for" in text
    assert f", {words[2]} for" in text
    assert "100.0–100.0 means" in text


def test_no_error_is_said(run_report):
    perfect = score(np.eye(3)[[0, 1, 2]], [0, 1, 2], ["a", "b", "c"], n_bootstrap=20)
    assert "No test image was misclassified." in render(replace(run_report, rows={"x": perfect}))


def test_doubt_is_said(run_report):
    unsure = replace(run_report, differences={"zero-shot": Estimate(0.02, -0.01, 0.05)})
    assert "+2.0 points (-1.0 to +5.0), so these test images cannot tell the two apart" in render(unsure)
    labels = np.array([0] * 30 + [1] * 4)
    p = np.random.default_rng(0).dirichlet([1, 1, 1], 34)
    groups = [f"patient {i // 2}" for i in range(34)]
    text = render(replace(run_report, rows={"x": score(p, labels, run_report.dataset.class_names, groups=groups)}))
    assert "“malignant” has only 4 test images" in text
    assert "“normal” has no test image" in text
    assert "17 groups" in text
    assert "| normal | 0 | – |" in text


def test_what_flatters_the_numbers_stands_at_the_top(run_report):
    assert "not independent" not in render(run_report)
    text = render(replace(run_report, leaks=("Copies: 3 of 9, e.g. test/a_b.png.", "Groups: 2.")))
    first, second = text.split("\n\n")[1:3]
    assert first == "> **The test images are not independent.** Copies: 3 of 9, e.g. test/a\\_b.png."
    assert second.endswith("Groups: 2.")


def test_what_cannot_be_told_is_a_dash(run_report):
    labels, names = np.ones(30, dtype=int), run_report.dataset.class_names
    m = score(np.random.default_rng(0).dirichlet([1, 1, 1], 30), labels, names, groups=["P"] * 30, n_bootstrap=10)
    text = render(replace(run_report, rows={"x": m}, differences={}))
    assert f"| x | {100 * m.accuracy.value:.1f} (–) |" in text
    assert "| malignant | 30 |" in text
    assert f"right for **{100 * m.accuracy.value:.1f} % (without an interval)**" in text
    assert "All test images come from one group" in text
    assert "All test images are of one class: there is no AUROC, and no specificity of that class." in text
    assert "resamples" not in text
    assert "100.0–100.0 means" not in text
    paired = replace(run_report, differences={"zero-shot": Estimate(0.02, None, None)})
    assert "a difference of +2.0 points (without an interval)" in render(paired)


@pytest.mark.parametrize(
    ("shots", "words"), [(None, "needed no training images"), ("all", "trained on all training images")]
)
def test_methods_without_shots(run_report, shots, words):
    assert words in render(replace(run_report, shots=shots))


def test_names_cannot_break_the_report(run_report):
    names = ("a|b", "<script>", "two\nlines *bold*")
    m = score(np.eye(3)[[0, 1, 1]], [0, 1, 2], names, n_bootstrap=10)
    data = DatasetSummary("x_y", names, {"test": [1, 1, 1]})
    text = render(replace(run_report, dataset=data, rows={"m": m}, differences={}))
    assert "| a\\|b | 1 | 0 | 0 |" in text
    assert "\\<script\\>" in text
    assert "two lines \\*bold\\*" in text
    assert escape("class_1 [x]") == "class\\_1 \\[x\\]"


def test_files_are_identical_between_folders(run_report, tmp_path):
    for name in "ab":
        assert write_report(run_report, tmp_path / name) == tmp_path / name / "report.md"
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert files == ["confusion.png", "metrics.json", "report.md"]
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
    again = Metrics.from_dict(read["rows"]["biomedcoop"])
    assert again.accuracy.value == pytest.approx(rows["biomedcoop"].accuracy.value, abs=1e-6)
    assert again.confusion == rows["biomedcoop"].confusion


def test_a_folder_that_cannot_be_made_is_named(run_report, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match=r"cannot make the folder .*taken"):
        write_report(run_report, tmp_path / "taken")
