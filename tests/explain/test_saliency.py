"""Maps at the image's own pixels: where the crop lies, what the model did not see, the class and the reasons for doubt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.classifier import Classifier
from biomedcoop.data.images.crops import Resize, centre_box, resize_and_crop
from biomedcoop.errors import ImageError, UserError
from biomedcoop.explain.doubts import EMPTY, NEARLY_FLAT, UNLIKE, counted, doubts, failed_checks
from biomedcoop.explain.pictures import COLOURS, overlay
from biomedcoop.explain.placement import onto_image


@pytest.fixture(scope="module")
def classifier(tiny: Backbone) -> Classifier:
    data = bc.load_dataset("simulated:breast-ultrasound?train=4&val=0&test=1")
    return bc.fit(data, "linear-probe", tiny, shots=4, progress=False)


@pytest.mark.parametrize("resize", ["shortest", "squash"])
@pytest.mark.parametrize("size", [(500, 300), (300, 500), (97, 64), (64, 64), (28, 28), (3000, 90), (31, 900)])
def test_the_inverse_of_resize_and_crop(size: tuple[int, int], resize: Resize) -> None:
    """A ramp across the image, cropped and mapped back, is the ramp again where the model sees it."""
    width, height = size
    ramps = np.zeros((height, width, 3), dtype=np.uint8)
    ramps[..., 0] = np.linspace(0, 255, width).round()
    ramps[..., 1] = np.linspace(0, 255, height).round()[:, None]
    crop = resize_and_crop(Image.fromarray(ramps), 64, resize).astype(np.float32)
    left, top, right, bottom = centre_box(width, height, 64, resize)
    y, x = np.mgrid[:height, :width] + 0.5
    inside = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
    inner = (x >= left + 3) & (x <= right - 3) & (y >= top + 3) & (y <= bottom - 3)
    for channel, length in ((0, right - left), (1, bottom - top)):
        back = onto_image(crop[..., channel], width, height, resize)
        assert back.shape == (height, width)
        assert (np.isfinite(back) == inside).all()
        step = 255 / (width, height)[channel]
        # a pixel of the crop, and the rounding of both ramps
        assert np.abs(back - ramps[..., channel])[inner].max() <= 0.5 * step * max(1, length / 64) + 2


def test_a_map_is_placed_on_the_upright_image(classifier: Classifier, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)
    upright, turned = tmp_path / "upright.png", tmp_path / "turned.png"
    Image.fromarray(pixels).save(upright)
    image = Image.fromarray(np.rot90(pixels))  # to be turned back by 90° clockwise
    tags = image.getexif()
    tags[0x0112] = 6
    image.save(turned, exif=tags)
    first, second = bc.saliency(classifier, [upright, turned], map="grad-cam")
    assert first.values.shape == (40, 90)
    np.testing.assert_array_equal(second.image, pixels)
    np.testing.assert_array_equal(first.values, second.values)
    assert np.isnan(first.values[:, [0, 20, -20, -1]]).all()
    assert np.isfinite(first.values[:, 45]).all()
    assert first.box == pytest.approx((25, 0, 65, 40), abs=0.1)
    assert repr(first).endswith("90 × 40 px)")


def test_class_and_probability_are_those_of_predict(classifier: Classifier) -> None:
    images = list(np.random.default_rng(1).integers(0, 256, (3, 50, 70), dtype=np.uint8))
    expected = classifier.predict_proba(images)
    found = bc.saliency(classifier, images, map="gradient-attention")
    assert [one.class_name for one in found] == classifier.predict(images)
    np.testing.assert_allclose([one.probability for one in found], expected.max(1), atol=1e-5)
    (named,) = bc.saliency(classifier, images[0], "Malignant TUMOR", map="grad-cam")
    assert named.class_name == "malignant tumor"
    assert named.probability == pytest.approx(expected[0, 1], abs=1e-5)
    assert named.layer == "blocks.1.norm1"
    assert found[0].layer is None
    assert bc.saliency(classifier, []) == []


def test_facts_are_json(classifier: Classifier) -> None:
    image = np.random.default_rng(2).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    (found,) = bc.saliency(classifier, image, map="gradient-attention")
    facts = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    x, y = facts["peak"]
    assert found.values[y, x] == np.nanmax(found.values)
    assert facts["box"] == pytest.approx([15, 0, 75, 60], abs=0.5)
    assert 15 <= facts["centre"][0] <= 75
    assert 0 < facts["area_above_half"] < 1


def test_the_overlay_colours_what_is_large_and_greys_what_is_not_seen() -> None:
    image = np.full((4, 6, 3), 90, dtype=np.uint8)
    values = np.zeros((4, 6), dtype=np.float32)
    values[1, 2], values[:, :1] = 0.8, np.nan
    painted = overlay(image, values).astype(int)
    assert (painted[0, 1] == 90).all()  # the lowest value leaves the image as it is
    assert np.argmax(painted[1, 2]) == np.argmax(colormaps[COLOURS](1.0)[:3])
    assert len(set(painted[0, 0])) == 1
    assert painted[0, 0, 0] > 120


def test_figures_and_notebooks(classifier: Classifier) -> None:
    image = np.random.default_rng(3).integers(0, 256, (40, 80), dtype=np.uint8)
    (found,) = bc.saliency(classifier, image, map="attention-rollout")
    texts = [text.get_text() for text in found.figure().findobj(lambda one: hasattr(one, "get_text"))]
    assert any(f"{found.class_name}: probability {found.probability:.2f}" in text for text in texts)
    assert any("not seen by the model" in text and "same for every class" in text for text in texts)
    html = found._repr_html_()
    assert 'src="data:image/png;base64,' in html
    assert f'alt="Attention rollout of {found.class_name}' in html


def test_doubts_of_many_maps_are_counted_and_name_their_images() -> None:
    always = "The map is the same for every class."
    maps = [(f"{number}.png", [always, UNLIKE][: 1 + (number % 2)]) for number in range(12)]
    assert counted(maps) == [
        always,
        "6 of 12 images are unlike the training images; do not rely on their answers: "
        "1.png, 3.png, 5.png, 7.png, 9.png, …",
    ]
    assert counted([("a.png", [UNLIKE])]) == [UNLIKE]
    # maps of one image by two methods
    two = [("a.png", [UNLIKE, EMPTY]), ("a.png", [UNLIKE, NEARLY_FLAT]), ("b.png", []), ("b.png", [NEARLY_FLAT])]
    assert counted(two) == [
        "1 of 2 images is unlike the training images; do not rely on its answer: a.png",
        "1 of 4 maps is empty, so no place in the image speaks for the class: a.png",
        "2 of 4 maps are nearly flat, with a lowest value of more than half of their highest: a.png, b.png",
    ]


def test_doubts(monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    monkeypatch.setattr("biomedcoop.explain.doubts.failed_checks", lambda: {"grad-cam": {"vit": "It fails."}})
    assert list(doubts("grad-cam", "resnet", ramp)) == []
    assert list(doubts("grad-cam", "vit", ramp)) == ["It fails."]
    assert list(doubts("attention-rollout", "vit", ramp)) == ["The map is the same for every class."]
    assert "empty" in next(doubts("grad-cam", "resnet", 0 * ramp))
    assert "nearly flat" in next(doubts("grad-cam", "resnet", 2 + ramp))
    assert "unlike the training images" in next(doubts("grad-cam", "resnet", ramp, unlike=True))


def test_the_file_of_failed_checks_can_be_read() -> None:
    for towers in failed_checks().values():
        assert set(towers) <= {"vit", "resnet", "efficientnet-lite"}
        assert all(reason.endswith(".") for reason in towers.values())


def test_bad_input_is_refused_in_one_line(classifier: Classifier, tmp_path: Path) -> None:
    image = np.zeros((40, 40), dtype=np.uint8)
    for arguments, message in (
        (
            {"class_name": "malignat tumor"},
            "the classifier has no class 'malignat tumor'; did you mean malignant tumor",
        ),
        ({"map": "gscore"}, "no map 'gscore'; did you mean gscorecam"),
        ({"map": "grad-cam", "layer": "layer4"}, "no image layer 'layer4'"),
    ):
        with pytest.raises(UserError, match=message):
            bc.saliency(classifier, image, **arguments)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"broken\.png: the content is not a readable image"):
        bc.saliency(classifier, [broken])
    with pytest.raises(UserError, match="the classifier must come from fit or load, not str"):
        bc.saliency("model", image)  # type: ignore[arg-type]
