"""What the retraining script is made of: losses and their masks, captions, the tail, the joint map's first weights, views."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from parent_wheels import random_lite0
from torch.nn import functional as F
from torch.testing import assert_close

import pretraining.captions as texts
from biomedcoop.errors import UserError
from pretraining.joint import Teacher, begin_head, least_squares
from pretraining.maps import Stages, moments
from pretraining.pool import read_manifest
from pretraining.tail import Tail
from pretraining.text_map import without_style
from pretraining.views import augmented, normalised, plain
from pretraining.words import STYLE, TextMap, Texts, Words, contrastive, partners

POOL = [
    ("btmri", "glioma tumor"),
    ("btmri", "normal brain"),
    ("mednist", "chest X-ray"),
    ("mednist", "head CT"),
    ("pneumoniamnist", "normal lungs"),
    ("pneumoniamnist", "pneumonia lungs"),
]
WIDTH = 12


def some_words() -> Words:
    """Captions of the small pool with random features, near to each other within a class of the library."""
    generator = torch.Generator().manual_seed(0)
    known = {caption.text: torch.randn(WIDTH, generator=generator) for caption in texts.captions(POOL)[1]}
    for options in texts.library_captions()[0]:
        centre = 4 * torch.randn(WIDTH, generator=generator)
        known |= {text: centre + torch.randn(WIDTH, generator=generator) for text in options}
    return Words(POOL, known)


def test_contrastive_is_the_mean_log_probability_of_the_positives() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, 5.0], [0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 1.0, 1.0]])
    positive = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    ignore = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    one = math.log(math.e**2 + math.e + 1) - (2 + 1) / 2  # the fourth is ignored, two positives share
    two = math.log(1 + math.e + math.e**2 + math.e**3) - 2
    # the third row has no positive and does not count
    assert contrastive(logits, positive, ignore).item() == pytest.approx((one + two) / 2, abs=1e-5)


def test_partners_find_each_other() -> None:
    eye = torch.eye(8)
    together = partners(eye[[0, 0, 1, 1, 2, 2]])
    apart = partners(eye[[0, 1, 0, 1, 2, 2]])
    assert together < 0.01 < 1 < apart


def test_masks_of_a_step() -> None:
    words = some_words()
    features, truth, blind, task = words.draw(torch.Generator().manual_seed(0))
    n = len(POOL)
    assert len(features) == len(truth) > n
    assert torch.equal(truth[:n], torch.eye(n, dtype=torch.bool)), "a class's own caption is true of it alone"
    # a chest X-ray is no negative of the pneumonia captions, and the other way round
    assert blind[2].tolist() == [False, False, False, False, True, True]
    assert blind[4].tolist() == [False, False, True, False, False, False]
    assert task[0].tolist() == [True, True, False, False, False, False]
    assert not task[n:].any(), "captions of a modality are no rivals within a task"
    shared = texts.captions(POOL)[1]
    for caption, row in zip(shared, words.shared_truth.tolist(), strict=True):
        for (dataset, name), true in zip(POOL, row, strict=True):
            modality, organ = texts.modality_and_organ(dataset, name)
            assert not true or (modality in caption.text and organ in caption.text)


def test_texts_of_other_modalities_are_negatives_and_no_others() -> None:
    words = some_words()
    _, modalities = texts.library_captions()
    for (dataset, name), row in zip(POOL, words.foreign.tolist(), strict=True):
        own = texts.modality_and_organ(dataset, name)[0]
        assert row == [m.lower() != own.lower() for m in modalities]
        assert any(row)
        assert not all(row)


def test_sentences_change_their_style_and_names_do_not() -> None:
    words, rng = some_words(), torch.Generator().manual_seed(0)
    own = words.own[0]
    index = torch.arange(len(own.sentence))
    moved = words.restyled(own, index, rng) - own.features
    assert not moved[~own.sentence].any()
    sizes = moved[own.sentence].norm(dim=1)
    assert (sizes > 0).all()
    assert sizes.max() <= STYLE * words.style.norm(dim=1).max() + 1e-5
    assert words.style.mean(0).abs().max() < 1e-5, "no class is moved as a whole"


def test_more_templates_than_chance_where_names_are_wanted() -> None:
    sentence = next(iter(texts.sentences()))
    options = Texts([sentence, "a"], {sentence: torch.zeros(2), "a": torch.ones(2)})
    drawn = options.draw(4000, 0.7, torch.Generator().manual_seed(0))
    assert options.sentence.tolist() == [True, False]
    assert drawn.float().mean().item() == pytest.approx(0.85, abs=0.03)
    assert options.draw(4000, 0.0, torch.Generator().manual_seed(0)).float().mean().item() == pytest.approx(
        0.5, abs=0.03
    )


def test_right_pairs_have_a_smaller_loss_than_wrong_ones() -> None:
    words, generator = some_words(), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    project = TextMap(words.all_features(), 16)
    y = torch.arange(len(POOL))
    with torch.no_grad():
        means = torch.stack([project(own.features).mean(0) for own in words.own])
        right = words.loss(F.normalize(means, dim=-1), y, project, generator)
        wrong = words.loss(F.normalize(means.roll(1, 0), dim=-1), y, project, generator.manual_seed(0))
    assert right < wrong - 1


def test_the_second_half_of_the_sentences_is_never_used() -> None:
    used = {t for per_class in texts.library_captions()[0] for t in per_class}
    used |= {caption.text for options in texts.captions(POOL)[0] for caption in options}
    for file in texts.FILES:
        for name, sentences in json.loads((texts.LIBRARY / f"{file}.json").read_text())["classes"].items():
            assert not used & set(sentences[1::2]), name
            assert set(sentences[::2]) <= used, name


def test_captions_say_modality_and_organ_of_their_class() -> None:
    per_class, modalities = texts.library_captions()
    assert len(per_class) == len(modalities)
    everything = [text for options in per_class for text in options]
    assert not [text for text in everything if "several" in text and ("scan of" in text or "image" in text)]
    assert "head CT, CT of the head." in everything
    assert "normal pylorus, endoscopy of the stomach." in everything


def test_a_class_of_two_files_is_one() -> None:
    per_class, _ = texts.library_captions()
    about = [options for options in per_class if "normal lungs." in options]
    assert len(about) == 1
    for file in ("covid", "pneumoniamnist"):
        assert set(texts.read_library(file)["classes"]["normal lungs"]) <= set(about[0])
    assert all(len(set(options)) == len(options) for options in per_class)


@pytest.mark.parametrize("size", [64, 96])
def test_the_front_and_the_tail_are_the_whole_tower(size: int) -> None:
    tower = random_lite0()
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = Stages(tower)(pixels)
        assert_close(maps[0], tower.blocks[:5](tower.bn1(tower.conv_stem(pixels))), atol=1e-4, rtol=1e-4)
        assert_close(maps[2], tower.blocks(tower.bn1(tower.conv_stem(pixels))), atol=1e-4, rtol=1e-4)
        tail = Tail(tower, size // 16)
        assert_close(tail(maps[0].permute(1, 0, 2, 3).flatten(2)), tower(pixels), atol=1e-4, rtol=1e-4)
        found = moments(maps)
    assert found.shape == (2, 2 * (112 + 192 + 320))
    assert_close(found[:, 112:224], maps[0].flatten(2).std(2, correction=0))


def test_a_trained_tail_goes_back_into_the_tower() -> None:
    tower = random_lite0()
    tail = Tail(tower, 4)
    with torch.no_grad():
        for p in tail.parameters():
            p.add_(0.1 * p.std() * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) if p.any() else 0.1)
        pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        wanted = tail(Stages(tower)(pixels)[0].permute(1, 0, 2, 3).flatten(2))
        assert (wanted - tower(pixels)).abs().max() > 0.01
        tail.write_back(tower, tail.state_dict())
        assert_close(tower(pixels), wanted, atol=1e-4, rtol=1e-4)


def test_the_first_head_tells_mean_and_spread_of_the_last_map() -> None:
    tail = Tail(random_lite0(), 4)
    maps = torch.rand(112, 96, 16, generator=torch.Generator().manual_seed(0)) * 4
    begin_head(tail, maps)
    with torch.no_grad():
        last = tail.last_map(maps)
        units = tail(maps)
        straight, up, down = units[:, :320], units[:, 320:640], units[:, 640:960]
        mean = last.mean(2).T
        design = torch.cat([mean, torch.ones(len(mean), 1)], 1)
        # linear in the map's mean as long as no position leaves the straight part
        assert straight.std() > 0
        assert (up >= 0).all()
        assert (down >= 0).all()
        assert units.shape == (96, 1280)
        assert design.isfinite().all()


def test_least_squares_finds_a_linear_map() -> None:
    generator = torch.Generator().manual_seed(0)
    units = 3 + 5 * torch.randn(400, 10, generator=generator)
    weight, bias = torch.randn(4, 10, generator=generator), torch.randn(4, generator=generator)
    found = least_squares(units, units @ weight.T + bias, ridge=1e-9)
    assert_close(found.weight, weight, atol=1e-4, rtol=1e-4)
    assert_close(found.bias, bias, atol=1e-3, rtol=1e-3)


def test_the_text_map_loses_style_and_keeps_classes() -> None:
    words, generator = some_words(), torch.Generator().manual_seed(0)
    words.style = torch.zeros(50, WIDTH)
    words.style[:, 3] = 20 * torch.randn(50, generator=generator)  # sentences of a class differ along one axis
    project = TextMap(words.all_features(), 8)
    before = project.linear.weight.detach()
    after = without_style(project, words)
    kept = after.norm(dim=0) / before.norm(dim=0)
    assert kept[3] < 0.3
    assert (torch.cat([kept[:3], kept[4:]]) > 0.8).all()


def test_the_joint_map_begins_as_a_rotation_of_the_principal_axes() -> None:
    generator = torch.Generator().manual_seed(0)
    moments_ = torch.randn(500, 30, generator=generator) @ torch.randn(30, 30, generator=generator)
    teacher = Teacher(moments_, 30, generator)
    with torch.no_grad():
        f = teacher(moments_)
    spread = f.std(0)
    assert spread.max() / spread.min() < 3, "no coordinate is one faint axis"
    assert f.mean(0).abs().max() < 1e-4


def test_views() -> None:
    images = torch.zeros(2, 96, 96, 3, dtype=torch.uint8)
    images[:, :48] = 254
    view = normalised(plain(images, 64))
    assert view.shape == (2, 3, 64, 64)
    assert_close(view[:, :, :28].mean(), torch.tensor(127 / 128), atol=0.01, rtol=0)
    assert_close(view[:, :, 36:].mean(), torch.tensor(-127 / 128), atol=0.01, rtol=0)
    first, second, again = (augmented(images, 64, torch.Generator().manual_seed(s)) for s in (0, 1, 0))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert 0 <= first.min() <= first.max() <= 255


def test_datasets_without_captions_are_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.tar").touch()
    head = "file,shard,dataset,class_name,sha256\n"
    names = list(texts.read_library("kneexray")["classes"])
    (tmp_path / "manifest.csv").write_text(f"{head}1.jpg,a.tar,kneexray,{names[0]},\n2.jpg,a.tar,moons,crater,\n")
    assert [row["file"] for row in read_manifest(tmp_path)] == ["1.jpg"]
    assert "none for them: moons" in capsys.readouterr().out
    (tmp_path / "manifest.csv").write_text(f"{head}2.jpg,a.tar,moons,crater,\n")
    with pytest.raises(UserError, match="no captions for moons"):
        read_manifest(tmp_path)


def test_exact_copies_count_once(tmp_path: Path) -> None:
    (tmp_path / "a.tar").touch()
    name = next(iter(texts.read_library("kneexray")["classes"]))
    rows = [f"{i}.jpg,a.tar,kneexray,{name},{digest}" for i, digest in enumerate(["x", "y", "x", "", ""])]
    (tmp_path / "manifest.csv").write_text("file,shard,dataset,class_name,sha256\n" + "\n".join(rows) + "\n")
    assert [row["file"] for row in read_manifest(tmp_path)] == ["0.jpg", "1.jpg", "3.jpg", "4.jpg"]
