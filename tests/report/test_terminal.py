"""The tables as a terminal shows them."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from biomedcoop.cli.console import print_table
from biomedcoop.evaluation.metrics import score
from biomedcoop.evaluation.subgroups import by_subgroup
from biomedcoop.evaluation.wording import percent
from biomedcoop.report.terminal import class_table, comparison_table, subgroup_table


@pytest.fixture
def shown(monkeypatch):
    def lines(table, width: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            print_table(table)
        return out.getvalue().splitlines()

    return lines


def test_methods_stand_in_order_with_their_numbers(rows, shown):
    lines = shown(comparison_table(rows, "busi [test]"), 130)
    assert "busi [test]" in lines[0]
    found = [next(k for k, line in enumerate(lines) if line.lstrip().startswith(name)) for name in rows]
    assert found == sorted(found)
    for k, m in zip(found, rows.values(), strict=True):
        for estimate in (m.accuracy, m.balanced_accuracy, m.macro_f1, m.auroc, m.calibration_error):
            assert percent(estimate) in lines[k]


@pytest.mark.parametrize("table", ["comparison", "class"])
def test_eighty_columns_break_no_interval(rows, table, shown):
    text = "\n".join(shown(comparison_table(rows) if table == "comparison" else class_table(rows["zero-shot"]), 80))
    m = rows["zero-shot"]
    chosen = [m.accuracy, m.calibration_error] if table == "comparison" else [c.specificity for c in m.classes]
    for estimate in chosen:
        assert percent(estimate).split(" ")[1] in text
    assert "…" not in text


def test_class_names_are_not_markup_and_undefined_values_are_dashes(shown):
    m = score([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]], [0, 1], ["[bold]cyst[/bold]", "stone", "none"], n_bootstrap=40)
    lines = shown(class_table(m), 120)
    assert any("[bold]cyst[/bold]" in line for line in lines)
    row = next(line for line in lines if "none" in line)
    assert row.split() == ["none", "0", "–", "100.0", "(34.2–100.0)", "–", "–"]


def test_subgroups_have_a_short_table(shown):
    columns = {"sex": np.array(["female"] * 40 + ["male"] * 40)}
    found = by_subgroup(columns, np.arange(80) >= 20, np.array([0, 1] * 40), ("benign", "malignant"), n_bootstrap=40)
    assert found is not None
    text = "\n".join(shown(subgroup_table(found, "lp++, by subgroup"), 80))
    assert all(words in text for words in ("sex: female", "−50.0 ("))
    assert "sensitivity" not in text
