"""What report.md says, and that it says the same of the same run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from biomedcoop.evaluation.comparison import Comparison, Predictions
from biomedcoop.evaluation.wording import percent
from biomedcoop.report.markdown import escape, render
from biomedcoop.report.run import DatasetSummary, RunReport

NAMES = ("benign", "malignant", "normal")


def compared(report: RunReport, labels, probabilities, class_names=NAMES, groups=None, others=None) -> RunReport:
    """The report with other results."""
    keys = tuple(map(str, range(len(labels))))
    by_method = {"x": np.asarray(probabilities, dtype=np.float32), **(others or {})}
    found = Predictions(keys, np.asarray(labels), tuple(class_names), by_method, groups)
    return replace(report, method="x", comparison=Comparison.of(found, n_bootstrap=40))


def test_the_verdict_comes_first(run_report, rows):
    verdict, facts, step, setup, disclaimer = render(run_report).split("\n\n")[1:6]
    texts = {finding.kind: finding.text for finding in run_report.verdict}
    assert verdict == f"**{texts['headline']}** {texts['score']}"
    assert facts.splitlines()[0] == f"- {texts['largest class']}"
    assert step == f"**Next:** {texts['next']}"
    assert "trained on 16 images per class (48 in total)" in setup
    assert "3 classes of breast ultrasound images" in setup
    assert disclaimer == "Not a medical device."
    accuracy = rows["biomedcoop"].accuracy
    assert f"{100 * accuracy.value:.1f} % of 150 test images" in texts["score"]
    assert f"{100 * accuracy.low:.1f}–{100 * accuracy.high:.1f} %" in texts["score"]


def test_an_alarm_is_bold(run_report):
    labels = np.repeat([0, 1, 2], 20)
    text = render(compared(run_report, labels, np.eye(3)[np.repeat([0, 0, 2], 20)]))
    assert "- **Never the answer: “malignant” (20 test images). “benign” is the answer for 40 of 60 images.**" in text


def test_several_methods_are_ranked_with_paired_differences(run_report):
    assert "difference to" not in render(run_report)
    labels = np.repeat([0, 1, 2], 20)
    best, worst = np.eye(3)[labels].astype(np.float32), np.eye(3)[np.roll(labels, 7)].astype(np.float32)
    mixed = np.where(np.arange(60)[:, None] % 3 == 0, worst, best)
    report = compared(run_report, labels, mixed, others={"zero-shot": worst, "lp++": best})
    table = [line for line in render(report).splitlines() if line.startswith("| ")]
    start = table.index("| method | accuracy | difference to x | in words |")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[start + 2 : start + 6]]
    assert [line[0] for line in lines] == ["lp++", "x", "zero-shot", "majority class"]
    assert [line[3] for line in lines] == ["better", "reported here", "worse", "worse"]
    assert lines[0][2] == percent(-report.comparison.differences["lp++"].accuracy, signed=True)
    assert lines[0][2].startswith("+")


def test_the_tables_have_the_numbers(run_report, rows):
    text = render(run_report)
    for name, m in rows.items():
        cells = [m.accuracy, m.balanced_accuracy, m.macro_f1, m.auroc, m.calibration_error]
        assert f"| {name} | {' | '.join(map(percent, cells))} |" in text
    for c in rows["biomedcoop"].classes:
        cells = [c.sensitivity, c.specificity, c.precision, c.auroc]
        assert f"| {c.name} | {c.support} | {' | '.join(map(percent, cells))} |" in text


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


def test_doubt_is_said(run_report):
    labels = np.array([0] * 30 + [1] * 4)
    p = np.random.default_rng(0).dirichlet([1, 1, 1], 34)
    text = render(compared(run_report, labels, p, groups=[f"patient {i // 2}" for i in range(34)]))
    assert "17 groups" in text
    assert "“malignant” (2)" in text
    assert "No test image shows “normal”" in text
    assert "| normal | 0 | – |" in text
    assert "“Beyond chance” means that the 95 % interval of the paired difference excludes zero" in text
    answers = np.eye(3)[np.repeat([0, 1, 2], 10)]
    assert "| x | 100.0 (88.6–100.0) | 100.0 (88.6–100.0) |" in render(
        compared(run_report, np.repeat([0, 1, 2], 10), answers)
    )


def test_what_flatters_the_numbers_stands_at_the_top(run_report):
    assert "not independent" not in render(run_report)
    text = render(replace(run_report, leaks=("Copies: 3 of 9, e.g. test/a_b.png.", "Groups: 2.")))
    first, second, verdict = text.split("\n\n")[1:4]
    assert first == "> The test images are not independent. Copies: 3 of 9, e.g. test/a\\_b.png."
    assert second.endswith("Groups: 2.")
    assert verdict.startswith("**biomedcoop is ")


def test_what_cannot_be_told_is_a_dash(run_report):
    p = np.random.default_rng(0).dirichlet([1, 1, 1], 30)
    report = compared(run_report, np.ones(30, dtype=int), p, groups=["P"] * 30)
    text, accuracy = render(report), report.metrics.accuracy.value
    assert f"| x | {100 * accuracy:.1f} (–) |" in text
    assert "| malignant | 30 |" in text
    assert f"right for {100 * accuracy:.1f} % of 30 test images (without an interval)" in text
    assert "All test images come from one group" in text
    assert "All test images show “malignant”." in text
    assert "resamples" not in text
    assert "100.0–100.0 means" not in text


@pytest.mark.parametrize(
    ("shots", "words"), [(None, "needed no training images"), ("all", "trained on all training images")]
)
def test_methods_without_shots(run_report, shots, words):
    assert words in render(replace(run_report, shots=shots))


def test_names_cannot_break_the_report(run_report):
    names = ("a|b", "<script>", "two\nlines *bold*")
    data = DatasetSummary("x_y", names, {"test": [1, 1, 1]})
    text = render(compared(replace(run_report, dataset=data), [0, 1, 2], np.eye(3)[[0, 1, 1]], names))
    assert "| a\\|b | 1 | " in text
    assert "\\<script\\>" in text
    assert "two lines \\*bold\\*" in text
    assert escape("class_1 [x]") == "class\\_1 \\[x\\]"
