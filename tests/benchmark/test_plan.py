"""The grid of a protocol and the plans of its groups."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import biomedcoop as bc
from biomedcoop.backbones.registry import automatic_device
from biomedcoop.benchmark.plan import Group, groups_of, plan_group, trained_part, unused
from biomedcoop.benchmark.prepare import Grid
from biomedcoop.benchmark.protocol import Protocol
from biomedcoop.benchmark.record import resolved_device, resolved_precisions
from biomedcoop.benchmark.sources import Source
from biomedcoop.data.sampling.few_shot import sample_few_shot
from biomedcoop.errors import UserError
from biomedcoop.prompts import sentences_for

from .conftest import TINY, protocol, scans


def groups(asked: Protocol) -> list[Group]:
    return list(groups_of(asked, {"scans": Source("scans", True, Path("scans"))}))


def group_of(asked: Protocol, name: str) -> Group:
    return next(group for group in groups(asked) if group.row.name == name)


def test_what_learns_from_no_image_has_one_run() -> None:
    found = [group.id for group in groups(protocol())]
    kind = "few-shot/scans/model"
    rows = [f"{row}/{shots}" for row in ("tip-adapter", "coop", "slow") for shots in (1, 2)]
    assert found == [f"{kind}/zero-shot/0", *(f"{kind}/{row}" for row in rows)]
    assert [len(group.runs) for group in groups(protocol())] == [1, *[2] * 6]


def test_a_line_names_its_run() -> None:
    line = group_of(protocol(), "slow").lines("failed", reason="no\nmemory")[1]
    about = {"dataset": "scans", "backbone": "model", "method": "coop", "variant": "slow", "recipe": "fast", "shots": 1}
    assert line == {
        "run": "few-shot/scans/model/slow/1/2",
        **about,
        "seed": 2,
        "status": "failed",
        "reason": "no memory",
    }


def test_base_classes_have_the_images_drawn_among_all_classes() -> None:
    data = scans(classes=5)
    asked = protocol(kind="base-to-novel", methods=["coop"], shots=[2], recipe="paper-novel")
    plan = trained_part(asked, plan_group(asked, groups(asked)[0], data))
    assert plan.data.class_names == data.class_names[:3]
    for draw, seed in zip(plan.draws, (1, 2), strict=True):
        every = sample_few_shot(data, 2, seed)[0]
        assert [plan.data.keys[i] for i in draw] == [data.keys[i] for i in every if data.labels[i] < 3]


@pytest.mark.parametrize(
    ("name", "classes", "reason"),
    [
        ("linear-probe", 4, "linear-probe cannot take new classes, because it learns classes from images"),
        ("coop", 3, "scans has 3 classes; base-to-novel needs at least 4"),
    ],
)
def test_a_method_that_cannot_do_the_protocol_is_refused(name: str, classes: int, reason: str) -> None:
    asked = protocol(kind="base-to-novel", methods=[name])
    with pytest.raises(UserError, match=reason):
        plan_group(asked, groups(asked)[0], scans(classes))


def test_training_images_that_no_run_draws_are_unlabelled_images(discs: Path) -> None:
    data = bc.load_dataset(discs)
    asked = protocol(methods=["ss-text-u"], shots=[2])
    plan = plan_group(asked, groups(asked)[0], data)
    assert plan.unlabelled is not None
    rest = {data.keys[i] for i in set(data.indices("train").tolist()) - set(plan.drawn.tolist())}
    assert set(plan.unlabelled.names) == rest
    assert len(plan.draws) == 2
    assert plan.draws[0].tolist() != plan.draws[1].tolist()


def test_images_are_encoded_of_the_classes_that_are_trained() -> None:
    data, asked = scans(), protocol(kind="base-to-novel", methods=["coop"], shots=[2])
    (group,), grid = groups(asked), Grid()
    plan = trained_part(asked, plan_group(asked, group, data))
    grid.add(group, data, plan)
    (positions,) = grid.images.values()
    assert {data.keys[i] for i in positions} == {plan.data.keys[i] for i in plan.drawn}


def test_a_method_that_needs_unlabelled_images_is_skipped_if_every_image_is_drawn() -> None:
    asked = protocol(methods=["ss-text-u"], shots=[8])
    with pytest.raises(UserError, match="every one is drawn; lower shots"):
        plan_group(asked, groups(asked)[0], scans())


def test_published_recipes_validate_on_up_to_four_images_per_class() -> None:
    asked = protocol(methods=["linear-probe"], recipe="paper", shots=[1, 8])
    counts = [len(plan_group(asked, group, scans()).val_draws[0]) for group in groups(asked)]
    assert counts == [4 * 1, 4 * 4]


def test_too_few_images_are_refused() -> None:
    asked = protocol(methods=["coop"], shots=[9])
    line = r"class 'tumor a' has 8 images in train, fewer than 9 shots; lower shots .* or add images$"
    with pytest.raises(UserError, match=line) as error:
        plan_group(asked, groups(asked)[0], scans())
    assert "repeat" not in str(error.value), "a benchmark has no such option"


def test_a_realistic_draw_has_the_classes_as_they_come_and_no_validation_images() -> None:
    data = scans(train=100)
    asked = protocol(kind="realistic", methods=["linear-probe"], recipe="paper", shots=[1, 4], seeds=list(range(20)))
    one, four = (plan_group(asked, group, data) for group in groups(asked))
    assert [len(draw) for draw in (*one.draws, *four.draws)] == [4] * 20 + [16] * 20
    assert all(len(set(draw.tolist())) == 16 and (data.splits[draw] == "train").all() for draw in four.draws)
    present = [len(np.unique(data.labels[draw])) for draw in one.draws]
    assert min(present) < 4
    assert len(set(present)) > 1
    assert not any(len(draw) for draw in four.val_draws)


def test_unused_sentences_are_those_at_odd_positions_of_the_library() -> None:
    names = ("benign tumor", "malignant tumor", "normal scan")
    every = sentences_for(names, "busi", "library")
    assert [list(texts) for texts in unused(every).by_class] == [list(texts[1::2]) for texts in every.by_class]
    templates = sentences_for(names, source="templates")
    assert unused(templates) == templates


def test_auto_is_resolved_before_the_work_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, empty = protocol(), tmp_path / "no weights"
    empty.mkdir()
    monkeypatch.setattr("biomedcoop.backbones.precision.automatic", lambda backbone: "bfloat16")
    assert resolved_device("auto", tmp_path) == str(automatic_device())
    found = resolved_precisions(asked, "cpu", "auto", tmp_path)
    assert found == {str(TINY): "bfloat16"}
    assert resolved_precisions(asked, "cpu", "int8", tmp_path) == {str(TINY): "int8"}
    record = {"format": 1, "digest": "", "protocol": {}, "datasets": {}, "backbones": {}, "device": "cpu"}
    (tmp_path / "plan.json").write_text(json.dumps({**record, "precision": {TINY.name: "float32"}}))
    assert resolved_precisions(asked, "cpu", "auto", tmp_path) == {str(TINY): "float32"}
    assert resolved_device("auto", tmp_path) == "cpu"
    assert resolved_precisions(protocol(backbones=[str(empty)]), "cpu", "auto", tmp_path) == {str(empty): "float32"}
