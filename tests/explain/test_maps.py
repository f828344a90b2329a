"""The maps of crops on every kind of image tower, against Captum, against their equations, and against what must change them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torch.nn import functional as F

import biomedcoop as bc
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.classifier import Classifier
from biomedcoop.errors import UserError
from biomedcoop.explain import channels
from biomedcoop.explain.attention import attention_rollout, gradient_attention
from biomedcoop.explain.kinds import MAPS, maps_for
from biomedcoop.explain.maps import crop_maps

TOWERS = ("tiny", "tiny_clip_vit", "tiny_clip_resnet", "tiny_lite", "tiny_siglip")
EARLIER = {
    "model": "blocks.0.norm1",
    "clip-vit": "transformer.resblocks.1.ln_1",
    "clip-resnet": "layer3",
    "lite": "blocks.4",
    "siglip": "transformer.resblocks.0.ln_1",
}
"""A layer with a map, by the name of the backbone."""
CORNERS = ((4, 4), (4, 36), (36, 4), (36, 36))
CLASSES = ("cyst", "stone", "tumor")


@pytest.fixture(params=TOWERS)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    found: Backbone = request.getfixturevalue(request.param)
    return found


def linear(backbone: Backbone, names: tuple[str, ...] = CLASSES) -> Classifier:
    """A classifier with random weights on image features."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(len(names), backbone.embed_dim, generator=generator)
    return Classifier(names, "linear-probe", {"weight": weight, "bias": torch.zeros(len(names))}, backbone)


def score(logits: Tensor, number: int) -> Tensor:
    """Score of a class from logits [B, C]: what it has above the mean of all."""
    return logits[:, number] - logits.mean(1)


def crops_for(backbone: Backbone, count: int = 3) -> npt.NDArray[np.uint8]:
    size = backbone.image_size
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", MAPS)
def test_every_map_on_every_tower_that_gives_it(name: str, backbone: Backbone) -> None:
    classifier, crops, classes = linear(backbone), crops_for(backbone), np.array([0, 1, 2])
    if name not in maps_for(backbone.tower_kind):
        with pytest.raises(
            UserError, match=rf"needs a vision transformer, .* {backbone.tower_kind}; it gives gscorecam, "
        ):
            crop_maps(classifier, crops, classes, name)
        return
    layer = EARLIER[backbone.name] if name == "score-cam" else None  # which has fewer channels to score
    maps = crop_maps(classifier, crops, classes, name, layer)
    assert maps.dtype == np.float32
    assert maps.shape == crops.shape[:3]
    assert maps.min() >= 0
    assert set(maps.max((1, 2)).round(6).tolist()) <= {0.0, 1.0}
    # an image's map depends neither on its neighbours nor on the call
    np.testing.assert_allclose(crop_maps(classifier, crops[1:2], classes[1:2], name, layer)[0], maps[1], atol=1e-4)
    other = crop_maps(classifier, crops, np.array([1, 2, 0]), name, layer)
    if backbone.name != "clip-resnet":  # its last map has one place
        assert (np.abs(other - maps).max() > 1e-4) == MAPS[name].class_specific


def test_grad_cam_is_that_of_captum(backbone: Backbone) -> None:
    classifier, layer = linear(backbone), EARLIER[backbone.name]
    pixels, classes = backbone.normalize(crops_for(backbone)), torch.tensor([2, 0, 1])
    ours = channels.grad_cam(classifier, pixels, classes, layer)
    assert ours.max() > 0

    class Scores(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits = classifier.logits(backbone.encode_image(x))
            return logits - logits.mean(1, keepdim=True)

    tower = backbone.image_tower
    module = getattr(tower, "trunk", tower).get_submodule(layer)
    with torch.enable_grad():
        theirs = layer_grad_cam(Scores(), module, pixels.requires_grad_(), classes, tokens=backbone.tower_kind == "vit")
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def layer_grad_cam(model: nn.Module, module: nn.Module, pixels: Tensor, classes: Tensor, *, tokens: bool) -> Tensor:
    """Captum's map [B, h, w] of a layer; it takes channels from the second axis, so tokens pass through a layer of their own."""
    if not tokens:
        return LayerGradCam(model, module).attribute(pixels, classes, relu_attributions=True)[:, 0].detach()

    class AsMap(nn.Module):
        def forward(self, patches: Tensor) -> Tensor:  # [B, C, h, w], the same numbers
            return patches * 1

    as_map = AsMap()

    def through(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        side = math.isqrt(output.shape[1])
        first = output.shape[1] - side**2  # a class token, or none
        patches = as_map(output[:, first:].transpose(1, 2).unflatten(2, (side, side)))
        return torch.cat([output[:, :first], patches.flatten(2).transpose(1, 2)], dim=1)

    hook = module.register_forward_hook(through)
    try:
        return LayerGradCam(model, as_map).attribute(pixels, classes, relu_attributions=True)[:, 0].detach()
    finally:
        hook.remove()


def test_score_cam_by_its_equation(tiny_lite: Backbone) -> None:
    classifier, layer = linear(tiny_lite), "blocks.4"
    pixels, classes = tiny_lite.normalize(crops_for(tiny_lite, 1)), torch.tensor([1])
    output = tiny_lite.image_activations(pixels, layer)[1].detach()[0]
    scores, used = [], []
    for channel in output:
        mask = F.interpolate(channel[None, None], pixels.shape[-2:], mode="bilinear", align_corners=False)
        if mask.max() > mask.min():
            seen = pixels * (mask - mask.min()) / (mask.max() - mask.min())
            scores.append(score(classifier.logits(tiny_lite.encode_image(seen)), 1)[0])
            used.append(channel)
    expected = torch.einsum("k,khw->hw", torch.stack(scores).softmax(0), torch.stack(used)).relu()
    torch.testing.assert_close(
        channels.score_cam(classifier, pixels, classes, layer)[0], expected, atol=1e-5, rtol=1e-3
    )


def test_gscorecam_keeps_the_channels_with_the_largest_gradient(
    tiny_lite: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, pixels = linear(tiny_lite), tiny_lite.normalize(crops_for(tiny_lite, 1))
    classes, layer = torch.tensor([1]), "blocks.4"
    width = tiny_lite.image_activations(pixels, layer)[1].shape[1]
    all_channels = channels.score_cam(classifier, pixels, classes, layer)
    torch.testing.assert_close(channels.gscorecam(classifier, pixels, classes, layer), all_channels)  # fewer than 300
    monkeypatch.setattr(channels, "TOP_CHANNELS", 1)
    kept, gradients = channels.channels_of(classifier, pixels, classes, layer)
    best = int(gradients.mean((2, 3)).argmax())
    assert width > 1
    torch.testing.assert_close(channels.gscorecam(classifier, pixels, classes, layer)[0], kept[0, best].relu())


def test_rollout_multiplies_the_blocks(tiny: Backbone) -> None:
    pixels = tiny.normalize(crops_for(tiny, 1))
    _, (first, second) = tiny.attention_maps(pixels)
    unit = torch.eye(first.shape[-1])
    expected = (second[0].mean(0) + unit) @ (first[0].mean(0) + unit) / 4
    found = attention_rollout(linear(tiny), pixels, torch.tensor([0]), "")
    torch.testing.assert_close(found.flatten(), expected[0, 1:].detach())


def test_gradient_attention_sums_what_speaks_for_the_class(tiny_clip_vit: Backbone) -> None:
    classifier, pixels = linear(tiny_clip_vit), tiny_clip_vit.normalize(crops_for(tiny_clip_vit, 1))
    features, blocks = tiny_clip_vit.attention_maps(pixels)
    relevance = torch.eye(blocks[0].shape[-1])
    gradients = torch.autograd.grad(score(classifier.logits(features), 2)[0], blocks)
    for block, gradient in zip(blocks, gradients, strict=True):
        relevance = relevance + (block * gradient)[0].detach().clamp(min=0).mean(0) @ relevance
    found = gradient_attention(classifier, pixels, torch.tensor([2]), "")
    torch.testing.assert_close(found.flatten(), relevance[0, 1:])


def test_attention_pooling_comes_last(tiny_siglip: Backbone) -> None:
    classifier, pixels = linear(tiny_siglip), tiny_siglip.normalize(crops_for(tiny_siglip, 1))
    features, (first, second, pooling) = tiny_siglip.attention_maps(pixels)
    unit = torch.eye(first.shape[-1])
    rollout = pooling[0].mean(0) @ (second[0].mean(0) + unit) @ (first[0].mean(0) + unit) / 4
    found = attention_rollout(classifier, pixels, torch.tensor([0]), "")
    torch.testing.assert_close(found.flatten(), rollout[0].detach())
    gradients = torch.autograd.grad(score(classifier.logits(features), 2)[0], [first, second, pooling])
    one, two, last = (
        (block * gradient)[0].detach().clamp(min=0).mean(0)
        for block, gradient in zip((first, second, pooling), gradients, strict=True)
    )
    relevance = last @ (two + unit) @ (one + unit)
    found = gradient_attention(classifier, pixels, torch.tensor([2]), "")
    torch.testing.assert_close(found.flatten(), relevance[0])


@pytest.mark.parametrize("name", ["grad-cam", "gscorecam"])
def test_the_map_lies_where_the_class_is(name: str, discs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A square of the class's colour lies in another quadrant of each image; the classifier learned the colours in the middle."""
    monkeypatch.setattr(channels, "TOP_CHANNELS", 30)  # quick, and enough
    classifier = bc.fit(bc.load_dataset(discs), "linear-probe", shots=8, progress=False)
    noise = np.random.default_rng(3).integers(60, 196, (4, 64, 64, 3), dtype=np.uint8)
    for image, (y, x) in zip(noise, CORNERS, strict=True):
        image[y : y + 24, x : x + 24] = (220, 50, 40)
    maps = [found.values for found in bc.saliency(classifier, noise, "red stone", map=name)]
    quadrants = [[values[y : y + 24, x : x + 24].mean() for y, x in CORNERS] for values in maps]
    assert np.argmax(quadrants, axis=1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "method", ["zero-shot", "coop", "cocoop", "tip-adapter", "clip-adapter", "linear-probe", "lp++"]
)
def test_the_score_is_that_of_any_method(method: str, tiny: Backbone) -> None:
    data = bc.load_dataset("simulated:breast-ultrasound?train=2&val=0&test=1")
    settings = {"epochs": 1} if method in ("coop", "cocoop", "clip-adapter") else {}
    classifier = bc.fit(data, method, tiny, shots=2, settings=settings, progress=False)
    crops = crops_for(tiny, 1)
    for name in ("gscorecam", "grad-cam", "gradient-attention"):
        first, second = (crop_maps(classifier, crops, np.array([number]), name) for number in (0, 1))
        assert np.isfinite(first).all()
        assert np.abs(first - second).max() > 0 or not first.any()


@pytest.mark.parametrize("name", ["gscorecam", "grad-cam", "gradient-attention"])
def test_what_raises_all_logits_alike_does_not_show(name: str, tiny: Backbone) -> None:
    classifier, crops, classes = linear(tiny), crops_for(tiny, 1), np.array([1])
    before = crop_maps(classifier, crops, classes, name)
    classifier.state["weight"] += torch.randn(1, tiny.embed_dim, generator=torch.Generator().manual_seed(1))
    np.testing.assert_allclose(crop_maps(classifier, crops, classes, name), before, atol=1e-4)


def test_a_class_that_nothing_speaks_for_has_an_empty_map(tiny_lite: Backbone) -> None:
    classifier = linear(tiny_lite)
    classifier.state["weight"][:] = 0
    maps = crop_maps(classifier, crops_for(tiny_lite, 2), np.array([1, 1]), "grad-cam")
    assert not maps.any()


REFUSED: list[tuple[str, dict[str, str], str]] = [
    ("tiny", {"map": "gradcam"}, "no map 'gradcam'; did you mean grad-cam"),
    (
        "tiny",
        {"map": "attention-rollout", "layer": "blocks.0"},
        "Attention rollout is made from all blocks and takes no layer",
    ),
    (
        "tiny",
        {"map": "grad-cam", "layer": "blocks.9"},
        r"no image layer 'blocks\.9'; a layer is, for instance, 'blocks\.1\.norm1'",
    ),
    ("tiny", {"map": "grad-cam", "layer": "norm"}, "layer 'norm' of model gives no map of places"),
    (
        "tiny",
        {"map": "grad-cam", "layer": "blocks.1.mlp"},
        r"places of layer 'blocks.1.mlp' have no effect on the image",
    ),
    (
        "tiny_clip_resnet",
        {"map": "gscorecam", "layer": "attnpool"},
        "layer 'attnpool' of clip-resnet gives no map of places",
    ),
    ("tiny_clip_vit", {"map": "grad-cam", "layer": "ln_post"}, "layer 'ln_post' of clip-vit gives no map of places"),
]


@pytest.mark.parametrize(("fixture", "options", "message"), REFUSED)
def test_what_cannot_be_made_is_refused_in_one_line(
    fixture: str, options: dict[str, str], message: str, request: pytest.FixtureRequest
) -> None:
    backbone = request.getfixturevalue(fixture)
    with pytest.raises(UserError, match=message) as error:
        crop_maps(linear(backbone), crops_for(backbone, 1), np.array([0]), **options)
    assert "\n" not in str(error.value)


def test_int8_has_no_gradients_but_has_rollout(parity: Any) -> None:
    coarse = load_backbone(parity / "model", precision="int8")
    classifier, crops = linear(coarse), crops_for(coarse, 1)
    for name in ("gscorecam", "grad-cam", "score-cam", "gradient-attention"):
        with pytest.raises(UserError, match=r"no gradients pass through model in int8; load it with precision float32"):
            crop_maps(classifier, crops, np.array([0]), name)
    assert crop_maps(classifier, crops, np.array([0]), "attention-rollout").max() == 1


def test_nothing_stays_on_the_tower(tiny_lite: Backbone) -> None:
    from biomedcoop.backbones.vit import is_watched
    from biomedcoop.features.passes import encode_crops

    crops = crops_for(tiny_lite, 2)
    before = encode_crops(tiny_lite, list(crops))
    crop_maps(linear(tiny_lite), crops, np.array([0, 1]))
    assert not is_watched(tiny_lite.image_tower)
    np.testing.assert_array_equal(encode_crops(tiny_lite, list(crops)), before)
