"""Methods in a user's own module: by ``--plugin FILE``, by an entry point, and by import; from training to prediction."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import test_methods as matrix
from test_methods import backbone, task, trained  # noqa: F401  (fixtures of the matrix)

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.benchmark.compute import Work, compute_group
from biomedcoop.benchmark.plan import groups_of
from biomedcoop.benchmark.protocol import Protocol
from biomedcoop.benchmark.sources import find_sources
from biomedcoop.cli import main
from biomedcoop.errors import Note, UserError
from biomedcoop.methods import Task, all_methods, get_method, load_plugin, registry
from biomedcoop.methods.base import REGISTRY
from biomedcoop.methods.plugin_code import plugin_of

ROOT = Path(__file__).parents[2]
(TOY,) = re.findall(
    r"^```python[^\n]*\n(.*?NearestMean.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M | re.S
)
"""The code of the guide: a closed form without a single setting."""
TINY = str(ROOT / "tests" / "parity_a" / "model")
Cli = Callable[..., Any]
Refused = Callable[..., str]
Forget = Callable[[], None]


@pytest.fixture(autouse=True)
def forget() -> Iterator[Forget]:
    """Forget the plug-ins, as a new process would; so does the end of every test."""
    own, modules = dict(all_methods()), set(sys.modules)

    def call() -> None:
        REGISTRY.clear()
        REGISTRY.update(own)
        for name in set(sys.modules) - modules:
            if name.endswith(("nearest_mean", "toy_methods", ".py")):
                del sys.modules[name]
        registry._searched = False

    yield call
    call()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "nearest_mean.py"
    path.write_text(TOY)
    return path


def install(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package ``toy-methods`` with one entry point, as pip leaves it."""
    (folder / "toy_methods").mkdir(parents=True)
    (folder / "toy_methods" / "__init__.py").write_text(code)
    about = folder / "toy_methods-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-methods\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[biomedcoop.methods]\nnearest = toy_methods\n")
    monkeypatch.syspath_prepend(str(folder))
    registry._searched = False


def train(out: Path, data: Path, *more: object) -> list[object]:
    words = ["train", "--data", data, "--backbone", TINY, "--shots", 4, "--compare", "none", "--n-bootstrap", 40]
    return [*words, "--method", "nearest-mean", "--out", out, *more]


def test_a_file_from_training_to_prediction(
    cli: Cli, refused: Refused, discs: Path, file: Path, forget: Forget, tmp_path: Path
) -> None:
    run, images = tmp_path / "run", discs / "test" / "red_stone"
    assert "no method 'nearest-mean'" in refused(*train(run, discs))
    assert cli(*train(run, discs, "--plugin", file)).status == 0
    assert "--plugin nearest_mean.py" in (run / "report.md").read_text()
    assert "Method: nearest-mean, from the plug-in nearest_mean.py" in (run / "model" / "README.md").read_text()
    assert str(tmp_path) not in (run / "model" / "classifier.json").read_text()
    forget()
    line = refused("predict", run, images, "--backbone", TINY)
    assert "model needs the method 'nearest-mean' of the plug-in nearest_mean.py; give its file with --plugin" in line
    predicted = cli("predict", run, images, "--backbone", TINY, "--plugin", file)
    answers = [line.split(",")[1] for line in predicted.out.splitlines()[1:]]
    assert answers.count("red stone") > len(answers) / 2 == 5
    forget()
    evaluated = cli("evaluate", run, "--data", discs, "--backbone", TINY, "--plugin", file, "--json")
    assert next(iter(json.loads(evaluated.out)["rows"].values()))["accuracy"]["value"] > 0.5
    assert "cannot take new classes" in refused(
        "predict", run, images, "--backbone", TINY, "--plugin", file, "--classes", "a, b"
    )


def test_a_saved_request_names_its_plug_in(
    cli: Cli, refused: Refused, discs: Path, file: Path, forget: Forget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli(*train(tmp_path / "run", discs, "--plugin", file.name)).status == 0
    assert "--plugin nearest_mean.py" in (tmp_path / "run" / "report.md").read_text()
    forget()
    monkeypatch.chdir("/")
    again = ["train", "--config", tmp_path / "run" / "run.json", "--out"]
    assert cli(*again, tmp_path / "again").status == 0
    for name in ("metrics.json", "run.json", "model/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    forget()
    (tmp_path / "moved").mkdir()
    file.rename(tmp_path / "moved" / file.name)
    assert f"run.json: plug-in {file}: there is no such Python file" in refused(*again, tmp_path / "third")
    assert cli(*again, tmp_path / "third", "--plugin", tmp_path / "moved" / file.name).status == 0


def test_an_installed_package_from_training_to_prediction(
    cli: Cli, refused: Refused, discs: Path, forget: Forget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as installed:
        install(tmp_path / "site", TOY, installed)
        assert cli(*train(tmp_path / "run", discs)).status == 0
        assert cli("evaluate", tmp_path / "run", "--data", discs, "--backbone", TINY).status == 0
        assert cli("predict", tmp_path / "run", discs / "test", "--backbone", TINY).status == 0
        assert "from the plug-in nearest of the package toy-methods" in cli("methods", "show", "nearest-mean").out
    forget()
    line = refused("predict", tmp_path / "run", discs / "test", "--backbone", TINY)
    assert "of the plug-in nearest of the package toy-methods; give its file with --plugin, install its package" in line


def test_an_imported_module_needs_no_plug_in(
    discs: Path, tiny: Backbone, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(file.parent))
    importlib.import_module("nearest_mean")
    load_plugin(file)  # the same file: it is not run again, so there is no clash
    classifier = bc.fit(bc.load_dataset(discs), "nearest-mean", tiny, shots=2, plugins=[file])
    assert classifier.method == "nearest-mean"
    assert plugin_of(get_method("nearest-mean")) == "nearest_mean.py"


@pytest.mark.parametrize(("learned", "count"), [("()", 0), ('("class_embeddings",)', 3 * 48), ("None", None)])
def test_what_a_plug_in_has_learned_is_counted(
    discs: Path, tiny: Backbone, file: Path, learned: str, count: int | None
) -> None:
    file.write_text(broken("learned = ()", f"learned = {learned}"))
    classifier = bc.fit(bc.load_dataset(discs), "nearest-mean", tiny, shots=2, plugins=[file])
    assert get_method("nearest-mean").n_learned(classifier.state) == count


def test_code_runs_once(file: Path, tmp_path: Path) -> None:
    file.write_text(f"{file.read_text()}\nwith open({str(tmp_path / 'ran')!r}, 'a') as log:\n    log.write('x')\n")
    for path in (file, str(file), file.parent / "." / file.name):
        load_plugin(path)
        all_methods()
    assert (tmp_path / "ran").read_text() == "x"


FAULTS = {
    "import torch\nimport nothing_there\n": r", line 2: ModuleNotFoundError: No module named 'nothing_there'",
    "def f(:\n": r": SyntaxError: invalid syntax \(nearest_mean.py, line 1\)",
    "x = 1\n": r" registers no method; write @register before its class",
    "import sys\nsys.exit(3)\n": r", line 2: SystemExit: 3",
    TOY.replace('"nearest-mean"', '"coop"'): (
        r": TypeError: two methods are called 'coop': CoOp in biomedcoop.methods.coop and NearestMean in .*nearest_mean.py; rename"
    ),
    TOY.replace("    parameters =", "    trained ="): r": TypeError: method NearestMean does not define 'par",
    TOY.replace('"nearest-mean"', "5"): r", line \d+: TypeError: 'name' of method NearestMean must be of the type str",
    TOY + "\nraise ValueError('two\\nlines')\n": r", line \d+: ValueError: two lines",
}


@pytest.mark.parametrize("code", FAULTS, ids=range(len(FAULTS)))
def test_a_faulty_file_gets_one_line_and_leaves_nothing(refused: Refused, file: Path, code: str) -> None:
    before = all_methods()
    file.write_text(code)
    with pytest.raises(UserError, match=f"plug-in {file}.*{FAULTS[code]}"):
        load_plugin(file)
    assert all_methods() == before
    assert f"plug-in {file}" in refused("methods", "list", "--plugin", file)


def broken(old: str, new: str) -> str:
    assert old in TOY
    return TOY.replace(old, new)


LOGITS = "\n    def logits(self, state, features, backbone):\n        return "
FIRST = "        features = F.normalize"
LIST = "fit of .*: it must return a list with a dict of tensors for each of the seeds, here 1$"
READS = r"fit of .*: the default logits reads class_embeddings \[3, 48\] and logit_scale of a state, which holds "
RUNNING = {
    broken(FIRST, f"        {{}}['lr']\n{FIRST}"): r", line \d+: fit of the method 'nearest-mean': KeyError: 'lr'$",
    broken(
        "one_hot.transpose(1, 2) @", "one_hot @"
    ): r", line \d+: fit of the method 'nearest-mean': RuntimeError: Exp",
    broken(FIRST, f"        exit('so')\n{FIRST}"): r", line \d+: fit of .*: SystemExit: so$",
    broken(", progress=None", ""): r": fit of .*: TypeError: NearestMean.fit\(\) takes 4 positional arguments but 5",
    broken("in means]", "in means][:0]"): LIST,
    broken("return [{", "return {0: 0}, [{"): LIST,
    broken('"logit_scale": scale', '"logit_scale": 3.0'): LIST,
    broken(
        '"class_embeddings": own', '"class_embeddings": own.repeat(2, 1)'
    ): rf"{READS}class_embeddings \[6, 48\], logit_scale",
    broken(
        '"class_embeddings": own', '"class_embeddings": own[:, :9]'
    ): rf"{READS}class_embeddings \[3, 9\], logit_scale \[\]",
    broken(
        '"class_embeddings": own', '"weights": own'
    ): rf"{READS}weights \[3, 48\], logit_scale \[\]; return these, or",
    broken(
        '"logit_scale": scale', '"logit_scale": scale * float("nan")'
    ): r"logits of .*: they hold values that are not",
    f"{TOY}{LOGITS}state['none']\n": r", line \d+: logits of the method 'nearest-mean': KeyError: 'none'$",
    f"{TOY}{LOGITS}features\n": r"logits of .*: of 2 images it must return a tensor \[2, 3\], a column for each class, not \[2, ",
    f"{TOY}{LOGITS}None\n": r"must return a tensor \[2, 3\], a column for each class, not NoneType$",
    f"{TOY}{LOGITS}features[:, :3] * float('nan')\n": r"logits of .*: they hold values that are not finite$",
    f"{TOY}\n    def step_macs(self, task, settings):\n        raise ValueError\n": r"step_macs of .*: ValueError$",
    f"{TOY}\n    def settings(self, *given):\n        return [][1]\n": r", line \d+: settings of .*: IndexError: list index out",
}


@pytest.mark.parametrize("code", RUNNING, ids=range(len(RUNNING)))
def test_an_error_in_the_code_of_a_plug_in_is_one_line_and_chained(
    cli: Cli, refused: Refused, discs: Path, file: Path, code: str, tmp_path: Path
) -> None:
    file.write_text(code)
    line = refused(*train(tmp_path / "run", discs, "--plugin", file))
    assert re.search(f"error: plug-in nearest_mean.py.*{RUNNING[code]}", line), line
    if found := re.search(r"line (\d+)", line):
        told = code.splitlines()[int(found[1]) - 1]
        assert any(word in told for word in ("{}['lr']", "one_hot @", "exit(", "['none']", "raise ", "[][1]")), told
        with pytest.raises(UserError) as caught:
            bc.fit(bc.load_dataset(discs), "nearest-mean", TINY, shots=2)
        assert caught.value.__cause__ is not None
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("code", [code for code in RUNNING if "step_macs" not in code and "settings(self" not in code])
def test_a_benchmark_gives_the_reason_that_training_gives(discs: Path, file: Path, code: str, tmp_path: Path) -> None:
    file.write_text(code)
    load_plugin(file)
    with pytest.raises(UserError) as caught:
        bc.fit(bc.load_dataset(discs), "nearest-mean", TINY, shots=2)
    content = {
        "format": 1,
        "kind": "few-shot",
        "datasets": [str(discs)],
        "methods": ["nearest-mean"],
        "backbones": [TINY],
    }
    protocol = Protocol.of({**content, "shots": [2], "seeds": [1], "recipe": "fast"})
    work = Work(protocol, find_sources(protocol, None, None), plugins=(str(file),))
    (group,) = groups_of(protocol, work.sources)
    assert [line["reason"] for line in compute_group(work, group).lines] == [str(caught.value)]


def test_debug_shows_the_traceback_of_a_plug_in(
    discs: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(broken(FIRST, f"        1 / 0\n{FIRST}"))
    monkeypatch.setattr(
        sys, "argv", ["biomedcoop", "--debug", *map(str, train(tmp_path / "r", discs, "--plugin", file))]
    )
    with pytest.raises(UserError, match="ZeroDivisionError: division by zero") as caught:
        main()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_error_when_a_plug_in_predicts(
    cli: Cli, refused: Refused, discs: Path, file: Path, forget: Forget, tmp_path: Path
) -> None:
    assert cli(*train(tmp_path / "run", discs, "--plugin", file)).status == 0
    forget()
    file.write_text(f"{TOY}{LOGITS}1 / 0\n")
    for command in (["predict", tmp_path / "run", discs / "test"], ["evaluate", tmp_path / "run", "--data", discs]):
        line = refused(*command, "--backbone", TINY, "--plugin", file)
        assert "logits of the method 'nearest-mean': ZeroDivisionError: division by zero" in line


def test_an_error_in_an_installed_package_names_its_file(
    refused: Refused, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", broken(FIRST, f"        1 / 0\n{FIRST}"), monkeypatch)
    line = refused(*train(tmp_path / "run", discs))
    assert re.search(
        r"plug-in nearest of the package toy-methods, __init__.py line \d+: fit of the method 'nearest-mean': Zero",
        line,
    )


def test_the_class_of_the_user_keeps_its_own_errors(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(broken(FIRST, f"        1 / 0\n{FIRST}"))
    monkeypatch.syspath_prepend(str(file.parent))
    module = importlib.import_module("nearest_mean")
    assert isinstance(get_method("nearest-mean"), module.NearestMean)
    with pytest.raises(ZeroDivisionError):
        module.NearestMean().fit(None, None, [1])


def test_tensors_of_a_plug_in_may_share_memory(cli: Cli, discs: Path, file: Path, tmp_path: Path) -> None:
    file.write_text(broken('"logit_scale": scale', '"logit_scale": scale, "same": own[:2].requires_grad_()'))
    assert cli(*train(tmp_path / "run", discs, "--plugin", file)).status == 0


def test_files_that_are_none(refused: Refused, tmp_path: Path) -> None:
    for wrong in (tmp_path, tmp_path / "gone.py", ROOT / "README.md"):
        assert "there is no such Python file; give a .py file" in refused("methods", "list", "--plugin", wrong)
    with pytest.raises(UserError, match=r"plugins='a\.py' must be a list of Python files"):
        bc.fit(bc.load_dataset("simulated:kidney-ct?train=1&val=0&test=1"), plugins="a.py")


@pytest.mark.parametrize("code", ["import nothing_there\n", "x = 1\n", TOY.replace("nearest-mean", "coop")])
def test_a_faulty_package_is_left_out_with_a_note(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = all_methods()
    install(tmp_path / "site", code, monkeypatch)
    with pytest.warns(Note, match="plug-in nearest of the package toy-methods.*; its methods are left out"):
        assert all_methods() == before
    assert all_methods() == before, "and is not tried again"


def test_methods_are_listed_and_shown(cli: Cli, file: Path) -> None:
    assert "nearest-mean" in cli("methods", "list", "--plugin", file).out
    shown = cli("methods", "show", "nearest-mean", "--plugin", file).out
    assert "from the plug-in nearest_mean.py" in shown
    assert "settings: none" in shown
    assert json.loads(cli("methods", "show", "nearest-mean", "--plugin", file, "--json").out)["settings"] == {}
    assert json.loads(cli("methods", "show", "coop", "--json").out)["plugin"] is None


@pytest.mark.parametrize("all_views", [True, False])
def test_a_method_without_epochs_has_no_views_of_epochs(
    refused: Refused, discs: Path, file: Path, all_views: bool, tmp_path: Path
) -> None:
    if not all_views:
        file.write_text(file.read_text().replace(", needs_all_views=True", ""))
    line = refused(*train(tmp_path / "run", discs, "--plugin", file, "--views", "per-epoch"))
    reason = "uses all views of all images at once" if all_views else "has no epochs"
    assert f"nearest-mean {reason}, so --views per-epoch does not apply" in line
    line = refused(*train(tmp_path / "run", discs, "--plugin", file, "--set", "epochs=3"))
    assert "method nearest-mean has no setting 'epochs'; known: none" in line


def test_the_matrix_holds_for_a_closed_form(
    task: Task,  # noqa: F811
    backbone: Backbone,  # noqa: F811
    trained: matrix.Trained,  # noqa: F811
    parity: Path,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every check of the matrix that concerns a method that learns from images, with a row that names no setting."""
    load_plugin(file)
    monkeypatch.setitem(matrix.METHODS, "nearest-mean", {})
    method = get_method("nearest-mean")
    matrix.test_alone_or_in_company(method, task, backbone, trained)
    matrix.test_learning(method, task, backbone, trained)
    matrix.test_views(method, task, backbone, trained)
    matrix.test_learning_through_a_coarse_text_tower(method, parity)
    matrix.test_saved_and_loaded(method, backbone, trained, tmp_path)
    matrix.test_new_classes(method, backbone, trained)
    matrix.test_settings_are_checked_and_explained(method)
    matrix.test_recipes(method)
