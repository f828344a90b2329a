"""The retraining command as a user calls it: from a pool to a backbone that loads, through SIGKILL, with wrong arguments.

``BIOMEDCOOP_POOL`` names the folder of the real pool (manifest.csv and tar shards) for the test marked ``real_data``.
"""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from biomedcoop.backbones import load_backbone
from biomedcoop.errors import UserError
from biomedcoop.features.passes import encode_crops
from biomedcoop.features.texts import encode_texts
from pretraining.pool import read_pool
from pretraining.train_mini import main

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
SMALL = ["--layers", "1", "--patch", "24", "--width", "64", "--batch", "16", "--simulated", "0"]
SMALL += ["--text-steps", "3", "--image-steps", "3"]
CLASSES = {"btmri": ("glioma tumor", "normal brain"), "pneumoniamnist": ("normal lungs", "pneumonia lungs")}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 images of four classes: noise of different brightness."""
    folder = tmp_path_factory.mktemp("pool")
    generator = np.random.default_rng(0)
    pairs = [(dataset, name) for dataset, names in CLASSES.items() for name in names]
    with (
        tarfile.open(folder / "pool-00.tar", "w") as tar,
        (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file,
    ):
        rows = csv.writer(file)
        rows.writerow(["file", "shard", "dataset", "class_name", "sha256"])
        for i in range(64):
            dataset, name = pairs[i % 4]
            buffer = io.BytesIO()
            pixels = generator.integers(60 * (i % 4), 60 * (i % 4) + 40, (60, 80), dtype=np.uint8)
            Image.fromarray(pixels).save(buffer, "JPEG")
            info = tarfile.TarInfo(f"{i:03}.jpg")
            info.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(info, buffer)
            rows.writerow([info.name, "pool-00.tar", dataset, name, ""])
    return folder


def command(*args: str | Path) -> list[str]:
    return [sys.executable, "-m", "pretraining.train_mini", *map(str, args), "--threads", "1"]


def train(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args), capture_output=True, text=True, timeout=600, env=ENVIRONMENT)


Refusal = Callable[..., str]


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """Run the script in this process, where it must end with one line and a status of 1; returns the line."""

    def call(*args: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", command(*args)[2:])
        threads = torch.get_num_threads()
        with pytest.raises(SystemExit) as left:
            main()
        torch.set_num_threads(threads)
        printed, said = capsys.readouterr()
        assert (printed, said) == ("", "")
        line = left.value.code
        assert isinstance(line, str)  # which the interpreter prints to stderr, and ends with 1
        assert "\n" not in line
        return line

    return call


@pytest.fixture(scope="module")
def whole(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of three epochs that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "work"
    done = train("--pool", pool, "--work", folder, "--epochs", "3", *SMALL)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_numbers(pool: Path, whole: Path, tmp_path: Path) -> None:
    args = ["--pool", pool, "--work", tmp_path / "killed", "--epochs", "3", *SMALL]
    first = subprocess.Popen(command(*args), stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert first.stdout is not None
    for line in first.stdout:
        if "epoch 1:" in line:
            os.kill(first.pid, signal.SIGKILL)
            break
    assert first.wait(60) == -signal.SIGKILL
    resumed = train(*args)
    assert resumed.returncode == 0, resumed.stderr
    assert not (tmp_path / "killed" / "checkpoint.tmp").exists()
    assert "resumed after epoch" in resumed.stdout

    a, b = (load_file(folder / "checkpoint.safetensors") for folder in (whole, tmp_path / "killed"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)

    # the exported folder is loaded by the code that loads BiomedCLIP
    exported = train("--work", tmp_path / "killed", "--export", tmp_path / "backbone")
    assert exported.returncode == 0, exported.stderr
    backbone = load_backbone(tmp_path / "backbone")
    assert (backbone.image_size, backbone.context_length, backbone.embed_dim) == (96, 64, 512)
    crops = list(np.random.default_rng(1).integers(0, 255, (3, 96, 96, 3), dtype=np.uint8))
    assert np.isfinite(encode_crops(backbone, crops)).all()
    assert np.isfinite(encode_texts(backbone, ["a photo of a glioma tumor."], store_root=tmp_path / "store")).all()


@pytest.mark.slow
def test_a_run_is_not_continued_with_other_settings(pool: Path, whole: Path) -> None:
    before = (whole / "checkpoint.safetensors").read_bytes()
    other = train("--pool", pool, "--work", whole, "--epochs", "2", *SMALL)
    assert other.returncode == 1
    assert "other settings (epochs)" in other.stderr
    assert len(other.stderr.splitlines()) == 1
    assert (whole / "checkpoint.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--pool", "nowhere", "--work", "w"], "no manifest.csv"),
        (["--work", "w"], "--pool"),
        (["--work", "w", "--export", "out"], "no checkpoint"),
        (["--pool", "nowhere", "--work", "w", "--epochs", "0"], "--epochs 0"),
        (["--pool", "nowhere", "--work", "w", "--init", "mimtic"], "mimetic or plain"),
        (["--pool", "nowhere", "--work", "w", "--limit", "1"], "--limit 1"),
        (["--pool", "nowhere", "--work", "w", "--patch", "7"], "--patch"),
        (["--pool", "nowhere", "--work", "w", "--width", "100"], "--width"),
    ],
)
def test_wrong_arguments_get_one_line_and_leave_nothing(
    refusal: Refusal, args: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refusal(*args)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("no shard", "pool-00.tar is not there"),
        ("no rows", "a row for every image"),
        ("no column", "needs the columns"),
        ("another class", "no captions for class 'broken toe' of 'btmri'"),
        ("twice", "001.jpg more than once"),
        ("lost image", "1 images of the manifest are in no shard, 999.jpg first"),
        ("cut shard", "pool-00.tar"),
    ],
)
def test_a_damaged_pool_gets_one_line(damage: str, said: str, pool: Path, tmp_path: Path) -> None:
    shutil.copytree(pool, tmp_path / "pool")
    manifest, shard = tmp_path / "pool" / "manifest.csv", tmp_path / "pool" / "pool-00.tar"
    lines = manifest.read_text(encoding="utf-8").splitlines()
    if damage == "no shard":
        shard.unlink()
    elif damage == "cut shard":
        shard.write_bytes(shard.read_bytes()[:30_000])
    else:
        lines = {
            "no rows": lines[:1],
            "no column": [line.replace("class_name", "label") for line in lines],
            "another class": [*lines, "999.jpg,pool-00.tar,btmri,broken toe,"],
            "twice": [*lines, lines[2]],
            "lost image": [*lines, "999.jpg,pool-00.tar,btmri,glioma tumor,"],
        }[damage]
        manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(said)):
        read_pool(tmp_path / "pool", 0)


def test_a_damaged_checkpoint_gets_one_line(refusal: Refusal, pool: Path, tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "checkpoint.safetensors").write_bytes(b"not one")
    assert "damaged" in refusal("--pool", pool, "--work", tmp_path / "w", *SMALL)
    assert (tmp_path / "w" / "checkpoint.safetensors").read_bytes() == b"not one"


@pytest.mark.real_data
def test_one_epoch_on_a_slice_of_the_real_pool(tmp_path: Path) -> None:
    args = ["--pool", os.environ["BIOMEDCOOP_POOL"], "--work", tmp_path / "work", "--epochs", "1", "--limit", "1200"]
    done = train(*args, "--simulated", "10", "--text-steps", "100", "--image-steps", "50")
    assert done.returncode == 0, done.stderr
    first, second = (float(x) for x in re.findall(r"text tower alone, step \d+: loss ([\d.]+)", done.stdout))
    assert second < first, "the texts learn"
    described = float(re.findall(r"image tower alone, step 50: loss ([\d.]+)", done.stdout)[0])
    assert float(re.findall(r"epoch 1: .*describe ([\d.]+)", done.stdout)[0]) < described, "and the images"
    assert train("--work", tmp_path / "work", "--export", tmp_path / "backbone").returncode == 0
    backbone, shipped = load_backbone(tmp_path / "backbone"), load_backbone("mini")
    for key in ("image_size", "context_length", "embed_dim", "token_dim"):
        assert getattr(backbone, key) == getattr(shipped, key), key
    assert sum(file.stat().st_size for file in (tmp_path / "backbone").iterdir()) < 15e6


def test_the_shipped_mini() -> None:
    folder = Path(str(resources.files("biomedcoop.backbones"))) / "mini"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 15e6
    shapes = {name: tuple(t.shape) for name, t in load_file(folder / "open_clip_model.safetensors").items()}
    embed, width = shapes["visual.head.proj.weight"]
    # open_clip derives the hidden width of the text projection and would refuse another
    assert shapes["text.proj.0.weight"] == ((width + embed) // 2, width)
    assert shapes["text.proj.2.weight"] == (embed, (width + embed) // 2)
