"""What the page of a run says, that it asks nobody, and what happens where something of the run is missing."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

import biomedcoop as bc
from biomedcoop.evaluation.comparison import Comparison
from biomedcoop.evaluation.doubtful_labels import DoubtfulLabel
from biomedcoop.report.html import learning
from biomedcoop.report.html.learning import find_curve
from biomedcoop.report.html.names import shown_names
from biomedcoop.report.html.sources import find_sources
from biomedcoop.report.markdown import render as summary
from biomedcoop.report.reading import read_report

TINY = str(Path(__file__).parents[2] / "parity_a" / "model")
"""The tiny model, where it does not matter what a backbone knows."""


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def text_of(page: str) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)))


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


def test_the_verdict_comes_first_and_everything_is_there(run: Path, page: str) -> None:
    report, text = read_report(run), text_of(page)
    for finding in report.verdict:
        assert finding.text in text
    for heading in (
        "Verdict",
        "Task and data",
        "Results",
        "Errors",
        "Words",
        "How to read the numbers",
        "How to repeat it",
    ):
        assert f">{heading}</h2>" in page
    assert text.index(report.verdict[0].text) < text.index("Images per class and split")
    assert report.command in text
    assert "A command that repeats the run." in text
    assert "Folders are left out on purpose: put in your own paths." in text
    assert report.fingerprint in text
    assert report.versions["torch"] in text
    assert text.count("Not a medical device") == 2
    hashes = json.loads((run / "model" / "classifier.json").read_text())["tensors_sha256"]
    assert hashes in text
    assert "Sensitivity at a specificity of at least 90 %" in text
    assert "8 more images of each class" in text


def test_the_learning_curve_ends_at_the_results_of_the_report(run: Path, page: str) -> None:
    found = read_report(run).metrics.balanced_accuracy.value
    assert found is not None
    row = re.search(
        r"balanced accuracy</th>\s*(.*?)</tr>", page[page.index("8 per class: the run itself.") :], re.DOTALL
    )
    assert row is not None
    assert text_of(row[1]).split()[2] == f"{100 * found:.1f}"


def test_a_curve_of_a_quicker_recipe_is_said_to_be_another_training(discs: Path, tmp_path: Path) -> None:
    bc.train(
        discs,
        tmp_path / "run",
        method="kgcoop",
        shots=4,
        settings={"epochs": 1},
        n_bootstrap=40,
        backbone=TINY,
        html=False,
    )
    request = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**request, "settings": {}}))
    text = text_of(bc.write_html(tmp_path / "run").read_text(encoding="utf-8"))
    assert "All columns are other trainings than the run, with recipe “fast”: 4 per class is not the result of" in text


def test_headings_are_in_order_and_pictures_have_words(page: str) -> None:
    levels = [int(level) for level in re.findall(r"<h([1-6])", page)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    pictures = re.findall(r"<img [^>]*>", page)
    assert len(pictures) >= 12
    assert all(re.search(r'alt="[^"]+"', picture) for picture in pictures)
    assert all(re.search(r'aria-label="[^"]+"', figure) for figure in re.findall(r"<svg [^>]*>", page))
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_it_names_no_address_and_no_folder_of_this_machine(run: Path, discs: Path, page: str) -> None:
    addresses = set(re.findall(r'(?:src|href)="([^"#][^"]{0,30})', page))
    assert all(address.startswith("data:") for address in addresses), addresses
    assert str(discs.parent) not in page
    assert str(run.parent) not in page
    assert len(page) < 5_000_000


def test_the_same_folder_gives_the_same_page(copy: Path, page: str) -> None:
    assert bc.write_html(copy) == copy / "report.html"
    assert (copy / "report.html").read_text(encoding="utf-8") == page


def test_a_report_reads_back(run: Path) -> None:
    report = read_report(run)
    assert (run / "report.md").read_text(encoding="utf-8") == summary(report)
    assert "report.html" not in report.title


def test_a_table_of_what_was_tried_says_of_which_seed(run: Path) -> None:
    report = read_report(run)
    assert report.who_tried == f"{report.method} tried"
    predictions = replace(report.comparison.predictions, seeds=(report.seed, report.seed + 1))
    several = replace(report, comparison=replace(report.comparison, predictions=predictions))
    assert several.who_tried == f"{report.method} tried, seed {report.seed}"


def test_without_images_nothing_shows_or_names_one(copy: Path) -> None:
    path = bc.write_html(copy, copy.parent / "other.html", images=False, specificity=0.75)
    page = path.read_text(encoding="utf-8")
    assert "<img" not in page
    assert ".png" not in page
    assert "left out on request" in page
    assert "Sensitivity at a specificity of at least 75 %" in page
    assert "row of predictions.csv" in page or "No test image has a label" in page
    assert "Most similar training images" not in page
    assert page.count("Sentences that the image agrees with most") == page.count('<figure class="case">') > 0


def test_no_note_names_a_file(discs: Path, tmp_path: Path) -> None:
    """A mask beside its image, an image of one colour, several frames, and copies with two labels."""
    data = Path(shutil.copytree(discs, tmp_path / "scans"))
    first, second, *_ = (sorted(folder.iterdir()) for folder in sorted((data / "train").iterdir()))
    Image.new("L", (32, 32)).save(first[0].with_name(f"{first[0].stem}_mask.png"))
    Image.new("RGB", (32, 32)).save(data / "test" / first[0].parent.name / "plain.png")
    shutil.copy(first[1], second[0].with_name("copied.png"))
    frames = [Image.open(first[n]).convert("P") for n in (1, 2)]
    frames[0].save(first[0].with_name("moving.gif"), save_all=True, append_images=frames[1:])
    run = tmp_path / "run"
    with pytest.warns(bc.errors.Note):
        report = bc.train(data, run, method="simpleshot", shots="all", n_bootstrap=40, backbone=TINY, images=False)
    assert "--no-images" in report.command
    assert json.loads((run / "run.json").read_text())["images"] is False
    for file in ("report.html", "report.md"):
        text = (run / file).read_text(encoding="utf-8").replace("confusion.png", "")
        assert "a mask beside the images in scans was left out" in text
        assert "of a single colour: 1" in text
        assert "copies of an image of another class" in text
        assert not re.findall(r"[\w-]+\.(?:png|gif)", text)


def test_a_run_trained_without_images_keeps_that_choice(copy: Path, cli) -> None:
    request = json.loads((copy / "run.json").read_text())
    assert request["images"] is True
    (copy / "run.json").write_text(json.dumps({**request, "images": False}))
    result = cli("report", copy)
    assert (
        "note: images and their names are left out, because the run was trained with --no-images; '--images' shows them"
        in result.err
    )
    assert "<img" not in (copy / "report.html").read_text(encoding="utf-8")
    result = cli("report", copy, "--images")
    assert "left out" not in result.err
    assert "<img" in (copy / "report.html").read_text(encoding="utf-8")


def test_an_error_shows_sentences_of_answer_and_label(page: str) -> None:
    errors = re.findall(r'<figure class="case">.*?</figure>', page, re.DOTALL)
    assert errors
    for error in errors:
        text = text_of(error)
        label, answer = re.findall(r"(?:Label|Answer): (.+?) \(", text)
        assert re.search(rf"agrees with most {answer} \(cosine -?[\d.]+\): .+ {label} \(cosine", text)
        assert error.count('alt="Training image of') == 3


@pytest.mark.parametrize(
    "name", ["metrics.json", "predictions.csv", "split.json", "few_shot.json", "run.json", "model"]
)
def test_an_incomplete_folder_is_refused_in_one_line(copy: Path, name: str, refused) -> None:
    shutil.rmtree(copy / name) if (copy / name).is_dir() else (copy / name).unlink()
    assert f"{name} is missing" in refused("report", copy)


def test_a_test_image_that_was_replaced_is_not_shown(copy: Path, discs: Path, cli, page: str) -> None:
    data = shutil.copytree(discs, copy.parent / "scans")
    rows = list(csv.DictReader((copy / "predictions.csv").open()))
    shown = next(row for row in rows if row["truth"] != row["prediction"] and row["path"] in page)
    right = next(row for row in rows if row["truth"] == row["prediction"] == shown["truth"])
    shutil.copy(data / right["path"], data / shown["path"])
    request = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**request, "data": str(data)}))
    cli("report", copy)
    now = (copy / "report.html").read_text(encoding="utf-8")
    (card,) = (
        card for card in re.findall(r'<figure class="case">.*?</figure>', now, re.DOTALL) if shown["path"] in card
    )
    assert "This image has changed since the test, so it is not shown" in text_of(card)
    assert "<img" not in card
    assert "Sentences" not in card
    assert now.count('alt="Test image of') == page.count('alt="Test image of') - 1


def test_only_the_missing_test_image_is_left_out(copy: Path, discs: Path, cli, page: str) -> None:
    data = shutil.copytree(discs, copy.parent / "scans")
    errors = [
        row["path"] for row in csv.DictReader((copy / "predictions.csv").open()) if row["truth"] != row["prediction"]
    ]
    shown = [key for key in errors if key in page]
    request = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**request, "data": str(data)}))
    (data / shown[0]).unlink()
    said = "1 of the 30 test images is no longer in the data and is not shown. A learning curve is tested on the others only."
    assert f"note: {said}" in cli("report", copy).err
    left = (copy / "report.html").read_text(encoding="utf-8")
    assert said in text_of(left)
    assert left.count('<figure class="case">') == page.count('<figure class="case">')
    assert left.count('alt="Test image of') == page.count('alt="Test image of') - 1
    assert left.count(", example ") == page.count(", example ")
    for test_image in (data / "test").rglob("*.png"):
        test_image.unlink()
    assert "There are no images, because the test images are no longer in the data." in cli("report", copy).err


def test_images_that_are_gone_are_said_to_be_gone(copy: Path, cli) -> None:
    request = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**request, "data": str(copy / "gone")}))
    result = cli("report", copy)
    assert result.status == 0
    assert "note: There are no images, because the data cannot be read any more. " in result.err
    assert f"{copy / 'gone'}: there is no such folder" in result.err
    page = (copy / "report.html").read_text(encoding="utf-8")
    assert "<img" not in page
    assert str(copy) not in page
    assert "There is no learning curve" not in page, "the run folder keeps it"
    (copy / "learning_curve.json").unlink()
    cli("report", copy)
    page = (copy / "report.html").read_text(encoding="utf-8")
    assert "There is no learning curve: the model or the training images are no longer there." in page


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--specificity", "1.2"), "specificity 1.2 is not between 0 and 1"),
        (("--out", "no/such/folder.html"), "does not exist"),
        (("--out", "report.txt"), "give a name that ends in .html"),
    ],
)
def test_wrong_options_are_refused(copy: Path, refused, words, line) -> None:
    assert line in refused("report", copy, *words)


def test_only_an_earlier_report_is_replaced(copy: Path, refused, cli) -> None:
    before = (copy / "metrics.json").read_bytes()
    assert "give a name that ends in .html" in refused("report", copy, "--out", copy / "metrics.json")
    assert (copy / "metrics.json").read_bytes() == before
    other = copy.parent / "notes.html"
    other.write_text("<!DOCTYPE html>")
    assert "is not a report of biomedcoop and is not replaced" in refused("report", copy, "--out", other)
    assert other.read_text() == "<!DOCTYPE html>"
    shutil.copy(copy / "report.html", other)
    result = cli("report", copy, "--no-images", "--out", other)
    assert result.status == 0, result.err
    assert "<img" not in other.read_text(encoding="utf-8")


@pytest.mark.parametrize("content", ["{", "[]", '{"rows": {}}'])
def test_a_damaged_folder_is_refused_in_one_line(copy: Path, refused, content) -> None:
    (copy / "metrics.json").write_text(content)
    assert "metrics.json" in refused("report", copy)


@pytest.mark.parametrize("rows", [29, 31])
def test_predictions_that_do_not_match_the_metrics_are_refused(copy: Path, refused, rows: int) -> None:
    file = copy / "predictions.csv"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines, lines[-1]][: rows + 1]))
    line = refused("report", copy)
    assert f"predictions.csv: it has {rows} rows, but metrics.json beside it has 30 predictions" in line


def test_a_folder_that_is_none_is_refused(tmp_path: Path, refused) -> None:
    assert "there is no such folder" in refused("report", tmp_path / "none")
    assert "the file metrics.json is missing" in refused("report", tmp_path)


def test_the_model_of_a_run_points_to_the_folder_above(run: Path, refused) -> None:
    line = refused("report", run / "model")
    assert line == f"error: {run / 'model'} is the model of a run; give the folder above it: {run}"


def test_names_cannot_break_the_page(tmp_path: Path, discs: Path) -> None:
    data = shutil.copytree(discs, tmp_path / "scans")
    for split in ("train", "test"):
        (data / split / "red_stone").rename(data / split / "<script>alert(1)<&$x^")
    bc.train(data, tmp_path / "run", method="simpleshot", shots=4, n_bootstrap=40, backbone=TINY)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert(1)&lt;&amp;$x^" in page


def test_names_from_right_to_left_stand_apart(tmp_path: Path, discs: Path) -> None:
    data = shutil.copytree(discs, tmp_path / "scans")
    for split in ("train", "test"):
        (data / split / "red_stone").rename(data / split / "كيس 5 mm")
        (data / split / "blue_cyst").rename(data / split / "גידול")
    bc.train(data, tmp_path / "run", method="tip-adapter", shots=4, n_bootstrap=40, backbone=TINY)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'"[^"<>]*<bdi>', page), "attributes hold no markup"
    assert "<title>" in page
    shown = re.sub(r"<(svg|pre|title)\b.*?</\1>|<[^b/][^>]*>", "", page, flags=re.DOTALL)
    assert "<bdi>كيس 5 mm</bdi>" in shown
    bare = re.sub(r"<bdi>.*?</bdi>", "", shown)
    assert not re.search("[\u0590-\u06ff]", bare)


def test_absolute_paths_of_a_table_show_names_only(tmp_path: Path, discs: Path, cli) -> None:
    files = sorted(discs.rglob("*.png"))
    rows = [f"{file},{file.parent.name},{file.parent.parent.name}" for file in files]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,split", *rows]))
    bc.train(tmp_path / "table.csv", tmp_path / "run", method="tip-adapter", shots=4, n_bootstrap=40)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert str(discs) not in page
    assert str(discs.parent) not in page
    names = re.findall(r'<span class="name">(.*?)</span>', page)
    assert names
    assert all(re.fullmatch(r"\w+/\d+\.png", name) for name in names), "the folder tells images of one name apart"
    assert str(discs) in (tmp_path / "run" / "predictions.csv").read_text()
    cli("evaluate", tmp_path / "run", "--data", tmp_path / "table.csv", "--out", tmp_path / "out", page=True)
    assert str(discs.parent) not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        (["test/a.png", "b.png"], ("test/a.png", "b.png")),
        (["/x/y/a.png", "/x/z/a.png", "/x/z/b.png"], ("y/a.png", "z/a.png", "b.png")),
        (["/x/y/a.png", "a.png"], ("y/a.png", "a.png")),
        (["../../home/a.png", "C:\\Users\\ann\\b.png"], ("a.png", "b.png")),
        (["/a.png", "/x/a.png"], ("a.png", "x/a.png")),
    ],
)
def test_names_of_images_leave_out_folders(keys: list[str], shown: tuple[str, ...]) -> None:
    assert shown_names(keys) == shown


def test_a_number_keeps_its_percent_sign(page: str) -> None:
    shown = re.sub(r"<(svg|pre|style|script)\b.*?</\1>|<[^>]*>", "", page, flags=re.DOTALL)
    assert re.search("\\d\N{NO-BREAK SPACE}%", shown)
    assert not re.findall(r".{20}\d ?%", shown.replace("\N{NO-BREAK SPACE}", "_"))


def test_a_page_that_cannot_be_written_loses_nothing(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> str:
        raise RuntimeError("no ink")

    monkeypatch.setattr("biomedcoop.report.html.page.render", broken)
    with pytest.warns(bc.errors.Note, match=r"report.html was not written \(RuntimeError: no ink\)"):
        report = bc.train(discs, tmp_path / "run", method="zero-shot", compare=[], n_bootstrap=40, backbone=TINY)
    assert report.metrics.n_images == 30
    assert (tmp_path / "run" / "model" / "classifier.json").is_file()
    assert (tmp_path / "run" / "report.md").is_file()


def test_an_evaluation_has_a_page(run: Path, discs: Path, tmp_path: Path, cli) -> None:
    out = tmp_path / "out"
    assert f"report: {out / 'report.html'}" in cli("evaluate", run, "--data", discs, "--out", out, page=True).out
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "There is no learning curve: an evaluation does not train." in page
    assert "<img" in page
    assert cli("report", out).err == ""
    assert (out / "report.html").read_text(encoding="utf-8") == page


def test_an_evaluation_of_other_classes_without_images_keeps_both_choices(discs: Path, tmp_path: Path, cli) -> None:
    bc.fit(bc.load_dataset(discs), method="zero-shot").save(tmp_path / "model")
    (tmp_path / "images").mkdir()
    for name in ("red_stone", "blue_cyst"):
        shutil.copytree(discs / "test" / name, tmp_path / "images" / name)
    words = ["evaluate", tmp_path / "model", "--data", tmp_path / "images", "--classes", "red stone,blue cyst"]
    cli(*words, "--no-images", "--out", tmp_path / "out", page=True)
    file = tmp_path / "out" / "report.html"
    page = file.read_text(encoding="utf-8")
    said = cli("report", tmp_path / "out").err
    assert "because the evaluation was made with --no-images; '--images' shows them" in said
    assert file.read_text(encoding="utf-8") == page
    cli("report", tmp_path / "out", "--images")
    assert "with a map" in file.read_text(encoding="utf-8")
    for other in ("report.md", "metrics.json", "report.html"):
        assert str(tmp_path) not in (tmp_path / "out" / other).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model", "There are no maps and no words, because the model cannot be loaded. "),
        ("another model", "another model is here now; evaluate again"),
        ("data", "There are no images, because the data cannot be read any more. "),
        ("evaluation.json", "There are no images, maps and words: evaluation.json, which says where they are, is not"),
    ],
)
def test_what_is_gone_of_an_evaluation_is_said_once(
    run: Path, discs: Path, tmp_path: Path, cli, change: str, said: str
) -> None:
    model, data = shutil.copytree(run / "model", tmp_path / "model"), shutil.copytree(discs, tmp_path / "scans")
    cli("evaluate", model, "--data", data, "--out", tmp_path / "out")
    if change == "another model":
        shutil.rmtree(model)
        bc.fit(bc.load_dataset(discs), method="tip-adapter", shots=2).save(model)
    else:
        place = {"model": model, "data": data, "evaluation.json": tmp_path / "out" / "evaluation.json"}[change]
        place.rename(tmp_path / "elsewhere")
    result = cli("report", tmp_path / "out")
    assert result.status == 0
    assert result.err.count("There are no") == 1
    assert said in result.err
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert ("<img" in page) == (change in ("model", "another model"))
    assert text_of(page).count("There are no") == 1
    assert str(tmp_path) not in page


def test_an_evaluation_in_python_says_why_its_page_cannot_show_images_again(discs: Path, tmp_path: Path) -> None:
    data = bc.load_dataset(discs)
    bc.compare(bc.fit(data, method="tip-adapter", shots=2, backbone=TINY), data, out=tmp_path / "out", n_bootstrap=40)
    with pytest.warns(bc.errors.Note) as notes:
        bc.write_html(tmp_path / "out")
    assert {str(note.message) for note in notes} == {
        "There are no maps and no words: the classifier of the evaluation was not read from a folder.",
        "There are no images: the evaluation was given a loaded dataset, not the path of one.",
    }


@pytest.mark.parametrize("content", ["[]", "{}", '{"format": 1, "data": 3, "split_file": null, "images": true}', "{"])
def test_damaged_inputs_of_an_evaluation_are_refused(
    run: Path, discs: Path, tmp_path: Path, cli, refused, content: str
) -> None:
    cli("evaluate", run, "--data", discs, "--out", tmp_path / "out")
    (tmp_path / "out" / "evaluation.json").write_text(content)
    assert "evaluation.json" in refused("report", tmp_path / "out")


def test_a_cross_validation_of_two_seeds_has_a_page(discs: Path, tmp_path: Path) -> None:
    small = tmp_path / "scans"
    for folder in (discs / "test").iterdir():
        shutil.copytree(folder, small / folder.name)
    bc.train(small, tmp_path / "run", method="simpleshot", shots=4, seeds=[1, 2], n_bootstrap=40, backbone=TINY)
    text = text_of((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert "the test is a cross-validation" in text
    assert re.search(r"Mean ± standard deviation over \d cross-validations", text)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    cards = re.findall(r'<figure class="case">.*?</figure>', page, re.DOTALL)
    assert cards
    assert all(card.count("<img") == 1 and "agrees with" not in card for card in cards)
    p = read_report(tmp_path / "run").comparison.predictions
    wrong = int((p.runs(p.method)[0].argmax(axis=1) != p.labels).sum())
    assert (
        f"of {wrong} errors of the first cross-validation. Maps, sentences and similar training images are left out:"
        in text
    )


def test_a_page_of_two_seeds_says_whose_answers_it_shows(discs: Path, tmp_path: Path) -> None:
    bc.train(discs, tmp_path / "run", method="simpleshot", shots=2, seeds=[5, 2], n_bootstrap=40, backbone=TINY)
    p = read_report(tmp_path / "run").comparison.predictions
    wrong = int((p.runs(p.method)[0].argmax(axis=1) != p.labels).sum())
    text = text_of((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert f"of {wrong} errors of seed 5, whose classifier is saved." in text


def test_figures_and_notebook_forms(run: Path) -> None:
    report = read_report(run)
    for name in ("intervals", "confusion", "reliability", "roc", "precision-recall"):
        assert report.figure(name).get_axes()
    with pytest.raises(bc.UserError, match="no figure 'rok'; did you mean roc"):
        report.figure("rok")
    assert report.verdict[0].text in html.unescape(report._repr_html_())
    assert "blue cyst" in report.metrics._repr_html_()
    assert "tip-adapter" in bc.load(run)._repr_html_()


def test_a_kept_curve_saves_the_training(copy: Path, monkeypatch: pytest.MonkeyPatch, page: str) -> None:
    """The page is the same; a curve of another model, or a damaged one, is made anew."""
    kept = (copy / "learning_curve.json").read_bytes()
    made = []
    known = learning.learning_curve
    monkeypatch.setattr(learning, "learning_curve", lambda *values: made.append(1) or known(*values))
    assert bc.write_html(copy).read_text(encoding="utf-8") == page
    assert not made
    content = json.loads(kept)
    other = {**content, "of": {**content["of"], "model/classifier.json": "0"}}
    report = read_report(copy)
    sources = find_sources(copy, report.comparison.predictions.keys, report.comparison.predictions.class_names)
    for text in (json.dumps(other), "[]", json.dumps({**content, "right": [["?"]]}), "{"):
        (copy / "learning_curve.json").write_text(text)
        curve, why = find_curve(report, sources, copy)
        assert curve is not None
        assert not why
        assert (copy / "learning_curve.json").read_bytes() == kept
    assert len(made) == 4


@pytest.mark.parametrize("relation", ["better", "unclear"])
def test_only_a_method_that_knows_something_judges_labels(
    copy: Path, monkeypatch: pytest.MonkeyPatch, relation: str
) -> None:
    wrong = [DoubtfulLabel(0, 0, 1, 0.04, 0.9), DoubtfulLabel(1, 0, 1, 0.05, 0.9)]
    monkeypatch.setattr("biomedcoop.report.html.page.doubtful_labels", lambda _: wrong)
    monkeypatch.setattr(Comparison, "relation", lambda *_: relation)
    text = text_of(bc.write_html(copy).read_text(encoding="utf-8"))
    assert text.count("2 test images have a label that looks wrong") == 2 * (relation == "better")
    assert ("its answers say little about the labels" in text) == (relation != "better")


def test_many_classes_get_a_square_each(discs: Path, tmp_path: Path) -> None:
    """Seven classes: their curves would hide each other in one square."""
    data = tmp_path / "scans"
    for split in ("train", "test"):
        source = sorted((discs / split).iterdir())[0]
        for number in range(7):
            shutil.copytree(source, data / split / f"class {number}")
    with pytest.warns(bc.errors.Note, match="copies of an image of another class"):
        bc.train(data, tmp_path / "run", method="zero-shot", n_bootstrap=40, backbone=TINY)
    report = read_report(tmp_path / "run")
    for name in ("roc", "precision-recall"):
        squares = report.figure(name).get_axes()
        assert [axes.get_title() for axes in squares] == list(report.metrics.class_names)
        assert {len(axes.lines) for axes in squares} <= {8, 9, 10}, "seven in grey, one in blue, its dot, the diagonal"
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert page.count('<figure class="whole">') == 3
    assert text_of(page).count("Grey: the other classes.") == 2
