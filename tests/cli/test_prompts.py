"""``biomedcoop prompts`` as a user types it, and ``train`` with sentences from everywhere."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TINY = str(Path(__file__).parents[1] / "parity_a" / "model")
Cli = Callable[..., Any]
Refused = Callable[..., str]

CYST = ["A round dark spot with a thin bright wall.", "Clear fluid fills one smooth pocket near the surface."]
TUMOR = ["Coarse green tissue pushes the grey vessels aside.", "Its ragged border melts into everything around it."]
STONE = ["Sharp red grains throw long shadows behind them.", "Several dense flecks gather at the lower pole."]
TABLE = {"blue cyst": CYST, "green tumor": TUMOR, "red stone": STONE}


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Write a file of sentences; by default good ones for the classes of the discs."""

    def write(table: object = TABLE, name: str = "words.json") -> Path:
        (tmp_path / name).write_text(table if isinstance(table, str) else json.dumps(table), encoding="utf-8")
        return tmp_path / name

    return write


Put = Callable[..., Path]


def csv(table: dict[str, list[str]]) -> str:
    return "class,sentence\n" + "".join(f'{c},"{s}"\n' for c, sentences in table.items() for s in sentences)


# -- list, show


def test_list(cli: Cli) -> None:
    listed = cli("prompts", "list")
    assert (listed.status, listed.err) == (0, "")
    for word in ("busi", "ultrasound", "malignant tumor", "150"):
        assert word in listed.out
    assert "templates: general, CT, MRI, X-ray" in listed.out
    parsed = json.loads(cli("prompts", "list", "--json").out)
    busi = next(task for task in parsed["library"] if task["name"] == "busi")
    assert busi["sentences"] == {"benign tumor": 50, "malignant tumor": 50, "normal scan": 50}
    assert parsed["templates"]["CT"] >= 8


def test_show(cli: Cli, put: Put) -> None:
    whole = cli("prompts", "show", "library:busi")
    assert (whole.status, whole.err) == (0, "")
    assert [line for line in whole.out.splitlines() if not line.startswith("  ")] == [
        "benign tumor (50)",
        "malignant tumor (50)",
        "normal scan (50)",
    ]
    part = json.loads(cli("prompts", "show", "library:busi", "--class", "Benign_Tumor", "--json").out)
    assert list(part) == ["benign tumor"]
    assert f"  {part['benign tumor'][49]}\n" in whole.out
    assert "an axial CT slice that shows {}." in cli("prompts", "show", "templates:ct").out
    assert "a photo of a {}." in cli("prompts", "show", "templates").out
    assert json.loads(cli("prompts", "show", put(), "--json").out) == TABLE


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["library"], "name a file of the library, e.g. library:busi"),
        (["library:bussi"], "has no file 'bussi'; did you mean busi?"),
        (
            ["library:busi", "--class", "cyst"],
            "library:busi has no class 'cyst'; it has: benign tumor, malignant tumor",
        ),
        (["templates:holography"], "no templates for the modality 'holography'; there are: general, CT"),
        (["words"], "prompts words: cannot be read"),
        ([], "Missing argument"),
    ],
)
def test_what_cannot_be_shown(refused: Refused, words: list[str], message: str) -> None:
    assert message in refused("prompts", "show", *words)


# -- check


def test_check(cli: Cli, put: Put, discs: Path) -> None:
    for source in (put(), put(csv(TABLE), "words.csv")):
        result = cli("prompts", "check", source, "--backbone", TINY)
        assert (result.status, result.err) == (0, "")
        assert "least like the others of 'red stone': " in result.out
        assert "closest classes to model: " in result.out
        assert result.out.endswith("no problem found\n")
    text = cli("prompts", "check", put(), "--backbone", "none")
    assert (text.status, text.err) == (0, "")
    assert "closest" not in text.out
    report = json.loads(cli("prompts", "check", put(), "--backbone", TINY, "--json").out)
    assert report["counts"] == dict.fromkeys(TABLE, 2)
    assert report["problems"] == []
    assert {frozenset(pair[:2]) for pair in report["closest"]} == {
        frozenset(pair)
        for pair in (("blue cyst", "green tumor"), ("blue cyst", "red stone"), ("green tumor", "red stone"))
    }


@pytest.mark.parametrize(
    ("table", "status", "line"),
    [
        ({"cyst": CYST, "stone": [*STONE, STONE[0]]}, 1, f"problem: stone: '{STONE[0]}' is there twice"),
        ({"cyst": CYST, "stone": [CYST[0], STONE[0]]}, 1, f"problem: stone: '{CYST[0]}' is also a sentence of 'cyst'"),
        ({"cyst": CYST, "stone": [STONE[0], "Sharp red grains throw shadows behind them."]}, 0, "says nearly what 'Sharp"),
        ({"cyst": CYST, "stone": [STONE[0], "Unlike cysts it never holds any water."]}, 0, "names the class 'cyst'"),
        ({"cyst": CYST, "stone": ["Sharp.", STONE[0]]}, 0, "warning: stone: 'Sharp.' has 1 words"),
        ({"cyst": CYST, "stone": STONE[:1]}, 0, "only the first 1 of each are used, as many as 'stone' has"),
        ({"cyst": CYST, "stone": [STONE[0], "Grey. " * 63]}, 1, "tokens, model reads 64; shorten it"),
        ({"cyst": CYST[:1]}, 0, "no problem found"),
    ],
    ids=str,
)  # fmt: skip
def test_what_check_finds(cli: Cli, put: Put, table: dict[str, list[str]], status: int, line: str) -> None:
    result = cli("prompts", "check", put(table), "--backbone", TINY)
    assert (result.status, result.err) == (status, "")
    assert line in result.out
    assert ("no problem found" in result.out) is (status == 0)
    report = cli("prompts", "check", put(table), "--backbone", TINY, "--json")
    assert report.status == status
    assert bool(json.loads(report.out)["problems"]) is (status == 1)


def test_check_counts_tokens(cli: Cli, put: Put) -> None:
    """Of 64 tokens two are the marks of begin and end; neither is lost."""
    for words, cut in ((30, False), (31, False), (32, True)):
        path = put({"cyst": CYST, "stone": ["grey . " * words]})
        report = json.loads(cli("prompts", "check", path, "--backbone", TINY, "--json").out)
        assert [tokens for *_, tokens in report["cut"]] == ([2 * words + 2] if cut else [])


def test_check_against_classes(cli: Cli, put: Put) -> None:
    words = ["prompts", "check", put(), "--backbone", "none", "--classes"]
    fine = cli(*words, "Red_Stone, blue cyst")
    assert fine.status == 0
    assert "not of this task: green tumor" in fine.out
    lacking = cli(*words, "red stone, wrist, hip")
    assert lacking.status == 1
    assert "problem: no sentences for wrist, hip; give your own with --prompts FILE" in lacking.out
    assert json.loads(cli(*words, "red stone, wrist", "--json").out)["missing"] == ["wrist"]


def test_check_on_images(cli: Cli, put: Put, discs: Path) -> None:
    words = ["prompts", "check", put(), "--data", discs, "--backbone", TINY]
    result = cli(*words)
    assert result.status == 0
    assert "72 train images, by sentences: " in result.out  # there is no val split, and test images are never a default
    assert "72 train images, by class name: " in result.out
    assert "the selection drops 0 of 2 sentences" in result.out
    assert "30 test images" in cli(*words, "--split", "test").out
    report = json.loads(cli(*words, "--json").out)
    for key in ("sentences", "class name"):
        recall = report["accuracy"][key]["recall"]
        assert set(recall) == set(TABLE)
        assert report["accuracy"][key]["accuracy"]["value"] == pytest.approx(sum(recall.values()) / 3)
    lacking = cli("prompts", "check", put({"blue cyst": CYST}), "--data", discs, "--backbone", TINY)
    assert lacking.status == 1
    assert "problem: no sentences for green tumor, red stone" in lacking.out
    assert "images, by" not in lacking.out


def test_check_with_the_shipped_backbone(cli: Cli, tmp_path: Path) -> None:
    images = ["--train", 2, "--val", 1, "--test", 1]
    assert cli("datasets", "simulate", "breast-ultrasound", "--out", tmp_path / "us", *images).status == 0
    report = json.loads(cli("prompts", "check", "library:busi", "--data", tmp_path / "us", "--json").out)
    assert (report["backbone"], report["images"]) == ("mini", "3 val images")
    assert (report["problems"], report["missing"], report["faults"], report["cut"]) == ([], [], [], [])
    assert len(report["dropped"]) < 50
    assert [odd["class_name"] for odd in report["outliers"]] == ["benign tumor", "malignant tumor", "normal scan"]
    assert all(odd["z"] < -1 for odd in report["outliers"])


def test_check_all_of_the_library(cli: Cli) -> None:
    result = cli("prompts", "check", "library", "--backbone", "none")
    assert (result.status, result.err) == (0, "")
    assert "busi" in result.out
    assert result.out.endswith("no problem found\n")
    assert len(json.loads(cli("prompts", "check", "library", "--backbone", "none", "--json").out)) >= 14


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["library", "--classes", "a,b"], "'library' means all its files; with --data or --classes name one file"),
        (["library:bussi"], "did you mean busi?"),
        (["nowhere.json"], "nowhere.json: cannot be read"),
        (["library:busi", "--classes", "cyst"], "--classes 'cyst': name at least two classes"),
        (["library:busi", "--classes", "a,b", "--data", "nowhere"], "give one of them"),
        (["library:busi", "--data", "nowhere"], "nowhere"),
        (["library:busi", "--threshold", 0], "--threshold 0.0: must be above 0"),
        (["library:busi", "--threshold", "nan"], "--threshold nan: must be above 0"),
        (["library:busi", "--backbone", "minni"], "did you mean mini?"),
        (["library:busi", "--split", "test"], "--split names images of --data; give --data too"),
        (["templates:CT"], "templates are the same for every class"),
        (["library:"], "the prompt library has no file ''"),
        ([""], "prompts: the name is empty"),
    ],
)
def test_what_cannot_be_checked(refused: Refused, words: list[object], message: str) -> None:
    assert message in refused("prompts", "check", *words)


# -- import


def test_import(cli: Cli, put: Put, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name, sentences in TABLE.items():
        put("\n".join(sentences), f"folder/{name}.txt")
    python = put(f"raise SystemExit\nA = {{'a': ['b']}}\nB = {TABLE}\n", "words.py")
    out = tmp_path / "out.json"
    for source in (put(csv(TABLE), "words.csv"), f"{python}:B", tmp_path / "folder", put()):
        result = cli("prompts", "import", source, "--out", out, "--overwrite", "--organ", "kidney")
        assert (result.status, result.out) == (0, "")
        assert result.err == f"6 sentences of 3 classes in {out}\n"
        content = json.loads(out.read_text())
        assert content == {"organ": "kidney", "author": f"imported from {Path(source).name}", "classes": TABLE}


def test_import_of_some_classes(cli: Cli, refused: Refused, put: Put, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    words = ["prompts", "import", put({**TABLE, "other": [*CYST, CYST[0]]}), "--out", out]
    assert "no sentences for 'wrist'; it has: blue cyst, green tumor, red stone, other" in refused(
        *words, "--classes", "red stone, wrist"
    )
    assert not out.exists()
    chosen = cli(*words, "--classes", "Red_Stone, blue cyst", "--json")
    assert json.loads(chosen.out) == {"out": str(out), "sentences": {"Red Stone": 2, "blue cyst": 2}, "faults": {}}
    assert json.loads(out.read_text())["classes"] == {"Red Stone": STONE, "blue cyst": CYST}
    assert f"{out} exists already" in refused(*words)
    noted = cli(*words, "--overwrite")
    assert f"note: 3 x shared; 'biomedcoop prompts check {out}' shows them" in noted.err
    assert "give a name that ends with .json" in refused(*words[:-1], tmp_path / "out.csv")


# -- train


@pytest.mark.parametrize(
    ("name", "content", "source"),
    [
        ("words.json", TABLE, "file: words.json"),
        ("words.csv", csv({name.replace(" ", "_").upper(): sentences for name, sentences in TABLE.items()}), "file: words.csv"),
        ("words.py", f"T = {TABLE}", "file: words.py"),
        ("words.txt", "a scan of {}.\nfindings of {}.\n", "templates: words.txt"),
    ],
)  # fmt: skip
def test_train_with_sentences_of_ones_own(
    cli: Cli, put: Put, discs: Path, tmp_path: Path, name: str, content: object, source: str
) -> None:
    result = train(cli, discs, tmp_path / "run", "--prompts", put(content, name))
    assert result.status == 0, result.err
    assert result.err == f"note: Sentences: {source}, 2 for each class.\n"
    assert source in (tmp_path / "run" / "report.md").read_text()
    assert cli("evaluate", tmp_path / "run", "--data", discs, "--backbone", TINY).status == 0


def test_train_without_sentences_says_so_and_how_to_get_some(cli: Cli, discs: Path, tmp_path: Path) -> None:
    result = train(cli, discs, tmp_path / "run")
    assert result.status == 0
    note, source = result.err.splitlines()  # the note comes before the training
    assert source == "note: Sentences: templates: general, 10 for each class."
    assert note.startswith(
        "note: Templates (general) are used in place of sentences: no sentences for 'blue cyst', 'green"
    )
    command = shlex.split(note[note.index("biomedcoop prompts generate") :].rstrip("."))
    command[command.index("--out") + 1] = str(tmp_path / "words.json")
    shown = cli(*command[1:], "--dry-run")  # the command that is offered is one that runs
    assert shown.status == 0
    assert "Class to describe: blue cyst\\nOther classes of the task: green tumor; red stone" in shown.out


def test_train_says_that_sentences_were_cut(cli: Cli, put: Put, discs: Path, tmp_path: Path) -> None:
    long = {name: [*sentences, "grey . " * 40] for name, sentences in TABLE.items()}
    result = train(cli, discs, tmp_path / "run", "--prompts", put(long))
    assert result.status == 0
    note = "3 of the 9 sentences have more tokens than the 64 that model reads and are cut (blue cyst: 'grey . grey"
    assert result.err.count(f"note: {note}") == 1
    assert note in (tmp_path / "run" / "report.md").read_text()


def test_train_refuses_sentences_that_lack_classes(refused: Refused, put: Put, discs: Path, tmp_path: Path) -> None:
    def line(source: object) -> str:
        return refused("train", "--data", discs, "--out", tmp_path / "run", "--backbone", TINY, "--prompts", source)

    path = put({"blue cyst": CYST})
    assert f"prompts {path}: no sentences for 'green tumor', 'red stone'; it has: blue cyst; give your own" in line(
        path
    )
    assert "the prompt library does not cover this task" in line("library")
    assert "library:busi: no sentences for 'blue cyst', 'green tumor', 'red stone'" in line("library:busi")
    assert "no templates for the modality 'holography'" in line("templates:holography")
    assert "prompts generate --classes 'blue cyst, green tumor, red stone'" in line("library")
    assert not (tmp_path / "run").exists()


SIGNS = {"HER2": CYST, "HER2-": TUMOR, "1": STONE, "-1": ["Minus sign.", "Negative grade."]}


def test_classes_that_differ_in_a_sign(cli: Cli, put: Put, tmp_path: Path) -> None:
    path, out = put(SIGNS), tmp_path / "out.json"
    checked = json.loads(
        cli("prompts", "check", path, "--backbone", "none", "--classes", "-1, 1, her2-, HER2", "--json").out
    )
    assert (checked["missing"], checked["unused"], checked["problems"]) == ([], [], [])
    assert cli("prompts", "import", path, "--classes", "HER2\u2212, HER2", "--out", out).status == 0
    assert json.loads(out.read_text())["classes"] == {"HER2\u2212": TUMOR, "HER2": CYST}
    words = ["prompts", "generate", "--classes", "HER2, HER2-", "--modality", "microscopy", "--organ", "breast"]
    asked = cli(*words, "--dry-run")
    assert asked.status == 0
    assert "Class to describe: HER2\\nOther classes of the task: HER2-" in asked.out
    assert "'her2' is there twice" in cli(*words[:3], "HER2, her2\u200b", *words[4:], "--dry-run").err


def test_check_takes_near_names_of_the_library(cli: Cli) -> None:
    words = ["prompts", "check", "library:busi", "--backbone", "none", "--classes"]
    report = json.loads(cli(*words, "benign, normal", "--json").out)
    assert report["counts"] == {"benign": 50, "normal": 50}
    assert report["warnings"][0] == "'benign' uses the sentences of 'benign tumor'"
    assert report["unused"] == ["malignant tumor"]


def test_train_says_what_is_wrong_with_a_file(cli: Cli, put: Put, discs: Path, tmp_path: Path) -> None:
    table = {**TABLE, "blue cyst": [*CYST, CYST[0]], "red stone": [*STONE[:1], CYST[1]], "other": ["One.", "Two."]}
    notes = (
        f"words.json: 1 of 7 sentences repeated within a class (blue cyst: '{CYST[0]}' is there twice)",
        f"words.json: 1 of 7 sentences shared by two classes (red stone: '{CYST[1]}' is also a sentence of 'blue cyst')",
        "words.json: classes have different numbers of sentences; only the first 2 of each are used",
        "words.json: not of this task, and not used: 1 of its 4 classes ('other').",
    )
    out = tmp_path / "run"
    # two methods with the same sentences say the same once
    result = train(cli, discs, out, "--prompts", put(table), "--compare", "zero-shot-ensemble")
    assert result.status == 0
    report = (out / "report.md").read_text()
    for note in notes:
        assert result.err.count(f"note: {note}") == 1
        assert report.count(note) == 1
    assert str(tmp_path) not in report
    problems = json.loads(cli("prompts", "check", put(table), "--data", discs, "--backbone", "none", "--json").out)
    assert problems["unused"] == ["other"]
    assert len(problems["problems"]) == 2  # the same repeats, by the same rules


def test_train_takes_the_library_for_images_of_its_kind_only(cli: Cli, tmp_path: Path) -> None:
    images = ["--train", 4, "--val", 0, "--test", 1]
    assert cli("datasets", "simulate", "breast-ultrasound", "--out", tmp_path / "us", *images).status == 0
    line = "note: Sentences: library: busi (ultrasound, breast), 50 for each class."
    known = train(cli, tmp_path / "us", tmp_path / "known")
    assert known.err.count(line) == 1
    (tmp_path / "us" / "simulated.json").unlink()  # now these are some images of benign tumors
    doubtful = train(cli, tmp_path / "us", tmp_path / "doubtful")
    assert "note: Sentences: templates: general, 10 for each class." in doubtful.err
    options = ["--modality", "ultrasound", "--organ", "breast"]
    assert f"--prompts library:busi (or, for train, {' '.join(options)})" in doubtful.err
    stated = train(cli, tmp_path / "us", tmp_path / "stated", *options)
    assert stated.err.count(line) == 1
    named = train(cli, tmp_path / "us", tmp_path / "named", "--prompts", "library:busi")
    assert named.err.count(line) == 1
    models = [(tmp_path / run / "model" / "model.safetensors").read_bytes() for run in ("known", "stated", "named")]
    assert models[0] == models[1] == models[2]
    report = (tmp_path / "stated" / "report.md").read_text()
    assert "breast ultrasound images" in report
    assert " ".join(options) in report  # the command that repeats the run
    other = train(cli, tmp_path / "us", tmp_path / "other", "--modality", "CT", "--organ", "liver")
    assert (
        "library:busi (ultrasound, breast) has classes of these names, but your images are of another kind" in other.err
    )
    assert "note: Sentences: templates: CT, 10 for each class." in other.err


def test_train_tells_of_near_names(cli: Cli, refused: Refused, discs: Path, tmp_path: Path) -> None:
    for own, name in zip(("blue_cyst", "green_tumor", "red_stone"), ("benign", "malignant", "normal"), strict=True):
        for split in ("train", "test"):
            shutil.copytree(discs / split / own, tmp_path / "BUSI" / split / name)
    told = train(cli, tmp_path / "BUSI", tmp_path / "run")
    assert "library:busi (ultrasound, breast) has 'benign tumor', 'malignant tumor', 'normal scan'" in told.err
    assert "add --prompts library:busi;" in told.err
    taken = train(cli, tmp_path / "BUSI", tmp_path / "taken", "--prompts", "library:busi")
    assert "note: Sentences: library: busi (ultrasound, breast), 50 for each class." in taken.err
    assert "'benign' those of 'benign tumor', 'malignant' those of 'malignant tumor'" in taken.err
    words = ["--data", tmp_path / "BUSI", "--out", tmp_path / "no", "--backbone", TINY]
    assert "--modality ' ' must be one or more words, e.g. --modality 'CT'" in refused(
        "train", *words, "--modality", " "
    )


def train(cli: Cli, data: Path, out: Path, *more: object) -> Any:
    words = [
        "--backbone",
        TINY,
        "--shots",
        4,
        "--method",
        "biomedcoop",
        "--set",
        "epochs=1",
        "--compare",
        "none",
        *more,
    ]
    return cli("train", "--data", data, "--out", out, *words)
