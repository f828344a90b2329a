"""Tables in their three forms."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from biomedcoop.benchmark.differences import Corrected, Resampled
from biomedcoop.benchmark.results import read_results
from biomedcoop.benchmark.scores import Score
from biomedcoop.benchmark.sections import sections
from biomedcoop.benchmark.tables.latex import escape
from biomedcoop.benchmark.tables.result_table import ResultTable
from biomedcoop.evaluation.bootstrap import Estimate

from .fake_grid import write_grid


def table(*means: float | None, complete: bool = True) -> ResultTable:
    rows = [[f"m{n}", Score(mean, 0.01, complete or n > 0)] for n, mean in enumerate(means)]
    return ResultTable("t", "T", ["method", "16"], rows)


def test_the_best_is_bold_and_the_second_underlined() -> None:
    lines = table(0.5, 0.7, 0.6).markdown().splitlines()[2:]
    assert lines == ["| m0 | 50.00 ± 1.00 |", "| m1 | **70.00** ± 1.00 |", "| m2 | <ins>60.00</ins> ± 1.00 |"]
    tex = table(0.5, 0.7, 0.6).latex()
    assert r"m1 & \textbf{70.00} $\pm$ 1.00 \\" in tex
    assert r"m2 & \underline{60.00} $\pm$ 1.00 \\" in tex


def test_scores_that_look_equal_are_marked_alike() -> None:
    text = table(0.70001, 0.70002, 0.6).markdown()
    assert text.count("**70.00**") == 2
    assert text.count("<ins>60.00</ins>") == 1


def test_nothing_is_best_among_equals_or_alone() -> None:
    assert "**" not in table(0.7, 0.7).markdown()
    assert "**" not in table(0.7).markdown()


def test_an_incomplete_score_is_starred_and_not_ranked() -> None:
    text = table(0.9, 0.7, 0.6, None, complete=False).markdown()
    assert r"| m0 | 90.00 ± 1.00\* |" in text
    assert "**70.00**" in text
    assert "| m3 | – |" in text


def test_csv_has_columns_of_numbers() -> None:
    rows = [
        ["a", Score(0.51234567, None), Estimate(0.1, 0.05, 0.2), Corrected(0.01, 0.03)],
        ["b, c", Score(None), None, None],
    ]
    found = list(csv.reader(io.StringIO(ResultTable("t", "T", ["method", "16", "d", "p"], rows).csv())))
    assert found[0] == ["method", "16", "16 std", "d", "d low", "d high", "p", "p Holm"]
    assert found[1] == ["a", "51.2346", "", "10.0", "5.0", "20.0", "0.01", "0.03"]
    assert found[2] == ["b, c", "", "", "", "", "", "", ""]


@pytest.mark.parametrize("text", ["50 % & more_#$^~\\{}", "λ1 → τ ± 1 − 2", "a|b <c>"])
def test_latex_escapes_every_special_sign(text: str) -> None:
    escaped = escape(text)
    without = re.sub(r"\\(text\w+\{\}|[&%$#_{}])|\$[^$]*\$", "", escaped)
    assert not set("&%$#_{}~^\\<>|") & set(without)
    assert escaped.isascii()


def test_tables_of_datasets_in_other_scripts_have_labels_of_their_own() -> None:
    names = ["accuracy-of-数据一", "accuracy-of-数据二", "accuracy-of", "accuracy-of-a_b", "accuracy-of-a-b"]
    tables = [ResultTable(name, "T", ["method", "16"], [["m", 1.0]]).latex() for name in names]
    labels = [re.search(r"\\label\{tab:([A-Za-z0-9-]+)\}", text)[1] for text in tables]
    assert len(set(labels)) == len(names)
    assert labels[2] == "accuracy-of"


def check_latex(text: str) -> None:
    """Braces are balanced, every row has as many cells as the tabular has columns, environments close, all signs are Latin."""
    bare = re.sub(r"\\[{}&%]", "", text)
    depth = 0
    for sign in bare:
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0
    assert re.sub(r"\\[$]", "", text).count("$") % 2 == 0
    columns = len(re.search(r"\\begin\{tabular\}\{([lrc]+)\}", text)[1])
    body = bare.split(r"\toprule")[1].split(r"\bottomrule")[0]
    rows = [line for line in body.splitlines() if line.endswith("\\\\")]
    assert len(rows) >= 1
    assert {line.count("&") + 1 for line in rows} == {columns}
    assert re.findall(r"\\begin\{(\w+)\}", text) == re.findall(r"\\end\{(\w+)\}", text)[::-1]
    assert all(ord(sign) < 0x250 for sign in text)


KINDS = {
    "few-shot": {"groups": {"seen & known": ["busi"], "un_seen": ["btmri", "scans"]}},
    "realistic": {"kind": "realistic", "backbones": ("mini", "biomedclip")},
    "base-to-novel": {"kind": "base-to-novel", "shots": (16,)},
    "cross-dataset": {
        **{"kind": "cross-dataset", "datasets": ["busi", "btmri"], "shots": (16,)},
        "tests": {"busi": ["buid"], "btmri": ["brisc", "scans_2"]},
    },
    "variants": {
        "variants": [
            {"name": f"λ1 = {v} & 50 %", "method": "biomedcoop", "settings": {"sccm_weight": v}} for v in (0, 1, 20)
        ]
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_table_of_every_protocol_is_whole(kind: str, tmp_path: Path) -> None:
    results = read_results(write_grid(tmp_path / "out", **KINDS[kind]))
    tables = [t for part in sections(results, Resampled(results, 100)) for t in (*part.tables, *part.files)]
    names = [t.name for t in tables]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[\w+-]+", name) for name in names)
    for one in tables:
        check_latex(one.latex())
        assert {len(row) for row in one.rows} == {len(one.columns)}
        lines = one.markdown().splitlines()
        assert {line.replace(r"\|", "").count("|") for line in lines if line.startswith("|")} == {len(one.columns) + 1}
        widths = {len(row) for row in csv.reader(io.StringIO(one.csv()))}
        assert len(widths) == 1
