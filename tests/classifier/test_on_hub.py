"""Classifiers on the Hugging Face hub: what is sent, what is read back, and one clear line for everything else."""

from __future__ import annotations

import getpass
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.classifier.card_header import card_header
from biomedcoop.classifier.on_hub import HubName
from biomedcoop.data.catalogue import find
from biomedcoop.errors import Note
from biomedcoop.hub import client
from hub_server import OpenHub, open_hub, set_endpoint

NAME = "ward-seven/skin"
TOKEN = "hf_secretsecret"
FILES = {"classifier.json", "model.safetensors", "README.md"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenHub]:
    with open_hub(NAME, TOKEN, tmp_path, monkeypatch) as server:
        yield server


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client().constants, "HF_HUB_OFFLINE", True)


def line_of(caught: pytest.ExceptionInfo[bc.UserError]) -> str:
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 700  # addresses and folders are long
    assert TOKEN not in line
    return line


def not_published(clf: bc.Classifier, name: str = NAME, **how: bool) -> str:
    """The one line that publishing is refused with."""
    with pytest.raises(bc.UserError) as caught:
        clf.push_to_hub(name, **how)
    return line_of(caught)


def not_loaded(name: str, backbone: Backbone | None = None) -> str:
    """The one line that loading is refused with."""
    with pytest.raises(bc.UserError) as caught:
        bc.load(name, backbone)
    return line_of(caught)


# -- there and back


def test_nothing_is_printed(
    hub: OpenHub, clf: bc.Classifier, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bars of the hub's client come back for what else uses it."""
    monkeypatch.setenv("TQDM_POSITION", "-1")  # bars without a terminal
    client().utils.enable_progress_bars()
    clf.push_to_hub(NAME)
    assert capsys.readouterr() == ("", "")
    assert not client().utils.are_progress_bars_disabled()


def test_published_and_loaded_it_predicts_to_the_last_bit(
    hub: OpenHub, clf: bc.Classifier, tiny: Backbone, test_images: list[Path]
) -> None:
    address = clf.push_to_hub(NAME)
    assert address == f"hf://{NAME}@{hub.commit}"
    assert set(hub.files) == FILES | {".gitattributes"}
    assert not hub.public
    wanted = clf.predict_proba(test_images).tobytes()
    for name in (f"hf://{NAME}", address, Path(f"hf://{NAME}")):  # a path folds the slashes
        assert bc.load(name, tiny).predict_proba(test_images).tobytes() == wanted
    assert hub.told == []  # the store of large files is another host


def test_only_two_files_are_downloaded_and_each_once(hub: OpenHub, clf: bc.Classifier, tiny: Backbone) -> None:
    clf.push_to_hub(NAME)
    hub.commit_files({"evil.bin": b"\x80\x04 pickled", "training.py": b"exit()"})
    hub.asked.clear()
    loaded = bc.load(f"hf://{NAME}", tiny)
    assert sorted(hub.asked) == sorted(f"{verb} {file}" for file in FILES - {"README.md"} for verb in ("HEAD", "GET"))
    hub.asked.clear()
    bc.load(f"hf://{NAME}", tiny)
    assert set(hub.asked) == {"HEAD classifier.json", "HEAD model.safetensors"}
    assert loaded.origin is not None
    assert {path.name for path in Path(loaded.origin.folder).iterdir()} == (FILES - {"README.md"}) | {"source.json"}


def test_nothing_but_the_artefact_is_sent(
    hub: OpenHub, tiny: Backbone, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of folders and files are left out, and the token stands in one header alone."""
    private = Path(shutil.copytree(discs, tmp_path / "Dr. Mbeki's patients"))
    words = tmp_path / "mbeki words.json"
    words.write_text(json.dumps({n: [f"a scan with a {n}"] for n in ("blue cyst", "green tumor", "red stone")}))
    run = tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    bc.train(private, run, method="zero-shot-ensemble", backbone=tiny, prompts=words, n_bootstrap=40, html=False)
    bc.load(run, tiny).push_to_hub(NAME)
    sent = b"\n".join(content for _, content in hub.bodies) + b"".join(hub.files.values())
    for secret in ("Mbeki", "mbeki", str(tmp_path), str(Path.home()), "train/", "red_stone", "00.png", TOKEN):
        assert secret.encode() not in sent, secret
    if len(getpass.getuser()) > 4:  # "root" is also half a word of the field
        assert getpass.getuser().encode() not in sent
    for image in (b"\x89PNG", b"JFIF"):
        assert image not in sent
    assert hub.files["classifier.json"].count(b"a scan with a") == 3  # the sentences are part of the classifier
    assert b"Mbeki" in (run / "model" / "classifier.json").read_bytes()  # at home it keeps its name
    assert {path for path, _ in hub.bodies if "create" in path} == {"/api/repos/create"}


def test_the_card(hub: OpenHub, tiny: Backbone, discs: Path, tmp_path: Path) -> None:
    """The hub's own classes read its header; the server refuses what its specification does not know."""
    report = bc.train(discs, tmp_path / "run", method="simpleshot", backbone=tiny, shots=4, n_bootstrap=40, html=False)
    bc.load(tmp_path / "run", tiny).push_to_hub(NAME)
    card = ModelCard(hub.files["README.md"].decode())
    data = card.data.to_dict()
    assert (data["library_name"], data["pipeline_tag"]) == ("biomedcoop", "image-classification")
    assert (data["license"], data["license_name"]) == ("other", "that-of-the-backbone")
    assert {"biomedcoop", "few-shot", "simpleshot"} <= set(data["tags"])
    measured = {one.metric_type: one.metric_value for one in card.data.eval_results}
    assert measured["accuracy"] == round(report.metrics.accuracy.value, 4)
    assert set(measured) == {"accuracy", "balanced_accuracy", "f1", "roc_auc"}
    assert "datasets" not in data
    assert [one.dataset_type for one in card.data.eval_results] == ["imagefolder"] * 4
    assert f'bc.load("hf://{NAME}")' in card.text
    assert "**Not a medical device.**" in card.text


def test_the_card_names_the_repository_of_a_dataset_of_the_catalogue() -> None:
    busi = find("busi")
    assert busi is not None
    description = {
        "method": "coop",
        "backbone": {"name": "mini"},
        "class_names": list(busi.class_names),
        "facts": {"dataset": "busi"},
    }
    assert f'datasets: ["{busi.hub_dataset}"]' in card_header(description)


# -- an earlier upload, and other people's repositories


def test_a_second_upload_needs_a_word_and_keeps_the_first(
    hub: OpenHub, clf: bc.Classifier, tiny: Backbone, test_images: list[Path]
) -> None:
    first = clf.push_to_hub(NAME)
    hub.commit_files({"picture.png": b"theirs"})
    line = f"{hub.address}/{NAME} exists already; choose another name or pass overwrite=True"
    assert not_published(clf) == line
    other = bc.load(first, tiny).for_classes(["red stone", "a cat"])
    second = other.push_to_hub(NAME, overwrite=True)
    assert hub.files["picture.png"] == b"theirs"
    assert bc.load(second, tiny).class_names == bc.load(f"hf://{NAME}", tiny).class_names == ("red stone", "a cat")
    assert bc.load(first, tiny).class_names == clf.class_names


def test_a_repository_of_something_else_is_not_touched(hub: OpenHub, clf: bc.Classifier) -> None:
    hub.make({"config.json": b"{}"})
    assert "holds other files (there is no classifier.json) and is not overwritten" in not_published(
        clf, overwrite=True
    )
    assert hub.bodies == []


def test_private_unless_asked_for(hub: OpenHub, clf: bc.Classifier) -> None:
    hub.public = True
    hub.make()
    assert f"{hub.address}/{NAME} is public; pass private=False" in not_published(clf)
    assert hub.bodies == []
    clf.push_to_hub(NAME, private=False)
    assert hub.public
    hub.public = False
    with pytest.warns(Note, match="is private, as it was before"):
        clf.push_to_hub(NAME, private=False, overwrite=True)


def test_a_public_repository_needs_no_token_to_read(
    hub: OpenHub, clf: bc.Classifier, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    clf.push_to_hub(NAME, private=False)
    assert hub.public
    monkeypatch.delenv("HF_TOKEN")
    assert bc.load(f"hf://{NAME}", tiny).class_names == clf.class_names


# -- uploads that fail


def test_without_a_token_nothing_is_asked(hub: OpenHub, clf: bc.Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "cannot be written without your token; run 'hf auth login', or set HF_TOKEN" in not_published(clf)
    monkeypatch.setenv("HF_TOKEN", "hf_sécret")
    assert "holds other characters than ASCII" in not_published(clf)
    assert (hub.asked, hub.bodies) == ([], [])


def test_a_wrong_token(hub: OpenHub, clf: bc.Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    line = not_published(clf)
    assert "the hub does not know your token; run 'hf auth login'" in line
    assert "hf_wrong" not in line


def test_the_name_of_another_owner(hub: OpenHub, clf: bc.Classifier) -> None:
    hub.owners = {"someone-else"}
    assert "your token may not write there" in not_published(clf)


def test_a_taken_name_that_cannot_be_seen(hub: OpenHub, clf: bc.Classifier) -> None:
    hub.trouble["GET model"] = "404"
    hub.make()
    assert "the name is taken by a repository that you may not read" in not_published(clf)


@pytest.mark.parametrize("step", ["PUT object", "POST commit", "POST preupload", "POST batch", "POST verify"])
@pytest.mark.parametrize("how", ["500", "hang up"])
def test_an_upload_that_breaks_off_is_not_seen_and_can_be_repeated(
    hub: OpenHub, clf: bc.Classifier, tiny: Backbone, step: str, how: str
) -> None:
    hub.trouble[step] = "cut" if (step, how) == ("PUT object", "hang up") else how
    line = not_published(clf)
    assert f"the Hugging Face model {NAME} cannot be written: " in line
    assert "try again" in line
    assert set(hub.files) == {".gitattributes"}
    assert "holds no classifier of biomedcoop: there is no classifier.json" in not_loaded(f"hf://{NAME}", tiny)
    hub.trouble.clear()
    hub.asked.clear()
    clf.push_to_hub(NAME)
    if step == "POST commit":  # the large file has arrived already
        assert "PUT object" not in hub.asked
    assert bc.load(f"hf://{NAME}", tiny).class_names == clf.class_names


def test_a_repository_that_changes_meanwhile(hub: OpenHub, clf: bc.Classifier) -> None:
    hub.trouble["POST commit"] = "412"
    assert "it was changed meanwhile; try again" in not_published(clf)


@pytest.mark.parametrize("step", ["GET model", "POST create", "POST commit", "POST preupload", "POST batch"])
def test_a_page_in_place_of_the_hub(hub: OpenHub, clf: bc.Classifier, step: str) -> None:
    hub.trouble[step] = "page"
    line = not_published(clf)
    assert f"the answer of {hub.address} is not that of a Hugging Face hub" in line
    assert "proxy" in line


def test_an_answer_that_tells_the_token_is_not_repeated(hub: OpenHub, clf: bc.Classifier) -> None:
    hub.trouble["POST preupload"] = "418"
    assert "told to by Bearer …" in not_published(clf)


def test_a_card_that_the_hub_refuses(hub: OpenHub, clf: bc.Classifier) -> None:
    hub.trouble["POST validate"] = "400"
    assert "cannot be written: Invalid metadata in README.md" in not_published(clf)
    assert set(hub.files) == {".gitattributes"}


def test_without_a_network(hub: OpenHub, clf: bc.Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    set_endpoint("http://127.0.0.1:9", monkeypatch)
    assert "HF_ENDPOINT=http://127.0.0.1:9" in not_published(clf)
    assert "HF_ENDPOINT=http://127.0.0.1:9" in not_loaded(f"hf://{NAME}")


def test_another_address_than_the_clients_gets_nothing(
    hub: OpenHub, clf: bc.Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's client reads HF_ENDPOINT once; what is set later would be the address that is checked, not that of the upload."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert f"after huggingface_hub was imported with {hub.address}; set it before Python starts" in not_published(clf)
    assert (hub.asked, hub.bodies) == ([], [])


# -- names


@pytest.mark.parametrize(
    "name", ["skin", "a/b/c", "/skin", "ward/", "../skin", "ward/skin@", "ward/sk in", "", "wärd/x"]
)
def test_names_that_are_none(hub: OpenHub, clf: bc.Classifier, name: str) -> None:
    for line in (not_published(clf, name), not_loaded(f"hf://{name}")):
        assert "names no model of the Hugging Face hub; write it as hf://owner/name" in line
    assert hub.asked == []


@pytest.mark.parametrize("name", ["ward/sk--in", "ward/sk..in", "wa--rd/skin", "ward/skin.git", f"ward/{'s' * 97}"])
def test_names_that_the_hub_does_not_allow(hub: OpenHub, clf: bc.Classifier, name: str) -> None:
    for line in (not_published(clf, name), not_loaded(f"hf://{name}"), not_loaded(f"hf://{name}@v1")):
        assert line.startswith(
            f"'{name}' is not a name that the Hugging Face hub allows: owner and name have at most 96"
        )
    assert hub.asked == []


def test_a_name_of_the_longest_length_is_asked_about(hub: OpenHub) -> None:
    assert "there is no Hugging Face model" in not_loaded(f"hf://ward/{'s' * 96}")


def test_names() -> None:
    assert HubName.of("hf:/a/b") == HubName.of(r"hf:\a\b") == HubName.of("a/b") == ("a/b", "main")
    assert HubName.of("hf://a/b.c_1-2@refs/pr/1") == ("a/b.c_1-2", "refs/pr/1")


def test_what_cannot_be_a_target(hub: OpenHub, clf: bc.Classifier) -> None:
    assert "names a revision" in not_published(clf, f"{NAME}@v1")
    wrong: Any = 3
    assert "is not a name" in not_published(clf, wrong)


# -- what is refused when it is read


def test_repositories_that_are_none(hub: OpenHub, clf: bc.Classifier, tiny: Backbone) -> None:
    assert f"there is no Hugging Face model {NAME} at {hub.address}, or your account may not read it" in not_loaded(
        f"hf://{NAME}", tiny
    )
    hub.make({"config.json": b"{}"})
    assert f"{hub.address}/{NAME} holds no classifier of biomedcoop" in not_loaded(f"hf://{NAME}", tiny)
    hub.commit_files({"classifier.json": b"{}"})
    assert "there is no model.safetensors" in not_loaded(f"hf://{NAME}", tiny)
    assert "has no revision 'v9'; give a branch, a tag or a whole commit" in not_loaded(f"hf://{NAME}@v9", tiny)


def test_files_that_are_too_large(
    hub: OpenHub, clf: bc.Classifier, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    clf.push_to_hub(NAME)
    monkeypatch.setitem(bc.classifier.on_hub.MOST_BYTES, "model.safetensors", 100)  # type: ignore[attr-defined]
    hub.asked.clear()
    assert "is larger (" in not_loaded(f"hf://{NAME}", tiny)
    assert not [request for request in hub.asked if request.startswith("GET")]


@pytest.mark.parametrize("trouble", ["page", "wrong bytes", "cut", "hang up", "500"])
def test_downloads_that_fail_leave_nothing_that_is_read(
    hub: OpenHub, clf: bc.Classifier, tiny: Backbone, trouble: str
) -> None:
    clf.push_to_hub(NAME)
    hub.trouble["GET model.safetensors"] = trouble
    assert "try again" in not_loaded(f"hf://{NAME}", tiny)
    hub.trouble.clear()
    assert bc.load(f"hf://{NAME}", tiny).class_names == clf.class_names


def test_what_was_changed_on_the_way_is_refused(hub: OpenHub, clf: bc.Classifier, tiny: Backbone) -> None:
    clf.push_to_hub(NAME)
    edited = json.loads(hub.files["classifier.json"]) | {"class_names": ["a", "b", "c"]}
    hub.commit_files({"classifier.json": json.dumps(edited).encode()})
    assert "damaged or edited" in not_loaded(f"hf://{NAME}", tiny)
    hub.commit_files({"classifier.json": b"[" * 100_000})
    assert "damaged (RecursionError)" in not_loaded(f"hf://{NAME}", tiny)


def test_another_backbone_is_refused_as_ever(hub: OpenHub, clf: bc.Classifier, tiny_lite: Backbone) -> None:
    clf.push_to_hub(NAME)
    assert "was trained on the backbone" in not_loaded(f"hf://{NAME}", tiny_lite)


def test_a_full_disk(hub: OpenHub, clf: bc.Classifier, tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    clf.push_to_hub(NAME)
    monkeypatch.setattr("shutil.disk_usage", lambda place: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    assert "make room or set BIOMEDCOOP_CACHE to another folder" in not_loaded(f"hf://{NAME}", tiny)


# -- without the network


def test_offline_a_copy_is_used(
    hub: OpenHub, clf: bc.Classifier, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    clf.push_to_hub(NAME)
    bc.load(f"hf://{NAME}", tiny)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "set HF_HUB_OFFLINE=1 to use the copy on this machine" in not_loaded(f"hf://{NAME}", tiny)
    monkeypatch.setattr(client().constants, "HF_HUB_OFFLINE", True)
    assert bc.load(f"hf://{NAME}", tiny).class_names == clf.class_names


def test_offline_without_a_copy(offline: None, hub: OpenHub, clf: bc.Classifier) -> None:
    assert "is not complete on this machine, and the network is off" in not_loaded(f"hf://{NAME}")
    assert "the network is off (HF_HUB_OFFLINE)" in not_published(clf)
    assert hub.asked == []
