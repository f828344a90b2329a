"""The ONNX file: the same probabilities as torch, metadata that suffice to use it, and what is refused."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import runpy
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import biomedcoop as bc
from backbones.tiny_clip import write_resnet, write_vit
from backbones.tiny_image_only import resnet_state
from backbones.tiny_image_only import write_resnet as write_image_resnet
from backbones.tiny_image_only import write_vit as write_image_vit
from backbones.tiny_lite import write_lite
from backbones.tiny_pmc_clip import write_pmc_clip
from backbones.tiny_siglip import write_siglip
from biomedcoop.backbones.base import Backbone
from biomedcoop.data.images.crops import resize_and_crop
from biomedcoop.data.images.reading import read_image
from biomedcoop.errors import UserError
from biomedcoop.methods import all_methods, get_method

DATA = "simulated:breast-ultrasound?train=4&val=0&test=34"
FAMILIES = {
    "clip-vit": write_vit,
    "clip-resnet": write_resnet,
    "lite": write_lite,
    "pmc-clip": write_pmc_clip,
    "siglip": write_siglip,
    "image-vit": write_image_vit,
    "image-resnet": lambda folder: write_image_resnet(folder, resnet_state()),
}
QUICK = {"epochs": 1, "lr": 0.01}


@pytest.fixture(scope="module")
def data() -> bc.Dataset:
    return bc.load_dataset(DATA)


def by_hand(file: Path, images: list) -> np.ndarray:
    """Probabilities as a user of the file computes them, from its metadata and crops of the package's own."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    said = session.get_modelmeta().custom_metadata_map
    resize = "squash" if said["crop"] == "none" else "shortest"
    crops = np.stack([resize_and_crop(read_image(image), int(said["image_size"]), resize) for image in images])
    return session.run(None, {"images": crops})[0]


def same(classifier: bc.Classifier, folder: Path, images: list) -> None:
    file = folder / "model.onnx"
    bc.export_onnx(classifier, file, overwrite=True)
    theirs, ours = by_hand(file, images), classifier.predict_proba(images)
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    np.testing.assert_allclose(by_hand(file, images[:1]), ours[:1], atol=1e-4)


def test_a_hundred_scans_have_torchs_probabilities_and_the_metadata_say_how(
    tiny: Backbone, data: bc.Dataset, tmp_path: Path
) -> None:
    classifier = bc.fit(data, method="tip-adapter", backbone=tiny, shots=4).read_with(window="brain")
    images = list(data.part("test").images)
    assert len(images) >= 100
    same(classifier, tmp_path, images)

    said = onnxruntime.InferenceSession(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(said["class_names"]) == list(classifier.class_names)
    assert json.loads(said["mean"]) == list(tiny.mean)
    assert json.loads(said["std"]) == list(tiny.std)
    assert said["crop"] == "centre"
    assert "EXIF" in said["orientation"]
    assert "black" in said["transparency"]
    assert said["window"] == "brain"
    assert "BICUBIC" in said["interpolation"]
    assert said["opset"] == "17"
    assert said["licence"]
    assert "Not a medical device" in said["disclaimer"]
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model)
    assert [(one.domain, one.version) for one in model.opset_import if not one.domain] == [("", 17)]
    content = (tmp_path / "model.onnx").read_bytes()
    assert str(Path(bc.__file__).parent).encode() not in content
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_what_cannot_be_exported_is_refused_in_one_line(tiny: Backbone, data: bc.Dataset, tmp_path: Path) -> None:
    per_image = bc.fit(data, method="cocoop", backbone=tiny, shots=1, settings={"epochs": 1})
    plain = bc.fit(data, method="zero-shot", backbone=tiny)
    with pytest.raises(UserError, match="runs the text tower for each image"):
        bc.export_onnx(per_image, tmp_path / "a.onnx")
    with pytest.raises(UserError, match=r"ends in \.onnx"):
        bc.export_onnx(plain, tmp_path / "a.pt")
    (tmp_path / "there.onnx").write_bytes(b"kept")
    with pytest.raises(UserError, match="exists already"):
        bc.export_onnx(plain, tmp_path / "there.onnx")
    with pytest.raises(UserError, match="other classes"):
        bc.export_onnx(plain, tmp_path / "b.onnx", int8=bc.load_dataset("simulated:kidney-ct?train=1&val=0&test=1"))
    with pytest.raises(UserError, match="no test images"):
        bc.export_onnx(plain, tmp_path / "b.onnx", int8=data.part("train"))
    assert [file.name for file in tmp_path.iterdir()] == ["there.onnx"]
    assert (tmp_path / "there.onnx").read_bytes() == b"kept"


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_image_tower(family: str, data: bc.Dataset, tmp_path: Path) -> None:
    """Probabilities of float32 are torch's; weights of int8 are within half a step."""
    backbone = bc.load_backbone(FAMILIES[family](tmp_path / family))
    classifier = bc.fit(data, method="linear-probe", backbone=backbone, shots=4)
    images = list(data.part("test").images)[:20]
    same(classifier, tmp_path, images)
    few = data.select(data.indices("test")[:20])
    written = bc.export_onnx(classifier, tmp_path / "small.onnx", int8=few)
    assert written.int8 is not None
    onnx.checker.check_model(onnx.load(tmp_path / "small.onnx"))
    assert np.abs(by_hand(tmp_path / "small.onnx", images) - classifier.predict_proba(images)).mean() < 0.05
    whole, small = (weights_of(tmp_path / name) for name in ("model.onnx", "small.onnx"))
    rounded = [name for name in whole if f"{name}_int8" in small]
    assert len(rounded) > 3
    for name in rounded:
        values, steps = small[f"{name}_int8"], small[f"{name}_scale"]
        assert values.dtype == np.int8
        assert name not in small
        assert (np.abs(values * steps - whole[name]) <= steps * 0.501).all()


def weights_of(file: Path) -> dict[str, np.ndarray]:
    return {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(file).graph.initializer}


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["busi", "covid_cxr3"])
def test_a_hundred_collected_images_have_torchs_probabilities(name: str, tmp_path: Path) -> None:
    data = bc.load_dataset(name)
    classifier = bc.fit(data, method="linear-probe", shots=4)
    images = [data.images[i] for i in (*data.indices("test"), *data.indices("val"))][:100]
    assert len(images) == 100
    same(classifier, tmp_path, images)


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(name for name in all_methods()))
def test_every_method_whose_prediction_is_a_function_of_image_features(
    method: str, tiny: Backbone, data: bc.Dataset, discs: Path, tmp_path: Path
) -> None:
    found = get_method(method)
    if found.abilities.prompts_per_image:
        with pytest.raises(UserError, match="cannot be exported"):
            bc.export_onnx(
                bc.fit(data, method=method, backbone=tiny, shots=1, settings={"epochs": 1}), tmp_path / "m.onnx"
            )
        return
    known = {field for field in found.settings_type.__dataclass_fields__ if field in QUICK}
    settings = {name: QUICK[name] for name in known}
    if method == "auto":
        settings = {"methods": "linear-probe,tip-adapter"}
    unlabelled = discs / "test" / "blue_cyst" if found.abilities.uses_unlabelled else None
    classifier = bc.fit(data, method=method, backbone=tiny, shots=4, settings=settings, unlabelled=unlabelled)
    same(classifier, tmp_path, list(data.part("test").images)[:12])


@pytest.mark.slow
def test_int8_is_smaller_and_its_cost_is_said(data: bc.Dataset, tmp_path: Path) -> None:
    classifier = bc.fit(data, method="linear-probe", shots=4)
    whole = bc.export_onnx(classifier, tmp_path / "whole.onnx")
    small = bc.export_onnx(classifier, tmp_path / "small.onnx", int8=data)
    assert whole.int8 is None
    assert small.int8 is not None
    assert small.int8["images"] == len(data.part("test").images)
    assert (tmp_path / "small.onnx").stat().st_size < 0.4 * (tmp_path / "whole.onnx").stat().st_size
    answers = by_hand(tmp_path / "small.onnx", list(data.part("test").images))
    truth = data.part("test").labels
    assert small.int8["accuracy"] == pytest.approx((answers.argmax(1) == truth).mean())
    with torch.inference_mode():
        right = (classifier.predict_proba(list(data.part("test").images)).argmax(1) == truth).mean()
    assert small.int8["accuracy_float32"] == pytest.approx(right, abs=0.02)


def write_example(file: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "onnx.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python[^\n]*\n(.*?)```", guide, re.DOTALL)
    assert len(script.splitlines()) <= 30
    file.write_text(script)


def table_of_the_guide(folder: Path) -> list[Path]:
    """A file of each kind that the guide claims."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (30, 43, 3), dtype=np.uint8)).resize((86, 60))
    grey, alpha = rgb.convert("L"), Image.fromarray(rng.integers(0, 256, (60, 86), dtype=np.uint8))
    common = int(np.bincount(np.asarray(grey).ravel()).argmax())
    rgba, la = rgb.copy(), grey.copy()
    rgba.putalpha(alpha)
    la.putalpha(alpha)
    one, palette, cmyk = rgb.convert("1"), rgb.quantize(200), rgb.convert("CMYK")
    some = bytes(rng.integers(0, 256, 200, dtype=np.uint8))
    kinds: dict[str, list[tuple[Image.Image, dict[str, Any]]]] = {
        "png": [(image, {}) for image in (one, grey, palette, rgb, la, rgba)]
        + [(one, {"transparency": 1}), (grey, {"transparency": common}), (rgb, {"transparency": rgb.getpixel((3, 3))})]
        + [(palette, {"transparency": 3}), (palette, {"transparency": some})],
        "jpg": [(grey, {}), (rgb, {}), (cmyk, {})],
        "webp": [(rgb, {}), (rgba, {})],
        "tif": [(image, {}) for image in (one, grey, palette, rgb, cmyk, la, rgba)],
        "gif": [(palette, {}), (palette, {"transparency": 3})],
        "bmp": [(grey, {}), (palette, {}), (rgb, {})],
    }
    files = []
    for suffix, images in kinds.items():
        for number, (image, options) in enumerate(images):
            for orientation in range(1, 9) if suffix in ("png", "jpg", "webp", "tif") else (1,):
                exif = Image.Exif()
                exif[0x112] = orientation
                more = {"exif": exif} if orientation > 1 else {}
                files.append(folder / f"{number}-{orientation}.{suffix}")
                image.save(files[-1], **options, **more)
    return files


def test_the_example_of_the_guide_cuts_every_kind_of_file_as_the_package_does(
    tiny: Backbone, data: bc.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_example(tmp_path / "example.py")
    bc.export_onnx(bc.fit(data, method="zero-shot", backbone=tiny), tmp_path / "model.onnx")
    files = table_of_the_guide(tmp_path)
    monkeypatch.setattr("sys.argv", ["example.py", str(tmp_path / "model.onnx"), str(files[0])])
    crop = runpy.run_path(str(tmp_path / "example.py"))["crop"]
    unequal = [
        file.name
        for file in files
        if not np.array_equal(crop(file), resize_and_crop(read_image(file), tiny.image_size, tiny.resize))
    ]
    assert len(files) == 8 * 23 + 5
    assert unequal == []


@pytest.mark.slow
def test_the_example_of_the_guide_runs_without_torch_and_without_the_package(
    data: bc.Dataset, discs: Path, tmp_path: Path
) -> None:
    """In a virtual environment that sees numpy, Pillow and onnxruntime alone, with the probabilities of the package."""
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    for package in (
        "numpy",
        "PIL",
        "onnxruntime",
        "flatbuffers",
        "google",
        "packaging",
        "coloredlogs",
        "humanfriendly",
    ):
        if (spec := importlib.util.find_spec(package)) is None:
            continue
        for folder in spec.submodule_search_locations or []:
            for one in (Path(folder), Path(folder).with_name(Path(folder).name + ".libs")):
                if one.exists() and not (site / one.name).exists():
                    (site / one.name).symlink_to(one)
    for name in ("pillow.libs", "numpy.libs"):
        folder = Path(np.__file__).parents[1] / name
        if folder.exists() and not (site / name).exists():
            (site / name).symlink_to(folder)
    absent = subprocess.run([python, "-c", "import torch"], capture_output=True)
    assert absent.returncode != 0
    write_example(tmp_path / "example.py")
    classifier = bc.fit(data, method="linear-probe", shots=4)
    bc.export_onnx(classifier, tmp_path / "model.onnx")
    images = []
    for number, size in enumerate([(224, 224), (300, 211), (97, 160), (640, 480)]):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        images.append(tmp_path / f"{number}.png")
    images += [file for file in table_of_the_guide(tmp_path) if "-6." in file.name]
    done = subprocess.run(
        [python, tmp_path / "example.py", tmp_path / "model.onnx", *images], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split(" ", 1)[1] for line in done.stdout.splitlines()]
    answers = [list(ast.literal_eval(line).values()) for line in lines]
    np.testing.assert_allclose(answers, classifier.predict_proba(images), atol=2e-4)  # printed with four digits


def test_the_command_writes_the_file_and_says_how_large_it_is(
    tiny: Backbone, data: bc.Dataset, tmp_path: Path, parity: Path, cli: Callable[..., Any], refused: Callable[..., str]
) -> None:
    bc.fit(data, method="zero-shot", backbone=tiny).save(tmp_path / "model")
    words = ("export", tmp_path / "model", "--backbone", parity / "model", "--out", tmp_path / "m.onnx")
    assert "--onnx" in refused(*words)
    assert cli(*words, "--onnx").status == 0
    assert (tmp_path / "m.onnx").stat().st_size > 1000
    assert "exists already" in refused(*words, "--onnx")
    assert json.loads(cli(*words, "--onnx", "--overwrite", "--json").out)["out"] == str(tmp_path / "m.onnx")
