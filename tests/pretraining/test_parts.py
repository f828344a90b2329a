"""What the retraining script is made of: losses and their masks, captions, first weights, descriptors."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from pretraining.towers import Settings, export, image_features, mimic, new_towers, text_features
from torch.nn import functional as F
from torch.testing import assert_close

import pretraining.captions as texts
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.tokenizer import Tokenizer
from biomedcoop.backbones.vit import Attention
from biomedcoop.errors import UserError
from pretraining.pool import read_manifest
from pretraining.train_mini import Captions, contrastive, partners
from pretraining.views import SIZE, Describe, augment, centre, descriptors

POOL = [
    ("btmri", "glioma tumor"),
    ("btmri", "normal brain"),
    ("mednist", "chest X-ray"),
    ("mednist", "head CT"),
    ("pneumoniamnist", "normal lungs"),
    ("pneumoniamnist", "pneumonia lungs"),
]


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
    drawn = Captions(POOL)
    chosen, truth, blind, task = drawn.draw(torch.Generator().manual_seed(0))
    n = len(POOL)
    assert len(chosen) == len(truth) > n
    assert torch.equal(truth[:n], torch.eye(n, dtype=torch.bool)), "a class's own caption is true of it alone"
    # a chest X-ray is no negative of the pneumonia captions, and the other way round
    assert blind[2].tolist() == [False, False, False, False, True, True]
    assert blind[4].tolist() == [False, False, True, False, False, False]
    assert task[0].tolist() == [True, True, False, False, False, False]
    assert not task[n:].any(), "captions of a modality are no rivals within a task"
    for text, row in zip(chosen[n:], truth[n:], strict=True):
        for (dataset, name), true in zip(POOL, row.tolist(), strict=True):
            modality, organ = texts.modality_and_organ(dataset, name)
            assert not true or (modality in text and organ in text)


def test_texts_of_other_modalities_are_negatives_and_no_others() -> None:
    drawn = Captions(POOL)
    _, modalities = texts.library_captions()
    for (dataset, name), row in zip(POOL, drawn.foreign.tolist(), strict=True):
        own = texts.modality_and_organ(dataset, name)[0]
        assert row == [m.lower() != own.lower() for m in modalities]
        assert any(row)
        assert not all(row)


def test_the_second_half_of_the_sentences_is_never_used() -> None:
    used = {t for per_class in texts.library_captions()[0] for t in per_class} | set(texts.vocabulary_texts())
    used |= {caption.text for options in texts.captions(POOL)[0] for caption in options}
    for file in texts.FILES:
        for name, sentences in json.loads((texts.LIBRARY / f"{file}.json").read_text())["classes"].items():
            assert not used & set(sentences[1::2]), name
            assert set(sentences[::2]) <= used, name


def test_captions_say_modality_and_organ_of_their_class() -> None:
    per_class, modalities = texts.library_captions()
    assert len(per_class) == len(modalities)
    everything = [text for options in per_class for text in options] + texts.vocabulary_texts()
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


def test_hidden_words_change_a_sentence_and_no_template() -> None:
    torch.manual_seed(0)
    rust = texts.new_tokenizer()
    towers, tokenizer = new_towers(Settings(layers=1), rust.get_vocab_size()), Tokenizer(rust, 64)
    sentence = texts.read_library("btmri")["classes"]["glioma tumor"][0]
    words = [sentence] * 4 + ["a photo of a glioma tumor.", "MRI of the brain."]
    with torch.inference_mode():
        whole = text_features(towers, tokenizer, words)
        hidden = text_features(towers, tokenizer, words, 0.5, torch.Generator().manual_seed(0))
        nearly_all = text_features(towers, tokenizer, words, 1 - 1e-7, torch.Generator().manual_seed(0))
    assert len(hidden[:4].unique(dim=0)) == 4, "each loses other words"
    assert ((hidden * whole)[:4].sum(1) < 0.9999).all()
    assert nearly_all.isfinite().all(), "[CLS] always stays"
    assert torch.equal(hidden[4:], whole[4:])
    assert torch.equal(nearly_all[4:], whole[4:])


def test_the_vocabulary_is_the_same_each_time_and_knows_the_words() -> None:
    first, second = texts.new_tokenizer(), texts.new_tokenizer()
    assert first.to_str() == second.to_str()
    assert first.get_vocab_size() == 4096
    assert "[UNK]" not in first.encode("Naming something 3,5 unheard-of: zyxwv?").tokens
    assert first.encode("What? (A café)").tokens == first.encode("what a cafe").tokens, (
        "signs never trained are left out"
    )
    assert first.encode("a photo of a glioma tumor.").tokens[1:-1] == ["a", "photo", "of", "a", "glioma", "tumor", "."]


def test_first_weights_of_attention_look_at_like_patches() -> None:
    torch.manual_seed(0)
    attention = Attention(192, 3)
    with torch.no_grad():
        mimic(attention)
        query, key, value = attention.qkv.weight.view(3, 192, 192)
        across = attention.proj.weight @ value
        assert across.diagonal().mean() == pytest.approx(-0.4, abs=0.05)
        for head in range(3):
            rows = slice(64 * head, 64 * head + 64)
            product = query[rows].T @ key[rows]  # rank 64 of 0.7 (Z + 1)
            off = product - product.diagonal().diag()
            assert product.diagonal().mean() > 5 * off.mean().abs()


def test_towers_begin_the_same_for_a_seed() -> None:
    towers = []
    for _ in range(2):
        torch.manual_seed(3)
        towers.append(new_towers(Settings(layers=1), 100).state_dict())
    assert all(torch.equal(towers[0][k], towers[1][k]) for k in towers[0])


def test_the_towers_train_as_the_package_runs_them(tmp_path: Path) -> None:
    """Training multiplies attention out itself; export pads, halves and writes. Neither may change a feature."""
    torch.manual_seed(1)
    rust = texts.new_tokenizer()
    towers = new_towers(Settings(layers=2), rust.get_vocab_size()).half().float()
    export(towers, dict(towers.state_dict()), rust.to_str().encode(), tmp_path)
    backbone = load_backbone(tmp_path)
    pixels = torch.randn(3, 3, SIZE, SIZE)
    words = ["a photo of a glioma tumor.", "normal lungs, X-ray of the chest."]
    with torch.inference_mode():
        assert_close(image_features(towers, pixels), F.normalize(backbone.encode_image(pixels), dim=-1))
        own = text_features(towers, Tokenizer(rust, 64), words)
        assert_close(own, F.normalize(backbone.encode_text(words), dim=-1))
        # all patches kept in another order are the same image
        rng = torch.Generator().manual_seed(0)
        assert_close(image_features(towers, pixels, 0.999, rng), image_features(towers, pixels))


@pytest.mark.slow
def test_descriptors_along_their_axes() -> None:
    rng = torch.Generator().manual_seed(0)
    images = (torch.rand(300, 12, 12, 3, generator=rng) * 255).byte().repeat_interleave(10, 1).repeat_interleave(10, 2)
    pixels = augment(images[:, :112, :112], rng, 0.2)
    assert pixels.shape == (300, 3, SIZE, SIZE)
    describe = Describe(16)
    describe.fit_axes(pixels.split(100))
    target = (descriptors(pixels) - describe.mean) @ describe.axes
    assert target.std().item() == pytest.approx(1, abs=0.01)
    spread = target.std(0)
    assert (spread.diff() > -1e-3).all(), "ordered by variance"
    covariance = target.T @ target / len(target)
    assert (covariance - covariance.diagonal().diag()).abs().max() < 0.02, "axes do not repeat each other"
    # a feature that says nothing explains nothing
    with torch.no_grad():
        assert describe.loss(torch.zeros(300, 16), pixels).item() == pytest.approx(1, abs=0.1)


def test_the_test_view_is_the_whole_image() -> None:
    images = torch.zeros(1, 112, 112, 3, dtype=torch.uint8)
    images[:, :56] = 255
    view = centre(images)
    assert view.shape == (1, 3, SIZE, SIZE)
    assert (view[0, 0, :44] > 1.5).all()
    assert (view[0, 0, 52:] < -1.5).all()


def test_datasets_without_captions_are_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.tar").touch()
    head = "file,shard,dataset,class_name\n"
    names = list(texts.read_library("kneexray")["classes"])
    (tmp_path / "manifest.csv").write_text(f"{head}1.jpg,a.tar,kneexray,{names[0]}\n2.jpg,a.tar,moons,crater\n")
    assert [row["file"] for row in read_manifest(tmp_path)] == ["1.jpg"]
    assert "none for them: moons" in capsys.readouterr().out
    (tmp_path / "manifest.csv").write_text(f"{head}2.jpg,a.tar,moons,crater\n")
    with pytest.raises(UserError, match="no captions for moons"):
        read_manifest(tmp_path)
