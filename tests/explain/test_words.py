"""What the learned text of a classifier says, against plain computations and known answers."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.sampling.few_shot import sample_few_shot
from biomedcoop.data.sampling.leakage import digest
from biomedcoop.explain.figures import similarity_figure
from biomedcoop.explain.vocabulary import NearWord
from biomedcoop.features.images import encode_images
from biomedcoop.methods import all_methods
from biomedcoop.methods.selection import select_sentences, sentence_scores, z_scores
from biomedcoop.methods.training import batches

EARLIER = Path(__file__).parents[1] / "earlier" / "artefacts"


@pytest.fixture(scope="module")
def data(discs: Path) -> Dataset:
    return bc.load_dataset(discs)


@pytest.fixture(scope="module")
def prompts(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six sentences for each class."""
    file = tmp_path_factory.mktemp("prompts") / "own.json"
    ways = ("a {} lesion", "the {} mass", "a scan with a {} spot", "no {} at all", "{}", "an image showing {} and {}")
    table = {
        name: [way.replace("{}", f"{number} {name}") for way in ways] for number, name in enumerate(data.class_names)
    }
    file.write_text(json.dumps(table), encoding="utf-8")
    return file


def fitted(data: Dataset, backbone: Backbone, method: str, **more: Any) -> bc.Classifier:
    settings = {"epochs": 3, "batch_size": 4, **more.pop("settings", {})}
    return bc.fit(data, method=method, backbone=backbone, shots=4, settings=settings, **more)


@pytest.mark.parametrize("kind", ["tiny", "tiny_clip_vit", "tiny_siglip"])
@pytest.mark.parametrize("class_specific", [False, True])
def test_a_context_that_did_not_learn_is_its_words(
    data: Dataset, kind: str, class_specific: bool, request: pytest.FixtureRequest
) -> None:
    backbone: Backbone = request.getfixturevalue(kind)
    # a step so small that it is lost in rounding
    settings = {"lr": 1e-30, "warmup_epochs": 0, "class_specific": class_specific, "epochs": 1}
    found = bc.words(fitted(data, backbone, "coop", settings=settings), top=2)
    owners = data.class_names if class_specific else (None,)
    assert [vector.class_name for vector in found.vectors] == [owner for owner in owners for _ in range(4)]
    for vector, word in zip(found.vectors, ["a", "photo", "of", "a"] * len(owners), strict=True):
        assert vector.nearest[0] == (word, True, 0.0)
        assert vector.nearest[1].distance > 0
        assert (vector.start, vector.moved) == (word, 0.0)
    assert all(shift.towards is None or shift.angle < 0.01 for shift in found.shifts)
    assert any("did not move" in note for note in found.notes)
    assert not any(table.title.startswith("Shift") for table in found.tables())


def test_near_words_are_those_of_a_plain_search(data: Dataset, tiny: Backbone) -> None:
    classifier = fitted(data, tiny, "coop", settings={"lr": 0.5, "context_init": "random"})
    found = bc.words(classifier, top=3)
    tokens = tiny.vocabulary()
    rows = tiny.embed_tokens(torch.tensor([[token.id for token in tokens]]))[0].detach().numpy()
    for vector, learned in zip(found.vectors, classifier.state["context"].numpy(), strict=True):
        distances = np.linalg.norm(rows - learned, axis=1)
        order = np.argsort(distances, kind="stable")[:3]
        assert [word.text for word in vector.nearest] == [tokens[i].text for i in order]
        np.testing.assert_allclose([word.distance for word in vector.nearest], distances[order], rtol=1e-5)
        assert vector.start is None
        assert vector.moved > 0
    between = np.linalg.norm(rows[:, None] - rows[None], axis=-1)
    np.fill_diagonal(between, np.inf)
    sample = np.linspace(0, len(rows) - 1, min(1000, len(rows))).astype(int)
    assert found.spacing == pytest.approx(np.sort(between.min(1)[sample])[(len(sample) - 1) // 2], rel=1e-3)


def test_a_piece_of_longer_words_has_one_mark(data: Dataset, tiny: Backbone) -> None:
    found = bc.words(fitted(data, tiny, "coop", settings={"epochs": 1}))
    near = (NearWord("##oma", False, 0.5), NearWord("ing", False, 0.6), NearWord("cell", True, 0.7))
    changed = dataclasses.replace(found, vectors=(dataclasses.replace(found.vectors[0], nearest=near),))
    table = changed.tables()[0]
    assert "oma* 0.50 · ing* 0.60 · cell 0.70" in table.rows[0]
    assert "* a piece of longer words" in table.notes


def test_near_sentences_shifts_and_similarities_are_those_of_a_plain_computation(
    data: Dataset, tiny: Backbone, prompts: Path
) -> None:
    classifier = fitted(data, tiny, "biomedcoop", prompts=prompts, settings={"lr": 0.5})
    found = bc.words(classifier, top=4)

    def unit(rows: Any) -> np.ndarray:
        rows = np.asarray(rows.detach() if isinstance(rows, torch.Tensor) else rows, dtype=np.float64)
        return rows / np.linalg.norm(rows, axis=-1, keepdims=True)

    table = json.loads(prompts.read_text(encoding="utf-8"))
    texts = [(text, name) for name in data.class_names for text in table[name]]
    rows = unit(tiny.encode_text([text for text, _ in texts]))
    after = unit(classifier.state["class_embeddings"])
    before = unit(tiny.encode_text([f"a photo of a {name}." for name in data.class_names]))
    for c, near in enumerate(found.near_sentences):
        cosines = rows @ after[c]
        order = np.argsort(-cosines)[:4]
        assert [(one.text, one.class_name) for one in near] == [texts[i] for i in order]
        np.testing.assert_allclose([one.cosine for one in near], cosines[order], atol=1e-5)
        others = np.mean([rows @ after[k] for k in range(len(after)) if k != c], axis=0)
        first = found.telling_sentences[c][0]
        assert first.difference == pytest.approx((cosines - others).max(), abs=1e-5)
        mean = unit(rows[6 * c : 6 * c + 6].mean(0))
        shift = found.shifts[c]
        assert shift.cosine == pytest.approx(before[c] @ after[c], abs=1e-5)
        assert shift.angle == pytest.approx(np.degrees(np.arccos(shift.cosine)), abs=0.05)
        assert (shift.mean_before, shift.mean_after) == pytest.approx((before[c] @ mean, after[c] @ mean), abs=1e-5)
        gains = {name: (after[c] - before[c]) @ before[k] for k, name in enumerate(data.class_names) if k != c}
        assert shift.gain == pytest.approx(max(gains.values()), abs=1e-5)
        assert shift.towards == (max(gains, key=gains.__getitem__) if shift.gain > 0 else None)
    np.testing.assert_allclose(found.before, before @ before.T, atol=1e-5)
    np.testing.assert_allclose(found.after, after @ after.T, atol=1e-5)
    assert 0 < found.common_shift < 1
    assert found.sentences == "file: own.json"
    assert not found.notes


def test_kept_sentences_are_those_that_the_selection_keeps(data: Dataset, tiny: Backbone, prompts: Path) -> None:
    settings = {"threshold": 1.0, "n_sentences": 5}
    classifier = fitted(data, tiny, "biomedcoop", prompts=prompts, seed=3, settings=settings)
    known = set(classifier.facts["training_images"])
    draw, *_ = sample_few_shot(data, 4, 3)
    assert {digest(data.images[i]) for i in draw} == known
    f = torch.nn.functional.normalize(torch.from_numpy(encode_images(tiny, data.select(draw))), dim=-1)
    table = json.loads(prompts.read_text(encoding="utf-8"))
    texts = [table[name][:5] for name in data.class_names]
    with torch.no_grad():
        teacher = torch.stack([torch.nn.functional.normalize(tiny.encode_text(of_class), dim=-1) for of_class in texts])
    scores = sentence_scores(tiny.logit_scale * torch.einsum("ne,cpe->ncp", f, teacher))
    steps = [select_sentences(scores[index[0]].mean(0), 1.0) for index, _ in batches(len(draw), 4, 3, 1.0, [3])]
    found = bc.words(classifier)
    assert found.threshold == 1.0
    assert [use.number for use in found.selection] == [1, 2, 3, 4, 5]
    assert [use.texts for use in found.selection] == list(zip(*texts, strict=True))
    np.testing.assert_allclose([use.kept for use in found.selection], torch.stack(steps).float().mean(0), atol=1e-6)
    np.testing.assert_allclose([use.score for use in found.selection], scores.mean(0), rtol=1e-4)
    np.testing.assert_allclose([use.z for use in found.selection], z_scores(scores.mean(0)), rtol=1e-3, atol=1e-3)
    assert min(use.kept for use in found.selection) < 1


def test_a_saved_classifier_says_the_same_without_its_sentence_file(
    data: Dataset, tiny: Backbone, prompts: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.json"
    own.write_bytes(prompts.read_bytes())
    classifier = fitted(data, tiny, "biomedcoop", prompts=own)
    classifier.save(tmp_path / "model")
    own.unlink()
    again = bc.words(bc.load(tmp_path / "model", tiny))
    assert again.to_dict() == bc.words(classifier).to_dict()
    assert "own.json" in again.sentences
    assert str(tmp_path) not in (tmp_path / "model" / "classifier.json").read_text(encoding="utf-8")


def test_other_classes_and_switched_off_selection_are_said(data: Dataset, tiny: Backbone, prompts: Path) -> None:
    classifier = fitted(data, tiny, "biomedcoop", prompts=prompts)
    for without in (
        classifier.for_classes(["polyp", "stone"]),
        fitted(data, tiny, "biomedcoop", prompts=prompts, settings={"kdsp_weight": 0}),
    ):
        found = bc.words(without)
        assert found.selection == ()
        assert any("train again" in note for note in found.notes)
    other = bc.words(classifier.for_classes(["polyp", "stone"]))
    assert other.class_names == ("polyp", "stone")
    assert any("for comparison" in note for note in other.notes)


@pytest.mark.parametrize("name", sorted(folder.name for folder in EARLIER.iterdir()))
def test_an_earlier_artefact_is_explained_as_far_as_it_goes(name: str, tiny: Backbone) -> None:
    found = bc.words(bc.load(EARLIER / name, tiny))
    json.dumps(found.to_dict(), allow_nan=False)
    assert found.selection == ()
    assert len(found.shifts) == (0 if name in ("linear-probe", "cocoop") else 3)
    assert bool(found.vectors) == (name in ("biomedcoop", "cocoop", "coop", "coop-class-specific", "kgcoop", "prograd"))


@pytest.mark.parametrize("method", sorted(all_methods()))
def test_every_method_has_tables_or_a_line(method: str, data: Dataset, discs: Path, tiny: Backbone) -> None:
    fields = {field.name for field in dataclasses.fields(all_methods()[method].settings_type)}
    settings = {"epochs": 1} if "epochs" in fields else {}
    unlabelled = discs / "train" if all_methods()[method].abilities.uses_unlabelled else None
    found = bc.words(bc.fit(data, method, tiny, 2, settings=settings, unlabelled=unlabelled), top=1)
    assert found.tables() or found.notes
    json.dumps(found.to_dict(), allow_nan=False)
    html = found._repr_html_()
    assert html.count("<table>") == html.count("</table>") == len(found.tables())
    for table in found.tables():
        assert {len(row) for row in table.rows} == {len(table.columns)}
    if found.after is None:
        with pytest.raises(bc.UserError, match="no class embeddings"):
            found.figure()
    else:
        assert len(found.figure().axes) == 3


def test_names_are_escaped_in_html(data: Dataset, tiny: Backbone) -> None:
    odd = dataclasses.replace(data, class_names=("<b>cyst", *data.class_names[1:]), name="odd")
    html = bc.words(bc.fit(odd, "zero-shot", tiny))._repr_html_()
    assert "&lt;b&gt;cyst" in html
    assert "<b>" not in html


@pytest.mark.parametrize("top", [0, -1, 2.0, True, "3"])
def test_a_wrong_number_is_refused(top: Any, data: Dataset, tiny: Backbone) -> None:
    with pytest.raises(bc.UserError, match=r"top=.* must be a whole number of at least 1"):
        bc.words(bc.fit(data, "zero-shot", tiny), top)


def test_classes_that_a_tokenizer_cannot_tell_apart_have_a_figure(data: Dataset, tiny: Backbone) -> None:
    same = dataclasses.replace(data, class_names=("class 1", "class 2", "class 3"))
    found = bc.words(bc.fit(same, method="zero-shot", backbone=tiny))
    assert found.before is not None
    np.testing.assert_allclose(found.before, 1, atol=1e-6)
    similarity_figure(found).savefig(io.BytesIO())
