"""Which method? What the package ships and what the README says follow from the tables of the results."""

from __future__ import annotations

import re

import pytest

from benchmarks.pages import RECOMMENDED, ROOT
from benchmarks.recommend import (
    IMAGES,
    MIXTURE,
    RECIPE,
    TABLES,
    chosen,
    collections,
    measured,
    read_report,
    recommend,
    renewed_words,
    shipped,
    winners_table,
)
from biomedcoop.methods import all_methods
from biomedcoop.methods.recommended import describe, recommended

REPORT = read_report()


def test_the_package_ships_what_the_tables_give() -> None:
    content = recommend(REPORT)
    assert RECOMMENDED.read_text(encoding="utf-8") == shipped(content), "run `python -m benchmarks.pages`"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == renewed_words(readme, content), "run `python -m benchmarks.pages`"
    guide, every = ((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("methods", "every-method"))
    assert (
        guide.count("<!-- winners -->") == every.count("<!-- which method -->") == every.count("<!-- results -->") == 1
    )
    assert readme.count("<!-- which method -->") == 1
    block = readme.partition("<!-- which method -->")[2].partition("<!-- end -->")[0].strip()
    assert len(block.splitlines()) <= 6
    assert (guide, every) == (renewed_words(guide, content), renewed_words(every, content)), (
        "run `python -m benchmarks.pages`"
    )
    assert len(guide.splitlines()) <= 40


def test_the_guide_says_what_the_mixture_loses_to_the_best_method() -> None:
    rows = winners_table().rows
    assert [row[0] for row in rows] == [f"{group}, {images}" for group in ("seen", "unseen") for images in IMAGES]
    for _, best, accuracy, mixture, lost in ([str(cell) for cell in row] for row in rows):
        assert best.strip("`") in set(all_methods()) - {MIXTURE}
        value, low, high = (float(n.replace("−", "-")) for n in re.findall(r"[+−][\d.]+", lost))
        assert value == pytest.approx(float(mixture) - float(accuracy), abs=0.11)
        assert low <= value <= high


def test_every_number_of_images_has_a_method_and_its_evidence() -> None:
    for collection in collections():
        part = recommended()[collection]
        assert list(part["recommended"]) == list(part["accuracy"]) == [str(images) for images in IMAGES]
        for images, method in part["recommended"].items():
            of = part["accuracy"][images]
            assert method in all_methods()
            assert of[method] >= max(of.values()) - 1.0
            if of["zero-shot"] >= max(of.values()) - 1.0:
                assert not all_methods()[method].abilities.uses_images, "no label is worth its while"


def test_numbers_are_those_of_the_named_recipe_and_of_known_methods() -> None:
    for tables in TABLES:
        text = (tables.parent / "report.md").read_text(encoding="utf-8")
        assert f"backbone mini; recipe {RECIPE};" in text
    for images in IMAGES:
        measured = set(REPORT[f"datasets-{images}"])
        assert {"zero-shot", "linear-probe", "biomedcoop"} < measured <= set(all_methods())


def test_noise_changes_no_method() -> None:
    """One method serves where it is level; another where it is not; none that learns where learning gains nothing."""
    accuracy = {
        1: {"zero-shot": 50.0, "coop": 50.9, "lp++": 45.0},
        4: {"coop": 60.0, "lp++": 60.5, "zero-shot": 50.0},
        8: {"lp++": 65.0, "coop": 64.5, "zero-shot": 50.0},
        16: {"coop": 71.0, "lp++": 69.0, "zero-shot": 50.0},
    }
    assert chosen(accuracy) == {1: "zero-shot", 4: "coop", 8: "coop", 16: "coop"}
    accuracy[16]["lp++"] = 75.0
    assert chosen(accuracy) == {1: "zero-shot", 4: "lp++", 8: "lp++", 16: "lp++"}
    accuracy[8]["lp++"] = 60.0
    assert chosen(accuracy) == {1: "zero-shot", 4: "lp++", 8: "coop", 16: "lp++"}


def test_other_tables_give_other_words() -> None:
    """As with another backbone: all that is said changes with the tables."""
    datasets = [dataset for names in collections().values() for dataset in names]
    others = {
        name: {m: {**row, **dict.fromkeys(datasets, "99.9")} if m == "coop" else row for m, row in rows.items()}
        for name, rows in REPORT.items()
    }
    content = recommend(others)
    assert describe(recommended()) != describe(content)
    for line in describe(content)[:2]:
        assert "coop with 1 or more images per class. With 16: 99.9 % right (zero-shot " in line
    assert "| `coop` | **99.9** | **99.9** |" in renewed_words("<!-- results -->\n<!-- end -->\n", content)


@pytest.mark.parametrize("collection", collections())
def test_a_mean_is_over_the_datasets_that_are_named(collection: str) -> None:
    part = recommended()[collection]
    by_dataset = measured("zero-shot", 16, REPORT)
    assert part["accuracy"]["16"]["zero-shot"] == round(sum(by_dataset[d] for d in part["datasets"]) / 5, 1)
    assert "bccd_cells" not in part["datasets"], "pretraining had one of its three classes"
