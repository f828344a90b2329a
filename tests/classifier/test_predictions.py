"""Predictions to files: the same numbers in every format, constant memory, whole or not at all."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import json
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch

import biomedcoop as bc
from biomedcoop.classifier.domain import Domain, distances
from biomedcoop.classifier.predictions import columns_of, predict_rows, write_predictions
from biomedcoop.data.readers.unlabelled import find_images, kept_columns
from biomedcoop.data.tables.writing import Row
from biomedcoop.errors import Note
from biomedcoop.features.images import encode_images

COLUMNS = ["path", "prediction", "p_blue cyst", "p_green tumor", "p_red stone", "unlike_training"]
NUMBERS = {*COLUMNS[2:], "p_x"}


def read_back(file: Path) -> list[Row]:
    """The rows of a file; an empty number of a CSV is None, as in the other formats."""
    if file.suffix == ".json":
        return json.loads(file.read_text())
    if file.suffix == ".parquet":
        return parquet.read_table(file).to_pylist()
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return [
        {name: (float(cell) if cell else None) if name in NUMBERS else cell for name, cell in row.items()}
        for row in rows
    ]


@pytest.fixture
def bad_image(tmp_path: Path) -> Path:
    (tmp_path / "bad.png").write_text("this is no picture")
    return tmp_path / "bad.png"


def test_a_killed_run_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from biomedcoop.classifier.domain import Domain, distances
from biomedcoop.classifier.predictions import write_predictions
def rows():
    yield {"path": "a.png"}
    os.kill(os.getpid(), signal.SIGKILL)
write_predictions(rows(), ["path"], Path(sys.argv[1]))
"""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "out.csv")], check=False)
        assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out.csv.new-")
    write_predictions([{"path": "a.png"}], ["path"], tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


# -- what of the tables is written beside the predictions


@pytest.fixture
def tables(tmp_path: Path, test_images: list[Path]) -> tuple[Path, Path]:
    """Two tables in folders of their own, each listing an image that lies beside it."""
    for folder, image in (("one", test_images[0]), ("two", test_images[-1])):
        (tmp_path / folder).mkdir()
        shutil.copy(image, tmp_path / folder / "a.png")
    (tmp_path / "one" / "list.csv").write_text('path,Patient ID,note\na.png,007,"x, y"\n')
    parquet.write_table(
        pa.table({"site": ["N"], "path": ["a.png"], "patient_id": [7.0], "seen": [datetime.date(2024, 5, 1)]}),
        tmp_path / "two" / "list.parquet",
    )
    return tmp_path / "one" / "list.csv", tmp_path / "two" / "list.parquet"


@pytest.mark.parametrize("ending", [".csv", ".json", ".parquet"])
def test_columns_of_tables_beside_the_predictions(
    clf: bc.Classifier, test_images: list[Path], tables: tuple[Path, Path], tmp_path: Path, ending: str
) -> None:
    inputs = [*tables, test_images[3]]
    kept = kept_columns(inputs, ["all"], COLUMNS)
    assert kept == ["Patient ID", "note", "site", "seen"]
    columns = columns_of(clf, kept)
    write_predictions(predict_rows(clf, find_images(inputs, keep=kept), keep=kept), columns, tmp_path / f"out{ending}")
    rows = read_back(tmp_path / f"out{ending}")
    assert all(list(row) == columns for row in rows)
    assert [[row[name] for name in ("path", *kept)] for row in rows] == [
        ["a.png", "007", "x, y", "", ""],
        ["a.png", "7", "", "N", "2024-05-01"],
        [str(test_images[3]), "", "", "", ""],
    ]
    assert [row["prediction"] for row in rows] == clf.predict([test_images[0], test_images[-1], test_images[3]])


def test_bad_images_do_not_shift_the_cells(clf: bc.Classifier, test_images: list[Path], tmp_path: Path) -> None:
    names = [str(image) if n % 3 else f"none{n}.png" for n, image in enumerate(test_images)]
    table = tmp_path / "list.csv"
    table.write_text("id,path\n" + "".join(f"{n},{name}\n" for n, name in enumerate(names)))
    rows = list(predict_rows(clf, find_images([table], keep=["id"]), keep=["id"], skip_bad=True))
    assert [(row["path"], row["id"]) for row in rows] == [(name, str(n)) for n, name in enumerate(names)]
    assert [row["error"] is None for row in rows] == [n % 3 > 0 for n in range(len(names))]


def test_columns_that_cannot_be_kept(tables: tuple[Path, Path], test_images: list[Path], tmp_path: Path) -> None:
    def refused(inputs: Sequence[Path], *wanted: str) -> str:
        with pytest.raises(bc.UserError) as caught:
            kept_columns(inputs, wanted, COLUMNS)
        return str(caught.value)

    assert kept_columns(tables, [], COLUMNS) == []
    assert kept_columns(tables, ["PatientID"], COLUMNS) == ["Patient ID"]
    assert f"{tables[1]}: no column 'note'" in refused(tables, "patient_id", "note")
    assert "only columns of tables" in refused(test_images, "all")
    earlier = tmp_path / "earlier.csv"
    earlier.write_text("path,prediction,x,X\na.png,cyst,1,2\n")
    assert f"{earlier}: the column 'prediction' cannot be kept" in refused([earlier], "all")
    assert "appears twice" in refused([earlier], "x")


# -- what is written


@pytest.mark.parametrize("ending", [".csv", ".json", ".parquet", ".CSV"])
def test_every_format_reads_back_as_predicted(
    clf: bc.Classifier, test_images: list[Path], tmp_path: Path, ending: str
) -> None:
    out = tmp_path / f"out{ending}"
    assert columns_of(clf) == COLUMNS
    assert write_predictions(predict_rows(clf, test_images), COLUMNS, out) == 30
    rows = read_back(out)
    assert [row["path"] for row in rows] == [str(path) for path in test_images]
    assert [row["prediction"] for row in rows] == clf.predict(test_images)
    assert list(rows[0]) == COLUMNS
    found = np.array([[row[column] for column in COLUMNS[2:-1]] for row in rows])
    np.testing.assert_allclose(found, clf.predict_proba(test_images), atol=6e-7)  # written with six decimals


@pytest.mark.parametrize("ending", [".csv", ".json", ".parquet"])
def test_rows_of_images_unlike_the_training_images_are_marked(
    clf: bc.Classifier, discs: Path, bad_image: Path, tmp_path: Path, ending: str
) -> None:
    data = bc.load_dataset(discs).part("test")
    found = distances(encode_images(clf.backbone, data), clf.domain.means)
    marking = dataclasses.replace(clf, domain=Domain(clf.domain.means, float(np.sort(found)[26:28].mean())))
    images, expected = list(data.images), (found > np.sort(found)[26]).astype(int).tolist()
    out, columns = tmp_path / f"out{ending}", columns_of(marking, skip_bad=True)
    with pytest.warns(Note, match="3 of 30 images are unlike the training images"):
        write_predictions(predict_rows(marking, [*images, bad_image], skip_bad=True), columns, out)
    assert [row["unlike_training"] for row in read_back(out)] == [*expected, None]
    answers = list(marking.predict_stream([*images, bad_image]))
    assert [answer.unlike_training for answer in answers] == [*map(bool, expected), None]


def test_a_classifier_that_cannot_tell_writes_no_such_column(clf: bc.Classifier, test_images: list[Path]) -> None:
    unable = dataclasses.replace(clf, domain=None)
    assert columns_of(unable) == COLUMNS[:-1]
    with warnings.catch_warnings():
        warnings.simplefilter("error", Note)
        (row,) = predict_rows(unable, test_images[:1])
    assert list(row) == COLUMNS[:-1]
    assert [answer.unlike_training for answer in unable.predict_stream(test_images[:1])] == [None]


def test_more_rows_than_a_block_of_parquet(tmp_path: Path) -> None:
    rows = [{"path": f"{n}.png", "prediction": "a", "p_a": n / 2500} for n in range(2500)]
    assert write_predictions(iter(rows), ["path", "prediction", "p_a"], tmp_path / "out.parquet") == 2500
    assert read_back(tmp_path / "out.parquet") == rows


@pytest.mark.parametrize("ending", [".csv", ".json", ".parquet"])
def test_no_rows_make_an_empty_file(tmp_path: Path, ending: str) -> None:
    assert write_predictions([], COLUMNS, tmp_path / f"out{ending}") == 0
    assert read_back(tmp_path / f"out{ending}") == []


def test_names_with_every_sign_survive(tmp_path: Path) -> None:
    rows = [{"path": 'a, "b"\nµ;.png', "prediction": "läsion, grade\t2", "p_x": 0.5}]
    for ending in (".csv", ".json", ".parquet"):
        write_predictions(rows, list(rows[0]), tmp_path / f"out{ending}")
        assert read_back(tmp_path / f"out{ending}") == rows


# -- images that cannot be read


@pytest.mark.parametrize("ending", [".csv", ".json", ".parquet"])
def test_a_bad_image_stops_everything(
    clf: bc.Classifier, test_images: list[Path], bad_image: Path, tmp_path: Path, ending: str
) -> None:
    rows = predict_rows(clf, [*test_images, bad_image])
    with pytest.raises(bc.UserError, match=r"bad\.png: .*skip_bad=True"):
        write_predictions(rows, COLUMNS, tmp_path / f"out{ending}")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.png"]


@pytest.mark.parametrize("ending", [".csv", ".json", ".parquet"])
def test_bad_images_keep_their_rows(
    clf: bc.Classifier, test_images: list[Path], bad_image: Path, tmp_path: Path, ending: str
) -> None:
    done: list[int] = []
    inputs = [test_images[0], bad_image, bad_image.with_name("missing.png"), *test_images[1:]]
    out, columns = tmp_path / f"out{ending}", columns_of(clf, skip_bad=True)
    assert columns == ["path", "prediction", "error", *COLUMNS[2:]]
    assert write_predictions(predict_rows(clf, inputs, skip_bad=True, progress=done.append), columns, out) == 32
    rows = read_back(out)
    assert [row["path"] for row in rows] == [str(path) for path in inputs]
    assert all(list(row) == columns for row in rows)
    bad, missing = rows.pop(1), rows.pop(1)
    assert bad["error"].startswith("the content is not a readable image")
    assert missing["error"].startswith("there is no such file")
    empty = "" if ending == ".csv" else None
    assert all(row["prediction"] == empty and {row[name] for name in COLUMNS[2:]} == {None} for row in (bad, missing))
    assert {row.pop("error") for row in rows} == {empty}
    assert rows == list(predict_rows(clf, test_images))  # neighbours change nothing
    assert done == list(range(1, 33))


def test_a_file_may_hold_nothing_but_bad_images(clf: bc.Classifier, bad_image: Path, tmp_path: Path) -> None:
    rows = predict_rows(clf, [bad_image], skip_bad=True)
    assert write_predictions(rows, columns_of(clf, skip_bad=True), tmp_path / "out.parquet") == 1
    assert read_back(tmp_path / "out.parquet")[0]["prediction"] is None


def test_a_column_called_error_is_kept_only_where_it_is_free(
    clf: bc.Classifier, test_images: list[Path], tmp_path: Path
) -> None:
    table = tmp_path / "list.csv"
    table.write_text(f"path,error\n{test_images[0]},blurred\n")
    assert kept_columns([table], ["error"], columns_of(clf)) == ["error"]
    columns = columns_of(clf, ["error"])
    rows = predict_rows(clf, find_images([table], keep=["error"]), keep=["error"])
    write_predictions(rows, columns, tmp_path / "out.parquet")
    assert read_back(tmp_path / "out.parquet")[0]["error"] == "blurred"
    with pytest.raises(bc.UserError, match="the column 'error' cannot be kept"):
        kept_columns([table], ["error"], columns_of(clf, skip_bad=True))


def test_images_are_read_as_they_are_needed(clf: bc.Classifier, test_images: list[Path], tmp_path: Path) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield test_images[taken % 30]

    rows = predict_rows(clf, endless())
    for number in range(200):
        next(rows)
        assert taken - number < 16 * (torch.get_num_threads() + 2)  # 64 on two cores


# -- where it is written


def test_endings_and_places_that_are_refused(tmp_path: Path) -> None:
    def refused(out: Path) -> str:
        with pytest.raises(bc.UserError) as caught:
            write_predictions(iter([]), COLUMNS, out)
        return str(caught.value)

    (tmp_path / "folder.csv").mkdir()
    for name in ("out.xlsx", "out", "out.csv.gz"):
        assert ".csv, .json, .parquet" in refused(tmp_path / name)
    assert "is a folder" in refused(tmp_path / "folder.csv")
    assert "does not exist" in refused(tmp_path / "none" / "out.csv")
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refused(tmp_path / "file" / "out.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.csv"]


def test_an_earlier_file_is_kept_until_the_new_one_is_whole(
    clf: bc.Classifier, test_images: list[Path], bad_image: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    out.write_text("precious")
    with pytest.raises(bc.UserError, match=r"out\.csv exists already.*overwrite=True"):
        write_predictions(predict_rows(clf, test_images), COLUMNS, out)
    with pytest.raises(bc.UserError, match=r"bad\.png"):
        write_predictions(predict_rows(clf, [bad_image]), COLUMNS, out, overwrite=True)
    assert out.read_text() == "precious"
    write_predictions(predict_rows(clf, test_images), COLUMNS, out, overwrite=True)
    assert len(read_back(out)) == 30
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.png", "out.csv"]
