"""The published example is fetched and answered; with random weights its answers are arbitrary."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from biomedcoop.backbones import BACKBONES, load_backbone
from biomedcoop.backbones.catalogue import HubFiles
from biomedcoop.backbones.selftest import FOLDER, IMAGES, TEMPLATE, selftest
from biomedcoop.errors import UserError
from hub_server import Hub


@pytest.fixture
def example(hub: Hub) -> Hub:
    """The repository with nine random images."""
    generator = np.random.default_rng(0)
    for name in IMAGES:
        content = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(content, "PNG")
        hub.files[f"{FOLDER}/{name}"] = content.getvalue()
    return hub


def test_the_example_downloads_what_it_needs_and_answers(example: Hub, cache: Path) -> None:
    answers = selftest()
    assert [(answer.image, answer.expected) for answer in answers] == list(IMAGES.items())
    for answer in answers:
        assert answer.answer in IMAGES.values()
        assert 1 / 9 <= answer.probability <= 1
        assert answer.right == (answer.answer == answer.expected)
    example.asked.clear()
    assert selftest(offline=True) == answers
    assert example.asked == []
    # the images travel with no backbone
    assert {path.name for path in (cache / "backbones" / "biomedclip").iterdir()} == {
        *BACKBONES["biomedclip"].files,
        "source.json",
    }


def test_the_answers_are_the_nearest_texts(example: Hub, cache: Path) -> None:
    answers = selftest()
    backbone = load_backbone("biomedclip")
    texts = backbone.encode_text([TEMPLATE.format(name) for name in IMAGES.values()]).detach().numpy()
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    for answer, name in zip(answers, IMAGES, strict=True):
        side = backbone.image_size
        with Image.open(cache / "backbones" / "biomedclip-example" / name) as image:
            left = round((int(side * 40 / 30) - side) / 2)
            crop = image.resize((int(side * 40 / 30), side), Image.Resampling.BICUBIC).crop(
                (left, 0, left + side, side)
            )
        feature = backbone.encode_image(backbone.normalize(np.array(crop)[None])).detach().numpy()[0]
        scores = backbone.logit_scale * texts @ (feature / np.linalg.norm(feature))
        weights = np.exp(scores - scores.max())
        assert answer.answer == list(IMAGES.values())[int(scores.argmax())]
        assert answer.probability == pytest.approx(weights.max() / weights.sum(), abs=1e-4)


def test_what_cannot_be_had(hub: Hub, cache: Path) -> None:
    with pytest.raises(UserError, match="'mini' has no published example; only biomedclip has one"):
        selftest("mini")
    with pytest.raises(UserError, match=f"has no {FOLDER}/squamous_cell_carcinoma_histopathology.jpeg"):
        selftest()


def test_the_page_of_files_is_the_folder_that_holds_them() -> None:
    assert HubFiles("owner/name", (f"{FOLDER}/{next(iter(IMAGES))}",)).page.endswith(f"owner/name/tree/main/{FOLDER}")
    assert HubFiles("owner/name", ("a/b.png", "c.png")).page.endswith("owner/name/tree/main")


def test_the_command_tells_each_answer_and_its_status_whether_all_are_right(
    example: Hub, cli: Callable[..., Any]
) -> None:
    told = cli("backbones", "selftest", "--json")
    answers = json.loads(told.out)
    right = sum(answer["right"] for answer in answers)
    assert told.status == (0 if right == len(IMAGES) else 1)
    told = cli("backbones", "selftest", "biomedclip", "--offline", "--quiet")
    assert all(f"{answer['image']}" in told.out for answer in answers)
    assert f"{right} of 9 images have their own class first; the model card shows 9" in told.out
    assert told.out.count(" NO") == 9 - right
