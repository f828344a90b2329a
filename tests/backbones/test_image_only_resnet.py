"""ResNets without a text tower: features by value, the files of timm and torchvision, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import biomedcoop as bc
from backbones.folders import edit_json, refusal
from backbones.tiny_image_only import resnet, resnet_state, write_resnet
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.families import family
from biomedcoop.backbones.registry import has_text_tower
from biomedcoop.errors import UserError

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "two convolutions": ("resnet18.a1_in1k", {"bottleneck": False}),
    "bottlenecks": ("resnet50.a1_in1k", {}),
    "wide bottlenecks": ("wide_resnet50_2.tv_in1k", {"wide": 2}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_those_of_a_plain_computation(kind: str, tmp_path: Path) -> None:
    name, sizes = KINDS[kind]
    state = resnet_state(**sizes)
    folder = write_resnet(tmp_path / "model", state, name)
    assert not has_text_tower(folder)
    backbone = load_backbone(folder)
    assert (backbone.image_size, backbone.embed_dim) == (64, 64 if kind == "two convolutions" else 256)
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    pixels *= torch.tensor([0.3, 1, 2])[:, None, None, None]
    with torch.no_grad():
        ours, theirs = backbone.encode_image(pixels), resnet(state, pixels)
    assert theirs.std(0).mean() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)  # float32, values about 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes", "parameters"),
    [
        # as torchvision documents them, less the classifier of 1,000 classes
        ("resnet18", {"blocks": (2, 2, 2, 2), "bottleneck": False}, 11_689_512 - 513_000),
        ("resnet34", {"blocks": (3, 4, 6, 3), "bottleneck": False}, 21_797_672 - 513_000),
        ("resnet50", {"blocks": (3, 4, 6, 3)}, 25_557_032 - 2_049_000),
    ],
)
def test_full_size(name: str, sizes: dict[str, Any], parameters: int, tmp_path: Path) -> None:
    state = resnet_state(**sizes, width=64)
    backbone = load_backbone(write_resnet(tmp_path / name, state, name, size=224))
    assert sum(parameter.numel() for parameter in backbone.towers.parameters()) == parameters
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = backbone.encode_image(pixels), resnet(state, pixels)
    # the shortcuts of random blocks add up to values far above 1, and float32 rounds in proportion
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_a_file_of_torchvision_has_the_features_of_timm(tmp_path: Path) -> None:
    state = resnet_state()
    (tmp_path / "vision").mkdir()
    torch.save(state, tmp_path / "vision" / "resnet50-0676ba61.pth")
    backbone = load_backbone(tmp_path / "vision")
    timm = load_backbone(write_resnet(tmp_path / "timm", state, size=224))
    assert not has_text_tower(tmp_path / "vision")
    assert backbone.fingerprint == timm.fingerprint
    assert (backbone.image_size, backbone.mean, backbone.std) == (224, timm.mean, timm.std)


def test_a_linear_probe_learns_on_it_and_has_maps(discs: Path, tmp_path: Path) -> None:
    backbone = load_backbone(write_resnet(tmp_path / "resnet", resnet_state()))
    data = bc.load_dataset(discs)
    classifier = bc.fit(data, "linear-probe", backbone, shots=8, seed=1)
    test = data.indices("test")
    right = [data.class_names[data.labels[i]] for i in test]
    found = classifier.predict([data.images[i] for i in test])
    assert sum(a == b for a, b in zip(found, right, strict=True)) > 0.8 * len(test)

    pixels = torch.randn(2, 3, 64, 64)
    features, places = backbone.image_activations(pixels, backbone.map_layer)
    assert places.shape == (2, 256, 2, 2)
    torch.testing.assert_close(features, places.mean((2, 3)))
    with pytest.raises(UserError, match="resnet: its image tower is a ResNet, which has no attention maps"):
        backbone.attention_maps(pixels)
    with pytest.raises(UserError, match="precision int8 is not known to keep its image features"):
        load_backbone(tmp_path / "resnet", precision="int8")


@pytest.mark.parametrize(
    "change", [{"global_pool": "max"}, {"model_args": {"stem_type": "deep"}}, {"model_args": {"in_chans": 1}}]
)
def test_other_designs_of_timm_are_computed_by_timm(change: dict[str, Any], tmp_path: Path) -> None:
    folder = write_resnet(tmp_path / "model", resnet_state())
    assert family(folder) == "resnet"
    edit_json(folder / "config.json", lambda content: content.update(change))
    assert family(folder) == "timm"


FAULTS = {
    "input_size is [3, 64, 32]": {"pretrained_cfg": {"input_size": [3, 64, 32]}},
    "config.json does not tell mean": {"pretrained_cfg": {"input_size": [3, 64, 64]}},
}


@pytest.mark.parametrize("line", FAULTS)
def test_a_faulty_configuration_is_refused(line: str, tmp_path: Path) -> None:
    folder = write_resnet(tmp_path / "model", resnet_state())
    edit_json(folder / "config.json", lambda content: content.update(FAULTS[line]))
    assert line in refusal(folder)


def test_faulty_tensors_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_resnet(tmp_path / "model", resnet_state())
    file = folder / "model.safetensors"
    state = load_file(file)
    save_file({key: value for key, value in state.items() if key != "layer2.1.bn2.running_var"}, file)
    assert "lacks 'layer2.1.bn2.running_var'" in refusal(folder)
    save_file({key: value for key, value in state.items() if not key.startswith("layer3.")}, file)
    assert "lacks 'layer3.0.conv1.weight'" in refusal(folder)
    save_file({**state, "layer1.0.se.fc1.weight": torch.zeros(1)}, file)
    assert "unexpected 'layer1.0.se.fc1.weight'" in refusal(folder)
    save_file({**state, "conv1.weight": torch.zeros(8, 3, 3, 3)}, file)
    assert "'conv1.weight' has shape [8, 3, 3, 3], expected [8, 3, 7, 7]" in refusal(folder)
    save_file({**state, "bn1.bias": torch.full((8,), torch.inf)}, file)
    assert "'bn1.bias' holds values that are not finite" in refusal(folder)
