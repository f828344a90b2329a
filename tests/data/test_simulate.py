"""The simulator: reproducible, labelled as simulated, not separable by raw pixels, lesions where they belong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from biomedcoop.data.dataset import Dataset
from biomedcoop.data.simulate import TASKS, draw_scan, load_simulated, write_simulated
from biomedcoop.errors import UserError

TRAIN, TEST = 20, 12  # images per class of the pool that the statistical tests share
TINY = "?train=2&val=1&test=1"

Pool = tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], npt.NDArray[np.int64]]


@pytest.fixture(scope="module", params=list(TASKS))
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def few(task: str) -> Dataset:
    """A small dataset."""
    return load_simulated(f"simulated:{task}{TINY}")


@pytest.fixture(scope="module")
def pool(task: str) -> Pool:
    """Images, masks and labels at the default difficulty, class by class."""
    classes = range(len(TASKS[task].class_names))
    scans = [draw_scan(task, label, seed=11, index=index) for label in classes for index in range(TRAIN + TEST)]
    images, masks = (np.stack(part) for part in zip(*scans, strict=True))
    return images, masks, np.repeat(np.array(classes), TRAIN + TEST)


def test_class_names_are_those_of_the_benchmark() -> None:
    assert TASKS["breast-ultrasound"].class_names == ("benign tumor", "malignant tumor", "normal scan")
    assert TASKS["kidney-ct"].class_names == ("cyst kidney", "kidney stone", "kidney tumor", "normal kidney")


def test_same_arguments_give_the_same_bits_and_others_do_not(task: str) -> None:
    image, mask = draw_scan(task, 0, seed=3, index=5)
    again, mask_again = draw_scan(task, 0, seed=3, index=5)
    assert image.dtype == np.uint8
    assert image.shape == mask.shape == (224, 224)
    assert mask.dtype == np.bool_
    assert np.array_equal(image, again)
    assert np.array_equal(mask, mask_again)
    for label, seed, index in ((1, 3, 5), (0, 4, 5), (0, 3, 6)):
        assert not np.array_equal(image, draw_scan(task, label, seed, index)[0])


def test_an_image_does_not_depend_on_how_many_are_drawn(task: str, few: Dataset) -> None:
    more = load_simulated(f"simulated:{task}?train=3&val=0&test=2")
    pixels = dict(zip(more.keys, np.asarray(more.images), strict=True))
    shared = [position for position, key in enumerate(few.keys) if key in pixels]
    assert len(shared) == 3 * len(few.class_names)
    for position in shared:
        assert np.array_equal(np.asarray(few.images)[position], pixels[few.keys[position]])


def test_no_image_is_in_two_splits(few: Dataset) -> None:
    assert len({image.tobytes() for image in np.asarray(few.images)}) == len(few)


def test_loaded_data_set_says_that_it_is_simulated(task: str) -> None:
    calls: list[tuple[int, int]] = []
    data = load_simulated(f"simulated:{task}?train=2&val=1&test=1&seed=4", lambda done, of: calls.append((done, of)))
    count = len(data.class_names)
    assert data.simulated
    assert "simulated" in data.notes[0]
    assert np.asarray(data.images).shape == (4 * count, 224, 224)
    assert [data.counts(split).tolist() for split in ("train", "val", "test")] == [
        [2] * count,
        [1] * count,
        [1] * count,
    ]
    assert data.keys[1] == f"train/{data.class_names[0].replace(' ', '_')}/0001.png"
    assert calls[0] == (1, 4 * count)
    assert calls[-1] == (4 * count, 4 * count)


def test_lesions_lie_where_they_can(task: str, pool: Pool) -> None:
    images, masks, labels = pool
    normal = next(c for c, name in enumerate(TASKS[task].class_names) if "normal" in name)
    assert not masks[labels == normal].any()
    for image, mask, label in zip(images, masks, labels, strict=True):
        if label == normal:
            continue
        share = mask.mean()
        rows, columns = np.nonzero(mask)
        if task == "breast-ultrasound":
            assert 0.01 < share < 0.25
            assert rows.min() > 5  # below the skin
            assert image[mask].mean() < image[_surroundings(mask)].mean()  # hypoechoic
        else:
            stone = TASKS[task].class_names[label] == "kidney stone"
            assert 2 / mask.size <= share < (0.008 if stone else 0.12)
            assert image[mask].mean() > 20  # in the body: air is black
            assert rows.mean() > 90  # the kidneys lie at the back, ...
            for side in (columns < 112, columns >= 112):  # ... beside the spine
                assert not side.any() or abs(columns[side].mean() - 112) > 15
            assert not stone or image[mask].max() > 225


def test_brightness_does_not_tell_the_class(pool: Pool) -> None:
    images, _, labels = pool
    mean = images.mean(axis=(1, 2))
    spread = np.mean([mean[labels == label].std() for label in np.unique(labels)])
    centres = [mean[labels == label].mean() for label in np.unique(labels)]
    assert max(centres) - min(centres) < 0.6 * spread


def test_raw_pixels_are_not_enough(pool: Pool) -> None:
    images, _, labels = pool
    small = np.stack(
        [np.asarray(Image.fromarray(image).resize((24, 24), Image.Resampling.BILINEAR)) for image in images]
    )
    features = small.reshape(len(small), -1) / 255.0
    number = np.arange(len(labels)) % (TRAIN + TEST)
    scores = []
    for draw in range(3):
        shots = np.random.default_rng(draw).permutation(TRAIN)[:16]
        train, test = np.isin(number, shots), number >= TRAIN
        model = LogisticRegression(max_iter=300).fit(features[train], labels[train])
        scores.append(model.score(features[test], labels[test]))
    assert np.mean(scores) < 0.70


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task_name", "label"), [("breast-ultrasound", 0), ("breast-ultrasound", 1), *(("kidney-ct", c) for c in range(3))]
)
def test_lesions_are_harder_to_see_at_a_higher_difficulty(task_name: str, label: int) -> None:
    def visibility(difficulty: float) -> float:
        """Contrast · √area / noise, as in Rose's criterion; mean of some images."""
        values = []
        for index in range(6):
            image, mask = draw_scan(task_name, label, seed=2, index=index, difficulty=difficulty)
            inside, around = image[mask].astype(float), image[_surroundings(mask)].astype(float)
            contrast = np.abs(around - inside.mean()).mean()
            values.append(contrast * np.sqrt(mask.sum()) / (inside.std() + 5))
        return float(np.mean(values))

    assert visibility(0.0) > 1.3 * visibility(1.0)


def _surroundings(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    rows, columns = np.nonzero(mask)
    box = np.zeros_like(mask)
    box[max(0, rows.min() - 6) : rows.max() + 7, max(0, columns.min() - 6) : columns.max() + 7] = True
    return box & ~mask


def test_written_folder(task: str, few: Dataset, tmp_path: Path) -> None:
    written, drawn = write_simulated(f"simulated:{task}{TINY}", tmp_path / "new" / "scans"), few
    root = tmp_path / "new" / "scans"
    assert [path.name for path in root.parent.iterdir()] == ["scans"]
    assert {path.name for path in root.iterdir()} == {
        *("train", "val", "test", "masks"),
        *("split.json", "simulated.json", "README.md"),
    }
    assert written.simulated
    assert written.keys == drawn.keys
    assert np.array_equal(written.labels, drawn.labels)
    split = json.loads((root / "split.json").read_text())
    for position, (key, path) in enumerate(zip(written.keys, written.images, strict=True)):
        label = int(drawn.labels[position])
        with Image.open(path) as image, Image.open(root / "masks" / key) as mask:
            assert np.array_equal(np.asarray(image), np.asarray(drawn.images)[position])
            assert "simulated" in image.text["simulated"]  # type: ignore[attr-defined]
            assert np.asarray(mask).any() == ("normal" not in drawn.class_names[label])
        assert [key, label, drawn.class_names[label]] in split[drawn.splits[position]]
    assert "not for medical use" in (root / "README.md").read_text()


def test_a_folder_with_content_is_replaced_only_on_request_and_only_if_it_is_ours(tmp_path: Path) -> None:
    name = "simulated:breast-ultrasound?train=1&val=0&test=0"
    ours, foreign = tmp_path / "ours", tmp_path / "foreign"
    ours.mkdir()
    write_simulated(name, ours)
    with pytest.raises(UserError, match="exists already"):
        write_simulated(name, ours)
    (ours / "train" / "left over").touch()
    write_simulated(name, ours, overwrite=True)
    assert not (ours / "train" / "left over").exists()
    (ours / "thesis.tex").touch()
    with pytest.raises(UserError, match="also holds"):
        write_simulated(name, ours, overwrite=True)
    foreign.mkdir()
    (foreign / "scan.png").touch()
    with pytest.raises(UserError, match="not overwritten"):
        write_simulated(name, foreign, overwrite=True)
    assert (foreign / "scan.png").exists()
    with pytest.raises(UserError, match="is a file"):
        write_simulated(name, foreign / "scan.png")
    with pytest.raises(UserError, match="cannot write"):
        write_simulated(name, foreign / "scan.png" / "below")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign", "ours"]


def test_nothing_is_left_of_a_broken_off_run(tmp_path: Path) -> None:
    def stop(done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_simulated("simulated:kidney-ct", tmp_path / "scans", on_image=stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("simulated:brain-mri", "unknown simulated task 'brain-mri'; known: breast-ultrasound, kidney-ct"),
        ("simulated:kidney-ct?difficulty=1.5", "difficulty=1.5"),
        ("simulated:kidney-ct?difficulty=nan", "difficulty=nan"),
        ("simulated:kidney-ct?difficulty=hard", "difficulty=hard"),
        ("simulated:kidney-ct?train=0", "train=0"),
        ("simulated:kidney-ct?test=-1", "test=-1"),
        ("simulated:kidney-ct?val=2.5", "val=2.5"),
        ("simulated:kidney-ct?seed=", "seed="),
        ("simulated:kidney-ct?shots=16", "unknown option 'shots'"),
        ("simulated:kidney-ct?train=1&train=2", "twice"),
        ("simulated:kidney-ct?train", "option=value"),
    ],
)
def test_bad_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        load_simulated(name)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("label", "seed", "index", "difficulty"),
    [(3, 0, 0, 0.5), (-1, 0, 0, 0.5), (0, -1, 0, 0.5), (0, 0, -1, 0.5), (0, 0, 0, 2.0)],
)
def test_bad_arguments_are_refused(label: int, seed: int, index: int, difficulty: float) -> None:
    with pytest.raises(UserError):
        draw_scan("breast-ultrasound", label, seed, index, difficulty)
