"""Pages of the reference name what the code has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer

import biomedcoop as bc
from biomedcoop.cli.main import app

ROOT = Path(__file__).parents[2]
FILES = (ROOT / "docs/reference/files.md").read_text(encoding="utf-8")
SOURCES = {file: file.read_text(encoding="utf-8") for file in sorted((ROOT / "src").rglob("*.py"))}


def variables(source: str) -> set[str]:
    """Environment variables in a module that reads any: names in capitals with an underscore, and what ``get`` is given."""
    if "environ" not in source and "envvar" not in source:
        return set()
    direct = re.findall(r'environ(?:\.get\(|\.setdefault\(|\[)"(\w+)"', source)
    return {*direct, *re.findall(r'"([A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+)"', source)}


def test_every_variable_that_is_read_stands_on_its_page() -> None:
    page = (ROOT / "docs/reference/environment.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([A-Z][A-Z_0-9]+)`", page))
    read = set().union(*map(variables, SOURCES.values()))
    assert {"BIOMEDCOOP_CACHE", "OPENAI_BASE_URL", "TERM"} <= read
    assert read <= named
    words = "\n".join(SOURCES.values())
    assert {name for name in named if name.startswith("BIOMEDCOOP_") and name not in words} == set()


@pytest.mark.slow
def test_every_file_of_a_run_and_every_key_in_it_stands_on_its_page(tmp_path: Path) -> None:
    data = "simulated:breast-ultrasound?train=8&val=0&test=2"
    bc.train(data, tmp_path / "run", method="simpleshot", alpha=0.2, n_bootstrap=40, progress=False)
    for file in (tmp_path / "run").rglob("*"):
        name = file.name + "/" * file.is_dir()
        assert f"`{name}`" in FILES
        if file.suffix == ".json" and file.name != "run.json":  # which has the options of the command
            for key in json.loads(file.read_text(encoding="utf-8")):
                assert re.search(rf"[`.]{key}`", FILES), (name, key)
    columns = (tmp_path / "run/predictions.csv").read_text(encoding="utf-8").partition("\n")[0].split(",")
    assert [column for column in columns if f"`{column}`" not in FILES and not column.startswith("p_")] == []


def test_every_folder_of_the_cache_stands_on_its_page() -> None:
    folders = set().union(*(re.findall(r'cache_root\(\) / "([\w-]+)"', source) for source in SOURCES.values()))
    assert "features" in folders
    assert {folder for folder in folders if f"`{folder}/`" not in FILES} == set()


def test_every_command_and_option_is_on_the_page_of_commands() -> None:
    from website.reference import commands_page

    page = commands_page()
    root = typer.main.get_command(app)
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        for words, one in {name: command}.items() if not hasattr(command, "commands") else command.commands.items():
            title = words if one is command else f"{name} {words}"
            section = page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
            assert section, title
            shown = [parameter for parameter in one.params if not getattr(parameter, "hidden", False)]
            options = [option for parameter in shown for option in parameter.opts if option.startswith("--")]
            assert [option for option in options if not re.search(rf"{option}\b", section)] == [], title


@pytest.mark.slow
def test_figures_are_drawn_from_a_small_example(tmp_path: Path) -> None:
    from website.drawings import draw, example

    draw(tmp_path, example("simulated:breast-ultrasound?train=2&val=0&test=2", shots=2))
    kept = sorted(file.name for file in (ROOT / "docs/concepts").glob("*.svg"))
    assert sorted(file.name for file in tmp_path.iterdir()) == kept
    assert "<svg" in (tmp_path / "sccm.svg").read_text(encoding="utf-8")
