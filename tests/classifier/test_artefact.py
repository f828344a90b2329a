"""The artefact: what is read is what was saved, to the last bit, or nothing, with one line that says why."""

from __future__ import annotations

import getpass
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone

FILES = {"classifier.json", "model.safetensors", "README.md"}


@pytest.fixture
def saved(clf: bc.Classifier, tmp_path: Path) -> Path:
    clf.save(tmp_path / "model")
    return tmp_path / "model"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def describe(folder: Path, **changes: Any) -> None:
    """Change entries of ``classifier.json``; both checksums are made to fit."""
    file = folder / "classifier.json"
    checksum = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    description = json.loads(file.read_text()) | {"tensors_sha256": checksum} | changes
    content = {key: value for key, value in description.items() if key != "sha256"}
    description["sha256"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    file.write_text(json.dumps(description))


def refusal(folder: Path, backbone: Any = None) -> str:
    with pytest.raises(bc.UserError) as caught:
        bc.load(folder, backbone)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


# -- saving and reading


def test_predictions_survive_to_the_last_bit(
    clf: bc.Classifier, saved: Path, tiny: Backbone, test_images: list[Path]
) -> None:
    read = bc.load(saved, tiny)
    assert read.predict_proba(test_images).tobytes() == clf.predict_proba(test_images).tobytes()
    assert read.predict(test_images) == clf.predict(test_images)
    assert (read.class_names, read.method, read.settings, read.facts) == (
        clf.class_names,
        clf.method,
        clf.settings,
        clf.facts,
    )
    read.save(saved.parent / "again")
    assert contents(saved.parent / "again") == contents(saved)


def test_the_backbone_may_be_named_by_its_folder(saved: Path, parity: Path, test_images: list[Path]) -> None:
    assert bc.load(saved, parity / "model").predict_proba(test_images[:2]).shape == (2, 3)
    # by itself the artefact only knows the backbone's name, which says nothing of where it is
    assert "needs the backbone 'model'" in refusal(saved)
    assert "with backbone" in refusal(saved)


def test_it_is_small_and_holds_nothing_of_images_places_or_people(saved: Path, discs: Path) -> None:
    files = contents(saved)
    assert set(files) == FILES
    everything = b"".join(files.values())
    assert len(everything) < 40_000
    for secret in (str(discs), str(saved.parent), str(Path.home()), "train/", "red_stone"):
        assert secret.encode() not in everything, secret
    if len(getpass.getuser()) > 4:  # "root" is also half a word of the field
        assert getpass.getuser().encode() not in everything
    for image in (b"\x89PNG", b"JFIF", b"II*\x00"):
        assert image not in everything
    for pickled in (b"\x80\x02", b"\x80\x04", b"PK\x03\x04"):
        assert not any(content.startswith(pickled) for content in files.values())


def test_the_card_says_what_it_is_and_what_it_is_not(saved: Path, tiny: Backbone) -> None:
    card = (saved / "README.md").read_text()
    for words in (
        "Not a medical device",
        f"Written by: biomedcoop {bc.__version__}",
        "blue cyst, green tumor, red stone",
        "biomedcoop",
        tiny.fingerprint,
        "4 per",
    ):
        assert words in card
    assert "simulated" not in card


# -- what is refused


def test_another_backbone(saved: Path, parity: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(parity / "model", tmp_path / "changed")
    weights = load_file(changed / "open_clip_model.safetensors")
    weights["logit_scale"] = weights["logit_scale"] + 0.5
    save_file(weights, changed / "open_clip_model.safetensors")
    message = refusal(saved, changed)
    assert "was trained on the backbone" in message
    assert "'changed'" in message


def test_the_shipped_weights_of_an_earlier_version(saved: Path, tiny: Backbone) -> None:
    describe(saved, backbone={"name": "mini", "fingerprint": "05723fd37558d6ba528b28e5da82028b"})
    message = refusal(saved, tiny)
    assert "needs the weights of 'mini' that version 0.1 shipped" in message
    assert "backbone, or train again" in message


def test_a_newer_format(saved: Path, tiny: Backbone) -> None:
    describe(saved, format_version=2)
    ours = f"biomedcoop {bc.__version__}"
    assert f"(written by {ours}) has format 2, {ours} reads up to format 1; upgrade" in refusal(saved, tiny)
    describe(saved, biomedcoop_version="9.9.9")
    assert "(written by biomedcoop 9.9.9) has format 2" in refusal(saved, tiny)
    describe(saved, format_version=1, method="sorcery")
    assert "(written by biomedcoop 9.9.9) needs a method that" in refusal(saved, tiny)
    assert "upgrade" in refusal(saved, tiny)


def test_a_method_that_is_not_known_here(saved: Path, tiny: Backbone) -> None:
    describe(saved, method="telepathy")
    assert "'telepathy'" in refusal(saved, tiny)
    assert "upgrade" in refusal(saved, tiny)


@pytest.mark.parametrize("position", [0, 9, 400, -1])
def test_a_flipped_bit_in_the_tensors(saved: Path, tiny: Backbone, position: int) -> None:
    file = saved / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)
    assert "model.safetensors: damaged" in refusal(saved, tiny)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("name", ["model.safetensors", "classifier.json"])
def test_a_file_cut_short(saved: Path, tiny: Backbone, name: str, keep: float) -> None:
    file = saved / name
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content))])
    assert f"{name}: damaged" in refusal(saved, tiny)


@pytest.mark.parametrize("name", ["model.safetensors", "classifier.json"])
def test_a_missing_file(saved: Path, tiny: Backbone, name: str) -> None:
    (saved / name).unlink()
    message = refusal(saved, tiny)
    assert name in message
    assert str(saved) in message


def test_tensors_that_are_no_safetensors(saved: Path, tiny: Backbone) -> None:
    torch.save({"class_embeddings": torch.zeros(3, 16)}, saved / "model.safetensors")
    describe(saved)
    assert "not a safetensors file" in refusal(saved, tiny)


Change = Callable[[dict[str, torch.Tensor]], object]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.update(class_embeddings=t["class_embeddings"][:2]), "2 classes"),
        (lambda t: t.update(class_embeddings=t["class_embeddings"][:, :-1]), "do not fit together"),
        (lambda t: t.pop("class_embeddings"), "'class_embeddings' is missing"),
        (lambda t: t["class_embeddings"].__setitem__((0, 0), float("nan")), "'class_embeddings' holds values"),
        (lambda t: t.update(logit_scale=torch.tensor(float("inf"))), "'logit_scale' holds values"),
    ],
)
def test_tensors_that_make_no_classifier(saved: Path, tiny: Backbone, change: Change, words: str) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(saved / "model.safetensors").items()}
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, saved / "model.safetensors")
    describe(saved)
    assert words in refusal(saved, tiny)
    assert "again" in refusal(saved, tiny)


@pytest.mark.parametrize(
    "changes",
    [
        {"class_names": ["one"]},
        {"class_names": ["a", "a", "b"]},
        {"class_names": ["a", "b", 3]},
        {"class_names": "abc"},
        {"backbone": {}},
        {"settings": None},
        {"facts": []},
        {"temperature": 0},
        {"temperature": -1.0},
        {"temperature": "2"},
        {"temperature": True},
        {"temperature": float("inf")},
    ],
)
def test_a_description_that_makes_no_sense(saved: Path, tiny: Backbone, changes: dict[str, Any]) -> None:
    describe(saved, **changes)
    assert f"'{next(iter(changes))}'" in refusal(saved, tiny)


@pytest.mark.parametrize("text", ["[]", "7", "{}", '{"format_version": "1"}', '{"format_version": null}', "\ufeff"])
def test_json_of_something_else(saved: Path, tiny: Backbone, text: str) -> None:
    (saved / "classifier.json").write_text(text)
    refusal(saved, tiny)


def test_no_artefact_at_all(tmp_path: Path, tiny: Backbone) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file"):
        assert f"{place} is not a saved classifier: it has no classifier.json" in refusal(place, tiny)
    assert refusal(tmp_path / "norun", tiny).startswith(f"{tmp_path / 'norun'}: there is no such folder; ")


# -- where it is written


def test_an_existing_folder_is_replaced_only_when_told_to(clf: bc.Classifier, saved: Path) -> None:
    before = contents(saved)
    with pytest.raises(bc.UserError, match=f"{saved} exists already.*overwrite"):
        clf.save(saved)
    assert contents(saved) == before
    (saved / "README.md").write_text("old")
    clf.save(saved, overwrite=True)
    assert contents(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_a_folder_of_something_else_is_never_replaced(clf: bc.Classifier, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.md").write_text("years of work")
    with pytest.raises(bc.UserError, match="holds other files"):
        clf.save(tmp_path / "thesis", overwrite=True)
    with pytest.raises(bc.UserError, match="is a file"):
        clf.save(tmp_path / "thesis" / "chapter1.md", overwrite=True)
    assert (tmp_path / "thesis" / "chapter1.md").read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_an_empty_folder_and_missing_parents_are_fine(clf: bc.Classifier, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "a" / "b" / "c"):
        clf.save(place)
        assert set(contents(place)) == FILES


def test_a_place_that_cannot_be_written(clf: bc.Classifier, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(bc.UserError, match=r"cannot write .*file/model: .*; make room or choose another place"):
        clf.save(tmp_path / "file" / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_class_names_in_another_order_are_noticed(saved: Path, tiny: Backbone) -> None:
    file = saved / "classifier.json"
    description = json.loads(file.read_text())
    file.write_text(json.dumps(description | {"class_names": description["class_names"][::-1]}))
    assert "damaged or edited" in refusal(saved, tiny)


def test_only_an_artefact_is_overwritten(saved: Path, tiny: Backbone) -> None:
    (saved / "thesis.tex").touch()
    with pytest.raises(bc.UserError, match="also holds"):
        bc.load(saved, tiny).save(saved, overwrite=True)
    assert (saved / "thesis.tex").exists()


@pytest.mark.parametrize("precision", ["int8"])
def test_a_precision_that_the_backbone_refuses_is_no_fault_of_its_place(tmp_path: Path, precision: str) -> None:
    bc.fit(bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=1"), "zero-shot").save(tmp_path / "model")
    with pytest.raises(bc.UserError, match=r"^mini: precision .* choose float32 or bfloat16$"):
        bc.load(tmp_path / "model", precision=precision)
    with pytest.raises(
        bc.UserError, match=r"needs the backbone 'mini': no backbone 'nowhere'.* folder with backbone\)$"
    ):
        bc.load(tmp_path / "model", "nowhere")
