"""Recipes name settings that there are, of methods and datasets that there are, with the published values."""

from __future__ import annotations

import pytest

from biomedcoop.data import catalogue
from biomedcoop.methods import all_methods, get_method
from biomedcoop.methods.recipes import ANY, RECIPES, published_for, recipe_settings

DATASETS = [entry.name for entry in catalogue.entries()]


def test_published_weights() -> None:
    def weights(recipe: str, dataset: str) -> tuple[float, float, float]:
        settings = get_method("biomedcoop").settings({}, recipe, dataset)
        return settings.sccm_weight, settings.kdsp_weight, settings.threshold

    assert weights("paper", "kneexray") == (5.0, 20.0, 1.75)
    assert weights("paper-novel", "kneexray") == (0.25, 3.0, 1.25)
    assert weights("paper", "busi") == (0.75, 0.75, 1.5)
    assert not published_for("paper-novel", "biomedcoop", "busi")
    assert recipe_settings("paper", "kgcoop", "busi") == {"weight": 10.0}
    assert recipe_settings("paper", "prograd", "busi") == {"temperature": 0.25}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_row_can_be_used(recipe: str) -> None:
    for name, rows in RECIPES[recipe].items():
        assert name in all_methods()
        assert set(rows) <= {ANY, *DATASETS}
        for dataset in (None, *DATASETS):
            settings = get_method(name).settings({}, recipe, dataset)
            assert recipe_settings(recipe, name, dataset).items() <= vars(settings).items()


def test_what_was_published_for_a_dataset() -> None:
    """For these methods a value for each dataset in the few-shot protocol, and no value for data of one's own."""
    for name in ("biomedcoop", "kgcoop", "prograd"):
        assert all(published_for("paper", name, dataset) for dataset in DATASETS)
        assert not published_for("paper", name, None)
    assert not published_for("paper", "coop", "busi")
