"""The request: checked when it is made, the same in Python, JSON and on the command line."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.tasks.request import BUDGET, FitOptions, FitRequest, TrainOptions, TrainRequest

MANY = TrainRequest(
    data="scans/ct.csv",
    method="coop",
    backbone=str(Path(__file__).parents[1] / "parity_a" / "model"),
    shots=4,
    seeds=(7,),
    recipe="fast",
    settings={"epochs": 3, "lr": 0.01},
    prompts="my words/words.json",
    modality="CT",
    organ="kidney",
    views="per-epoch",
    repeat_shots=True,
    device="cuda:1",
    precision="bfloat16",
    compare=("biomedcoop", "zero-shot"),
    split_file="splits/one.json",
    n_bootstrap=50,
)


def test_json_and_back() -> None:
    assert TrainRequest.from_dict(json.loads(json.dumps(MANY.to_dict())), {}) == MANY
    assert MANY.to_dict()["seeds"] == [7]
    several = FitRequest(data="scans", seeds=[1, 2])
    assert FitRequest.from_dict(several.to_dict(), {}) == several
    assert several.to_dict()["seeds"] == [1, 2]


def test_a_saved_request_can_be_run_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("scans", "mini", "library"):
        Path(folder).mkdir()
    for file in ("words.py", "split.json"):
        Path(file).touch()
    shutil.copytree(MANY.backbone, "model")
    request = TrainRequest(
        data="scans", backbone="model", prompts="words.py:CT", split_file="../" + tmp_path.name + "/split.json"
    )
    saved = request.to_dict()
    assert [saved[name] for name in ("data", "backbone", "prompts")] == [
        f"{tmp_path}/scans", f"{tmp_path}/model", f"{tmp_path}/words.py:CT"
    ]  # fmt: skip
    assert Path(saved["split_file"]).is_absolute()
    assert str(tmp_path) not in TrainRequest.from_dict(saved, {}).command()
    names = TrainRequest(data="btmri", backbone="mini", prompts="library")
    assert TrainRequest.from_dict(names.to_dict(), {}) == names, "a name is no path, though a folder has this name"
    monkeypatch.chdir("/")
    assert TrainRequest.from_dict(saved, {}).to_dict() == saved
    shutil.rmtree(tmp_path / "model")
    assert TrainRequest.from_dict(saved, {"backbone": "mini"}).backbone == "mini"


def test_single_options_go_over_a_saved_request() -> None:
    found = TrainRequest.from_dict(MANY.to_dict(), {"seed": 2, "shots": 8})
    assert found == dataclasses.replace(MANY, seeds=(2,), shots=8)


def test_every_option_that_is_not_a_default_is_in_the_command_without_folders() -> None:
    assert MANY.command() == (
        "biomedcoop train --data ct.csv --method coop --backbone model --shots 4 --seeds 7 "
        "--compare biomedcoop,zero-shot --recipe fast --set epochs=3 --set lr=0.01 --prompts words.json --modality CT "
        "--organ kidney --views per-epoch --repeat-shots --device cuda:1 --precision bfloat16 --split-file one.json "
        "--n-bootstrap 50 --out run"
    )
    assert " --shots all " in TrainRequest(data="scans", shots="all").command()
    assert TrainRequest(data="scans", compare=()).command() == (
        "biomedcoop train --data scans --method auto --backbone mini --seeds 1 --compare none --out run"
    )


def test_values_take_their_final_type(tiny: Backbone) -> None:
    request = FitRequest(Path("scans"), backbone=tiny, settings=None, prompts=Path("words.json"), views="3", seeds=[2])
    assert (request.data, request.settings, request.prompts, request.views) == ("scans", {}, "words.json", 3)
    assert request.seeds == (2,)
    assert request.to_dict()["backbone"] == tiny.name
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.shots = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"shots": "many"}, "shots='many' must be a whole number of at least 1, e.g. shots=16, or shots='all'"),
        ({"shots": True}, "shots=True must be a whole number"),
        ({"method": None}, "method=None must be a name, e.g. method='biomedcoop'"),
        ({"recipe": 3}, "recipe=3 must be a name, e.g. recipe='general'"),
        ({"views": 0}, "views=0 must be a whole number from 1 to 10000, or per-epoch"),
        ({"views": 1.5}, "views=1.5 must be a whole number"),
        ({"repeat_shots": "yes"}, "repeat_shots='yes' must be True or False"),
        ({"modality": " "}, "modality=' ' must be one or more words, e.g. modality='CT'"),
        ({"settings": ["epochs=3"]}, "must be a dict, e.g. settings={'epochs': 50}"),
        ({"prompts": {"a": ["b"]}}, "prompts must be a name or a path, not dict"),
        ({"precision": 16}, "precision=16 must be a name"),
        ({"compare": "coop"}, "compare='coop' must be a list of methods"),
        ({"compare": [3]}, "compare=3 must be a name"),
        ({"n_bootstrap": 39}, "n_bootstrap=39 must be a whole number from 40 to 1000000"),
        ({"split_file": 3}, "split_file=3 must be a path"),
        ({"seed": -1}, "seed=-1 must be a whole number from 0 to"),
        ({"seed": [1, 2]}, "must be a whole number from 0 to"),
        ({"method": "biomedcop"}, "no method 'biomedcop'; did you mean biomedcoop"),
        ({"compare": ["zeroshot"]}, "no method 'zeroshot'; did you mean zero-shot"),
        ({"recipe": "papr"}, "no recipe 'papr'; did you mean paper"),
        (
            {"backbone": "biomedclp"},
            "no backbone 'biomedclp': neither a known name nor a folder; did you mean biomedclip",
        ),
        ({"precision": "float16"}, "precision 'float16' is not known; choose float32, bfloat16"),
        ({"device": "cuda:x"}, "device 'cuda:x' is not known; choose cpu"),
        ({"n_bootstrap": 10**12}, "n_bootstrap=1000000000000 must be a whole number from 40 to 1000000"),
        ({"prompts": "a\0b"}, "holds a null character"),
        ({"seeds": [1], "seed": 1}, "seed and seeds are both given"),
        ({"seeds": []}, "give at least one, each a whole number"),
        ({"seeds": [1, 2, 1]}, "a seed is there twice"),
        ({"shot": 3}, "no option 'shot'; did you mean shots"),
        ({"settings": {"budgt": 3}}, "method auto has no setting 'budgt'; did you mean budget"),
        ({"method": "gda", "settings": {"covariance": "all"}}, "method gda: covariance=all must be"),
        ({"method": "zero-shot", "alpha": 0.1}, "zero-shot learns from no image, so none is drawn to calibrate"),
        ({"budget": "soon"}, "budget='soon' must be a time above 0 in s, min or h, e.g. budget='60s'"),
        ({"budget": -1}, "budget=-1 must be a time above 0"),
        ({"method": "gda", "budget": 60}, "gda has no budget; leave budget out, or choose the method auto"),
        ({"calibrate": "maybe"}, "calibrate='maybe' must be one of auto, yes, no"),
        ({"data": 3}, "data must be a dataset from load_dataset, not int"),
    ],
)
def test_wrong_values_are_refused_in_one_line(given: dict[str, Any], words: str) -> None:
    with pytest.raises(bc.UserError, match=words.replace("(", r"\(")) as caught:
        TrainRequest.of({"data": "scans", **given})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a saved request"),
        ("{}", "is not a saved request"),
        ('{"format": 99, "data": "x"}', "has format 99, this version reads up to 1; upgrade biomedcoop"),
        ('{"format": 1, "data": "x", "shot": 3}', "no option 'shot'; did you mean shots"),
        ('{"format": 1, "shots": 3}', "no data are named"),
        ('{"format": 1, "data": "x", "seed": 1, "seed": 2}', "'seed' appears twice"),
        pytest.param("[" * 100_000, "is not JSON", id="deep"),
    ],
)
def test_files_that_are_no_request(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "run.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(bc.UserError, match=words) as caught:
        TrainRequest.read(file, {})
    assert str(file) in str(caught.value)
    with pytest.raises(bc.UserError, match=r"missing\.json: cannot be read"):
        TrainRequest.read(tmp_path / "missing.json", {})


def test_a_dataset_in_hand_has_no_json(discs: Path) -> None:
    with pytest.raises(bc.UserError, match="make the request with its path or name"):
        FitRequest(bc.load_dataset(discs)).to_dict()


def test_the_typed_keywords_are_the_fields() -> None:
    fit = {field.name for field in dataclasses.fields(FitRequest)}
    assert fit - set(FitOptions.__annotations__) == {"data", "method", "backbone", "shots", "seeds"}
    assert set(FitOptions.__annotations__) <= fit | {BUDGET}
    train = set(TrainRequest.names())
    assert train - set(TrainOptions.__annotations__) == {"data"}
    assert set(TrainOptions.__annotations__) <= train | {"seed", BUDGET}


def test_a_budget_is_a_setting_of_auto() -> None:
    for given in (90, "90", "90s", "1.5min", " 0.025 h"):
        assert TrainRequest.of({"data": "scans", "budget": given}).settings == {"budget": 90.0}
    saved = TrainRequest.of({"data": "scans", "budget": 5, "settings": {"prior": 2}})
    again = TrainRequest.from_dict(saved.to_dict(), {"budget": "20s"})
    assert again.settings == {"budget": 20.0, "prior": 2}


def test_calibrate_takes_true_and_false() -> None:
    assert [FitRequest.of({"data": "x", "calibrate": one}).calibrate for one in (True, False)] == ["yes", "no"]


def test_the_command_line_takes_a_saved_request(
    cli: Callable[..., Any], discs: Path, parity: Path, tmp_path: Path
) -> None:
    first = cli("train", "--data", discs, "--backbone", parity / "model", "--method", "tip-adapter", "--shots", 2,
                "--set", "logit_scale=20", "--compare", "none", "--n-bootstrap", 40, "--out", tmp_path / "first")  # fmt: skip
    assert first.status == 0, first.err
    again = cli(
        "train", "--config", tmp_path / "first" / "run.json", "--seed", 2, "--json", "--out", tmp_path / "second"
    )
    assert again.status == 0, again.err
    found = json.loads(again.out)
    assert (found["method"], found["shots"], found["seed"], found["settings"]["logit_scale"]) == (
        "tip-adapter",
        2,
        2,
        20,
    )
    assert list(found["rows"]) == ["tip-adapter", "majority class"]
    saved = tmp_path / "saved.json"
    content = json.loads((tmp_path / "first" / "run.json").read_text(encoding="utf-8"))
    saved.write_text(json.dumps({**content, "repeat_shots": True, "shots": 1000}), encoding="utf-8")
    refused = cli("train", "--config", saved, "--no-repeat-shots", "--out", tmp_path / "third")
    assert (refused.status, "--shots 1000" in refused.err) == (2, True)
    saved.write_text(json.dumps({**content, "modality": "CT"}), encoding="utf-8")
    cleared = cli("train", "--config", saved, "--modality", "none", "--out", tmp_path / "third")
    assert cleared.status == 0, cleared.err
    assert json.loads((tmp_path / "third" / "run.json").read_text(encoding="utf-8"))["modality"] is None
    nothing = cli("train", "--out", tmp_path / "fourth")
    assert (nothing.status, nothing.err.count("\n")) == (2, 1)
    assert "--config" in nothing.err


def test_numbers_of_other_libraries_are_plain_numbers() -> None:
    request = TrainRequest(
        data="scans", settings={"budget": np.int64(3), "prior": torch.tensor(0.5)}, views=np.int64(2)
    )
    assert json.loads(json.dumps(request.to_dict()))["settings"] == {"budget": 3, "prior": 0.5}
    assert request.views == 2
    for wrong in (np.array([1, 2]), [1], None):
        with pytest.raises(bc.UserError, match="settings: budget="):
            TrainRequest(data="scans", settings={"budget": wrong})
    for name, wrong in (("views", np.array([1, 2])), ("views", True), ("device", None), ("seeds", np.array(3))):
        with pytest.raises(bc.UserError, match=name):
            FitRequest(**{"data": "scans", name: wrong})
    with pytest.raises(bc.UserError, match="shots=0 must be a whole number of at least 1"):
        FitRequest(data="scans", shots=0)


def test_settings_go_over_saved_ones_one_by_one_and_not_to_another_method() -> None:
    saved = MANY.to_dict()
    assert TrainRequest.from_dict(saved, {"settings": {"epochs": "9"}}).settings == {"epochs": "9", "lr": 0.01}
    assert TrainRequest.from_dict(saved, {"method": "coop"}).settings == MANY.settings
    assert TrainRequest.from_dict(saved, {"method": "zero-shot"}).settings == {}
    assert TrainRequest.from_dict(saved, {"method": "kgcoop", "settings": {"weight": 2}}).settings == {"weight": 2}
