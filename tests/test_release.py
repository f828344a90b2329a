"""What belongs to a version: its number in every place, the changelog's form, the files that hosts of repositories read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from biomedcoop.version import __version__

ROOT = Path(__file__).parents[1]
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_is_the_same_everywhere() -> None:
    assert re.search(r'^version = "(.+)"$', read("pyproject.toml"), re.M)[1] == __version__  # type: ignore[index]
    about = yaml.safe_load(read("CITATION.cff"))
    (version, date), *_ = re.findall(r"^## \[([\d.]+)\] - (\d{4}-\d\d-\d\d)$", read("CHANGELOG.md"), re.M)
    assert (about["version"], version) == (__version__, __version__)
    assert str(about["date-released"]) == date
    for page in ("docs/install.md", "docs/clusters.md"):
        assert set(re.findall(r"biomedcoop(?:-|\[ray\]==|-ray:)(\d+\.\d+\.\d+)", read(page))) == {__version__}


def test_the_changelog_has_the_form_of_keep_a_changelog() -> None:
    text = read("CHANGELOG.md")
    versions = re.findall(r"^## (.*)$", text, re.M)
    assert versions[0] == "[Unreleased]"
    numbers = [tuple(map(int, re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - .+", v).groups())) for v in versions[1:]]  # type: ignore[union-attr]
    assert numbers == sorted(numbers, reverse=True)
    for part in re.split(r"^## .*$", text, flags=re.M)[1:]:
        kinds = re.findall(r"^### (.*)$", part, re.M)
        assert set(kinds) <= KINDS
        assert len(kinds) == len(set(kinds)), "a kind of change stands once in a version"


def test_the_readme_is_one_screen() -> None:
    text = read("README.md")
    commands = re.findall(r"^\$ (.*)$", text, re.M)
    assert commands[:2] == ["make demo", "make test"]
    assert "Not a medical device" in text
    assert re.search(r"!\[[^]]+\]\(docs/images/[\w-]+\.jpg\)", text)
    assert len(text.splitlines()) <= 90
    body = re.sub(r"```.*?```", "", text, flags=re.S)
    paragraphs = [p.splitlines() for p in body.split("\n\n") if not p.lstrip().startswith(("|", "- "))]
    assert max(map(len, paragraphs)) <= 4


def test_the_public_checks_cover_every_supported_python_and_system() -> None:
    workflow: Any = yaml.safe_load(read(".github/workflows/ci.yml"))
    matrix = workflow["jobs"]["tests"]["strategy"]["matrix"]
    supported = set(re.findall(r"Python :: (3\.\d+)", read("pyproject.toml")))
    assert set(matrix["python"]) == supported
    assert {"ubuntu-latest", *(row["os"] for row in matrix["include"])} == {
        "ubuntu-latest",
        "macos-latest",
        "windows-latest",
    }
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90
        assert all("run" in step or re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in job["steps"])
    assert workflow["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("name", ["fault", "wish"])
def test_an_issue_form_has_fields_with_a_label(name: str) -> None:
    form: Any = yaml.safe_load(read(f".github/ISSUE_TEMPLATE/{name}.yml"))
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert form["name"]
    assert form["description"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_an_issue_about_a_fault_asks_for_the_report() -> None:
    assert "biomedcoop doctor --bug-report" in read(".github/ISSUE_TEMPLATE/fault.yml")


def test_the_tested_versions_are_those_of_all_that_is_needed() -> None:
    tested = dict(re.findall(r"^([\w.-]+)==(\S+)$", read("requirements/tested.txt").lower().replace("_", "-"), re.M))
    asked = re.findall(
        r'"([\w-]+)(?:\[[\w,]+\])?>=', read("pyproject.toml").partition("dependencies = [")[2].partition("]\n\n")[0]
    )
    assert "torch" in asked
    missing = {name.lower().replace("_", "-") for name in asked} - tested.keys() - {"tomli"}
    assert missing == set()
