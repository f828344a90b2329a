"""How errors and notes spell options: for who types a command, and for who calls a function."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest

import biomedcoop as bc
from biomedcoop.data.dataset import Dataset
from biomedcoop.errors import (
    NOT_IN_PYTHON,
    OFF,
    RENAMED,
    SWITCHES,
    ImageError,
    Note,
    UserError,
    command_line,
    notify,
    spelled,
)
from biomedcoop.tasks.plan import plan_fit
from biomedcoop.tasks.request import FitRequest

SOURCE = Path(bc.__file__).parent


@pytest.mark.parametrize(
    ("typed", "called"),
    [
        ("lower --shots, or pass --repeat-shots or --shots all", "lower shots, or pass repeat_shots=True or shots='all'"),
        ("train it with --alpha, e.g. --alpha 0.1", "train it with alpha, e.g. alpha=0.1"),
        ("so --views per-epoch does not apply; give --views a number", "so views='per-epoch' does not apply; give views a number"),
        ("--device cuda or --set lr=0.1, or --set hours=3", "device='cuda' or settings={'lr': 0.1}, or settings={'hours': 3}"),
        ("--set methods=zero-shot,krr names two", "settings={'methods': 'zero-shot,krr'} names two"),
        ("(--rename 'big cyst=NAME')", "(rename={'big cyst': NAME})"),
        ("name them with --unlabelled FOLDER", "name them with unlabelled=FOLDER"),
        ("its names: --classes 'a, b'", "its names: classes='a, b'"),
        ("left out by --no-images or --public", "left out by images=False or private=False"),
        ("run 'biomedcoop backbones download x --revision COMMIT'", "run 'biomedcoop backbones download x --revision COMMIT'"),
        ("or type biomedcoop prompts generate --n 5 --out a.json", "or type biomedcoop prompts generate --n 5 --out a.json"),
        ("class 'cyst' has 2 images but --shots 16; lower --shots", "class 'cyst' has 2 images but shots=16; lower shots"),
        ("('--seeds 1,2,3'), or --seeds 4", "('seeds=[1, 2, 3]'), or seeds=[4]"),
        ("--images -1; give at least 1, or --images 72 takes all", "images=-1; give at least 1, or images=72 takes all"),
        ("add --modality ultrasound --organ breast", "add modality='ultrasound', organ='breast'"),
        ("images of 2 -- 3 mm, --", "images of 2 -- 3 mm, --"),
        ("scans/a--in.png, owner/na--me", "scans/a--in.png, owner/na--me"),
    ],
)  # fmt: skip
def test_options_are_spelled_for_the_caller(typed: str, called: str) -> None:
    assert spelled(typed) == called
    assert str(UserError(typed)) == called
    with pytest.warns(Note, match=f"^{re.escape(called)}$"):
        notify([typed])
    with command_line():
        assert str(UserError(typed)) == typed
        assert spelled(typed) == typed
    assert str(UserError(typed)) == called


def test_control_characters_are_escaped_in_every_message() -> None:
    name = "scans/a\nerror: b\x1b[31m\x85\u202e é×.png"
    shown = r"scans/a\nerror: b\x1b[31m\x85\u202e é×.png: too large"
    assert str(ImageError(name, "too large")) == shown
    with command_line():
        assert str(ImageError(name, "too large")) == shown
    with pytest.warns(Note) as said:
        notify([f"{name}: too large"])
    assert str(said[0].message) == shown


def uneven() -> Dataset:
    labels = np.repeat([0, 1], [9, 4])
    images = np.zeros((13, 4, 4, 3), dtype=np.uint8)
    return Dataset("scans", ("cyst", "stone"), images, tuple(map(str, range(13))), labels, np.full(13, "train"))


def test_an_error_about_an_error_is_spelled_once() -> None:
    with pytest.raises(UserError) as caught:
        plan_fit(FitRequest(data=uneven(), method="krr", shots=16), uneven())
    assert str(caught.value).endswith("lower shots, add images, or pass repeat_shots=True or shots='all'")
    assert str(UserError(f"scans: {caught.value}")) == f"scans: {caught.value}"


def parameters_and_options() -> tuple[set[str], set[str], set[str]]:
    """Parameters and fields of the package, those that are true or false, and options in its texts, without the commands."""
    names, switches, options = set[str](), set[str](), set[str]()
    for file in SOURCE.rglob("*.py"):
        if "cli" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            declared: list[tuple[str, ast.expr | None]] = []
            if isinstance(node, ast.FunctionDef):
                declared = [(a.arg, a.annotation) for a in (*node.args.args, *node.args.kwonlyargs)]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                declared = [(node.target.id, node.annotation)]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                options |= set(re.findall(r"(?<![\w-])--([a-z][a-z-]*)(?![a-z-])(?<!-)", node.value))
            names |= {name for name, _ in declared}
            switches |= {name for name, kind in declared if kind is not None and ast.unparse(kind) == "bool"}
    return names, switches, options


def test_every_option_in_a_message_is_a_parameter() -> None:
    names, switches, options = parameters_and_options()
    assert {"shots", "repeat-shots", "unlabelled", "set"} <= options
    for option in options - set(NOT_IN_PYTHON) - {"line"}:  # a colour of the page
        word = (RENAMED | OFF).get(option, option.removeprefix("no-").replace("-", "_"))
        assert word in names, f"--{option}: list it in errors.NOT_IN_PYTHON, or name its parameter in errors.RENAMED"
    for option in SWITCHES:
        assert option.replace("-", "_") in switches, option


def test_a_command_inside_a_command_leaves_the_spelling_of_the_outer_one() -> None:
    with command_line():
        with command_line():
            pass
        assert spelled("lower --shots") == "lower --shots"
    assert spelled("lower --shots") == "lower shots"
