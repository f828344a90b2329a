"""Protocols from end to end on the tiny model: results, continuing, failures."""

from __future__ import annotations

import base64
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import biomedcoop as bc
from biomedcoop.benchmark.journal import Journal
from biomedcoop.benchmark.runner import run_benchmark
from biomedcoop.errors import UserError

from .conftest import TINY, Here, Run, lines_of, protocol


def test_a_line_for_each_run_and_a_description_of_each_test_set(run: Run, tmp_path: Path) -> None:
    summary = run(protocol())
    assert (summary.done, summary.skipped, summary.failed) == (1 + 3 * 2 * 2, 0, 0)
    lines = lines_of(tmp_path / "out")
    test = json.loads((tmp_path / "out" / "tests" / "scans.json").read_text())
    assert (test["name"], test["groups"]) == ("scans", list(range(30)))
    labels = np.array(test["labels"])
    assert np.bincount(labels).tolist() == [10, 10, 10]
    for line in lines:
        values = line["tests"]["scans"]
        right = np.unpackbits(np.frombuffer(base64.b64decode(values["right"]), np.uint8), count=values["images"])
        assert values["accuracy"] == pytest.approx(right.mean(), abs=1e-6)
        assert values["balanced_accuracy"] == pytest.approx(values["accuracy"], abs=1e-6), "equal classes"
    parameters = {line["method"]: line["parameters"] for line in lines}
    width = bc.load_backbone(TINY).token_dim
    assert parameters == {"zero-shot": 0, "tip-adapter": 0, "coop": 4 * width}
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert (plan["threads"], plan["runs_together"]) == (1, [1, 2])
    assert plan["datasets"]["scans"]["images"] == {"train": 72, "val": 0, "test": 30}


def test_a_stopped_benchmark_continues_to_the_same_results(run: Run, tmp_path: Path) -> None:
    run(protocol(), "whole")
    for most in (0, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            run(protocol(), executor=Here(most))
    path = tmp_path / "out" / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-40])  # killed while it wrote the last line of a group
    run(protocol())
    assert lines_of(tmp_path / "out") == lines_of(tmp_path / "whole")
    assert run(protocol(), executor=Here(0)).done == 13, "nothing is left to compute"


def test_two_processes_give_the_results_of_one(run: Run, tmp_path: Path) -> None:
    run(protocol(), "one")
    summary = run(protocol(), "two", jobs=2)
    assert lines_of(tmp_path / "one") == lines_of(tmp_path / "two")
    assert summary.overhead is not None


def test_base_to_novel_skips_what_cannot_do_it(run: Run, tmp_path: Path) -> None:
    specific = {"name": "own context", "method": "coop", "settings": {"class_specific": True}}
    asked = protocol(
        kind="base-to-novel",
        datasets=["scans", "others"],
        methods=["zero-shot", "coop", "lp++"],
        variants=[specific],
        shots=[2],
    )
    summary = run(asked)
    lines = {line["run"]: line for line in lines_of(tmp_path / "out")}
    assert (summary.done, summary.skipped, summary.failed) == (3, 1 + 2 + 2 + 2 + 2 + 2, 0)
    done = lines["base-to-novel/others/model/coop/2/1"]
    assert {key: values["images"] for key, values in done["tests"].items()} == {"others base": 20, "others novel": 20}
    assert "at least 4" in lines["base-to-novel/scans/model/coop/2/1"]["reason"]
    assert "cannot take new classes" in lines["base-to-novel/others/model/lp++/2/1"]["reason"]
    assert "class_specific" in lines["base-to-novel/others/model/own context/2/1"]["reason"]
    assert {path.name for path in (tmp_path / "out" / "tests").iterdir()} >= {"others-base.json", "others-novel.json"}


def test_cross_dataset_tests_on_the_classes_of_the_other(run: Run, folder: Path, tmp_path: Path) -> None:
    asked = protocol(
        kind="cross-dataset",
        datasets=["scans", "others"],
        tests={"scans": ["others", "missing"], "others": ["scans"]},
        methods=["zero-shot", "linear-probe"],
        shots=[2],
        seeds=[1],
    )
    run(asked)
    lines = {line["run"]: line for line in lines_of(tmp_path / "out")}
    learned = lines["cross-dataset/scans/model/linear-probe/2/1"]
    assert set(learned["tests"]) == {"scans"}
    assert "has none of 'white stone'" in learned["untested"]["others"]
    assert learned["missing"] == ["missing"]
    assert set(lines["cross-dataset/scans/model/zero-shot/0/1"]["tests"]) == {"scans", "others"}
    assert set(lines["cross-dataset/others/model/linear-probe/2/1"]["tests"]) == {"scans", "others"}
    shutil.copytree(folder / "scans", folder / "missing")
    assert run(asked).done == 4
    again = {line["run"]: line for line in lines_of(tmp_path / "out")}
    own, other = (again["cross-dataset/scans/model/zero-shot/0/1"]["tests"][name] for name in ("scans", "missing"))
    assert own == other


def test_realistic_draws_work_with_every_kind_of_method(run: Run, tmp_path: Path) -> None:
    methods = ["linear-probe", "lp++", "tip-adapter", "tip-adapter-f", "clip-adapter", "coop"]
    summary = run(
        protocol(
            kind="realistic",
            methods=methods,
            shots=[1],
            seeds=[1, 2, 3, 4, 5, 6],
            recipe="paper",
            variants=[{"name": "short", "method": "kgcoop", "settings": {"epochs": 2}}],
        )
    )
    assert (summary.done, summary.failed, summary.skipped) == (42, 0, 0)
    lines = lines_of(tmp_path / "out")
    absent = [[line["absent_classes"] for line in lines if line["seed"] == seed] for seed in (1, 2, 3, 4, 5, 6)]
    assert all(len(of) == 7 and of == of[:1] * 7 for of in absent), "a seed draws the same for every method"
    assert any(of[0] for of in absent), "3 images of 3 classes seldom show each"


def test_a_missing_dataset_fails_and_is_tried_again(
    run: Run, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = protocol(datasets=["lost", "scans"], methods=["zero-shot"])
    with caplog.at_level(logging.WARNING, "biomedcoop"):
        assert run(asked).failed == 1
    reason = f"there is no folder or file 'lost' here, and no dataset of that name in {folder}; "
    assert f"dataset lost: its runs fail: {reason}" in caplog.text
    assert run(asked).failed == 1
    shutil.copytree(folder / "scans", folder / "lost")
    summary = run(asked)
    assert (summary.done, summary.failed) == (2, 0)


def test_an_image_that_cannot_be_read_fails_its_runs_only(run: Run, folder: Path, tmp_path: Path) -> None:
    next((folder / "others" / "test" / "red_stone").iterdir()).write_bytes(b"no image")
    summary = run(protocol(datasets=["others", "scans"], methods=["zero-shot"]))
    assert (summary.done, summary.failed) == (1, 1)
    (failed,) = [line for line in lines_of(tmp_path / "out") if line["status"] == "failed"]
    assert "red_stone" in failed["reason"]


def test_a_fault_in_a_method_fails_its_runs_only(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise MemoryError("no room")

    monkeypatch.setattr("biomedcoop.methods.coop.CoOp.losses", broken)
    summary = run(protocol(methods=["coop", "tip-adapter"], shots=[1]))
    assert (summary.done, summary.failed) == (2, 2)
    assert lines_of(tmp_path / "out")[0]["reason"] == "MemoryError: no room"


def test_nothing_usable_is_one_error(run: Run, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder or file 'lost' here"):
        run(protocol(datasets=["lost", "gone"]))
    with pytest.raises(UserError, match="is not on this machine"):
        run(protocol(backbones=["biomedclip"]))
    assert not (tmp_path / "out").exists()


def test_a_second_process_is_refused(run: Run, tmp_path: Path) -> None:
    with Journal(tmp_path / "out"), pytest.raises(UserError, match="is in use by process"):
        run(protocol())


def test_a_dry_run_writes_nothing(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "biomedcoop"):
        assert run(protocol(), dry_run=True).left == 13
    assert "runs to compute: 13 in 7 groups, about " in caplog.text
    assert not (tmp_path / "out").exists()


def test_a_grid_that_grows_computes_only_what_is_new(run: Run, tmp_path: Path) -> None:
    run(protocol(), "whole")
    run(protocol(methods=["zero-shot", "coop"], shots=[1]))
    first = (tmp_path / "out" / "results.jsonl").read_bytes()
    run(protocol())
    assert (tmp_path / "out" / "results.jsonl").read_bytes().startswith(first)
    assert lines_of(tmp_path / "out") == lines_of(tmp_path / "whole")
    with pytest.raises(UserError, match=r"it has methods tip-adapter, this one has not"):
        run(protocol(methods=["zero-shot", "coop"]))


def test_a_dry_run_refuses_what_the_run_refuses(run: Run, tmp_path: Path) -> None:
    run(protocol(methods=["zero-shot"]))
    with pytest.raises(UserError, match=r"results of another protocol \(other recipe\)"):
        run(protocol(methods=["zero-shot"], recipe="paper"), dry_run=True)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"holds other files"):
        run(protocol(), "thesis", dry_run=True)


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(("name", "why"), [("buzi", "no file 'buzi'"), ("busi", 'give your own with prompts = "FILE"')])
def test_sentences_that_cannot_be_used_are_one_error(
    run: Run, tmp_path: Path, dry_run: bool, name: str, why: str
) -> None:
    asked = protocol(methods=["tip-adapter", "biomedcoop"], prompts=f"library:{name}")
    with pytest.raises(UserError, match=rf'^prompts = "library:{name}" cannot be used for scans: .*{why}'):
        run(asked, dry_run=dry_run)
    assert not (tmp_path / "out").exists()


def test_another_reference_renews_the_plan_only(run: Run, tmp_path: Path) -> None:
    methods = ["zero-shot", "tip-adapter"]
    run(protocol(methods=methods, shots=[1], reference="tip-adapter"))
    assert run(protocol(methods=methods, shots=[1], reference="zero-shot"), executor=Here(0)).done == 3
    assert json.loads((tmp_path / "out" / "plan.json").read_text())["protocol"]["reference"] == "zero-shot"


def test_a_protocol_takes_no_second_values(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="seeds cannot replace"):
        run_benchmark(protocol(), tmp_path, seeds=[1])


@pytest.mark.slow
def test_a_benchmark_killed_at_random_points_ends_with_the_same_results(folder: Path, tmp_path: Path) -> None:
    asked = tmp_path / "mine.toml"
    asked.write_text(
        f'format = 1\nkind = "few-shot"\ndatasets = ["scans", "others"]\nmethods = ["zero-shot", "tip-adapter", "coop", "kgcoop"]\n'
        f'backbones = ["{TINY}"]\nshots = [1, 4]\nseeds = [1, 2]\nrecipe = "fast"\n'
    )

    def start(out: Path) -> subprocess.Popen[bytes]:
        words = ["benchmark", str(asked), "--out", str(out), "--data-root", str(folder), "--jobs", "2", "--quiet"]
        environment = {**os.environ, "BIOMEDCOOP_CACHE": str(tmp_path / f"cache-{out.name}")}
        return subprocess.Popen([sys.executable, "-m", "biomedcoop", *words], env=environment)

    def size(out: Path) -> int:
        results = out / "results.jsonl"
        return results.stat().st_size if results.exists() else 0

    assert start(tmp_path / "whole").wait() == 0
    whole = size(tmp_path / "whole")
    for end in (signal.SIGKILL, signal.SIGINT):
        generator, out = random.Random(end.value), tmp_path / end.name
        early = start(out)
        time.sleep(generator.uniform(1, 3))  # before the first run is finished: while it loads, plans or encodes
        early.send_signal(end)
        early.wait()
        for _ in range(2):
            if size(out) > whole / 2:  # on a busy machine much is finished before a signal arrives
                break
            before, process = size(out), start(out)
            while size(out) <= before and process.poll() is None:
                time.sleep(0.01)
            time.sleep(generator.uniform(0, 0.2))
            process.send_signal(end)
            process.wait()
        assert 0 < size(out) < whole, "it was killed before its end"
        assert start(out).wait() == 0
        assert lines_of(out) == lines_of(tmp_path / "whole")
