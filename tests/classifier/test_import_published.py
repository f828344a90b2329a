"""Checkpoints of the published code as classifiers: the published predictions, and a line for each that does not belong."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.torch_archive import open_archive
from biomedcoop.errors import Note, UserError
from published_layout import ConstantWarmupScheduler, PromptLearner, WholeModel, save, trained, write_biomedcoop

NAMES = ("glioma tumor", "meningioma tumor", "pituitary tumor", "normal brain")


def fixture(parity: Path, method: str) -> dict[str, Any]:
    with np.load(parity / f"{method}.npz") as file:
        return {key: torch.from_numpy(np.atleast_1d(file[key])) for key in file}


@pytest.fixture(scope="module")
def published(parity: Path, tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with the context that the published code learned on the tiny model, under a path of the authors."""
    place = tmp_path_factory.mktemp("few_shot") / "btmri" / "shots_16" / "BiomedCoOp_BiomedCLIP"
    file = place / "nctx4_cscFalse_ctpend" / "seed2" / "prompt_learner" / "model.pth.tar-100"
    return write_biomedcoop(file, tiny, NAMES, fixture(parity, "biomedcoop")["ctx_after_step"][-1])


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        bc.import_published(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def logits_of(classifier: bc.Classifier, images: dict[str, np.ndarray]) -> torch.Tensor:
    with torch.inference_mode():
        return classifier.logits(classifier.backbone.encode_image(torch.from_numpy(images["test_images"])))


def test_the_published_logits_come_out(
    published: Path, parity: Path, tiny: Backbone, images: dict[str, np.ndarray], recwarn: pytest.WarningsRecorder
) -> None:
    classifier = bc.import_published(published, backbone=tiny)
    assert not [
        one for one in recwarn if one.category is Note
    ]  # names, order and frozen tensors are those of the backbone
    assert (classifier.method, classifier.class_names) == ("biomedcoop", NAMES)
    assert {key: classifier.facts[key] for key in ("dataset", "shots", "seed")} == {
        "dataset": "btmri",
        "shots": 16,
        "seed": 2,
    }
    assert classifier.settings["epochs"] == 100
    assert classifier.settings["sccm_weight"] == 0.5  # published for btmri
    expected = fixture(parity, "biomedcoop")["test_logits"]
    torch.testing.assert_close(logits_of(classifier, images), expected, atol=2e-5, rtol=1e-5)


def test_probabilities_equal_a_plain_computation(
    published: Path, tiny: Backbone, images: dict[str, np.ndarray]
) -> None:
    """Full context length, prompts put together from the file's own tensors."""
    state = tensors_of(published)
    first, context, rest = (state[f"prompt_learner.{key}"] for key in ("token_prefix", "ctx", "token_suffix"))
    prompts = torch.cat([first, context.expand(len(first), -1, -1), rest], dim=1)
    mask = PromptLearner(tiny, NAMES, context).ids != 0
    with torch.inference_mode():
        t = nn.functional.normalize(tiny.towers.text(prompts, mask), dim=-1)
        f = nn.functional.normalize(tiny.towers.visual(torch.from_numpy(images["test_images"])), dim=-1)
        expected = (state["logit_scale"].exp() * f @ t.T).softmax(1).numpy()
        features = tiny.encode_image(torch.from_numpy(images["test_images"])).numpy()
    imported = bc.import_published(published.parent.parent, backbone=tiny)
    np.testing.assert_allclose(imported.probabilities(features), expected, atol=1e-5)


def test_the_artefact_is_one_of_ours(published: Path, tiny: Backbone, discs: Path, tmp_path: Path) -> None:
    bc.import_published(published, backbone=tiny).save(tmp_path / "model")
    again = bc.load(tmp_path / "model", tiny)
    image = discs / "test" / "red_stone" / "00.png"
    assert again.predict_proba([image]).shape == (1, 4)
    assert len(bc.words(again).vectors) == 4
    (found,) = bc.saliency(again, [image])
    assert found.class_name in NAMES
    assert again.for_classes(["cyst", "stone"]).predict_proba([image]).shape == (1, 2)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "- Training images: 16 per class; seed 2" in card
    assert "- Imported from: model.pth.tar-100, SHA-256 " in card
    assert str(published.parent) not in card + (tmp_path / "model" / "classifier.json").read_text()


class Bare(nn.Module):
    """The prompt learner alone, with whatever else its trainer keeps in it."""

    def __init__(self, learner: PromptLearner, **more: torch.Tensor) -> None:
        super().__init__()
        self.ctx = learner.ctx
        self.register_buffer("token_prefix", learner.token_prefix)
        self.register_buffer("token_suffix", learner.token_suffix)
        for name, value in more.items():
            *modules, last = name.split("__")
            place: nn.Module = self
            for module in modules:
                if not hasattr(place, module):
                    place.add_module(module, nn.Module())
                place = getattr(place, module)
            setattr(place, last, nn.Parameter(value))


def bare(
    file: Path, backbone: Backbone, context: torch.Tensor, names: Sequence[str] = NAMES, **more: torch.Tensor
) -> Path:
    model = Bare(PromptLearner(backbone, names, context), **more)
    return save(trained(model, [model.ctx]), file)


def network_of(numbers: dict[str, Any]) -> dict[str, torch.Tensor]:
    prefix = "after_step/meta_net."
    return {
        "meta_net__" + key.removeprefix(prefix).replace(".", "__"): value[-1]
        for key, value in numbers.items()
        if key.startswith(prefix)
    }


@pytest.mark.parametrize("method", ["coop", "kgcoop", "cocoop"])
def test_other_methods_are_known_by_their_keys(
    method: str, parity: Path, tiny: Backbone, images: dict[str, np.ndarray], tmp_path: Path
) -> None:
    numbers = fixture(parity, method)
    more = {
        "coop": {},
        "kgcoop": {"bias_vectors": torch.zeros(1, 48), "meta_net__linear1__weight": torch.zeros(48, 48)},
        "cocoop": network_of(numbers) if method == "cocoop" else {},
    }[method]
    file = bare(tmp_path / "model.pth.tar-50", tiny, numbers["ctx_after_step"][-1], **more)
    classifier = bc.import_published(file, NAMES, backbone=tiny)
    assert classifier.method == method
    assert classifier.facts["shots"] == "unknown"
    torch.testing.assert_close(logits_of(classifier, images), numbers["test_logits"], atol=2e-5, rtol=1e-5)


def test_a_context_for_each_class(tiny: Backbone, images: dict[str, np.ndarray], tmp_path: Path) -> None:
    """CoOp with CSC: each class comes out as from its own context alone."""
    draw = torch.Generator().manual_seed(0)
    contexts = 0.1 * torch.randn(3, 4, tiny.token_dim, generator=draw)
    file = bare(tmp_path / "own" / "model.pth.tar-50", tiny, contexts, NAMES[:3])
    classifier = bc.import_published(file, NAMES[:3], backbone=tiny, method="coop")
    assert classifier.settings["class_specific"] is True
    assert classifier.settings["n_context"] == 4
    shared = [
        bc.import_published(
            bare(tmp_path / str(number) / "model.pth.tar-50", tiny, context, NAMES[:3]),
            NAMES[:3],
            backbone=tiny,
            method="coop",
        )
        for number, context in enumerate(contexts)
    ]
    expected = torch.stack([logits_of(one, images)[:, number] for number, one in enumerate(shared)], dim=1)
    torch.testing.assert_close(logits_of(classifier, images), expected, atol=1e-5, rtol=1e-5)
    classifier.save(tmp_path / "model")
    assert torch.equal(logits_of(bc.load(tmp_path / "model", tiny), images), logits_of(classifier, images))
    with pytest.raises(UserError, match="separate context for each class"):
        classifier.for_classes(["cyst", "stone", "normal"])
    assert "was trained on 3 classes" in refusal(file, NAMES, backbone=tiny, method="coop")


def test_coop_and_prograd_look_alike(parity: Path, tiny: Backbone, tmp_path: Path) -> None:
    context = fixture(parity, "coop")["ctx_after_step"][-1]
    file = bare(tmp_path / "model.pth.tar-50", tiny, context)
    with pytest.warns(Note, match="Read as coop: files of coop and prograd are alike"):
        bc.import_published(file, NAMES, backbone=tiny)
    assert bc.import_published(file, NAMES, backbone=tiny, method="prograd").method == "prograd"
    by_path = tmp_path / "btmri" / "shots_4" / "ProGrad_BiomedCLIP" / "nctx4" / "seed1" / "prompt_learner"
    by_path.mkdir(parents=True)
    moved = shutil.copy(file, by_path / file.name)
    imported = bc.import_published(moved, backbone=tiny)
    assert (imported.method, imported.class_names, imported.facts["shots"]) == ("prograd", NAMES, 4)
    assert "not of cocoop" in refusal(file, NAMES, backbone=tiny, method="cocoop")


def test_base_classes_of_a_base_to_novel_checkpoint(parity: Path, tiny: Backbone, tmp_path: Path) -> None:
    context = fixture(parity, "biomedcoop")["ctx_after_step"][-1]
    place = tmp_path / "base2new" / "train_base" / "btmri" / "shots_16" / "BiomedCoOp_BiomedCLIP" / "x" / "seed1"
    file = write_biomedcoop(place / "prompt_learner" / "model.pth.tar-50", tiny, NAMES[:2], context)
    imported = bc.import_published(file, backbone=tiny)
    assert imported.class_names == NAMES[:2]
    assert imported.settings["kdsp_weight"] == 0.5  # published for the base classes of btmri


def test_other_class_names_or_another_order(published: Path, tiny: Backbone, tmp_path: Path) -> None:
    swapped = (NAMES[1], NAMES[0], *NAMES[2:])
    assert "class 1 was trained as 'glioma tumor', not as 'meningioma tumor'" in refusal(
        published, swapped, backbone=tiny
    )
    assert "class 4 was trained as 'normal brain', not as 'normal'" in refusal(
        published, (*NAMES[:3], "normal"), backbone=tiny
    )
    assert "was trained on 4 classes (glioma tumor, " in refusal(published, NAMES[:3], backbone=tiny)
    assert "give at least two names that differ" in refusal(published, ("a", "A"), backbone=tiny)
    moved = Path(shutil.copy(published, tmp_path / "model.pth.tar-100"))
    assert "classes='glioma tumor, meningioma tumor, pituitary tumor, normal brain'" in refusal(moved, backbone=tiny)
    assert bc.import_published(moved, data="btmri", backbone=tiny).class_names == NAMES
    assert "was trained on 4 classes" in refusal(moved, data="busi", backbone=tiny)
    assert "give one of them" in refusal(moved, NAMES, data="btmri", backbone=tiny)


def test_another_backbone(published: Path, tiny: Backbone) -> None:
    assert "'ctx' has the shape [4, 64], mini takes vectors of 384" in refusal(published, backbone="mini")
    other = _with_other_words(tiny)
    assert "its word embeddings are not those of" in refusal(published, backbone=other)
    assert "backbone 'biomedclip' is not on this machine" in refusal(published)


def _with_other_words(tiny: Backbone) -> Backbone:
    other = copy.copy(tiny)
    embed = tiny.embed_tokens
    other.embed_tokens = lambda ids: embed(ids) + 0.1  # type: ignore[method-assign]
    return other


def test_frozen_tensors_that_drifted_are_told(parity: Path, tiny: Backbone, tmp_path: Path) -> None:
    model = WholeModel(tiny, NAMES, fixture(parity, "biomedcoop")["ctx_after_step"][-1])
    content = trained(model, [model.prompt_learner.ctx])
    key = "prompt_learner.ZS_image_encoder.head.proj.weight"
    content["state_dict"][key] = content["state_dict"][key] * 1.5
    file = save(content, tmp_path / "model.pth.tar-100")
    with pytest.warns(
        Note, match=r"^1 of \d+ frozen tensors in the checkpoint differ from those of model \(by up to 0\.5"
    ):
        bc.import_published(file, NAMES, backbone=tiny)


@pytest.mark.parametrize("scheduler", ["state", "object"])
def test_the_scheduler_needs_no_dassl(scheduler: str, parity: Path, tiny: Backbone, tmp_path: Path) -> None:
    model = Bare(PromptLearner(tiny, NAMES, fixture(parity, "coop")["ctx_after_step"][-1]))
    content = trained(model, [model.ctx])
    if scheduler == "object":
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        content["scheduler"] = ConstantWarmupScheduler(
            optimiser, torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 100.0)
        )
    file = save(content, tmp_path / "model.pth.tar-100")
    assert "dassl" not in sys.modules
    assert bc.import_published(file, NAMES, backbone=tiny).method == "coop"
    assert "dassl" not in sys.modules


def with_value(key: str, value: float) -> Any:
    """A change of a checkpoint: one tensor gets one value that is no number."""

    def change(state: dict[str, torch.Tensor]) -> dict[str, Any]:
        state[key][..., -1] = value
        return {"state_dict": state}

    return change


def spoilt(tmp_path: Path, published: Path, change: Any) -> Path:
    return save(change(tensors_of(published)), tmp_path / "model.pth.tar-100")


def tensors_of(published: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint, without its scheduler and optimiser."""
    with open_archive(published) as file:
        return {key: file.tensor(value) for key, value in file.content["state_dict"].items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_value("prompt_learner.ctx", torch.nan), "'ctx' holds values that are not finite"),
        (with_value("prompt_learner.token_prefix", torch.inf), "'token_prefix' holds values"),
        (lambda state: {"state_dict": {"weight": torch.ones(2)}}, "has no learned context"),
        (lambda state: {"model": state}, "has no 'state_dict' of tensors"),
        (lambda state: [1, 2], "has no 'state_dict' of tensors"),
        (lambda state: {"state_dict": {"ctx": torch.ones(5, 4, 64)}}, "has contexts for 5 classes, not 4; name its classes"),
        (lambda state: {"state_dict": {"ctx": torch.ones(2, 4, 4, 64)}}, "'ctx' has the shape [2, 4, 4, 64]"),
        (lambda state: {"state_dict": dict.fromkeys(["ctx", "token_prefix", "token_suffix"], torch.ones(4, 64))}, "do not fit"),
        (lambda state: {"state_dict": {"ctx": torch.ones(4, 64, dtype=torch.int64)}}, "'ctx' holds values"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit(change: Any, words: str, published: Path, tiny: Backbone, tmp_path: Path) -> None:
    assert words in refusal(spoilt(tmp_path, published, change), NAMES, backbone=tiny)


def test_a_file_without_class_words_says_so(parity: Path, tiny: Backbone, tmp_path: Path) -> None:
    context = fixture(parity, "coop")["ctx_after_step"][-1]
    file = save({"state_dict": {"prompt_learner.ctx": context}, "epoch": 100}, tmp_path / "model.pth.tar-100")
    assert "does not hold its class names" in refusal(file, backbone=tiny)
    with pytest.warns(Note, match="their names and order are not checked"):
        bc.import_published(file, NAMES, backbone=tiny)


def test_places_without_one_checkpoint(published: Path, tiny: Backbone, tmp_path: Path) -> None:
    assert "there is no such file" in refusal(tmp_path / "gone.pth")
    assert "has no model.pth.tar-*" in refusal(tmp_path)
    for epoch in (50, 100):
        shutil.copy(published, tmp_path / f"model.pth.tar-{epoch}")
    assert "holds 2 checkpoints, model.pth.tar-100, model.pth.tar-50; give one file" in refusal(tmp_path)


def test_the_command(cli: Any, refused: Any, published: Path, discs: Path, tmp_path: Path, parity: Path) -> None:
    out, tiny = tmp_path / "model", parity / "model"
    done = cli("import-published", published, "--out", out, "--backbone", tiny)
    assert (done.status, done.err) == (0, "")
    assert done.out == f"biomedcoop on model, 4 classes: {', '.join(NAMES)}: in {out}\n"
    again = cli("import-published", published, "--out", out, "--backbone", tiny, "--json", "--overwrite")
    assert json.loads(again.out)["class_names"] == list(NAMES)
    predicted = cli("predict", out, discs / "test" / "red_stone", "--backbone", tiny)
    assert predicted.out.startswith("path,prediction,p_glioma tumor,")
    rename = [
        "--rename",
        "red stone=normal brain",
        "--rename",
        "blue cyst=glioma tumor",
        "--rename",
        "green tumor=glioma tumor",
    ]
    tested = cli("evaluate", out, "--data", discs, "--backbone", tiny, *rename, "--json")
    assert tested.status == 0, tested.err
    assert json.loads(tested.out)["n_images"] == 30
    assert cli("words", out, "--backbone", tiny).status == 0
    assert "exists already" in refused("import-published", published, "--out", out, "--backbone", tiny)
    line = refused(
        "import-published", published, "--out", tmp_path / "b", "--classes", "a, b, c, d", "--backbone", tiny
    )
    assert "class 1 was trained as 'glioma tumor', not as 'a'" in line
    assert not (tmp_path / "b").exists()
