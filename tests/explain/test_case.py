"""The case of one image, against plain computations."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.data.dataset import Dataset
from biomedcoop.explain.training_images import training_images
from biomedcoop.features.images import encode_images


@pytest.fixture(scope="module")
def data(discs: Path) -> Dataset:
    return bc.load_dataset(discs)


@pytest.fixture(scope="module")
def run(discs: Path, parity: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    bc.train(str(discs), out, method="tip-adapter", backbone=str(parity / "model"), shots=3, n_bootstrap=40, html=False)
    return out


def unit(rows: np.ndarray) -> np.ndarray:
    return rows.astype(np.float64) / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_sentences_are_ranked_by_their_cosine_with_the_image(data: Dataset, tiny: Backbone) -> None:
    classifier = bc.fit(data, "zero-shot-ensemble", tiny)
    part = data.part("test")
    found = bc.case(classifier, part.images[5], top=2)
    x = unit(encode_images(tiny, part.select([5])))[0]
    probabilities = classifier.predict_proba(part.images[5])[0]
    best, second = np.argsort(-probabilities)[:2]
    sentences = classifier.facts["sentences_by_class"]
    cosines = {}
    for c in (best, second):
        texts = sentences[data.class_names[c]]
        cosines[c] = unit(tiny.encode_text(texts).detach().numpy()) @ x
    for of_class, c, other in ((found.predicted, best, second), (found.rival, second, best)):
        texts = sentences[data.class_names[c]]
        assert of_class.class_name == data.class_names[c]
        assert of_class.probability == pytest.approx(float(probabilities[c]), abs=1e-6)
        order = np.argsort(-cosines[c])
        assert [one.text for one in of_class.most] == [texts[i] for i in order[:2]]
        assert [one.text for one in of_class.least] == [texts[i] for i in order[: -3 if len(texts) > 3 else 1 : -1]]
        assert of_class.most[0].cosine == pytest.approx(cosines[c].max(), abs=1e-5)
        assert of_class.most[0].difference == pytest.approx(cosines[c].max() - cosines[other].mean(), abs=1e-5)
    assert found.difference == pytest.approx(cosines[best].mean() - cosines[second].mean(), abs=1e-5)
    assert found.similar == ()


def test_similar_images_are_training_images_ranked_by_cosine(run: Path, data: Dataset, tiny: Backbone) -> None:
    classifier = bc.load(run, tiny)
    drawn = {key: name for key, _, name in json.loads((run / "few_shot.json").read_text(encoding="utf-8"))["train"]}
    image = data.part("test").images[0]
    found = bc.case(classifier, image, run, top=4)
    assert [one.key for one in found.similar] == [one.key for one in bc.case(classifier, image, data, top=4).similar]
    training = data.select([i for i, key in enumerate(data.keys) if key in drawn])
    cosines = unit(encode_images(tiny, training)) @ unit(encode_images(tiny, data.part("test").select([0])))[0]
    order = np.argsort(-cosines, kind="stable")[:4]
    assert [one.key for one in found.similar] == [training.keys[i] for i in order]
    assert [one.class_name for one in found.similar] == [drawn[one.key] for one in found.similar]
    np.testing.assert_allclose([one.cosine for one in found.similar], cosines[order], atol=1e-5)
    first = found.predicted.most[0]
    sentence = unit(tiny.encode_text([first.text]).detach().numpy())[0]
    assert first.usual == pytest.approx((unit(encode_images(tiny, training)) @ sentence).mean(), abs=1e-5)


def test_a_training_image_is_not_among_its_similar_images(run: Path, data: Dataset, tiny: Backbone) -> None:
    classifier = bc.load(run, tiny)
    training = training_images(classifier, data)
    assert len(training.data) == 9
    found = bc.case(classifier, training.data.images[7], training)
    assert len(bc.case(classifier, training.data.images[7], training, top=20).similar) == 8
    cosines = np.delete(training.features @ training.features[7], 7)
    assert training.data.keys[7] not in [one.key for one in found.similar]
    np.testing.assert_allclose([one.cosine for one in found.similar], np.sort(cosines)[:-4:-1], atol=1e-5)
    assert found.notes[-1] == "The classifier has learned from this image; its similar training images leave it out."
    assert "has learned from this image" not in str(bc.case(classifier, data.part("test").images[0], training).notes)
    sentence = unit(tiny.encode_text([found.predicted.most[0].text]).detach().numpy())[0]
    usual = (np.delete(training.features, 7, axis=0) @ sentence).mean()
    assert found.predicted.most[0].usual == pytest.approx(usual, abs=1e-5), "its own cosine is not in the mean"
    alone = dataclasses.replace(training, digests=training.digests[7:8] * 9)
    assert "usual" not in bc.case(classifier, training.data.images[7], alone).tables()[0].columns


def test_tables_json_html_and_figure(run: Path, data: Dataset, tiny: Backbone) -> None:
    image = data.part("test").images[0]
    found = bc.case(bc.load(run, tiny), image, run)
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["image"] == image.name
    assert len(values["similar"]) == 3
    assert "array" not in json.dumps(values)
    assert found._repr_html_().count("<table>") == 2
    figure = found.figure()
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 1, 0]
    assert len(figure.axes[-1].patches) == sum(
        len(listed) for one in (found.predicted, found.rival) for listed in (one.most, one.least)
    )


def test_few_sentences_are_listed_once(data: Dataset, tiny: Backbone, tmp_path: Path) -> None:
    file = tmp_path / "few.json"
    file.write_text(json.dumps({name: [f"a {name}", f"the {name}"] for name in data.class_names}), encoding="utf-8")
    found = bc.case(bc.fit(data, "zero-shot", tiny), data.images[0], prompts=file)
    assert len(found.predicted.most) == 2
    assert found.predicted.least == ()
    found.figure()


def test_an_image_unlike_the_training_images_is_marked(data: Dataset, tiny: Backbone) -> None:
    classifier = bc.fit(data, "tip-adapter", tiny, 4)
    assert classifier.domain is not None
    strict = dataclasses.replace(classifier, domain=dataclasses.replace(classifier.domain, limit=-1.0))
    found = bc.case(strict, data.images[0])
    assert found.unlike_training is True
    assert any("unlike the training images" in note for note in found.notes)


def test_bad_input_is_refused_in_one_line(run: Path, data: Dataset, tiny: Backbone, tmp_path: Path) -> None:
    classifier = bc.load(run, tiny)
    image = data.images[0]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    incomplete = tmp_path / "run"
    shutil.copytree(run, incomplete)
    (incomplete / "few_shot.json").unlink()
    damaged = tmp_path / "damaged"
    shutil.copytree(run, damaged)
    (damaged / "few_shot.json").write_text("{}", encoding="utf-8")
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    request = json.loads((moved / "run.json").read_text(encoding="utf-8"))
    (moved / "run.json").write_text(json.dumps({**request, "data": str(tmp_path / "gone")}), encoding="utf-8")
    for arguments, said in (
        ((classifier, broken), "broken.png"),
        ((classifier, 7), "type int"),
        ((classifier, image, incomplete), "has no few_shot.json"),
        ((classifier, image, damaged), "few_shot.json: damaged"),
        ((classifier, image, moved), "gone"),
        ((classifier, image, data.part("test")), "none of its images is a training image"),
        ((bc.fit(data, "zero-shot", tiny), image, data), "learned from none"),
        ((classifier, image, None, 0), "top=0 must be a whole number of at least 1"),
    ):
        with pytest.raises(bc.UserError, match=said) as error:
            bc.case(*arguments)
        assert "\n" not in str(error.value)


def test_a_copy_among_the_test_images_is_no_training_image(data: Dataset, tiny: Backbone) -> None:
    first = int(data.indices("train")[0])
    images = list(data.images)
    images[int(data.indices("test")[0])] = images[first]
    leaking = dataclasses.replace(data, images=images)
    found = training_images(bc.fit(data, "tip-adapter", tiny, "all"), leaking)
    assert set(found.data.splits) == {"train"}
    assert len(found.data) == len(data.indices("train"))


def test_a_named_rival_takes_the_place_of_the_runner_up(run: Path, data: Dataset, tiny: Backbone) -> None:
    classifier, image = bc.load(run, tiny), data.images[0]
    found = bc.case(classifier, image)
    (third,) = set(data.class_names) - {found.predicted.class_name, found.rival.class_name}
    assert bc.case(classifier, image, rival=third.upper()).rival.class_name == third
    assert bc.case(classifier, image, rival=found.predicted.class_name).rival == found.rival
    with pytest.raises(bc.UserError, match=f"did you mean {third}"):
        bc.case(classifier, image, rival=third[:-1])


def test_a_case_stands_below_a_map(run: Path, data: Dataset, tiny: Backbone) -> None:
    classifier, image = bc.load(run, tiny), data.images[0]
    found = bc.case(classifier, image, data)
    (shown,) = bc.saliency(classifier, image, map="grad-cam")
    above, below = shown.figure(found).subfigs
    assert len(above.axes) == 3
    assert [axes.get_xlabel().split("\n")[0] for axes in below.axes] == [one.class_name for one in found.similar]
    words = below.texts[0].get_text().replace("\n", " ")
    assert all(f"{one.most[0].cosine:.3f}" in words for one in (found.predicted, found.rival))
    assert not shown.figure().subfigs


def test_a_training_image_that_is_gone_is_left_out_of_the_picture(
    run: Path, data: Dataset, tiny: Backbone, tmp_path: Path
) -> None:
    classifier, image = bc.load(run, tiny), data.images[0]
    found = bc.case(classifier, image, data)
    gone = dataclasses.replace(found.similar[0], source=tmp_path / "gone.png")
    (shown,) = bc.saliency(classifier, image, map="grad-cam")
    below = shown.figure(dataclasses.replace(found, similar=(gone, *found.similar[1:]))).subfigs[1]
    assert len(below.axes) == 2
