"""Tables on a terminal or in a pipe: they fit into the width, and no character of a number or a name is left out."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from biomedcoop.cli.console import print_table, print_verdict, say
from biomedcoop.cli.layout import lay_out
from biomedcoop.evaluation.alarms import Finding
from biomedcoop.evaluation.comparison import Comparison, Predictions
from biomedcoop.evaluation.metrics import score
from biomedcoop.report.terminal import class_table, comparison_table, ranked_table

LABELS = np.arange(40) % 2
METRICS = {
    names: score(np.random.default_rng(0).dirichlet([1, 1], 40), LABELS, names, n_bootstrap=40, groups=groups)
    for names, groups in (
        (("no finding", "pleural effusion"), None),
        (("moderate osteoarthritis", "[b] healthy :knee:"), ["P"] * 40),
        (("pseudopseudohypoparathyroidism-like-changes", "\u80ba\u708e pneumonia"), [f"P{i}" for i in range(40)]),
    )
}


def plain() -> Table:
    table = Table("name", "what it is", title="library:one/with a long title of several words", caption="and a caption")
    table.add_row("[red]", Text("a sentence of many words, 1,234.5678 of them"))
    table.add_row("/a/very/long/path/that/has/no/blank/in/it/and/is/wider/than/most/terminals/are", "")
    return table


TABLES = [plain, *(lambda m=m: class_table(m, "by class") for m in METRICS.values())]
TABLES += [
    lambda m=m: comparison_table({"biomedcoop": m, "majority class": m}, "scans: 40 images") for m in METRICS.values()
]

PERFECT = {
    names: score(np.eye(2)[np.arange(400) % 2], np.arange(400) % 2, names, n_bootstrap=40)
    for names in (
        ("benign", "malignant"),
        ("adenocarcinoma_in_situ_of_the_left_upper_lobe", "pleural effusion"),
        ("KL 0", "KL 1"),
    )
}
"""Every cell is 100.0, with the longest interval."""
TABLES += [lambda m=m: class_table(m, "by class") for m in PERFECT.values()]
TABLES += [
    lambda m=m: comparison_table(
        {"zero-shot-ensemble-of-my-own": m, "majority class": m}, "a-long-name-of-scans: 400 images"
    )
    for m in PERFECT.values()
]

RANDOM = {name: np.random.default_rng(k).dirichlet([1, 1], 40) for k, name in enumerate(("zero-shot-ensemble", "lp++"))}
RANKED = Comparison.of(Predictions(("",) * 40, LABELS, ("benign", "malignant"), RANDOM), n_bootstrap=40)
TABLES.append(lambda: ranked_table(RANKED, "the best first"))


def words(table: Table) -> list[str]:
    """Every word of the cells and the header, by row and column."""
    cells = [str(column.header) for column in table.columns]
    cells += [str(cell) for column in table.columns for cell in column.cells]
    cells += [str(text) for text in (table.title, table.caption) if text]
    return sorted(word for cell in cells for word in cell.split())


def printed_words(text: str) -> list[str]:
    return sorted(word for word in text.split() if set(word) != {"\u2500"})


@pytest.mark.parametrize("make", TABLES)
def test_no_table_is_wider_than_the_terminal_and_nothing_is_left_out(
    make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make()
    for width in range(24, 201):
        monkeypatch.setenv("COLUMNS", str(width))
        print_table(table)
        printed = capsys.readouterr().out
        assert max(map(cell_len, printed.splitlines())) <= width
        assert sorted("".join(printed_words(printed))) == sorted("".join(words(table))), width
    assert printed_words(printed) == words(table), "where there is room, every word is whole"


def test_eighty_columns_divide_no_number(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for metrics in (*METRICS.values(), *PERFECT.values()):
        print_table(class_table(metrics, "by class"))
        print_table(comparison_table({"zero-shot-ensemble-of-my-own": metrics}, "scans"))
    print_table(ranked_table(RANKED))
    numbers = re.findall(r"[\d.]+", capsys.readouterr().out)
    assert len(numbers) > 200
    assert all(re.fullmatch(r"\d+|\d+\.\d", number) for number in numbers)


def test_columns_share_the_width_and_numbers_stand_at_the_right() -> None:
    rows = [["class", "accuracy"], ["pleural effusion", "71.2 (64.1-77.5)"], ["none", "9.0 (1.0-9.0)"]]
    wide = lay_out(rows, [False, True], 40)
    assert wide == [
        ["class                     accuracy"],
        ["pleural effusion  71.2 (64.1-77.5)"],
        ["none                 9.0 (1.0-9.0)"],
    ]
    narrow = lay_out(rows, [False, True], 25)
    assert narrow[1] == ["pleural              71.2", "effusion      (64.1-77.5)"]
    assert lay_out(rows, [False, True], 18)[1] == ["pleural       71.2", "effusion    (64.1-", "             77.5)"]
    assert lay_out([["-1.5", "+2.5"]], [True, True], 8) == [["-1.  +2.", "  5    5"]], "a sign stays at its number"


@pytest.mark.parametrize(
    "command",
    [
        ["methods", "list"],
        ["methods", "show", "biomedcoop"],
        ["prompts", "list"],
        ["prompts", "check", "library:kneexray", "--backbone", "none"],
        ["backbones", "list"],
        ["datasets", "check"],
    ],
)
def test_commands_print_the_same_at_any_width(command, cli, discs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [*command, discs] if command[0] == "datasets" else command

    def printed(width: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        result = cli(*command)
        assert result.status == 0, result.err
        return sorted("".join(printed_words(result.out)))

    if command[-1] == "list":
        monkeypatch.setenv("COLUMNS", "80")
        assert max(map(cell_len, cli(*command).out.splitlines())) <= 80
    assert printed(30) == printed(80) == printed(400)


FINDINGS = (
    Finding("leak", "The test images are not independent."),
    Finding(
        "headline",
        "coop is better than always answering the largest class and than zero-shot, beyond chance.",
        alarm=False,
    ),
    Finding("score", "It is right for 85.0 % of 100 test images (95 % interval 77.0–92.0 %).", alarm=False),
    Finding("weakest class", "Weakest class: 10 of 50 images of “[b] cyst” are missed.", alarm=False),
    Finding(
        "class never predicted", "Never the answer: “stone” (50 test images), which is a long sentence of many words."
    ),
    Finding("next", "Compare with lp++.", alarm=False),
)


@pytest.mark.parametrize(("width", "widest"), [(40, 40), (80, 80), (200, 100)])
def test_a_verdict_is_wrapped_and_marked(
    width: int, widest: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_verdict(FINDINGS)
    printed = capsys.readouterr().out
    assert widest // 2 < max(map(len, printed.splitlines())) <= widest
    assert [line[0] for line in printed.splitlines() if line.strip() and line[0] in "!-"] == ["!", "-", "!"]
    assert " ".join(printed.split()) == " ".join(
        f"{mark} {finding.text}".strip()
        for mark, finding in zip(("!", "", "", "-", "!", "Next:"), FINDINGS, strict=True)
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("columns", "widest"), [("80", 80), ("200", 100)])
def test_a_terminal_gets_messages_wrapped(monkeypatch: pytest.MonkeyPatch, columns: str, widest: int) -> None:
    message = "error: " + "the folder scans/of/the/hospital holds no images; " * 6
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys, "stderr", Terminal())
    say(message.strip())
    lines = sys.stderr.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= widest
    assert " ".join(line.strip() for line in lines) == message.strip()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    say(message)
    assert sys.stderr.getvalue() == message + "\n"  # type: ignore[attr-defined]
