"""Models that timm computes: its features, from its files, with our maps, refusals and commands. The package is the real one."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import biomedcoop as bc
from backbones.folders import edit_json, refusal
from backbones.tiny_timm import timm, write_model
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.registry import has_text_tower
from biomedcoop.backbones.verify import verify
from biomedcoop.errors import UserError
from biomedcoop.features.spaces import image_space

SIZE = 96
CONVOLUTIONS = "test_efficientnet"
"""timm's smallest model of this kind."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small EfficientNet of timm; copy it before changing it."""
    folder = tmp_path_factory.mktemp("timm") / "efficientnet"
    write_model(folder, CONVOLUTIONS, SIZE)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def of_timm(folder: Path, pixels: torch.Tensor) -> torch.Tensor:
    """Features as a user of timm gets them from the folder."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    with torch.no_grad():
        return model(pixels)  # type: ignore[no-any-return]


def images(size: int, count: int = 2) -> torch.Tensor:
    pixels = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    return pixels * torch.linspace(0.3, 2, count)[:, None, None, None]


def compare(folder: Path, size: int) -> None:
    backbone, pixels = load_backbone(folder), images(size)
    with torch.no_grad():
        ours, theirs = backbone.encode_image(pixels), of_timm(folder, pixels)
    assert theirs.std(0).mean() > 1e-3
    assert ours.shape == (2, backbone.embed_dim)
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_features_are_those_of_timm(made: Path) -> None:
    assert not has_text_tower(made)
    compare(made, SIZE)
    backbone = load_backbone(made)
    assert (backbone.tower_kind, backbone.image_size, backbone.resize) == (CONVOLUTIONS, SIZE, "shortest")
    config = json.loads((made / "config.json").read_text())["pretrained_cfg"]
    assert [list(backbone.mean), list(backbone.std)] == [config["mean"], config["std"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "width", "parameters", "layer"),
    [
        # as their papers and torchvision document them, less the classifier of 1,000 classes
        ("convnext_tiny", 768, 28_589_128 - 769_000, "stages"),
        ("efficientnet_b0", 1280, 5_288_548 - 1_281_000, "bn2"),
        ("densenet121", 1024, 7_978_856 - 1_025_000, "features"),
        ("mobilenetv3_large_100", 1280, 5_483_032 - 1_281_000, "blocks"),
    ],
)
def test_full_size(architecture: str, width: int, parameters: int, layer: str, tmp_path: Path) -> None:
    write_model(tmp_path / "model", architecture, 224)
    compare(tmp_path / "model", 224)
    backbone = load_backbone(tmp_path / "model")
    assert (backbone.embed_dim, backbone.map_layer) == (width, layer)
    assert sum(parameter.numel() for parameter in backbone.towers.parameters()) == parameters
    _, places = backbone.image_activations(images(224), layer)
    assert places.shape[2:] == (7, 7)


@pytest.mark.parametrize(
    ("architecture", "arguments", "layer"),
    [
        ("test_convnext", {}, "stages"),
        ("test_vit", {"img_size": SIZE}, "blocks.5.norm1"),  # class token and registers, or a mean over patches
        ("test_resnet", {"output_stride": 8}, ""),
    ],
)
def test_layers_for_maps(architecture: str, arguments: dict[str, Any], layer: str, tmp_path: Path) -> None:
    write_model(tmp_path / "model", architecture, SIZE, **arguments)
    compare(tmp_path / "model", SIZE)
    backbone = load_backbone(tmp_path / "model")
    assert backbone.map_layer == layer
    if layer:
        features, places = backbone.image_activations(images(SIZE), layer)
        direction = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
        (gradient,) = torch.autograd.grad((features * direction).sum(), places)
        assert float(gradient.abs().sum()) > 0
    with pytest.raises(UserError, match=f"timm's '{architecture}' gives no attention maps"):
        backbone.attention_maps(images(SIZE))


def test_a_model_without_a_map_says_so(
    discs: Path, tmp_path: Path, cli: Callable[..., Any], refused: Callable[..., str]
) -> None:
    write_model(tmp_path / "model", "test_resnet", SIZE, output_stride=8)
    followed = {"crop_pct": 1.0, "interpolation": "bicubic"}
    edit_json(tmp_path / "model" / "config.json", lambda content: content["pretrained_cfg"].update(followed))
    data = bc.load_dataset(discs)
    bc.fit(data, "simpleshot", str(tmp_path / "model"), shots=2, seed=1).save(tmp_path / "saved")
    image = next((discs / "test").rglob("*.png"))
    options = ("--model", tmp_path / "saved", "--backbone", tmp_path / "model", "--out", tmp_path / "maps")
    line = refused("explain", image, *options)
    assert "(test_resnet) has no layer that is known to give a map of places; name one with --layer" in line
    assert not cli("explain", image, *options, "--layer", "layer4").status


def test_fingerprint_and_store(folder: Path, tmp_path: Path) -> None:
    first = load_backbone(folder)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    assert load_backbone(folder).fingerprint == first.fingerprint
    edit_json(folder / "config.json", lambda content: content["pretrained_cfg"].update(crop_mode="squash"))
    squashed = load_backbone(folder)
    assert squashed.resize == "squash"
    assert squashed.fingerprint != first.fingerprint
    assert image_space(squashed) != image_space(first)
    with torch.no_grad():
        assert torch.equal(squashed.encode_image(images(SIZE)), first.encode_image(images(SIZE)))
    write_model(tmp_path / "larger", CONVOLUTIONS, SIZE + 32)
    assert load_backbone(tmp_path / "larger").fingerprint != first.fingerprint


def test_loading_changes_no_random_numbers(made: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load_backbone(made)
    assert torch.equal(torch.rand(2), expected)


def test_verify(made: Path) -> None:
    checks = list(verify(str(made)))
    assert all(check.passed for check in checks)
    assert [check.what for check in checks] == ["files", "fingerprint", "features", "batches", "second load"]


def test_the_command_line_from_training_to_prediction(
    made: Path, discs: Path, tmp_path: Path, cli: Callable[..., Any], refused: Callable[..., str]
) -> None:
    run = tmp_path / "run"
    options = ("--backbone", made, "--method", "linear-probe", "--shots", 8)
    assert not cli("train", "--data", discs, *options, "--out", run).status
    named = ("--backbone", made)
    assert not cli("predict", run, discs / "test", *named, "--out", tmp_path / "predictions.csv").status
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    right = [Path(row["path"]).parent.name.replace("_", " ") == row["prediction"].replace("_", " ") for row in rows]
    assert sum(right) > 24
    image = next((discs / "test").rglob("*.png"))
    assert not cli("explain", image, "--model", run, *named, "--map", "grad-cam", "--out", tmp_path / "maps").status
    line = refused("train", "--data", discs, "--backbone", made, "--method", "biomedcoop", "--out", tmp_path / "other")
    assert "text tower" in line


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_other_precisions_are_refused(precision: str, made: Path) -> None:
    with pytest.raises(
        UserError, match=f"precision {precision} is not known to keep its image features; choose float32"
    ):
        load_backbone(made, precision=precision)
    assert load_backbone(made, precision="auto").precision == "float32"


FAULTS: dict[str, dict[str, Any]] = {
    f"timm {timm.__version__} has no model 'resnet9000'; a newer one may": {"architecture": "resnet9000"},
    "has no model 'hf-hub:someone/model'": {"architecture": "hf-hub:someone/model"},
    "cannot load it as 'densenet121' (": {"architecture": "densenet121"},
    "unexpected keyword argument 'colour'": {"model_args": {"colour": "red"}},
    "multiple values for keyword argument 'checkpoint_path'": {"model_args": {"checkpoint_path": "other.pth"}},
    "numbers for an image and not one list of features; set its global_pool": {"model_args": {"global_pool": ""}},
    "input_size is [1, 96, 96], must be [3, side, side]": {
        "pretrained_cfg": {"input_size": [1, 96, 96], "mean": [0.5], "std": [0.5]}
    },
    "crop_mode 'border' is not supported, only 'center' or 'squash'": {
        "pretrained_cfg": {"input_size": [3, 96, 96], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_mode": "border"}
    },
}


@pytest.mark.parametrize("line", FAULTS)
def test_a_faulty_configuration_is_refused(line: str, folder: Path) -> None:
    edit_json(folder / "config.json", lambda content: content.update(FAULTS[line]))
    assert line in refusal(folder)


def test_faulty_tensors_are_refused_by_name(folder: Path) -> None:
    file = folder / "model.safetensors"
    state = load_file(file)
    save_file({key: value for key, value in state.items() if key != "conv_stem.weight"}, file)
    assert "conv_stem.weight" in refusal(folder)
    save_file({**state, "blocks.9.bias": torch.zeros(1)}, file)
    assert "blocks.9.bias" in refusal(folder)
    save_file({**state, "bn2.bias": torch.full_like(state["bn2.bias"], torch.nan)}, file)
    assert "'bn2.bias' holds values that are not finite" in refusal(folder)


def test_a_missing_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert f"a model of the kind '{CONVOLUTIONS}' needs the package timm (" in refusal(folder)
    assert "pip install 'biomedcoop[timm]'" in refusal(folder)
    assert not has_text_tower(folder)


def test_an_old_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "__version__", "1.0.20")
    assert "timm 1.0.20 is too old; pip install -U 'biomedcoop[timm]'" in refusal(folder)
