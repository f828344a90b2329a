"""The report is written from the output folder alone, whole or not at all, however little the folder holds."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import typer

from biomedcoop.benchmark.reporting import write_report
from biomedcoop.cli import benchmark_report
from biomedcoop.data import catalogue
from biomedcoop.errors import UserError

from .fake_grid import write_grid


def prose(text: str) -> list[str]:
    """Lines before the first table."""
    return [line for line in text.split("## ")[0].splitlines()[1:] if line]


def check(report: Path) -> str:
    """Every figure that the report shows exists; returns its text."""
    text = report.read_text(encoding="utf-8")
    for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        assert (report.parent / target).is_file()
        assert (report.parent / target).with_suffix(".pdf").is_file()
    assert len(prose(text)) <= 10
    assert "nan" not in text
    assert "None" not in text
    assert (report.parent / "tables" / "runs.csv").is_file()
    return text


def test_the_report_shows_what_the_paper_has(tmp_path: Path) -> None:
    text = check(write_report(write_grid(tmp_path / "out"), n_bootstrap=100))
    assert "### Accuracy, %, mean of all datasets (3), by images per class" in text
    for title in ("Differences to biomedcoop", "Ranks", "Balanced accuracy", "Cost", "Every dataset", "Data"):
        assert f"\n## {title}\n" in text
    assert "![Accuracy by images per class](figures/shots.png)" in text
    assert "| biomedcoop | 3,072 | 3.1 |" in text
    assert "the backbone is mini, the paper's is biomedclip" in text
    assert "Of 84 runs 84 are done, 0 failed, 0 were skipped, 0 are still to do." in text


def test_datasets_of_like_names_have_files_of_their_own(tmp_path: Path) -> None:
    names = ["a.b", "a-b", "A b"]
    tables = write_report(write_grid(tmp_path / "out", datasets=names), n_bootstrap=100).parent / "tables"
    files = [tables / f"accuracy-of-a-b{ending}.csv" for ending in ("", "-2", "-3")]
    assert len({file.read_text() for file in files}) == 3


SCARCE = {
    "one dataset": {"datasets": ["busi"]},
    "one seed": {"seeds": (1,)},
    "one method": {"methods": ["biomedcoop"]},
    "one of each": {"datasets": ["busi"], "seeds": (1,), "methods": ["biomedcoop"], "shots": (16,)},
    "zero-shot alone": {"methods": ["zero-shot"], "reference": None},
    "all equal": {"truth": lambda *_: 1.5},
    "all wrong": {"truth": lambda *_: -1.0, "kind": "base-to-novel", "shots": (16,)},
    "no reference": {"reference": None},
    "reference without results": {"status": lambda run: "failed: x" if run["method"] == "biomedcoop" else None},
    "everything failed": {"status": lambda run: "failed: the disk is full"},
    "begun": {"status": lambda run: None if run["dataset"] == "busi" and run["shots"] <= 1 else "missing"},
    "variants": {
        "variants": [{"name": "τ = 1", "method": "biomedcoop", "settings": {"threshold": 1.0}}],
        "reference": "τ = 1",
    },
}


@pytest.mark.parametrize("case", SCARCE)
def test_little_gives_a_sensible_report(case: str, tmp_path: Path) -> None:
    grid = {"datasets": ("busi", "scans"), "shots": (1, 16), **SCARCE[case]}
    text = check(write_report(write_grid(tmp_path / "out", **grid), n_bootstrap=100))
    assert "## Means" in text


def test_failed_and_skipped_runs_are_named_with_their_reasons(tmp_path: Path) -> None:
    def status(run):
        if run["method"] == "coop" and run["dataset"] == "busi":
            return "failed: the disk is full"
        return "skipped: it needs two classes | or more" if run["method"] == "linear-probe" else None

    text = check(write_report(write_grid(tmp_path / "out", status=status), n_bootstrap=100))
    assert "| coop | busi | 1, 4, 16 | failed, 9 | the disk is full |" in text
    assert r"| linear-probe | busi, btmri, scans | 1, 4, 16 | skipped, 27 | it needs two classes \| or more |" in text
    assert "Of 84 runs 48 are done, 9 failed, 27 were skipped, 0 are still to do." in text
    assert "seeds or datasets are missing in this value" in text


def test_one_unusable_dataset_does_not_end_the_ranking(tmp_path: Path) -> None:
    grid = {"datasets": ["busi", "btmri", "scans", "own3"], "kind": "base-to-novel", "shots": (16,)}
    status = {"status": lambda run: "skipped: it needs four classes" if run["dataset"] == "own3" else None}
    text = check(write_report(write_grid(tmp_path / "out", **grid, **status), n_bootstrap=100))
    means = text.split("## Means")[1].split("\n## ")[0]
    assert "mean of all datasets (3)" in means
    assert "leaves out, because a method has no results of them: own3." in means
    assert means.count("**") == 8
    assert "\\*" not in means
    assert "\\*" not in text.split("## Differences")[1].split("\n## ")[0]


@pytest.mark.parametrize(("datasets", "tested"), [(5, False), (6, True)])
def test_how_to_read_a_test_is_said_where_there_is_one(datasets: int, tested: bool, tmp_path: Path) -> None:
    names = [f"set{number}" for number in range(datasets)]
    text = check(write_report(write_grid(tmp_path / "out", datasets=names, shots=(16,)), n_bootstrap=40))
    for words in ("(Nemenyi, 95 %)", "](figures/ranks-", "| critical difference |", "| p t |"):
        assert (words in text) == tested, words
    assert ("Nothing is tested across datasets" in text) != tested


def test_no_figure_is_empty(tmp_path: Path) -> None:
    sweep = [{"name": f"τ = {v}", "method": "biomedcoop", "settings": {"threshold": v}} for v in (0.5, 1.0, 1.5)]
    failed = {"status": lambda run: "skipped: too few images", "variants": sweep, "backbones": ("mini", "other")}
    path = write_report(write_grid(tmp_path / "out", **failed), n_bootstrap=40)
    text = check(path)
    assert list((path.parent / "figures").iterdir()) == []
    for title in (
        "Accuracy by images per class",
        "biomedcoop by threshold",
        "Methods by backbone, 16 images per class",
    ):
        assert f"No figure of '{title}': no mean has results of every dataset and seed." in text


def test_a_realistic_draw_is_told(tmp_path: Path) -> None:
    folder = write_grid(tmp_path / "out", kind="realistic", datasets=["busi", "scans"], shots=(1, 4))
    text = check(write_report(folder, n_bootstrap=40))
    assert "by images per class on average" in text
    assert "4 images per class on average" in text
    assert "![Accuracy by images per class on average](" in text
    assert "may have none.\n" in text
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line |= {} if line["shots"] == 0 else {"absent_classes": ["cyst"] if number % 2 else []}
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    lacking = sum(bool(line.get("absent_classes")) for line in lines)
    assert f"may have none. {lacking} of 36 runs lacked a class.\n" in check(write_report(folder, n_bootstrap=40))


def test_the_published_means_stand_beside_ours_only_where_the_settings_are_the_papers(tmp_path: Path) -> None:
    sizes = {entry.name: entry.counts["test"] for entry in catalogue.entries()}
    paper = {"datasets": sizes, "shots": (16,), "methods": ["coop", "biomedcoop"], "backbones": ["biomedclip"]}
    text = check(write_report(write_grid(tmp_path / "same", **paper), n_bootstrap=40))
    assert "|  | published | 72.42 |" in text
    assert "70.34 ± 2.27" in text
    assert "settings differ" not in text
    text = check(write_report(write_grid(tmp_path / "fast", **paper, recipe="fast"), n_bootstrap=40))
    assert "72.42" not in text
    assert "the settings differ: the recipe of coop is fast, not the paper's; the recipe of biomedcoop is fast" in text


def test_balanced_accuracy_is_shown_where_it_differs(tmp_path: Path) -> None:
    folder = write_grid(tmp_path / "out", datasets=["busi"], shots=(16,), methods=["biomedcoop"])
    assert "## Balanced accuracy" in check(write_report(folder, n_bootstrap=40))
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    for line in lines:
        line["tests"]["busi"]["balanced_accuracy"] = line["tests"]["busi"]["accuracy"]
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "## Balanced accuracy" not in check(write_report(folder, n_bootstrap=40))


def test_the_known_leakage_of_a_dataset_stands_below_the_data(tmp_path: Path) -> None:
    folder = write_grid(tmp_path / "out", datasets=["kneexray", "chmnist"], shots=(16,), methods=["biomedcoop"])
    names = {"chmnist": catalogue.find("chmnist").class_names, "kneexray": ("left", "right", "both", "none")}
    for name, classes in names.items():
        path = folder / "tests" / f"{name}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "classes": classes}))
    text = check(write_report(folder, n_bootstrap=40))
    assert "\nchmnist: " in text
    assert "\nkneexray: " not in text  # other classes than the published dataset's


def test_a_simulated_dataset_has_no_card_and_a_changed_name_is_told(tmp_path: Path) -> None:
    asked = {"simulated:breast-ultrasound?train=8": "breast-ultrasound", "my scans": "my-scans"}
    folder = write_grid(tmp_path / "out", datasets=list(asked.values()), shots=(16,), methods=["biomedcoop"])
    plan = json.loads((folder / "plan.json").read_text())
    plan |= {"names": asked, "protocol": {**plan["protocol"], "datasets": list(asked)}}
    (folder / "plan.json").write_text(json.dumps(plan))
    for name in asked.values():
        path = folder / "tests" / f"{name}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "classes": catalogue.find("busi").class_names}))
    data = check(write_report(folder, n_bootstrap=40)).split("## Data")[1]
    assert re.search(r"\| breast-ultrasound \|.*\| simulated \|", data)
    assert catalogue.find("busi").caveat not in data
    assert "breast-ultrasound: 'simulated:breast-ultrasound?train=8' in the protocol." in data
    assert "my-scans: 'my scans' in the protocol." in data


def test_the_same_results_give_the_same_bytes_and_replace_an_earlier_report(tmp_path: Path) -> None:
    folder = write_grid(tmp_path / "out", datasets=("busi", "scans"), shots=(1, 16))
    first = write_report(folder, n_bootstrap=100)
    before = {path.relative_to(first.parent): path.read_bytes() for path in first.parent.rglob("*") if path.is_file()}
    again = write_report(folder, n_bootstrap=100)
    after = {path.relative_to(again.parent): path.read_bytes() for path in again.parent.rglob("*") if path.is_file()}
    assert before == after


def test_other_files_are_not_overwritten(tmp_path: Path) -> None:
    folder = write_grid(tmp_path / "out", shots=(16,))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds other files"):
        write_report(folder, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    folder = write_grid(tmp_path / "out", status=lambda run: "missing")
    with pytest.raises(UserError, match="no finished run yet"):
        write_report(folder)


def test_the_command_writes_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    folder = write_grid(tmp_path / "out", datasets=["busi"], shots=(16,))
    app = typer.Typer()
    app.command()(benchmark_report.report)
    monkeypatch.setattr(sys, "argv", ["report"])
    app([str(folder), "--out", str(tmp_path / "r")], standalone_mode=False)
    assert "report.md" in capsys.readouterr().out.replace("\n  ", "")
    check(tmp_path / "r" / "report.md")
    assert not (folder / "report").exists()
