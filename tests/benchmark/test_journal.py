"""The output folder survives kills, refuses a second process and other results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from biomedcoop.benchmark.journal import Journal, read_lines
from biomedcoop.errors import UserError


def line(run: str, status: str = "done", **more: Any) -> dict[str, Any]:
    return {"run": run, "status": status, **more}


PLAN: dict[str, Any] = {
    "format": 1,
    "digest": "a",
    "protocol": {"kind": "few-shot", "seeds": [1]},
    "versions": {"biomedcoop": "1"},
    "threads": 1,
    "device": "cpu",
    "precision": {"mini": "float32"},
    "plugins": {"a.py": "d0" * 32},
    "backbones": {"mini": "f"},
    "datasets": {"busi": {"digest": "d"}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_lines_are_kept_once(folder: Path) -> None:
    with Journal(folder) as journal:
        journal.keep_plan(PLAN)
        journal.append([line("a"), line("b", "skipped", reason="no")])
    with Journal(folder) as journal:
        assert journal.finished == {"a", "b"}
        journal.append([line("a"), line("c")])
        assert journal.counts == {"done": 2, "skipped": 1}
    assert [one["run"] for one in read_lines(folder / "results.jsonl")] == ["a", "b", "c"]


def test_a_cut_line_and_failed_runs_are_tried_again(folder: Path) -> None:
    with Journal(folder) as journal:
        journal.keep_plan(PLAN)
        journal.append([line("a"), line("b", "failed", reason="no memory")])
    with (folder / "results.jsonl").open("a") as file:
        file.write('{"run": "c", "sta')
    with Journal(folder) as journal:
        assert journal.finished == {"a"}
        journal.append([line("b")])
    assert [one["run"] for one in read_lines(folder / "results.jsonl")] == ["a", "b"]


def test_a_run_is_done_again_when_its_missing_test_dataset_is_there(folder: Path) -> None:
    with Journal(folder) as journal:
        journal.keep_plan(PLAN)
        journal.append([line("a", missing=["udiat"])])
    with Journal(folder, {"busi"}) as journal:
        assert journal.finished == {"a"}
    with Journal(folder, {"busi", "udiat"}) as journal:
        assert journal.finished == set()


def test_a_damaged_line_is_named(folder: Path) -> None:
    folder.mkdir()
    (folder / "plan.json").write_text(json.dumps(PLAN))
    (folder / "results.jsonl").write_text('{"run": "a", "status": "done"}\n{"run"\n{"run": "b", "status": "done"}\n')
    with pytest.raises(UserError, match="line 2 is damaged; delete that line"), Journal(folder):
        pass


def test_a_second_process_is_refused(folder: Path) -> None:
    with Journal(folder), pytest.raises(UserError, match=r"is in use by process \d+ on "), Journal(folder):
        pass
    with Journal(folder):
        pass


def test_a_folder_of_other_files_is_refused(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"holds other files \('thesis.tex'\)"), Journal(folder):
        pass


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"digest": "b", "protocol": {"kind": "few-shot", "seeds": [2]}}, r"another protocol \(other seeds\)"),
        ({"versions": {"biomedcoop": "2"}}, "versions biomedcoop was 1, now it is 2"),
        ({"threads": 2}, "threads was 1, now it is 2"),
        (
            {"plugins": {"a.py": "d1" * 32}},
            "^plug-in a.py has changed since the results in [^ ]*; choose a new folder with out$",
        ),
        ({"plugins": {}}, "plug-in a.py was given, now it is not;"),
        ({"plugins": {**PLAN["plugins"], "b.py": "d2" * 32}}, "plug-in b.py was not given, now it is;"),
        ({"backbones": {"mini": "g"}}, "other weights of backbone mini"),
        ({"datasets": {"busi": {"digest": "e"}}}, "other images of dataset busi"),
    ],
)
def test_results_of_another_plan_are_refused(folder: Path, change: dict[str, Any], words: str) -> None:
    with Journal(folder) as journal:
        journal.keep_plan(PLAN)
        with pytest.raises(UserError, match=words):
            journal.keep_plan({**PLAN, **change})


GRID: dict[str, Any] = {
    "kind": "few-shot",
    "datasets": ["busi"],
    "methods": ["coop"],
    "variants": [{"name": "long", "method": "coop", "settings": {"context_length": 8}}],
    "recipes": {"coop": "fast"},
    "tests": {},
    "shots": [1, 2],
}


def with_grid(digest: str, **changes: Any) -> dict[str, Any]:
    return {**PLAN, "digest": digest, "protocol": {**GRID, **changes}}


@pytest.mark.parametrize(
    "change",
    [
        {"datasets": ["btmri", "busi"], "tests": {"btmri": ["brisc"]}},
        {"methods": ["cocoop", "coop"], "recipes": {"coop": "fast", "cocoop": "paper"}},
        {"shots": [1, 2, 4]},
        {"variants": [{"name": "short", "method": "coop", "settings": {}}, *GRID["variants"]]},
    ],
)
def test_a_grid_may_grow(folder: Path, change: dict[str, Any]) -> None:
    with Journal(folder) as journal:
        journal.keep_plan(with_grid("a"))
        journal.keep_plan(with_grid("b", **change))
    assert json.loads((folder / "plan.json").read_text())["protocol"] == {**GRID, **change}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": ["kgcoop"]}, "it has methods coop, this one has not"),
        ({"shots": [2, 4]}, "it has shots 1, this one has not"),
        (
            {"variants": [{**GRID["variants"][0], "settings": {"context_length": 4}}]},
            "it has variants long, this one has not",
        ),
        ({"methods": ["coop", "kgcoop"], "recipes": {"coop": "paper"}}, "other recipes"),
        ({"methods": ["coop", "kgcoop"], "recipes": {}}, "other recipes"),
        ({"datasets": ["busi", "btmri"], "tests": {"busi": ["udiat"]}}, "other tests"),
    ],
)
def test_what_results_depend_on_may_not_change_while_a_grid_grows(
    folder: Path, change: dict[str, Any], words: str
) -> None:
    with Journal(folder) as journal:
        journal.keep_plan(with_grid("a"))
        with pytest.raises(UserError, match=rf"another protocol \({words}\)"):
            journal.keep_plan(with_grid("b", **change))
    assert json.loads((folder / "plan.json").read_text())["protocol"] == GRID


def test_the_precision_of_a_backbone_stays_while_others_come(folder: Path) -> None:
    with Journal(folder) as journal:
        journal.keep_plan(PLAN)
        journal.keep_plan({**PLAN, "precision": {"other": "bfloat16"}})
        with pytest.raises(UserError, match="precision of mini was float32, now it is bfloat16"):
            journal.keep_plan({**PLAN, "precision": {"mini": "bfloat16"}})
    assert json.loads((folder / "plan.json").read_text())["precision"] == {"mini": "float32", "other": "bfloat16"}


def test_a_dataset_that_was_missing_may_come(folder: Path) -> None:
    with Journal(folder) as journal:
        journal.keep_plan(PLAN)
        journal.keep_plan({**PLAN, "datasets": {"btmri": {"digest": "b"}}})
    assert set(json.loads((folder / "plan.json").read_text())["datasets"]) == {"busi", "btmri"}


def test_a_plan_of_another_format_is_refused(folder: Path) -> None:
    folder.mkdir()
    (folder / "plan.json").write_text(json.dumps({**PLAN, "format": 2}))
    with Journal(folder) as journal, pytest.raises(UserError, match="not of the format 1"):
        journal.keep_plan(PLAN)
