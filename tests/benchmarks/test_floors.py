"""What the speed benchmarks divide by: operations counted by hand, works timed in turn, and the limits made of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from benchmarks.speed.floors import (
    Costs,
    Limits,
    Machine,
    convolutions,
    image_flops,
    map_bytes,
    run_process,
    text_flops,
    timings,
)
from benchmarks.speed.inputs import class_names, random_task, write_jpegs
from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.bert import BertConfig
from biomedcoop.backbones.efficientnet_lite import BlockConfig, EfficientNetLiteConfig
from biomedcoop.backbones.open_clip import OpenClipBackbone
from biomedcoop.backbones.vit import ViTConfig
from biomedcoop.data.readers.load import load_dataset

CPU = torch.device("cpu")


def bert(width: int, layers: int, mlp_width: int) -> BertConfig:
    return BertConfig(100, width, layers, heads=1, mlp_width=mlp_width, positions=512, token_types=2)


def test_operations_of_a_text_counted_by_hand() -> None:
    """Width 2, MLP 4, three tokens, head 2 -> 5 -> 1."""
    # a token: four projections of 2·2·2, two MLP layers of 2·2·4; a pair of tokens: 2·2 for its score and 2·2 for its value
    every = 3 * (4 * 8 + 2 * 16) + 9 * 8
    # one token asks: keys and values of three, query, output and MLP of one, three pairs
    first = 3 * 2 * 8 + (2 * 8 + 2 * 16) + 3 * 8
    head = 2 * 2 * 5 + 2 * 5 * 1
    assert text_flops(bert(2, 2, 4), [2, 5, 1], 3) == every + first + head
    assert text_flops(bert(2, 2, 4), [2, 5, 1], 3, every_token=True) == 2 * every + head
    # the way back goes through both sides of each attention product
    assert text_flops(bert(2, 1, 4), [2, 5, 1], 3, every_token=True, backward=True) == every + 9 * 8 + head


def test_operations_of_an_image_counted_by_hand() -> None:
    """Four patches of 1 px and the class token, width 2, MLP 4, one block, joint width 7."""
    tower = ViTConfig(image_size=2, patch_size=1, width=2, layers=1, heads=1, mlp_width=4)
    ends = 4 * 2 * 3 * 2 + 2 * 2 * 7
    assert image_flops(tower, 7, every_token=True) == ends + 5 * (4 * 8 + 2 * 16) + 25 * 8
    assert image_flops(tower, 7) == ends + 5 * 2 * 8 + (2 * 8 + 2 * 16) + 5 * 8


def test_a_tower_of_convolutions_counted_by_hand() -> None:
    """A 5 px image: stem to 2 channels at 3 x 3 positions, one block of stride 2 with 4 hidden and 3 outputs, head of 5."""
    first, second = BlockConfig(2, 2, 2, 3, 1), BlockConfig(2, 4, 3, 5, 2)
    tower = EfficientNetLiteConfig(5, 2, ((first,), (second,)), 5, tensorflow=True)
    shapes = [(9, 27, 2), (18, 9, 1), (9, 2, 2), (9, 2, 4), (16, 25, 1), (4, 4, 3), (4, 3, 5)]
    assert convolutions(tower) == shapes
    products = 9 * 27 * 2 + 18 * 9 + 9 * 2 * 2 + 9 * 2 * 4 + 16 * 25 + 4 * 4 * 3 + 4 * 3 * 5
    assert image_flops(tower, 7) == 2 * products + 2 * 5 * 7
    assert map_bytes(tower) == 8 * (18 + 18 + 18 + 36 + 16 + 12 + 20)


def test_a_mean_needs_every_token(tiny_lite: Backbone) -> None:
    assert isinstance(tiny_lite, OpenClipBackbone)
    costs = Costs(tiny_lite)
    assert costs.head == [64, tiny_lite.embed_dim]
    assert costs.of_text(9) == text_flops(costs.text, costs.head, 9, every_token=True)


def test_operations_at_biomedclips_size() -> None:
    """As counted for the published code: GFLOP of an image, of 256 tokens, and of their way back."""
    base, tower = bert(768, 12, 3072), ViTConfig(224, 16, 768, 12, 12, 3072)
    assert image_flops(tower, 512, every_token=True) / 1e9 == pytest.approx(35.13, abs=0.01)
    assert text_flops(base, [768, 640, 512], 256, every_token=True) / 1e9 == pytest.approx(45.90, abs=0.01)
    back = text_flops(base, [768, 640, 512], 256, every_token=True, backward=True)
    assert back / 1e9 == pytest.approx(48.32, abs=0.01)


def test_a_text_pass_reads_the_matrices_and_no_embeddings(tiny: Backbone) -> None:
    assert isinstance(tiny, OpenClipBackbone)
    costs, text = Costs(tiny), tiny.towers.text.transformer.config
    layers = text.layers * (4 * text.width**2 + 2 * text.width * text.mlp_width)
    head = costs.head[0] * costs.head[1] + costs.head[1] * costs.head[2]
    assert costs.text_bytes == 4 * (layers + head)


def test_a_floor_is_the_longer_of_operations_and_bytes() -> None:
    limits = Limits({(1, 1, 1): 10.0, (2, 2, 2): 100.0}, bandwidth=5.0)
    assert limits.best == 100
    assert limits.seconds(1000) == limits.seconds(1000, 49) == 10
    assert limits.seconds(1000, 100) == 20


def test_works_run_in_turn_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []
    taken = timings({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, CPU)
    assert "".join(calls) == "ababab"
    assert [len(seconds) for seconds in taken.values()] == [2, 2]


def test_the_limits_are_medians_of_the_works() -> None:
    machine = Machine([(8, 16, 4)], CPU)
    shape = (8, 16, 4)
    _, flops = machine.products[shape]
    taken = {name: [1.0, 2.0, 9.0] for name in machine.works()}
    limits = machine.limits(taken)
    assert flops % (2 * 8 * 16 * 4) == 0
    assert limits.rates[shape] == flops / 2
    assert "| 8 × 16 × 4 |" in limits.table().markdown()


def test_written_images_are_a_dataset(tmp_path: Path) -> None:
    names = class_names(2, 3)
    assert names == ("word0 word1 word2", "word3 word4 word5")
    write_jpegs(tmp_path / "scans", {"train": 2, "test": 1}, names, 32, 24)
    data = load_dataset(tmp_path / "scans")
    assert data.class_names == names
    assert data.counts("train").tolist() == [2, 2]
    assert data.counts("test").tolist() == [1, 1]


def test_a_random_task_has_the_size_that_is_asked_for(tiny: Backbone) -> None:
    task = random_task(tiny, ("a", "b", "c"), images=6, sentences=5, runs=2)
    assert task.features.shape == (2, 6, tiny.embed_dim)
    assert task.labels.tolist() == [[0, 1, 2, 0, 1, 2]] * 2


def test_a_process_is_timed_and_a_failed_one_is_no_measurement(tmp_path: Path) -> None:
    done = run_process([sys.executable, "-c", "import time; time.sleep(0.2)"], tmp_path)
    assert 0.2 < done.seconds < 20
    # its own memory, not that of the process that starts it
    assert 2**20 < done.memory < 2**26
    with pytest.raises(SystemExit, match="no such day"):
        run_process([sys.executable, "-c", "raise SystemExit('no such day')"], tmp_path)
