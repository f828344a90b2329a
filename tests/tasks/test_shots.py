"""How many images of each class a plan takes, where the classes differ in size."""

from __future__ import annotations

import numpy as np
import pytest

from biomedcoop.data.dataset import Dataset
from biomedcoop.errors import UserError
from biomedcoop.tasks.plan import Plan, plan_fit
from biomedcoop.tasks.request import FitRequest


def planned(sizes: tuple[int, int], shots: int | str | None, **options: object) -> Plan:
    labels = np.repeat([0, 1], sizes)
    n = len(labels)
    images = np.zeros((n, 4, 4, 3), dtype=np.uint8)
    data = Dataset("scans", ("cyst", "stone"), images, tuple(map(str, range(n))), labels, np.full(n, "train"))
    options = {"method": "linear-probe", **options}
    return plan_fit(FitRequest(data=data, shots=shots, **options), data)  # type: ignore[arg-type]


def test_all_images_of_uneven_classes() -> None:
    """A note, and every image: 13 to 4 is more than three to one, 12 to 4 is not."""
    plan = planned((13, 4), "all")
    assert len(plan.draws[0]) == 17
    assert "all training images are used: 13 of class 'cyst', 4 of class 'stone'" in plan.notes[0]
    assert not any("favour" in note for note in planned((12, 4), "all").notes)


def test_more_shots_than_images() -> None:
    with pytest.raises(
        UserError, match=r"class 'stone' has 4 images in train but shots=16; lower shots, .* or shots='all'"
    ):
        planned((40, 4), 16)
    assert len(planned((40, 4), 16, repeat_shots=True).draws[0]) == 32


def test_a_realistic_draw_takes_images_whatever_their_class() -> None:
    plan = planned((60, 4), 8, sampling="realistic", seeds=(1, 2))
    counts = [np.bincount(plan.data.labels[draw], minlength=2).tolist() for draw in plan.draws]
    assert [sum(of_run) for of_run in counts] == [16, 16]
    assert all(of_run[0] > of_run[1] for of_run in counts)
    assert f"seed 1: 16 training images are drawn whatever their class: {counts[0][0]} of 'cyst'" in plan.notes[0]
    assert plan.facts["sampling"] == "realistic"
    assert len(planned((60, 4), None, sampling="realistic").draws[0]) == 32
    assert len(planned((9, 4), None, sampling="realistic").draws[0]) == 12


@pytest.mark.parametrize(
    ("method", "what"), [("linear-probe", "it is never the answer"), ("krr", "only words tell of it")]
)
def test_a_class_without_an_image_is_named(method: str, what: str) -> None:
    plan = planned((600, 1), 2, sampling="realistic", method=method)
    assert (
        f"seed 1: no training image of 'stone', so {what}; give more --shots, or leave out --sampling realistic"
        in plan.notes
    )


def test_realistic_draws_that_cannot_be() -> None:
    with pytest.raises(UserError, match=r"has 44 training images but shots=30 takes 60; lower shots"):
        planned((40, 4), 30, sampling="realistic")
    with pytest.raises(UserError, match="takes each image once; leave out repeat_shots=True, or sampling='realistic'"):
        planned((40, 4), 2, sampling="realistic", repeat_shots=True)
    with pytest.raises(UserError, match="sampling='real' must be equal or realistic"):
        planned((40, 4), 2, sampling="real")
