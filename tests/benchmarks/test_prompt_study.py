"""What the tables of the words are made of: the sets of words, each with its cells."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from benchmarks.datasets import SEEDS
from benchmarks.studies.prompts import DRAWN, REFERENCE, WORDS, cells, sentences, words_at
from biomedcoop.data.dataset import Dataset
from biomedcoop.prompts.library import library, template_sets


def dataset(name: str, *class_names: str) -> Dataset:
    images = np.zeros((4, 4, 4), dtype=np.uint8)
    return Dataset(name, class_names, images, tuple("abcd"), np.array([0, 1, 0, 1]), np.array(["test"] * 4))


BUSI = dataset("busi", "benign tumor", "malignant tumor", "normal scan")


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_class_gets_as_many_words_and_none_that_pretraining_had(words: str, seed: int) -> None:
    given = sentences(BUSI, words, seed)
    assert len(given) == 3
    assert len({len(texts) for texts in given}) == 1
    trained = {text for texts in library()["busi"]["classes"].values() for text in texts[::2]}
    assert not trained & {text for texts in given for text in texts}
    assert given == sentences(BUSI, words, seed), "the same each time"
    assert (given != sentences(BUSI, words, seed + 1)) == (words in DRAWN)


def test_the_sets_of_words_are_what_they_are_called() -> None:
    own = sentences(BUSI, REFERENCE, 1)
    assert [len(texts) for texts in own] == [25] * 3
    for words in ("5", "10"):
        part = sentences(BUSI, words, 1)
        assert all(len(set(few)) == int(words) and set(few) <= set(all_) for few, all_ in zip(part, own, strict=True))
    dealt = sentences(BUSI, "shuffled", 1)
    assert Counter(t for texts in dealt for t in texts) == Counter(t for texts in own for t in texts)
    for texts in dealt:
        assert all(3 <= len(set(texts) & set(group)) <= 15 for group in own), "of every class"
    assert sentences(BUSI, "one template", 1) == [[f"a photo of a {name}."] for name in BUSI.class_names]
    assert sentences(BUSI, "templates", 1)[0] == [
        t.replace("{}", "benign tumor") for t in template_sets()["ultrasound"]
    ]


@pytest.mark.parametrize(
    ("data", "modality"),
    [
        (dataset("bccd_cells", "red blood cell", "platelets"), "light microscopy"),
        (dataset("mednist", "chest CT", "hand X-ray"), "general"),
        (dataset("covid_cxr3", "covid lungs", "normal lungs"), "X-ray"),
    ],
)
def test_templates_are_those_of_the_modality(data: Dataset, modality: str) -> None:
    assert len(sentences(data, "templates", 1)[0]) == len(template_sets()[modality])
    assert sentences(data, "templates", 1)[0][0] == template_sets()[modality][0].replace("{}", data.class_names[0])


def test_no_cell_is_missing_from_the_tables() -> None:
    listed = cells(["busi", "retina"])
    assert len({cell.name for cell in listed}) == len(listed)
    wanted = {("busi", ("templates", 0, None)), ("retina", ("shuffled", 16, None))}
    assert {(c.dataset, c.key) for c in listed} >= wanted
    assert "none" not in words_at(0)
