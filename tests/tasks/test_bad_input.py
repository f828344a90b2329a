"""What a few images cannot give, through the Python interface: one clear line, or a note that says what is done in place of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.errors import Note, UserError


@pytest.fixture(scope="module")
def few(discs: Path) -> bc.Dataset:
    return bc.load_dataset(discs)


@pytest.mark.parametrize("alpha", [0, 1, 1.5, -0.1, float("nan"), "much", True])
def test_alpha_outside_0_and_1(alpha: Any, few: bc.Dataset, tiny: Backbone) -> None:
    with pytest.raises(UserError, match=rf"^alpha={alpha!r} must be a number between 0 and 1, both excluded"):
        bc.fit(few, "simpleshot", tiny, alpha=alpha)


def test_too_few_calibration_images(few: bc.Dataset, tiny: Backbone) -> None:
    with pytest.warns(
        Note,
        match="need 99 calibration images, and at most half of the .* can be set aside: every set is all",
    ):
        bc.fit(few, "tip-adapter", tiny, shots=2, alpha=0.01)


def test_an_empty_folder_of_unlabelled_images(few: bc.Dataset, tiny: Backbone, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^{tmp_path} holds no image .*give a folder with images"):
        bc.fit(few, "ss-text-u", tiny, shots=2, unlabelled=tmp_path)


def test_labelled_images_among_the_unlabelled(few: bc.Dataset, tiny: Backbone, discs: Path) -> None:
    with pytest.warns(Note, match=r"\d+ of \d+ unlabelled images are copies of training or test images and are left"):
        bc.fit(few, "ss-text-u", tiny, shots=2, unlabelled=discs / "train")


def test_one_image_of_each_class(few: bc.Dataset, tiny: Backbone) -> None:
    with pytest.warns(Note, match="auto takes the method that was best on other datasets and chooses nothing by cross"):
        bc.fit(few, "auto", tiny, shots=1, settings={"methods": "krr,simpleshot"})


def test_a_method_for_a_gpu_on_a_cpu(
    few: bc.Dataset, tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the two steps that were timed are kept for a run that allows the time; other tests look into the common cache
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"^clip-svd would take about \d+ hours on cpu: .*use device='cuda'"):
        bc.fit(few, "clip-svd", tiny, shots=1, settings={"epochs": 10**8})
