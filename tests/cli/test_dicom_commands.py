"""DICOM through the commands: the window of training is that of prediction, and nothing that names a patient is written."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

import biomedcoop as bc
from biomedcoop.data.images.windows import ASKED, FROM_FILE
from biomedcoop.errors import Note, UserError
from dicom_files import NAMES, ct, ramp, series, write

Cli = Callable[..., Any]

TINY = ("--backbone", Path(__file__).parents[1] / "parity_a" / "model")
QUICK = ("--method", "simpleshot", "--compare", "none", "--n-bootstrap", 40, *TINY)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of four patients with three slices each, in folders by split."""
    folder = tmp_path_factory.mktemp("dicom") / "scans"
    for label, brightness in (("bleeding", 40), ("normal", 0)):
        for number, split in enumerate(("train", "train", "train", "test")):
            place = folder / split / label / f"exam{number}"
            series(place, f"{NAMES[1]}-{label}-{number}", 3, brightness + number)
    return folder


def test_files_are_counted_once_in_a_cross_validation(cli: Cli, scans: Path, tmp_path: Path) -> None:
    """Its training images are its test images."""
    trained = cli("train", "--data", scans / "train", "--out", tmp_path / "run", *QUICK)
    assert trained.status == 0, trained.err
    assert "files that name a patient: 18, first " in trained.err


def test_the_window_of_training_is_kept(cli: Cli, scans: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained = cli("train", "--data", scans, "--out", run, "--window", "brain", "--frame", "middle", *QUICK)
    assert trained.status == 0, trained.err
    about = json.loads((run / "model" / "classifier.json").read_text())
    assert about["facts"]["reading"] == {"window": "brain", "frame": "middle"}
    assert about["facts"]["windows"] == [ASKED]
    assert len(json.loads((run / "split.json").read_text())["train"]) == 6

    def predicted(*words: object) -> list[dict[str, str]]:
        result = cli("predict", run, scans / "test", *TINY, *words)
        assert result.status == 0, result.err
        return list(csv.DictReader(io.StringIO(result.out)))

    usual, brain = predicted(), predicted("--window", "brain", "--frame", "middle")
    assert usual == brain
    assert [Path(row["path"]).name for row in usual] == ["IM0001", "IM0001"]
    other = predicted("--window", "-300,2000", "--frame", "all")
    assert len(other) == 6
    assert other[1]["p_normal"] != usual[0]["p_normal"]
    classifier = bc.load(run / "model", TINY[1])
    (p,) = classifier.predict_proba([Path(usual[0]["path"])])
    assert [round(float(one), 6) for one in p] == [float(usual[0][f"p_{name}"]) for name in classifier.class_names]
    again = cli("train", "--config", run / "run.json", "--out", tmp_path / "run2", "--no-html")
    assert again.status == 0
    assert (tmp_path / "run2" / "metrics.json").read_bytes() == (run / "metrics.json").read_bytes()


def test_a_window_unlike_that_of_training_is_told(cli: Cli, scans: Path, tmp_path: Path) -> None:
    data = bc.load_dataset(scans)
    classifier = bc.fit(data, "simpleshot", bc.load_backbone(TINY[1]), shots=3)
    assert classifier.facts["windows"] == [FROM_FILE]
    bare = write(tmp_path / "bare.dcm", ct(ramp()))
    with pytest.warns(Note, match=r"1 by the CT window soft .* in training by the window of the file"):
        classifier.predict([bare])


def written(*folders: Path) -> Iterator[tuple[Path, bytes]]:
    for folder in folders:
        for file in folder.rglob("*"):
            if file.is_file():
                yield file, file.read_bytes()


def test_nothing_that_names_a_patient_is_written(
    cli: Cli, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All commands run on files full of planted names; then every byte that they wrote or printed is searched."""
    cache, out = tmp_path / "cache", tmp_path / "out"
    out.mkdir()
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(cache))
    archive = tmp_path / "scans.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in scans.rglob("IM*"):
            packed.write(file, file.relative_to(scans))
    broken = tmp_path / "broken"
    for number, file in enumerate(sorted(scans.rglob("IM*"))[:3]):
        (broken / f"{number}.dcm").parent.mkdir(exist_ok=True)
        (broken / f"{number}.dcm").write_bytes(file.read_bytes()[: (700, 900, 1200)[number]])
    faulty = write(tmp_path / "faulty.dcm", ct(ramp(), RescaleSlope="12345678"))
    faulty.write_bytes(faulty.read_bytes().replace(b"12345678", NAMES[0][:8].encode()))
    run = out / "run"
    said = ""
    for status, *words in (
        (0, "datasets", "check", scans),
        (0, "train", "--data", scans, "--out", run, *QUICK),
        (0, "train", "--data", archive, "--out", out / "zipped", *QUICK),
        (0, "predict", run, scans, *TINY, "--out", out / "p.csv"),
        (1, "predict", run, broken, faulty, *TINY, "--skip-bad", "--out", out / "bad.json"),
        (2, "predict", run, faulty, *TINY),
        (0, "evaluate", run, "--data", archive, "--out", out / "evaluation", *TINY),
        (0, "embed", scans, "--out", out / "features.npz", *TINY),
        (0, "explain", scans / "test" / "normal" / "exam3" / "IM0000", "--model", run, "--out", out / "maps", *TINY),
        (0, "suggest", scans, "--model", run, *TINY),
    ):
        result = cli(*words, page=words[1] == "--data" and words[2] == scans)
        assert result.status == status, (words, result.err)
        said += result.out + result.err
    with pytest.raises(UserError) as caught:
        cli("--debug", "predict", run, faulty, *TINY)
    said += "".join(traceback.format_exception(caught.value))
    assert (run / "report.html").exists()
    assert "patient-" not in (run / "model" / "classifier.json").read_text()
    secrets = [name.encode() for name in NAMES]
    for number in range(4):
        for label in ("bleeding", "normal"):
            patient = f"{NAMES[1]}-{label}-{number}".encode()
            secrets += [
                hash_of(patient).hexdigest()[:16].encode() for hash_of in (hashlib.sha256, hashlib.blake2b, hashlib.md5)
            ]
    some = pydicom.dcmread(next(scans.rglob("IM*")))
    secrets += [str(some[name].value).encode() for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
    found = {(str(file), secret) for file, content in written(cache, out) for secret in secrets if secret in content}
    assert not found
    assert sum(1 for _ in written(cache, out)) > 20
    assert not [secret for secret in secrets if secret.decode() in said]
