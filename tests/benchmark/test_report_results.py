"""Reading an output folder, and the means, differences and published numbers that follow from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from biomedcoop.benchmark.differences import Resampled, compare
from biomedcoop.benchmark.published import differing, published, published_by_dataset
from biomedcoop.benchmark.ranking import rank
from biomedcoop.benchmark.results import TableRow, read_results
from biomedcoop.benchmark.scores import Measure, Unit, average, cell, collections, measures, planned_collections, units
from biomedcoop.benchmark.statistics import holm
from biomedcoop.benchmark.sweeps import sweeps
from biomedcoop.benchmark.tables.comparison import UNTESTED, difference_table, rank_table
from biomedcoop.data import catalogue
from biomedcoop.errors import UserError
from biomedcoop.evaluation.bootstrap import paired_difference

from .fake_grid import write_grid

BUSI, ROW = Unit("busi", "busi"), TableRow("mini", "biomedcoop")
LAST = Measure("16", 16)


def test_a_run_knows_which_images_it_had_right(tmp_path: Path) -> None:
    results = read_results(write_grid(tmp_path / "out"))
    for run in results.runs:
        for test, values in run.tests.items():
            assert run.right(test).mean() == pytest.approx(values["accuracy"])
            assert len(run.right(test)) == len(results.tests[test].labels) == values["images"]


def test_the_mean_and_standard_deviation_are_those_over_seeds(tmp_path: Path) -> None:
    results = read_results(write_grid(tmp_path / "out"))
    values = [run.tests["busi"]["accuracy"] for run in results.of(ROW, "busi", 16).values()]
    score = cell(results, ROW, BUSI, LAST)
    assert (score.mean, score.std) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    assert score.complete


def test_an_average_weighs_datasets_alike_and_varies_over_seeds(tmp_path: Path) -> None:
    results = read_results(write_grid(tmp_path / "out", datasets={"busi": 40, "btmri": 200}))
    by_dataset = np.array(
        [[results.of(ROW, d, 16)[seed].tests[d]["accuracy"] for seed in (1, 2, 3)] for d in ("busi", "btmri")]
    )
    score = average(results, ROW, [BUSI, Unit("btmri", "btmri")], LAST)
    assert score.mean == pytest.approx(by_dataset.mean())
    assert score.std == pytest.approx(by_dataset.mean(axis=0).std(ddof=1))


def test_a_method_without_images_has_one_value_for_all_shots(tmp_path: Path) -> None:
    results = read_results(write_grid(tmp_path / "out"))
    scores = {cell(results, TableRow("mini", "zero-shot"), BUSI, measure) for measure in measures(results)}
    assert len(scores) == 1
    assert scores.pop().complete


def test_both_harmonic_means_follow_their_convention(tmp_path: Path) -> None:
    results = read_results(write_grid(tmp_path / "out", kind="base-to-novel", shots=(16,)))
    over = collections(results)["all datasets"]
    base, novel, hm, of_means = measures(results)
    by_dataset = [(cell(results, ROW, u, base).mean or 0, cell(results, ROW, u, novel).mean or 0) for u in over]
    each = [2 * b * n / (b + n) for b, n in by_dataset]
    b, n = np.mean(by_dataset, axis=0)
    assert average(results, ROW, over, hm).mean == pytest.approx(np.mean(each))
    assert average(results, ROW, over, of_means).mean == pytest.approx(2 * b * n / (b + n))
    assert (hm.name, of_means.name) == ("HM", "HM of means")


def test_a_mean_that_lacks_seeds_or_datasets_is_not_complete(tmp_path: Path) -> None:
    def status(run):
        if run["method"] == "coop" and run["dataset"] == "btmri":
            return "failed: no memory"
        return "missing" if run["method"] == "biomedcoop" and run["seed"] == 3 and run["dataset"] == "busi" else None

    results = read_results(write_grid(tmp_path / "out", status=status))
    over = planned_collections(results)["all datasets"]
    coop = TableRow("mini", "coop")
    assert cell(results, coop, Unit("btmri", "btmri"), LAST).absent == "failed"
    assert not cell(results, ROW, BUSI, LAST).complete
    assert not average(results, ROW, over, LAST).complete
    assert not average(results, coop, over, LAST).complete
    assert average(results, TableRow("mini", "linear-probe"), over, LAST).complete


def test_means_leave_out_the_datasets_that_a_compared_row_lacks(tmp_path: Path) -> None:
    def status(run):
        lacks = {"coop": run["dataset"] == "btmri", "linear-probe": run["dataset"] != "busi"}
        return "failed: no memory" if run["dataset"] == "own" or lacks.get(run["method"]) else None

    results = read_results(write_grid(tmp_path / "out", datasets=["busi", "btmri", "scans", "own"], status=status))
    over = collections(results)["all datasets"]
    assert [unit.dataset for unit in over] == ["busi", "scans"]
    complete = {row.name: average(results, row, over, LAST).complete for row in results.rows}
    assert complete == {"zero-shot": True, "linear-probe": False, "coop": True, "biomedcoop": True}
    assert len(units(results)) == 4
    nothing = read_results(write_grid(tmp_path / "none", status=lambda run: "failed: no memory"))
    assert collections(nothing) == planned_collections(nothing)


def test_differences_agree_with_the_paired_bootstrap_of_one_dataset(tmp_path: Path) -> None:
    results = read_results(write_grid(tmp_path / "out", datasets=["busi"]))
    found = compare(results, Resampled(results, 2000), [BUSI], [LAST], "mini")
    coop = next(difference for difference in found if difference.row.name == "coop")
    ours, theirs = (
        np.mean([run.right("busi") for run in results.of(TableRow("mini", name), "busi", 16).values()], axis=0)
        for name in ("coop", "biomedcoop")
    )
    expected = paired_difference(ours, theirs, groups=results.tests["busi"].groups, n_bootstrap=2000)
    assert coop.over_images.value == pytest.approx(expected.value)
    assert coop.over_images.low == pytest.approx(expected.low, abs=1e-9)
    assert coop.over_datasets.low is None
    assert coop.signed_rank.raw is None


def test_differences_find_the_known_truth(tmp_path: Path) -> None:
    names = [f"set{n}" for n in range(8)]
    truth = {"coop": 0.70, "biomedcoop": 0.70, "linear-probe": 0.55}
    results = read_results(
        write_grid(
            tmp_path / "out",
            datasets=dict.fromkeys(names, 300),
            methods=list(truth),
            shots=(16,),
            truth=lambda name, *_: truth[name],
        )
    )
    found = {
        d.row.name: d for d in compare(results, Resampled(results, 2000), [Unit(n, n) for n in names], [LAST], "mini")
    }
    worse, equal = found["linear-probe"], found["coop"]
    assert worse.over_images.value == pytest.approx(-0.15, abs=0.05)
    assert worse.images.holm == pytest.approx(2 * worse.images.raw)
    assert worse.images.holm < 0.01
    assert worse.signed_rank.raw == pytest.approx(2 / 2**8)
    assert equal.images.raw > 0.05
    assert equal.over_images.low < 0 < equal.over_images.high


def test_p_values_are_corrected_for_the_comparisons_by_one_measure(tmp_path: Path) -> None:
    results = read_results(write_grid(tmp_path / "out"))
    columns = measures(results)
    found = compare(results, Resampled(results, 500), collections(results)["all datasets"], columns, "mini")
    for measure in columns:
        family = [d.t for d in found if d.measure == measure]
        assert [p.holm for p in family] == holm([p.raw for p in family])
        assert len(family) == 3


@pytest.mark.parametrize(("datasets", "p"), [(5, None), (6, 1.0)])
def test_equal_answers_give_no_difference(datasets: int, p: float | None, tmp_path: Path) -> None:
    """Fewer than six datasets are not tested across: the signed-rank test of five cannot reach p = 0.05."""
    grid = {"datasets": [f"set{n}" for n in range(datasets)], "methods": ["coop", "biomedcoop"], "shots": (16,)}
    results = read_results(write_grid(tmp_path / "out", truth=lambda *_: 1.5, **grid))
    over = collections(results)["all datasets"]
    found = compare(results, Resampled(results, 100), over, [LAST], "mini")
    assert [(d.over_images.value, d.images.raw, d.signed_rank.raw, d.t.raw) for d in found] == [(0.0, 1.0, p, p)]
    ranking = rank(results, results.rows, over, LAST)
    assert ranking is not None
    assert (ranking.ranks.critical_difference is None) == (p is None)
    for table in (difference_table(found, "biomedcoop", "all", datasets), rank_table({LAST: ranking}, "all")):
        assert (UNTESTED in table.notes) == (p is None)
    heads = difference_table(found, "biomedcoop", "all", datasets).columns
    assert ("p signed-rank" in heads) == (p is not None)


def test_ranks_leave_out_a_row_with_few_datasets(tmp_path: Path) -> None:
    results = read_results(
        write_grid(
            tmp_path / "out",
            status=lambda run: "missing" if run["method"] == "coop" and run["dataset"] != "busi" else None,
        )
    )
    ranking = rank(results, results.rows, collections(results)["all datasets"], LAST)
    assert [row.name for row in ranking.left_out] == ["coop"]
    assert len(ranking.units) == 3
    assert ranking.ranks.ranks[ranking.rows.index(ROW)] < 2


def test_a_sweep_is_ordered_by_value(tmp_path: Path) -> None:
    variants = [
        {"name": f"τ = {value}", "method": "biomedcoop", "settings": {"threshold": value}} for value in (3, 0.5, 1.5)
    ]
    variants.append({"name": "CE", "method": "biomedcoop", "settings": {"sccm_weight": 0, "kdsp_weight": 0}})
    results = read_results(write_grid(tmp_path / "out", variants=variants, shots=(16,)))
    (sweep,) = sweeps(results)
    assert (sweep.setting, list(sweep.points)) == ("threshold", [0.5, 1.5, 3.0])


def test_the_published_numbers_are_the_papers() -> None:
    assert published("few-shot")["coop"]["8"] == 65.84
    assert published("realistic") == {}
    assert np.mean([mean for mean, _ in published_by_dataset().values()]) == pytest.approx(72.42, abs=0.005)
    row = published("base-to-novel")["biomedcoop"]
    assert 2 * row["base"] * row["novel"] / (row["base"] + row["novel"]) == pytest.approx(row["HM of means"], abs=0.01)


def test_published_numbers_need_the_papers_settings(tmp_path: Path) -> None:
    sizes = {entry.name: entry.counts["test"] for entry in catalogue.entries()}
    paper = {"datasets": sizes, "shots": (16,), "methods": ["biomedcoop"], "backbones": ["biomedclip"]}
    row = TableRow("biomedclip", "biomedcoop")
    assert differing(read_results(write_grid(tmp_path / "same", **paper)), row) == ()
    wrong = {
        "seeds": ({"seeds": (1, 2)}, "seeds"),
        "size": ({"datasets": {**sizes, "busi": 100}}, "busi has 100 test images, the paper 236"),
        "set": ({"datasets": {k: v for k, v in sizes.items() if k != "busi"}}, "the datasets are not the paper's 11"),
        "recipe": ({"recipe": "fast"}, "the recipe of biomedcoop is fast"),
        "prompts": ({"prompts": "template"}, "sentences"),
    }
    for name, (change, reason) in wrong.items():
        found = differing(read_results(write_grid(tmp_path / name, **{**paper, **change})), row)
        assert len(found) == 1, name
        assert reason in found[0], name
    other = read_results(write_grid(tmp_path / "mini", **{**paper, "backbones": ["mini"]}))
    assert "the backbone is mini" in differing(other, ROW)[0]
    many = {"datasets": {"busi": 100, "scans": 30}, "seeds": (1,), "recipe": "fast", "backbones": ["mini"]}
    found = "; ".join(differing(read_results(write_grid(tmp_path / "many", **{**paper, **many})), ROW))
    for reason in ("backbone", "recipe", "seeds", "datasets are not", "busi has 100 test images"):
        assert reason in found


def test_the_last_line_about_a_run_counts_and_a_cut_one_is_left_out(tmp_path: Path) -> None:
    folder = write_grid(tmp_path / "out", status=lambda run: "failed: disk full" if run["seed"] == 2 else None)
    done = write_grid(tmp_path / "again")
    lines = (done / "results.jsonl").read_bytes()
    with (folder / "results.jsonl").open("ab") as file:
        file.write(lines)
        file.write(lines[:40])
    assert {run.status for run in read_results(folder).runs} == {"done"}


def test_datasets_of_the_protocol_have_their_names_in_the_results(tmp_path: Path) -> None:
    folder = write_grid(tmp_path / "out", datasets=["kidney-ct-difficulty-0.3", "busi"], groups={})
    plan = json.loads((folder / "plan.json").read_text())
    protocol = {**plan["protocol"], "datasets": ["simulated:kidney-ct?difficulty=0.3", "/data/busi"]}
    names = {"simulated:kidney-ct?difficulty=0.3": "kidney-ct-difficulty-0.3"}
    (folder / "plan.json").write_text(json.dumps({**plan, "protocol": protocol, "names": names}))
    results = read_results(folder)
    assert results.datasets == ("kidney-ct-difficulty-0.3", "busi")
    assert all(average(results, ROW, over, LAST).complete for over in collections(results).values())
    assert results.simulated == {"kidney-ct-difficulty-0.3"}
    assert "simulated datasets: kidney-ct-difficulty-0.3" in differing(results, ROW)
    assert not any("simulated" in reason for reason in differing(results, ROW, "busi"))


def test_damage_is_named(tmp_path: Path) -> None:
    folder = write_grid(tmp_path / "out")
    with pytest.raises(UserError, match=r"holds no plan\.json"):
        read_results(tmp_path)
    lines = (folder / "results.jsonl").read_text().splitlines(keepends=True)
    (folder / "results.jsonl").write_text("".join([lines[0], "{half\n", *lines[1:]]))
    with pytest.raises(UserError, match="line 2 is no run"):
        read_results(folder)
    (folder / "results.jsonl").write_text("".join(lines))
    busi = json.loads((folder / "tests" / "busi.json").read_text())
    (folder / "tests" / "busi.json").write_text(json.dumps({**busi, "groups": [0]}))
    with pytest.raises(UserError, match="1 groups for 120 labels"):
        read_results(folder)
    (folder / "tests" / "busi.json").unlink()
    with pytest.raises(UserError, match="no file for the scored set 'busi'"):
        read_results(folder)
    plan = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps({**plan, "format": 2}))
    with pytest.raises(UserError, match="has format 2, this version reads 1"):
        read_results(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"accuracy": 7.5}, "accuracy 7.5 of 'busi' is not between 0 and 1"),
        ({"macro_f1": float("nan")}, "macro_f1 nan of 'busi' is not between 0 and 1"),
        ({"right": "no base64!"}, "Only base64 data is allowed"),
        ({"right": "AAAA"}, "'right' of 'busi' holds 3 bytes for 120 images"),
        ({"accuracy": 0.0}, "is not the share of right answers"),
    ],
)
def test_a_damaged_score_is_named_with_its_line(change: dict[str, object], words: str, tmp_path: Path) -> None:
    path = write_grid(tmp_path / "out", datasets=["busi"]) / "results.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[3]["tests"]["busi"] |= change
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match=r"results\.jsonl, line 4 is no run") as caught:
        read_results(path.parent)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
