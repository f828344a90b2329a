"""The wheel and the source archive: complete, with nothing else in them. ``.ci/run`` runs the demo from the wheel alone."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
EPOCH = {**os.environ, "SOURCE_DATE_EPOCH": "1764460800"}
SOURCES = ROOT / "src" / "biomedcoop"


def run(*words: object, **options: object) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both files, built from a copy of the tree, which stays as it is."""
    place = tmp_path_factory.mktemp("wheel")
    hidden = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", place / "tree" / "src", ignore=hidden)
    for name in ("pyproject.toml", "README.md", "LICENSE", "tests"):
        source = ROOT / name
        shutil.copytree(source, place / "tree" / name, ignore=hidden) if source.is_dir() else shutil.copy(
            source, place / "tree" / name
        )
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", place / "dist", place / "tree", env=EPOCH)
    return place / "dist"


def files_of_the_package() -> set[str]:
    found = (path for path in SOURCES.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(SOURCES.parent).as_posix() for path in found}


def test_the_wheel_holds_the_package_and_its_licences_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    facts = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert names - facts == files_of_the_package()
    about = {name.split("/", 1)[1] for name in facts}
    assert {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"} <= about
    assert "licenses/src/biomedcoop/backbones/mini/LICENSE.md" in about


def test_the_source_archive_holds_what_the_wheel_is_made_of(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.split("/", 1)[1] for name in file.getnames() if "/" in name}
    assert {f"src/{name}" for name in files_of_the_package()} <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "PKG-INFO"} <= names


def test_another_build_has_the_same_bytes(built: Path, tmp_path: Path) -> None:
    """From another folder, at another time, and straight from the tree; the first wheel came from the source archive."""
    shutil.copytree(built.parent / "tree", tmp_path / "tree", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    for path in (tmp_path / "tree").rglob("*"):
        os.utime(path, (1_500_000_000, 1_500_000_000))
    run(
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        tmp_path / "dist",
        tmp_path / "tree",
        env=EPOCH,
    )
    (first,), (second,) = built.glob("*.whl"), (tmp_path / "dist").glob("*.whl")
    assert first.name == second.name
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()


def test_the_index_would_take_both(built: Path) -> None:
    said = run(sys.executable, "-m", "twine", "check", "--strict", *sorted(built.iterdir()))
    assert said.count("PASSED") == 2
