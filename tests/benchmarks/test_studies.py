"""The studies of recipes and choices: every number of a table has its cell, every answer comes from the split that is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.datasets import GROUPS
from benchmarks.studies import choice, fast, recipes
from benchmarks.studies.answers import answers
from benchmarks.tasks import task_of
from biomedcoop.data.sampling.few_shot import sample_few_shot
from biomedcoop.evaluation.study.inputs import encoded, loaded
from biomedcoop.evaluation.study.results import Results
from biomedcoop.methods.recipes import recipe_settings


def test_the_tables_of_recipes_have_their_cells(tmp_path: Path) -> None:
    validation, test = recipes.cells(["busi"], "val"), recipes.cells(["busi"], "test")
    names = [cell.name for cell in (*validation, *test)]
    assert len(set(names)) == len(names)
    assert all(cell.key[-1] == "val" for cell in validation)  # type: ignore[index]
    assert all(cell.key[-1] == "test" for cell in test)  # type: ignore[index]
    have = Results({}, tmp_path, validation, GROUPS).files
    for name, candidates in recipes.CANDIDATES.items():
        assert all(("busi", recipes.key_of(name, given, k)) in have for given in candidates for k in recipes.SHOTS)


@pytest.fixture
def drawn_busi(monkeypatch: pytest.MonkeyPatch, parity: Path) -> str:
    """Simulated scans in place of the real dataset of that name."""
    from biomedcoop import load_dataset

    data = load_dataset("simulated:breast-ultrasound?train=4&val=2&test=4")
    monkeypatch.setattr("biomedcoop.evaluation.study.inputs.load_dataset", lambda name: data)
    encoded.cache_clear()
    return str(parity / "model")


def test_a_cell_is_answered(drawn_busi: str) -> None:
    """One row a seed, one answer an image of the split; the support images of a seed are those that fit would draw."""
    data, features = encoded("busi", drawn_busi)
    right = np.array(answers("busi", drawn_busi, "tip-adapter", 2, given=(("grid", 5),)))
    assert right.shape == (3, len(data.indices("test")))
    assert set(np.unique(right)) <= {0, 1}
    task = task_of(data, features, loaded(drawn_busi), 2, None, [5])
    assert (task.labels[0].numpy() == data.labels[sample_few_shot(data, 2, 5)[0]]).all()
    encoded.cache_clear()


def test_the_tables_of_fast_have_their_cells(tmp_path: Path) -> None:
    """And what was chosen is what the package has."""
    validation, test = fast.cells(["busi"], "val"), fast.cells(["busi"], "test")
    names = [cell.name for cell in (*validation, *test)]
    assert len(set(names)) == len(names)
    assert all(cell.key[-1] == "val" for cell in validation)  # type: ignore[index]
    assert all(cell.key[-1] == "test" for cell in test)  # type: ignore[index]
    have = Results({}, tmp_path, [*validation, *test], GROUPS).files
    for name, candidates in fast.CANDIDATES.items():
        assert {**recipe_settings("general", name), **candidates[0]} == recipe_settings("fast", name)
        for shots in fast.SHOTS:
            assert all(("busi", fast.candidate_key(name, given, shots)) in have for given in candidates)
            assert all(("busi", (name, shots, r, (), s)) in have for r, s in (("paper", "val"), ("paper", "test")))
            assert ("busi", (name, shots, "fast", (), "test")) in have


def test_the_tables_of_choice_have_their_cells(tmp_path: Path) -> None:
    listed = choice.cells(["busi"])
    assert len({cell.name for cell in listed}) == len(listed)
    have = Results({}, tmp_path, listed, GROUPS).files
    for name in choice.METHODS:
        assert ("busi", (name, 1, "folds")) not in have
        assert all(("busi", (name, k, way)) in have for k in choice.SHOTS for way in choice.ways(k))
    assert dict(choice.tables(Results({}, tmp_path, listed, GROUPS)))["means"].rows[0][0] == "linear-probe, 1"


def test_a_way_of_choosing_is_what_its_name_says(drawn_busi: str) -> None:
    """Folds and the default use no image but the support; the published way uses the validation split."""
    data, _ = encoded("busi", drawn_busi)
    right = {
        way: choice.compute("busi", ("linear-probe", 2, way), drawn_busi) for way in ("folds", "images", "default")
    }
    assert {np.array(rows).shape for rows in right.values()} == {(3, len(data.indices("test")))}
    with pytest.MonkeyPatch.context() as patch:
        without = data.select(data.splits != "val")
        patch.setattr(choice, "encoded", lambda *_: (without, encoded("busi", drawn_busi)[1][data.splits != "val"]))
        again = {way: choice.compute("busi", ("linear-probe", 2, way), drawn_busi) for way in right}
    assert again["folds"] == right["folds"]
    assert again["default"] == right["default"]
    encoded.cache_clear()
