"""The public functions on images of drawn discs with the tiny backbone: learning, repeating, and leaving no half work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import biomedcoop as bc
from biomedcoop.api import predict_dataset
from biomedcoop.backbones.base import Backbone
from biomedcoop.errors import Note
from biomedcoop.evaluation.bootstrap import paired_difference
from biomedcoop.methods import all_methods, get_method
from biomedcoop.tasks.plan import plan_fit
from biomedcoop.tasks.request import FitRequest, TrainRequest

FAST: dict[str, Any] = {"method": "biomedcoop", "shots": 4, "settings": {"epochs": 2}}
RUN_FILES = {
    "metrics.json",
    "report.md",
    "confusion.png",
    "predictions.csv",
    "split.json",
    "few_shot.json",
    "model",
    "run.json",
}


@pytest.fixture(scope="module")
def data(discs: Path) -> bc.Dataset:
    return bc.load_dataset(discs)


@pytest.fixture(scope="module")
def first_run(discs: Path, tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    bc.train(discs, folder, backbone=tiny, n_bootstrap=100, **FAST, html=False)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(data: bc.Dataset, backbone: Any, **options: Any) -> str:
    with pytest.raises(bc.UserError) as caught:
        bc.fit(data, backbone=backbone, **{**FAST, **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- learning


def test_training_lowers_the_loss_and_beats_zero_shot(data: bc.Dataset, tiny: Backbone) -> None:
    told: list[tuple[str, int, int]] = []
    trained = bc.fit(data, "biomedcoop", tiny, shots=8, settings={"epochs": 6}, progress=lambda *now: told.append(now))
    losses = [
        float(what.split()[-1].rstrip(")")) for what, _, _ in told if what.startswith("training biomedcoop (loss")
    ]
    assert len(losses) == 36  # 24 images in batches of 4, 6 times
    assert np.mean(losses[-6:]) < 0.7 * np.mean(losses[:6])
    assert [(done, total) for what, done, total in told if what.startswith("training")][-1] == (36, 36)
    zero_shot = bc.fit(data, method="zero-shot", backbone=tiny)
    better, worse = (bc.evaluate(c, data, n_bootstrap=40).accuracy.value for c in (trained, zero_shot))
    assert better is not None
    assert worse is not None
    assert better > worse + 0.2


def test_runs_in_company_agree_with_runs_alone(data: bc.Dataset, tiny: Backbone, discs: Path) -> None:
    images = sorted((discs / "test").rglob("*.png"))
    together = bc.fit_runs(data, backbone=tiny, seeds=(1, 2, 3), **FAST)
    assert [clf.facts["seed"] for clf in together] == [1, 2, 3]
    probabilities = [clf.predict_proba(images) for clf in together]
    for seed, in_company in zip((1, 2, 3), probabilities, strict=True):
        alone = bc.fit(data, backbone=tiny, seed=seed, **FAST).predict_proba(images)
        np.testing.assert_array_equal(alone.argmax(1), in_company.argmax(1))
        np.testing.assert_allclose(alone, in_company, atol=1e-4)  # sums in another order, over the steps of training
    assert np.abs(probabilities[0] - probabilities[1]).max() > 1e-3  # other images, another classifier


def test_zero_shot_needs_no_training_image(data: bc.Dataset, tiny: Backbone) -> None:
    for method in ("zero-shot", "zero-shot-ensemble"):
        clf = bc.fit(data.part("test"), method=method, backbone=tiny, shots=1000)
        assert clf.facts["shots"] is None
        assert clf.facts["training_images"] == []
        assert clf.predict_proba(data.part("test").images[:3]).shape == (3, 3)


def test_arrays_predict_as_the_files_they_are_read_from(first_run: Path, tiny: Backbone, discs: Path) -> None:
    from PIL import Image

    clf = bc.load(first_run, tiny)
    files = sorted((discs / "test").rglob("*.png"))[:9]
    arrays = [np.asarray(Image.open(file)) for file in files]
    assert clf.predict_proba(arrays).tobytes() == clf.predict_proba(files).tobytes()
    assert clf.predict_proba([]).shape == (0, 3)


# -- test images and labels stay out of training


def test_training_never_opens_a_test_image(discs: Path, tiny: Backbone, tmp_path: Path) -> None:
    folder = shutil.copytree(discs, tmp_path / "scans")
    for image in (folder / "test").rglob("*.png"):
        image.write_text("no image")
    broken = bc.load_dataset(folder)
    clf = bc.fit(broken, backbone=tiny, **FAST)
    with pytest.raises(bc.ImageError, match=r"test/blue_cyst/00\.png"):
        bc.evaluate(clf, broken)
    assert bc.evaluate(clf, broken, "train", n_bootstrap=40).n_images == 72


def test_training_does_not_depend_on_test_labels(data: bc.Dataset, tiny: Backbone) -> None:
    labels = data.labels.copy()
    test = data.splits == "test"
    labels[test] = (labels[test] + 1) % 3
    one, other = (bc.fit(d, backbone=tiny, **FAST) for d in (data, replace(data, labels=labels)))
    for name, tensor in one.state.items():
        assert tensor.numpy().tobytes() == other.state[name].numpy().tobytes()


# -- evaluating


def test_evaluating_training_images_is_said(data: bc.Dataset, tiny: Backbone) -> None:
    clf = bc.fit(data, backbone=tiny, **FAST)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        bc.evaluate(clf, data, "test", n_bootstrap=40)
    assert said == []
    with pytest.warns(Note, match="12 of the 72 evaluated images were used to train"):
        bc.evaluate(clf, data, "train", n_bootstrap=40)


def test_classes_in_another_order_or_fewer_of_them(
    data: bc.Dataset, first_run: Path, tiny: Backbone, discs: Path, tmp_path: Path
) -> None:
    clf = bc.load(first_run, tiny)
    expected = bc.evaluate(clf, data, n_bootstrap=40)
    rows = [f"{image},{image.parent.name}" for image in sorted((discs / "test").rglob("*.png"), reverse=True)]
    table = tmp_path / "other.csv"
    table.write_text("\n".join(["path,label", *rows]))
    turned = bc.load_dataset(table)
    assert turned.class_names == ("red stone", "green tumor", "blue cyst")
    assert bc.evaluate(clf, turned, "all", n_bootstrap=40).confusion == expected.confusion
    table.write_text("\n".join(["path,label", *rows[:20]]))  # no blue cyst
    fewer = bc.evaluate(clf, bc.load_dataset(table), "all", n_bootstrap=40)
    assert [sum(row) for row in fewer.confusion] == [0, 10, 10]


def test_evaluating_what_does_not_fit(data: bc.Dataset, first_run: Path, tiny: Backbone) -> None:
    clf = bc.load(first_run, tiny)
    other = replace(data, class_names=("blue cyst", "green tumor", "polyp"))
    with pytest.raises(bc.UserError, match=r"'polyp'.*knows: blue cyst, green tumor, red stone"):
        bc.evaluate(clf, other)
    with pytest.raises(bc.UserError, match="no images in its val split"):
        bc.evaluate(clf, data, "val")
    with pytest.raises(bc.UserError, match="no split 'tset'"):
        bc.evaluate(clf, data, "tset")


def test_images_of_one_class_are_evaluated(data: bc.Dataset, first_run: Path, tiny: Backbone) -> None:
    clf = bc.load(first_run, tiny)
    part = data.part("test")
    own = np.flatnonzero(part.labels == 1)
    external = bc.Dataset(
        "external",
        ["Green-Tumor"],
        [part.images[i] for i in own],
        [part.keys[i] for i in own],
        [0] * len(own),
        ["test"] * len(own),
    )
    metrics = bc.evaluate(clf, external, n_bootstrap=40)
    assert metrics.class_names == clf.class_names
    expected = bc.evaluate(clf, part, n_bootstrap=40)
    assert metrics.confusion[1] == expected.confusion[1]
    assert (metrics.auroc.value, metrics.classes[1].specificity.value) == (None, None)
    numbered = replace(external, class_names=("class 0", "class 1"), labels=np.ones(len(own), int))
    with pytest.warns(
        Note, match="numbers without names; they were read as classes of the classifier: 1 as 'green tumor'"
    ):
        assert bc.evaluate(clf, numbered, n_bootstrap=40).confusion == metrics.confusion


def test_few_groups_and_groups_on_both_sides_are_said(data: bc.Dataset, tiny: Backbone) -> None:
    clf = bc.fit(data, backbone=tiny, **FAST)
    grouped = replace(data, groups=[f"P{i % 3}" for i in range(len(data))])
    with pytest.warns(Note) as said:
        metrics = bc.evaluate(clf, grouped, n_bootstrap=40)
    text = "\n".join(str(note.message) for note in said)
    assert (
        "Groups (such as patients) with images in train or val and in test: 3; methods that learn from images look better"
        in text
    )
    assert "The first is 'P0'." in text
    assert "The test has only 3 test groups" in text
    assert metrics.n_groups == 3
    with pytest.warns(Note, match="All test images come from one group") as said:
        one = bc.evaluate(clf, replace(data.part("test"), groups=["P"] * 30), n_bootstrap=40)
    assert len(said) == 1  # nothing is known of the training images' groups
    assert (one.accuracy.low, one.accuracy.high) == (None, None)


# -- what fit refuses, before it works


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shots": 0}, "shots=0"),
        ({"shots": 25}, "'blue cyst' has 24 images in train but shots=25"),
        ({"method": "biomedcop"}, "no method 'biomedcop'; did you mean biomedcoop"),
        ({"recipe": "secret"}, "no recipe 'secret'"),
        ({"settings": {"epoch": 3}}, "no setting 'epoch'; did you mean epochs"),
        ({"settings": {"epochs": "many"}}, "epochs='many'"),
        ({"settings": {"lr": float("nan")}}, "lr=nan"),
        ({"seed": -1}, "seed=-1 must be a whole number from 0 to"),
        ({"seed": 2**64}, f"seed={2**64} must be"),
        ({"seed": 1.5}, "seed=1.5 must be a whole number"),
        ({"seed": "1"}, "seed='1' must be a whole number"),
        ({"shots": "8.5"}, "shots='8.5' must be a whole number of at least 1, e.g. shots=16, or shots='all'"),
        ({"shots": True}, "shots=True must be a whole number"),
        ({"method": None}, "method=None must be a name, e.g. method='biomedcoop'"),
        ({"recipe": 3}, "recipe=3 must be a name"),
        ({"settings": "epochs=3"}, "settings='epochs=3' must be a dict, e.g. settings={'epochs': 50}"),
        (
            {"prompts": {"cyst": ["Round."]}},
            "prompts must be a name or a path, not dict; write sentences to a JSON file",
        ),
        ({"prompts": None}, "prompts must be a name or a path, not NoneType"),
        ({"modality": 3}, "modality=3 must be one or more words, e.g. modality='CT'"),
        ({"organ": " "}, "organ=' ' must be one or more words, e.g. organ='kidney'"),
        ({"shot": 3}, "no option 'shot'; did you mean shots?"),
        ({"seeds": [3]}, "fit takes one seed, fit_runs and train take seeds"),
        (
            {"zzz": 3},
            "no option 'zzz'; known: data, plugins, method, backbone, shots, seeds, recipe, settings, prompts, modality",
        ),
        ({"prompts": "library"}, "'blue cyst'"),
        ({"prompts": "nowhere.json"}, "nowhere.json"),
        ({"views": 0}, "views=0 must be a whole number from 1 to 10000, or per-epoch"),
        ({"views": 2.5}, "views=2.5 must be"),
        ({"views": True}, "views=True must be"),
        ({"views": "per epoch"}, "views='per epoch' must be"),
        ({"views": "per-epoch", "settings": {"epochs": 20_000}}, "epochs=20000 needs more than 10000 crops per image"),
        (
            {"views": "per-epoch", "method": "lp++"},
            "lp++ uses all views of all images at once, so views='per-epoch'",
        ),
    ],
)
def test_refused_before_the_backbone_is_even_loaded(
    data: bc.Dataset, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    assert words in refusal(data, tmp_path, **options)  # an empty folder, which holds no backbone


def uneven(data: bc.Dataset, count: int) -> bc.Dataset:
    """``data`` with only ``count`` training images of its first class."""
    first = np.flatnonzero((data.labels == 0) & (data.splits == "train"))[count:]
    return data.select(np.setdiff1d(np.arange(len(data)), first))


def test_default_shots_are_16_or_what_the_smallest_class_has(data: bc.Dataset, tiny: Backbone) -> None:
    assert bc.fit(data, method="clip-adapter", backbone=tiny, settings={"epochs": 1}).facts["shots"] == 16
    with pytest.warns(Note, match="class 'blue cyst' has 5 training images, so 5 of each class are used instead of 16"):
        few = bc.fit(uneven(data, 5), method="clip-adapter", backbone=tiny, settings={"epochs": 1})
    assert few.facts["shots"] == 5


@pytest.mark.parametrize("method", [m.name for m in all_methods().values() if m.abilities.uses_images])
def test_all_shots_take_every_training_image(data: bc.Dataset, discs: Path, tiny: Backbone, method: str) -> None:
    part = uneven(data, 5)  # so that the folder has images that are not in it
    unlabelled = discs / "train" if get_method(method).abilities.uses_unlabelled else None
    known = get_method(method).settings({})
    settings = {"epochs": 1} if hasattr(known, "epochs") else {}
    classifier = bc.fit(part, method=method, backbone=tiny, shots="all", settings=settings, unlabelled=unlabelled)
    assert classifier.facts["shots"] == "all"
    assert len(classifier.facts["training_images"]) == part.counts("train").sum()
    assert np.isfinite(predict_dataset(classifier, part.part("test"))).all()


# -- choosing within the training images

PROBE: dict[str, Any] = {"method": "linear-probe", "shots": 6}


def test_a_choice_by_folds_is_said(data: bc.Dataset, tiny: Backbone, tmp_path: Path) -> None:
    how = "linear-probe chooses C by 5-fold cross-validation within the 18 training images."
    with warnings.catch_warnings():
        warnings.simplefilter("error", Note)
        classifier = bc.fit(data, backbone=tiny, **PROBE)
    assert classifier.facts["chosen"] == how
    assert len(classifier.facts["training_images"]) == 18
    classifier.save(tmp_path / "model")
    assert f"- {how}\n" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert bc.fit(data, backbone=tiny, **{**PROBE, "method": "simpleshot"}).facts["chosen"] == ""


def test_too_few_images_for_folds_are_said_first(data: bc.Dataset, tiny: Backbone, tmp_path: Path) -> None:
    words = "linear-probe takes C = 10 and chooses nothing by cross-validation: every class has one training image."
    with pytest.warns(Note, match=words):
        classifier = bc.fit(data, backbone=tiny, **{**PROBE, "shots": 1})
    assert float(classifier.state["c"]) == 10
    classifier.save(tmp_path / "model")
    assert (tmp_path / "model" / "README.md").read_text(encoding="utf-8").count(words) == 1


def test_groups_stay_in_one_fold(data: bc.Dataset, tiny: Backbone) -> None:
    def grouped(size: int) -> bc.Dataset:
        return replace(data, groups=np.array([f"{label}-{i // size}" for i, label in enumerate(data.labels)]))

    plan = plan_fit(FitRequest(grouped(4), seeds=(1, 2), **PROBE), grouped(4))
    for draw, choice in zip(plan.draws, plan.choices, strict=True):
        assert plan.data.groups is not None
        groups = plan.data.groups[draw]
        assert choice.folds.any()
        for group in set(groups):
            assert len(set(choice.folds[groups == group])) == 1
    words = r"cross-validation: class 'blue cyst' has only training images of one group \(such as a patient\) or copies"
    with pytest.warns(Note, match=words):
        bc.fit(grouped(1000), backbone=tiny, **PROBE)


def test_an_image_drawn_twice_stays_in_one_fold(data: bc.Dataset) -> None:
    few = uneven(data, 3)
    plan = plan_fit(FitRequest(few, repeat_shots=True, **PROBE), few)
    (draw,), (choice,) = plan.draws, plan.choices
    assert len(set(draw.tolist())) < len(draw)
    for image in set(draw.tolist()):
        assert len(set(choice.folds[draw == image])) == 1


def test_one_class_is_no_task(data: bc.Dataset, tiny: Backbone) -> None:
    only = bc.Dataset("d", ["cyst"], data.images, data.keys, [0] * len(data), data.splits)
    for method in ("zero-shot", "biomedcoop"):
        assert "d has one class ('cyst'), but a classifier needs at least two" in refusal(
            only, tiny, method=method, settings={}
        )


def test_unknown_backbones_and_devices(data: bc.Dataset, parity: Path) -> None:
    assert "did you mean mini?" in refusal(data, "minni")
    assert "device 'abacus'" in refusal(data, parity / "model", device="abacus")
    with pytest.raises(bc.UserError, match=r"seeds=\[\]"):
        bc.fit_runs(data, seeds=[])


def test_arguments_of_the_wrong_kind(data: bc.Dataset, discs: Path, tmp_path: Path) -> None:
    def said(function: Callable[..., object], *words: object, **options: object) -> str:
        with pytest.raises(bc.UserError) as caught:
            function(*words, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    for path in ("scans", Path("scans")):
        assert said(bc.fit, path) == "data='scans' is a path or a name; give load_dataset('scans')"
    assert said(bc.fit, [1, 2]) == "data must be a dataset from load_dataset, not list"
    assert said(bc.fit_runs, data, shot=3) == "no option 'shot'; did you mean shots?"
    assert (
        said(bc.fit_runs, data, seed=3)
        == "seed and seeds are both given; fit takes one seed, fit_runs and train take seeds"
    )
    assert said(bc.fit_runs, data, seeds=3) == "seeds=3 must be a list of whole numbers, e.g. seeds=[1, 2, 3]"
    assert said(bc.fit, data, backbone=3) == "backbone=3 must be a name, a folder or a backbone from load_backbone"
    assert said(bc.train, discs, tmp_path / "run", shot=3) == "no option 'shot'; did you mean shots?"
    assert said(bc.train, discs, tmp_path / "run", promts="auto") == "no option 'promts'; did you mean prompts?"
    message = "compare='zero-shot' must be a list of methods, e.g. compare=['zero-shot']"
    assert said(bc.train, discs, tmp_path / "run", compare="zero-shot") == message
    assert said(bc.train, data, tmp_path / "run").startswith("source must be a path or a name, not Dataset; ")
    assert list(tmp_path.iterdir()) == []


def test_training_that_diverges_is_said(data: bc.Dataset, tiny: Backbone) -> None:
    assert "training diverged" in refusal(data, tiny, settings={"epochs": 3, "lr": 1e30})


# -- what is said before the long work


def test_notes_come_before_the_work_and_once(data: bc.Dataset, tiny: Backbone, tmp_path: Path) -> None:
    long = "grey . " * 40
    sentences = {
        "blue cyst": ["Round.", "round", "Dark."],
        "green tumor": ["Coarse.", long],
        "red stone": ["Hard.", "Red."],
    }
    words = tmp_path / "words.json"
    words.write_text(json.dumps(sentences), encoding="utf-8")
    for method, lines in (("biomedcoop", 3), ("zero-shot-ensemble", 3), ("tip-adapter", 1)):
        before: list[int] = []  # how many notes had been issued at each step
        with warnings.catch_warnings(record=True) as issued:
            warnings.simplefilter("always")

            def progress(*_: object, issued: Sized = issued, before: list[int] = before) -> None:
                before.append(len(issued))

            settings = {"epochs": 1} if method == "biomedcoop" else {}
            prompts = "auto" if method == "tip-adapter" else words
            clf = bc.fit(data, method, tiny, 3, recipe="paper", prompts=prompts, settings=settings, progress=progress)
        assert set(before) <= {lines}
        assert {warning.category for warning in issued} == {Note}
        assert {warning.filename for warning in issued} == {__file__}  # the line that asked for the work
        said = [str(warning.message) for warning in issued]
        assert said == clf.facts["notes"]
        assert len(said) == len(set(said)) == lines
        if lines == 3:
            assert [note.split(" (")[0] for note in said] == [
                "words.json: 1 of 7 sentences repeated within a class",
                "words.json: classes have different numbers of sentences; only the first 2 of each are used, as many as "
                "'green tumor' has; 'biomedcoop prompts check words.json' shows all.",
                "1 of the 6 sentences have more tokens than the 64 that model reads and are cut",
            ]


def test_sentences_of_the_library_are_said_with_their_kind(tiny: Backbone, discs: Path, tmp_path: Path) -> None:
    data = replace(bc.load_dataset(discs), class_names=("benign tumor", "malignant tumor", "normal scan"))
    line = "Sentences: library: busi (ultrasound, breast), 50 for each class."

    def trained(dataset: bc.Dataset = data, **options: Any) -> tuple[bc.Classifier, list[str]]:
        with warnings.catch_warnings(record=True) as issued:
            warnings.simplefilter("always")
            clf = bc.fit(dataset, "zero-shot-ensemble", tiny, **options)
        return clf, [str(warning.message) for warning in issued]

    clf, said = trained()
    assert clf.facts["sentences"] == "templates: general"
    assert "modality='ultrasound', organ='breast'" in said[0]
    for options in ({"modality": "sonography", "organ": "breast"}, {"dataset": replace(data, name="BUSI")}):
        clf, said = trained(**options)
        assert (clf.facts["sentences"], said) == ("library: busi (ultrasound, breast)", [line])
    assert (clf.facts["modality"], clf.facts["organ"]) == ("ultrasound", "breast")
    clf, said = trained(prompts="library:busi")
    assert (clf.facts["sentences"], said) == ("library: busi (ultrasound, breast)", [])  # it was asked for by name
    phantoms = replace(data, name="phantoms", simulated=True)  # by another program than this one
    clf, said = trained(phantoms)
    assert (clf.facts["sentences"], clf.facts["modality"]) == ("templates: general", None)
    clf, said = trained(modality="MRI", organ="breast")
    assert clf.facts["sentences"] == "templates: MRI"
    assert "of another kind (MRI, breast)" in said[0]


# -- the run folder


def test_a_run_folder_is_complete(first_run: Path, tiny: Backbone, data: bc.Dataset) -> None:
    assert {path.name for path in first_run.iterdir()} == RUN_FILES
    metrics = json.loads((first_run / "metrics.json").read_text())
    assert list(metrics["rows"]) == ["biomedcoop", "zero-shot", "majority class"]
    assert (metrics["shots"], metrics["seed"], metrics["settings"]["epochs"]) == (4, 1, 2)
    drawn = json.loads((first_run / "few_shot.json").read_text())["train"]
    assert len(drawn) == 12
    assert data.root is not None
    assert all((data.root / key).is_file() for key, _, _ in drawn)
    clf = bc.load(first_run, tiny)
    assert clf.facts["test"]["accuracy"] == metrics["rows"]["biomedcoop"]["accuracy"]
    again = bc.evaluate(clf, data, n_bootstrap=100)
    assert again.to_dict() == metrics["rows"]["biomedcoop"]
    report = (first_run / "report.md").read_text()
    command = next(line for line in report.splitlines() if line.startswith("biomedcoop train"))
    for words in ("--data scans", "--shots 4", "--set epochs=2", "--compare zero-shot", "--backbone model"):
        assert words in command
    for name, text in contents(first_run).items():
        assert (
            str(data.root).encode() not in text or name == "run.json"
        )  # the request names the data as they were given
    # the split that was written reads back as the dataset that was used
    split = bc.load_dataset(data.root, split_file=first_run / "split.json")
    assert dict(zip(split.keys, split.splits, strict=True)) == dict(zip(data.keys, data.splits, strict=True))


def test_the_same_run_again_is_the_same_to_the_last_bit(
    discs: Path, tiny: Backbone, first_run: Path, tmp_path: Path
) -> None:
    bc.train(discs, tmp_path / "second", backbone=tiny, n_bootstrap=100, **FAST, html=False)
    assert contents(tmp_path / "second") == contents(first_run)


def test_a_run_is_repeated_from_its_request(discs: Path, parity: Path, tmp_path: Path) -> None:
    given = {"backbone": parity / "model", "n_bootstrap": 40, "compare": ["coop"], "prompts": "templates", "views": 2}
    bc.train(discs, tmp_path / "first", seed=3, **FAST, **given, html=False)
    request = TrainRequest.read(tmp_path / "first" / "run.json", {})
    bc.train(request, tmp_path / "second", html=False)
    assert contents(tmp_path / "second") == contents(tmp_path / "first")
    fewer = TrainRequest.read(tmp_path / "first" / "run.json", {"shots": 2, "compare": []})
    report = bc.train(fewer, tmp_path / "third", html=False)
    assert (report.shots, report.seed, list(report.rows)) == (2, 3, ["biomedcoop", "majority class"])
    with pytest.raises(bc.UserError, match="a request already holds all options"):
        bc.train(request, tmp_path / "fourth", shots=2, html=False)


@pytest.mark.slow
def test_another_process_with_a_cold_store_gives_the_same_bits(
    discs: Path, parity: Path, first_run: Path, tmp_path: Path
) -> None:
    program = (
        "import sys, biomedcoop as bc\n"
        "bc.train(sys.argv[1], sys.argv[2], method='biomedcoop', backbone=sys.argv[3], n_bootstrap=100, shots=4, "
        "settings={'epochs': 2}, html=False)"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(discs), str(tmp_path / "second"), str(parity / "model")],
        check=True,
        env={**os.environ, "BIOMEDCOOP_CACHE": str(tmp_path / "cache")},
    )
    found, expected = contents(tmp_path / "second"), contents(first_run)
    assert found.pop("run.json") != expected.pop("run.json")  # one names the backbone's folder, one had it loaded
    assert found == expected


def test_only_zero_shot_methods_need_no_draw(discs: Path, tiny: Backbone, tmp_path: Path) -> None:
    bc.train(
        discs,
        tmp_path / "out",
        method="zero-shot",
        compare=["zero-shot-ensemble"],
        backbone=tiny,
        shots=1000,
        n_bootstrap=40,
        html=False,
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == RUN_FILES - {"few_shot.json"}
    assert bc.load(tmp_path / "out", tiny).facts["shots"] is None


def test_a_run_that_fails_leaves_nothing_and_harms_nothing(discs: Path, tiny: Backbone, tmp_path: Path) -> None:
    folder = shutil.copytree(discs, tmp_path / "scans")
    earlier = tmp_path / "run"
    bc.train(folder, earlier, backbone=tiny, n_bootstrap=40, compare=[], **FAST, html=False)
    before = contents(earlier)
    (folder / "test" / "red_stone" / "05.png").write_bytes(b"")
    told: list[str] = []

    def again(out: Path, **options: Any) -> None:
        def progress(what: str, done: int, total: int) -> None:
            told.append(what)

        bc.train(
            folder, out, backbone=tiny, n_bootstrap=40, compare=[], progress=progress, **FAST, **options, html=False
        )

    with pytest.raises(bc.ImageError, match=r"05\.png: the file is empty"):
        again(earlier, overwrite=True)
    assert contents(earlier) == before
    with pytest.raises(bc.ImageError, match=r"05\.png"):
        again(tmp_path / "other")
    assert not any(what.startswith("training") for what in told)  # found before the long work
    with pytest.raises(bc.UserError, match=r"run exists already.*overwrite=True"):
        again(earlier)
    shutil.copy(folder / "test" / "red_stone" / "04.png", folder / "test" / "red_stone" / "05.png")
    again(earlier, overwrite=True)
    assert contents(earlier).keys() == before.keys()
    assert {path.name for path in tmp_path.iterdir()} == {"scans", "run"}


def test_a_run_folder_is_never_put_among_the_classes(discs: Path, tiny: Backbone) -> None:
    for out in (discs / "run", discs / "train" / "run"):
        with pytest.raises(bc.UserError, match="is inside the dataset"):
            bc.train(discs, out, backbone=tiny, **FAST, html=False)
        assert not out.exists()


def test_a_small_class_is_drawn_with_repetition_when_told_to(data: bc.Dataset, tiny: Backbone) -> None:
    small = data.select([i for i in range(len(data)) if data.labels[i] or data.splits[i] == "test" or i % 8 == 0])
    assert "'blue cyst' has 3 images in train but shots=4" in refusal(small, tiny)
    clf = bc.fit(small, backbone=tiny, repeat_shots=True, **FAST)
    assert 9 <= len(clf.facts["training_images"]) <= 11  # one at least was drawn twice


def test_views_of_the_training_images(data: bc.Dataset, tiny: Backbone) -> None:
    def trained(**options: Any) -> bc.Classifier:
        return bc.fit(data, "biomedcoop", tiny, shots=2, settings={"epochs": 4, "lr": 0.02}, **options)

    by_views = {views: trained(views=views) for views in (1, 3, 4, "per-epoch")}
    for views, classifier in by_views.items():
        assert classifier.facts["views"] == views
        again = trained(views=views)
        assert torch.equal(again.state["class_embeddings"], classifier.state["class_embeddings"])
    embeddings = torch.stack([classifier.state["class_embeddings"] for classifier in by_views.values()])
    assert (embeddings[1:] - embeddings[:1]).abs().amax((1, 2)).min() > 1e-5
    # four views drawn at random are not those of four epochs in turn
    assert (embeddings[2] - embeddings[3]).abs().max() > 1e-5


@pytest.mark.parametrize("method", ["clip-adapter", "tip-adapter", "tip-adapter-f", "linear-probe", "lp++", "cocoop"])
def test_views_in_company(method: str, data: bc.Dataset, tiny: Backbone) -> None:
    settings = {"epochs": 3} if method in ("cocoop", "clip-adapter", "tip-adapter-f") else {}
    together = bc.fit_runs(data, method, tiny, 2, [1, 2], views=3, settings=settings)
    part = data.part("test")
    for seed, run in zip([1, 2], together, strict=True):
        alone = bc.fit(data, method, tiny, 2, seed, views=3, settings=settings)
        np.testing.assert_allclose(
            run.predict_proba(list(part.images)), alone.predict_proba(list(part.images)), atol=1e-4
        )


def test_what_else_is_in_a_run_folder_is_not_overwritten(discs: Path, tiny: Backbone, tmp_path: Path) -> None:
    """A project folder that holds the images and some metrics.json of another tool is not a run folder."""
    project = tmp_path / "project"
    shutil.copytree(discs, project / "scans")
    (project / "metrics.json").write_text("{}")
    with pytest.raises(bc.UserError, match="also holds 'scans'"):
        bc.train(
            project / "scans",
            project,
            method="zero-shot",
            compare=(),
            backbone=tiny,
            shots=2,
            overwrite=True,
            html=False,
        )
    assert (project / "scans").is_dir()


def test_images_of_another_hospital_need_no_training_images(discs: Path, tmp_path: Path) -> None:
    external = tmp_path / "external"
    shutil.copytree(discs / "test", external / "test")
    with pytest.raises(bc.UserError, match="none to train on"):
        bc.load_dataset(external)
    data = bc.load_dataset(external, for_training=False)
    assert set(data.splits) == {"test"}
    flat = bc.load_dataset(external / "test", for_training=False)
    assert set(flat.splits) == {"train"}, "no test split is drawn"


# -- what flatters the numbers of a run


def test_a_run_says_that_test_images_are_copies_of_its_training_images(
    discs: Path, tiny: Backbone, tmp_path: Path
) -> None:
    folder = shutil.copytree(discs, tmp_path / "scans")
    shutil.rmtree(folder / "test")
    shutil.copytree(folder / "train", folder / "test")
    said_before_work: list[str] = []

    def progress(what: str, done: int, total: int) -> None:
        if not said_before_work:
            said_before_work.extend(str(note.message) for note in said)

    with pytest.warns(Note) as said:
        report = bc.train(
            folder, tmp_path / "run", backbone=tiny, n_bootstrap=40, progress=progress, **FAST, html=False
        )
    (leak,) = report.leaks
    assert leak.startswith("Test images that are copies of images that were learned from: 12 of 72; methods that learn")
    assert any(
        line.startswith(f"{leak} The first is 'test/") for line in said_before_work
    )  # names only on the terminal
    text = (tmp_path / "run" / "report.md").read_text()
    assert text.split("\n\n")[1].startswith("> The test images are not independent. Test images that are copies")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["leaks"] == [leak]
    assert f"- The test images are not independent. {leak}" in (tmp_path / "run" / "model" / "README.md").read_text()
    with pytest.warns(Note):
        bc.train(folder, tmp_path / "again", backbone=tiny, n_bootstrap=40, **FAST, html=False)
    assert contents(tmp_path / "again") == contents(tmp_path / "run")


def test_where_nothing_is_learned_nothing_leaks(discs: Path, tiny: Backbone, tmp_path: Path) -> None:
    folder = shutil.copytree(discs, tmp_path / "scans")
    shutil.copy(folder / "train" / "red_stone" / "00.png", folder / "test" / "red_stone" / "copy.png")
    assert (
        bc.train(
            folder, tmp_path / "run", method="zero-shot", compare=[], backbone=tiny, n_bootstrap=40, html=False
        ).leaks
        == ()
    )


def test_a_run_says_that_groups_are_on_both_sides_and_resamples_them(
    discs: Path, tiny: Backbone, tmp_path: Path
) -> None:
    rows = [
        f"{image},{image.parent.name},{split},{image.parent.name}{number % 4}"
        for split in ("train", "test")
        for number, image in enumerate(sorted((discs / split).rglob("*.png")))
    ]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["path,label,split,group", *rows]))
    with pytest.warns(
        Note,
        match=r"Groups \(such as patients\) with images in train and in test: 12; methods that learn from images look better",
    ):
        report = bc.train(
            table, tmp_path / "run", method="linear-probe", backbone=tiny, shots=4, n_bootstrap=200, html=False
        )
    data = bc.load_dataset(table).part("test")
    assert report.metrics.n_groups == 12
    right = [
        predict_dataset(clf, data).argmax(1) == data.labels
        for clf in (bc.load(tmp_path / "run", tiny), bc.fit(bc.load_dataset(table), "zero-shot", tiny))
    ]
    difference = report.comparison.differences["zero-shot"].accuracy
    assert difference == paired_difference(*right, n_bootstrap=200, groups=data.groups)
    assert difference != paired_difference(*right, n_bootstrap=200)
    assert "Classes with fewer than 10 test groups" in (tmp_path / "run" / "report.md").read_text()


def test_a_run_whose_test_images_are_of_one_class_and_one_group(discs: Path, tiny: Backbone, tmp_path: Path) -> None:
    folder = shutil.copytree(discs, tmp_path / "scans")
    rows = [f"{p},{p.parent.name},train,{p.parent.name}{p.stem}" for p in sorted((folder / "train").rglob("*.png"))]
    rows += [f"{p},{p.parent.name},test,P" for p in sorted((folder / "test" / "red_stone").rglob("*.png"))]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,split,group", *rows]))
    report = bc.train(tmp_path / "table.csv", tmp_path / "run", backbone=tiny, n_bootstrap=40, **FAST, html=False)
    assert report.metrics.auroc.value is None
    assert report.comparison.differences["zero-shot"].accuracy.low is None
    text = (tmp_path / "run" / "report.md").read_text()
    assert "biomedcoop train --data table.csv --method" in text
    assert "(without an interval)" in text
    assert "All test images come from one group" in text
    assert "All test images show “red stone”." in text
    assert "resamples" not in text
    json.loads((tmp_path / "run" / "metrics.json").read_text(), parse_constant=pytest.fail)
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "| AUROC | – | – |" in card
    assert "% | – |" in card


def test_masked_values_are_refused_whatever_the_store_holds(data: bc.Dataset, tiny: Backbone) -> None:
    clf = bc.fit(data, method="zero-shot", backbone=tiny)
    pixels = np.random.default_rng(5).integers(0, 256, (20, 20), dtype=np.uint8)

    def single(image: np.ndarray) -> bc.Dataset:
        return bc.Dataset("d", data.class_names, [image], ["k"], [0], ["test"])

    bc.evaluate(clf, single(pixels), n_bootstrap=40)  # its features are in the store now
    with pytest.raises(bc.ImageError, match="some values are masked"):
        bc.evaluate(clf, single(np.ma.array(pixels, mask=pixels > 99)), n_bootstrap=40)


def test_what_evaluate_and_run_refuse_before_they_work(
    data: bc.Dataset, discs: Path, tiny: Backbone, tmp_path: Path
) -> None:
    clf = bc.fit(data, method="zero-shot", backbone=tiny)
    for given, words in (
        ((clf, str(discs)), "is a path or a name; give load_dataset"),
        ((data, clf), "the classifier must come from fit or load, not Dataset"),
        ((clf, None), "data must be a dataset from load_dataset, not NoneType"),
    ):
        with pytest.raises(bc.UserError, match=words):
            bc.evaluate(*given)
    worked: list[object] = []
    for wrong in (0, 10.5, "x"):
        with pytest.raises(bc.UserError, match=r"n_bootstrap=.*must be a whole number from 40 to"):
            bc.train(
                discs,
                tmp_path / "run",
                backbone=tiny,
                n_bootstrap=wrong,
                progress=lambda *now: worked.append(now),
                html=False,
            )
    assert worked == []
    for call in (bc.load, bc.load_dataset):
        with pytest.raises(bc.UserError, match="is not a path"):
            call(3)


def test_reading_says_what_was_left_out(discs: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(discs, tmp_path / "scans")
    (folder / "train" / "blue_cyst" / "a.txt").write_bytes(b"x")
    with pytest.warns(Note, match="1 file in scans is not an image and was ignored") as said:
        bc.load_dataset(folder)
    assert said[0].filename == __file__


def test_training_within_no_grad(data: bc.Dataset, tiny: Backbone) -> None:
    with torch.no_grad():
        inside = bc.fit(data, backbone=tiny, **FAST)
    outside = bc.fit(data, backbone=tiny, **FAST)
    assert torch.equal(inside.state["class_embeddings"], outside.state["class_embeddings"])
