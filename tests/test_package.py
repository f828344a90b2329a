"""What the package is to Python and to pip."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

import biomedcoop as bc

ROOT = Path(__file__).parents[1]


def test_modules_are_there_without_an_import_of_their_own() -> None:
    code = "import sys, biomedcoop as bc; assert 'biomedcoop.api' not in sys.modules; print(bc.api.train is bc.train, bc.data)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("True <module 'biomedcoop.data'")


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(AttributeError, match="module 'biomedcoop' has no attribute 'nothing'"):
        _ = bc.nothing
    assert set(bc.__all__) == set(dir(bc))
    assert all(getattr(bc, name) is not None for name in bc.__all__)


def test_every_extra_installs_what_something_imports() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = {
        "mkdocs-material": "name: material",
        "mkdocstrings-python": "- mkdocstrings:",
        "ruff": "separate_signature: true",
    }
    for extra, packages in re.findall(r"^([\w-]+) = \[(.*?)\]$", extras, re.MULTILINE):
        for package in re.findall(r'"([\w-]+)(?:\[|>|=)', packages):
            if extra == "docs":  # what the site's configuration asks for
                assert named[package] in site, package
            elif extra != "dev":
                module = {"open_clip_torch": "open_clip"}.get(package, package.replace("-", "_"))
                assert re.search(rf"^\s*(import|from) {module}\b|imported\(\"{module}\"", source, re.MULTILINE), package


def test_every_dependency_is_imported() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    modules = {"pillow": "PIL", "scikit-learn": "sklearn"}
    needed = re.findall(r'"([\w-]+)>=', text.partition("\ndependencies = [")[2].partition("]")[0])
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    assert "torch" in needed
    for package in needed:
        name = modules.get(package, package.replace("-", "_"))
        assert re.search(rf"^\s*(import|from) {name}\b", source, re.MULTILINE), package


def test_errors_survive_a_trip_between_processes() -> None:
    error = bc.ImageError("scan.png", "the file is empty")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), pickle.loads(pickle.dumps(bc.UserError("x")))):
        assert type(other) in (bc.ImageError, bc.UserError)
    assert str(copy.copy(error)) == str(error) == "scan.png: the file is empty"
    assert (copy.copy(error).where, copy.copy(error).reason) == ("scan.png", "the file is empty")
