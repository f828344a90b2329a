from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedcoop.api import train
from biomedcoop.data.audit import AuditReport, check_dataset
from biomedcoop.data.images.reading import MAX_PIXELS
from biomedcoop.errors import UserError

Draw = Callable[[Path], Path]


@pytest.fixture
def folder(tmp_path: Path, draw: Draw) -> Path:
    """`d/` with 4 train, 2 val and 2 test images of each of two classes."""
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        for name in ("cyst", "normal"):
            for number in range(count):
                draw(tmp_path / "d" / split / name / f"{number}.png")
    return tmp_path / "d"


def check(folder: Path) -> AuditReport:
    report = check_dataset(folder, shots=4)
    json.dumps(report.to_dict())
    return report


def test_a_clean_dataset(folder: Path) -> None:
    report = check(folder)
    assert report.problems == []
    assert report.warnings == []
    assert report.counts["train"] == {"cyst": 4, "normal": 4}
    assert report.modes == {"RGB": 16}
    assert (report.smallest, report.largest) == ((40, 40), (40, 40))


def test_a_dataset_without_any_readable_image(tmp_path: Path) -> None:
    for name in ("cyst", "normal"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_text(name)
    report = check(tmp_path)
    assert len(report.unreadable) == 2
    assert "unreadable images: 2" in " ".join(report.problems)


def test_unreadable_files_are_problems_with_their_reason(folder: Path) -> None:
    whole = (folder / "train/cyst/0.png").read_bytes()
    (folder / "train/cyst/0.png").write_bytes(whole[: len(whole) // 2])
    (folder / "train/cyst/1.png").write_bytes(b"")
    (folder / "test/normal/0.png").write_text("text")
    report = check(folder)
    assert [key for key, _ in report.unreadable] == ["train/cyst/0.png", "train/cyst/1.png", "test/normal/0.png"]
    assert "truncated" in report.unreadable[0][1]
    assert "empty" in report.unreadable[1][1]
    assert report.problems[0].startswith("unreadable images: 3, first train/cyst/0.png: ")


def test_oversized_files_are_problems(folder: Path) -> None:
    Image.new("1", (MAX_PIXELS // 1000 + 1, 1000)).save(folder / "train/cyst/0.png")
    assert "more than the limit" in check(folder).unreadable[0][1]


def test_a_copy_in_test_is_a_problem_a_copy_in_val_or_train_a_warning(folder: Path) -> None:
    shutil.copy(folder / "train/cyst/0.png", folder / "test/cyst/0.png")
    shutil.copy(folder / "train/cyst/1.png", folder / "val/cyst/1.png")
    shutil.copy(folder / "train/cyst/2.png", folder / "train/cyst/3.png")
    report = check(folder)
    assert report.problems == [
        "same image in more than one split: 1, first train/cyst/0.png and test/cyst/0.png (train, test); "
        "remove it from one side"
    ]
    assert any("(train, val)" in warning for warning in report.warnings)
    assert any("repeated within a split: 1, first train/cyst/2.png" in warning for warning in report.warnings)
    assert len(report.duplicates) == 3


def test_one_image_under_two_classes_is_a_problem(folder: Path) -> None:
    shutil.copy(folder / "train/cyst/0.png", folder / "train/normal/0.png")
    assert "same image under different classes: 1" in check(folder).problems[0]
    assert check(folder).duplicates[0].classes == ("cyst", "normal")


def test_groups_that_cross_splits(folder: Path) -> None:
    splits = {"0": ("train", "p0"), "1": ("train", "p1"), "2": ("val", "p1"), "3": ("test", "p0")}
    lines = [
        f"train/{name}/{number}.png,{name},{split},{group}"
        for name in ("cyst", "normal")
        for number, (split, group) in splits.items()
    ]
    (folder / "labels.csv").write_text("\n".join(["path,label,split,group", *lines]))
    report = check_dataset(folder / "labels.csv", shots=1)
    assert report.crossing_groups == {"p0": ("train", "test"), "p1": ("train", "val")}
    assert any(problem.startswith("groups in more than one split: 1, first 'p0'") for problem in report.problems)
    assert any(warning.startswith("groups in more than one split: 1, first 'p1'") for warning in report.warnings)


def test_classes_shorter_than_the_shots(folder: Path) -> None:
    report = check_dataset(folder, shots=5)
    assert report.short_classes == {"cyst": 4, "normal": 4}
    assert "class 'cyst' has 4 images in train but shots=5" in report.problems[0]


def test_small_long_and_animated_images_are_warnings(folder: Path) -> None:
    noise = [Image.effect_noise(size, 50) for size in ((20, 20), (400, 40), (50, 50), (50, 50))]
    noise[0].save(folder / "train/cyst/0.png")
    noise[1].save(folder / "train/cyst/1.png")
    frames = noise[2:]
    frames[0].save(folder / "train/cyst/9.gif", save_all=True, append_images=frames[1:])
    report = check(folder)
    assert report.problems == []
    assert (report.small_images, report.elongated_images, report.several_frames) == (1, 1, 1)
    assert len(report.warnings) == 3
    assert (report.smallest, report.largest) == ((20, 20), (400, 40))


def test_arrays_and_progress(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 40, 40), dtype=np.uint8)
    images[11] = images[0]
    labels = np.array([0, 1] * 6)
    np.savez(
        tmp_path / "scans.npz",
        train_images=images[:8],
        train_labels=labels[:8],
        test_images=images[8:],
        test_labels=labels[8:],
    )
    seen: list[tuple[int, int]] = []
    report = check_dataset(tmp_path / "scans.npz", shots=4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 12) for number in range(1, 13)]
    assert report.duplicates[0].keys == ("train[0]", "test[3]")


def test_what_is_no_dataset_is_refused_as_when_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image in it"):
        check_dataset(tmp_path)


def test_depths_that_differ_are_a_warning_and_one_depth_is_not(folder: Path) -> None:
    """Images alike but for one corner pixel, which decides the brightness of all others."""
    ramp = np.tile(np.arange(0, 1000, 25, dtype=np.uint16), (40, 1))
    for number in range(4):
        ramp[0, 0] = 1023
        ramp[1, 1] = number
        Image.fromarray(ramp).save(folder / f"train/cyst/{number}.png")
    report = check(folder)
    assert (report.guessed_depths, report.warnings) == ({10: 4}, [])
    ramp[0, 0] = 1024
    Image.fromarray(ramp).save(folder / "train/cyst/3.png")
    report = check(folder)
    assert report.guessed_depths == {10: 3, 12: 1}
    (warning,) = report.warnings
    assert "3 at 10 bits (first train/cyst/0.png), 1 at 12 bits (first train/cyst/3.png)" in warning
    assert report.problems == []


def test_images_of_one_colour_are_a_warning(folder: Path) -> None:
    """A black one, a white one, and two that are transparent everywhere."""
    Image.new("L", (40, 40)).save(folder / "train/cyst/0.png")
    Image.new("RGB", (41, 40), "white").save(folder / "train/cyst/1.png")
    for number in (2, 3):
        image = Image.open(folder / f"train/cyst/{number}.png").convert("RGBA")
        image.putalpha(0)
        image.save(folder / f"train/cyst/{number}.png")
    report = check(folder)
    assert report.one_colour == 4
    assert any("fully transparent" in w and "2, first train/cyst/2.png" in w for w in report.warnings)
    assert any("a single colour: 2, first train/cyst/0.png" in w for w in report.warnings)
    assert len(report.warnings) == 2


def test_data_that_are_only_tested_on(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "ext" / "malignant" / "1.png")
    with pytest.raises(UserError, match="one class"):
        check_dataset(tmp_path / "ext")
    report = check_dataset(tmp_path / "ext", for_training=False)
    assert (report.problems, report.short_classes) == ([], {})
    (tmp_path / "ext" / "malignant" / "2.png").write_text("no picture")
    assert "unreadable images: 1" in check_dataset(tmp_path / "ext", for_training=False).problems[0]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["b/0.png,b,"], "class 'b' has one training image"),
        (
            ["b/0.png,b,p", "b/1.png,b,p"],
            "class 'b' has only training images of one group (such as a patient) or copies of one",
        ),
        (
            ["b/0.png,b,", "b/copy.png,b,"],
            "class 'b' has only training images of one group (such as a patient) or copies of one",
        ),
    ],
)
def test_what_training_refuses_is_a_problem(tmp_path: Path, draw: Draw, rows: list[str], words: str) -> None:
    for number in range(5):
        draw(tmp_path / "a" / f"{number}.png")
        draw(tmp_path / "b" / f"{number}.png")
    shutil.copy(tmp_path / "b" / "0.png", tmp_path / "b" / "copy.png")
    table = tmp_path / "cases.csv"
    table.write_text("\n".join(["path,label,group", *(f"a/{n}.png,a," for n in range(5)), *rows]))
    (problem,) = check_dataset(table).problems
    assert problem.startswith(words)
    assert problem.endswith(
        "add images of it, remove the class, or give a test split; bc.fit, in Python, trains without a test"
    )
    with pytest.raises(UserError) as caught:
        train(table, tmp_path / "run")
    assert str(caught.value) == problem
    assert check_dataset(table, for_training=False).problems == []


def test_an_unreadable_image_is_told_apart_from_a_class_of_one(tmp_path: Path, draw: Draw) -> None:
    for number in range(2):
        draw(tmp_path / "d" / "a" / f"{number}.png")
        draw(tmp_path / "d" / "b" / f"{number}.png")
    (tmp_path / "d" / "b" / "1.png").write_bytes(b"")
    unreadable, single = check_dataset(tmp_path / "d").problems
    assert unreadable.startswith("unreadable images: 1, first b/1.png")
    assert single.startswith("class 'b' has one training image, so")
