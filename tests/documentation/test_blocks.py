"""Every console and Python block of README and guides runs on simulated data, page by page, as a reader would type it."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer

import biomedcoop as bc
from biomedcoop.cli.main import app
from biomedcoop.data.simulate.write import write_simulated
from biomedcoop.methods import all_methods
from biomedcoop.methods.base import REGISTRY
from documentation.blocks import REASONS, Block, Command, blocks_of, pages

PAGES = pages()
RUN = [page for page in PAGES if any(b.language in ("console", "python") and not b.reason for b in blocks_of(page))]
COMMANDS = typer.main.get_command(app)


def name(page: Path) -> str:
    return page.relative_to(PAGES[0].parent).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_block_is_run_or_says_why_not(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reason is one of few, and a command that is not run has options that exist all the same."""
    monkeypatch.chdir(tmp_path)
    for block in blocks_of(page):
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")  # a plug-in is read with the options
        assert not block.reason or block.reason in REASONS, f"{block}: {block.reason}"
        assert block.language or not re.search(r"^(\$ |biomedcoop |python )", block.text, re.M), f"{block}: no language"
        if block.language == "console":
            assert block.text.startswith("$ "), f"{block}: output without a command"
            for command in block.commands:
                understand(command)
        elif block.language == "python":
            compile(block.text, str(block), "exec")


def understand(command: Command) -> None:
    """Raise if a command of this package, or its module, does not exist or has not these options."""
    words = command.words
    while words and re.fullmatch(r"\w+=\S*", words[0]):
        words.pop(0)
    if words[:1] == ["biomedcoop"]:
        here: Any = COMMANDS
        context = here.make_context("biomedcoop", words[1:], resilient_parsing=False)
        while hasattr(here, "resolve_command"):
            _, here, rest = here.resolve_command(context, [*context._protected_args, *context.args])
            context = here.make_context(here.name, rest, parent=context)
    elif words[:2] == ["python", "-m"]:
        assert find_spec(words[2]) is not None, words[2]


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Forget the plug-ins of a page, as a new process would."""
    methods, modules = dict(all_methods()), set(sys.modules)
    yield
    REGISTRY.clear()
    REGISTRY.update(methods)
    for module in set(sys.modules) - modules:
        if module.endswith((".py", "nearest_mean")):
            del sys.modules[module]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the names that the pages use: ``scans``, ``new_scans``, ``scan1.png``, …; every image is simulated."""
    place = tmp_path_factory.mktemp("reader")
    for folder, seed in (("scans", 0), ("other_scans", 1)):
        write_simulated(f"simulated:breast-ultrasound?train=3&val=0&test=2&seed={seed}", place / folder)
    images = sorted((place / "other_scans" / "test").rglob("*.png"))
    for folder in ("new_scans", "unlabelled"):
        (place / folder).mkdir()
        for number, image in enumerate(images[:2]):
            shutil.copy(image, place / folder / f"{number}.png")
    for number in (1, 2):
        shutil.copy(images[number], place / f"scan{number}.png")
    shutil.copytree(place / "scans" / "masks", place / "lesions")
    classes = ("benign tumor", "malignant tumor", "normal scan")
    words = {c: [f"The {c} has a border of kind {kind} and a {kind} echo inside." for kind in "abcd"] for c in classes}
    (place / "words.json").write_text(json.dumps(words))
    (place / "prompt_templates.py").write_text(f"TEMPLATES = {words!r}\n")
    (place / "words.csv").write_text("class,sentence\ncyst,A round dark cyst.\nstone,A bright stone with a shadow.\n")
    options = {"method": "biomedcoop", "recipe": "fast", "settings": {"epochs": 2}}
    bc.train(place / "scans", place / "run", html=False, progress=False, **options)
    return place


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=name)
def test_blocks_of_a_page_run(
    page: Path, prepared: Path, tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, in one folder. A command may name the output of an earlier one again: a reader takes one of the two."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    said: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks_of(page):
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.reason:
            continue
        elif block.language == "python":
            exec(compile(block.text, str(block), "exec"), said)
        elif block.language == "console":
            for command in block.commands:
                out = run(command, block, cli, monkeypatch)
                compare(command, out, block)


def run(command: Command, block: Block, cli: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command prints; a command of another program is a fault of the page."""
    program, *words = command.words
    where = f"{block.page.name}:{command.line}: {command.text}"
    if "--out" in words:
        earlier = Path(words[words.index("--out") + 1])
        shutil.rmtree(earlier) if earlier.is_dir() else earlier.unlink(missing_ok=True)
    if program == "python":
        monkeypatch.setattr(sys, "argv", words)
        runpy.run_path(words[0], run_name="__main__")
        return ""
    assert program == "biomedcoop", f"{where}: needs a line '<!-- not run: … -->'"
    result = cli(*words)
    assert result.status == 0, f"{where}\n{result.err}{result.out}"
    return str(result.out)


def compare(command: Command, out: str, block: Block) -> None:
    """The lines on the page stand in the output, in this order; ``…`` stands for any text, blanks count once."""
    pattern = ".*?".join(re.escape(" ".join(part.split())) for part in "\n".join(command.output).split("…"))
    assert re.search(pattern, " ".join(out.split()), re.S), f"{block}: {command.text} printed\n{out}"
