"""The fast pass of an EfficientNet-Lite: the features of the plain one, whatever the padding, the size and the batch."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import pytest
import torch

from backbones.tiny_lite import pixels, trunk, write_lite
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.prepack import prepack_image_tower, prepack_text_tower
from biomedcoop.backbones.prepack_convolutions import PrepackedEfficientNetLite, can_prepack_convolutions
from biomedcoop.threads import torch_threads

needs_operators = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN"
)


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def is_prepacked(backbone: Backbone) -> bool:
    return isinstance(backbone.image_tower.trunk.forward, PrepackedEfficientNetLite)  # type: ignore[union-attr]


@needs_operators
@pytest.mark.parametrize("side", [50, 64, 97, 111])
@pytest.mark.parametrize("tensorflow", [True, False])
def test_the_same_features(tensorflow: bool, side: int) -> None:
    """To 1e-4 of values up to 6, since sums are taken in another order; another padding costs 0.02 and more."""
    tower, other = trunk(tensorflow=tensorflow), trunk(tensorflow=not tensorflow)
    fast = PrepackedEfficientNetLite(tower, Lock())
    for batch in (1, 4, 3):
        x = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(batch))
        expected = tower(x)
        assert (other(x) - expected).abs().max() > 0.02
        for image in (x, x.contiguous(memory_format=torch.channels_last)):
            torch.testing.assert_close(fast(image), expected, atol=1e-4, rtol=0)


@needs_operators
def test_this_build_of_torch_has_the_operators() -> None:
    """With oneDNN it must: else the speed that is documented silently goes."""
    assert can_prepack_convolutions(trunk())
    assert not can_prepack_convolutions(trunk().double())


@needs_operators
def test_weights_are_ordered_for_the_threads_that_share_a_pass() -> None:
    fast, x = PrepackedEfficientNetLite(trunk(), Lock()), torch.zeros(1, 3, 64, 64)
    for threads in (2, 1, 2):
        with torch_threads(threads):
            fast(x)
    assert sorted(fast.blocks) == [1, 2]


@needs_operators
def test_a_changed_tensor_is_seen(tmp_path: Path) -> None:
    backbone = load_backbone(write_lite(tmp_path / "lite"))
    tower = backbone.towers.visual.trunk  # type: ignore[union-attr]
    first = prepack_image_tower(backbone)
    assert is_prepacked(first)
    assert prepack_image_tower(backbone).image_tower is first.image_tower
    before = first.encode_image(pixels())
    for tensor in (tower.bn1.running_mean, tower.conv_head.weight, tower.blocks[2][0].bn3.bias):  # type: ignore[union-attr,index]
        tensor.add_(0.5)  # type: ignore[operator]
        found = prepack_image_tower(backbone).encode_image(pixels())
        torch.testing.assert_close(found, backbone.encode_image(pixels()), atol=1e-3, rtol=1e-5)
        assert (found - before).abs().max() > 0.01
        before = found


def test_a_hook_is_not_passed_by(tmp_path: Path) -> None:
    backbone = load_backbone(write_lite(tmp_path / "lite"))
    seen: list[torch.Tensor] = []
    layer = backbone.towers.visual.trunk.blocks[3]  # type: ignore[union-attr,index]
    handle = layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))  # type: ignore[operator]
    watched = prepack_image_tower(backbone)
    watched.encode_image(pixels())
    handle.remove()
    assert len(seen) == 1
    assert not is_prepacked(watched)


@needs_operators
def test_threads_prepack_once(tiny_lite: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    real = torch.ops.mkldnn._reorder_convolution_weight

    def reorder(weight: torch.Tensor, *geometry: object) -> torch.Tensor:
        counted.append(1)
        return real(weight, *geometry)  # type: ignore[no-any-return]

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_convolution_weight", reorder)
    tower = trunk()
    fast = PrepackedEfficientNetLite(tower, Lock())

    def encode(_: int) -> torch.Tensor:
        with torch.no_grad():
            return fast(pixels())

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(encode, range(8)))
    kernels = [value for value in tower.state_dict().values() if value.ndim == 4]
    assert len(counted) == len(kernels)
    for one in found:
        torch.testing.assert_close(one, found[0], atol=0, rtol=0)


def test_prepacking_the_text_tower_leaves_images_alone(tiny_lite: Backbone) -> None:
    expected = tiny_lite.encode_image(pixels())
    torch.testing.assert_close(prepack_text_tower(tiny_lite).encode_image(pixels()), expected, atol=0, rtol=0)
