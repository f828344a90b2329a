"""How many images of each class a plan takes, where the classes differ in size."""

from __future__ import annotations

import numpy as np
import pytest

from biomedcoop.data.dataset import Dataset
from biomedcoop.errors import UserError
from biomedcoop.tasks.plan import Plan, plan_fit
from biomedcoop.tasks.request import FitRequest


def planned(sizes: tuple[int, int], shots: int | str, **options: object) -> Plan:
    labels = np.repeat([0, 1], sizes)
    n = len(labels)
    images = np.zeros((n, 4, 4, 3), dtype=np.uint8)
    data = Dataset("scans", ("cyst", "stone"), images, tuple(map(str, range(n))), labels, np.full(n, "train"))
    return plan_fit(FitRequest(data=data, method="linear-probe", shots=shots, **options), data)  # type: ignore[arg-type]


def test_all_images_of_uneven_classes() -> None:
    """A note, and every image: 13 to 4 is more than three to one, 12 to 4 is not."""
    plan = planned((13, 4), "all")
    assert len(plan.draws[0]) == 17
    assert "all training images are used: 13 of class 'cyst', 4 of class 'stone'" in plan.notes[0]
    assert not any("favour" in note for note in planned((12, 4), "all").notes)


def test_more_shots_than_images() -> None:
    with pytest.raises(
        UserError, match=r"class 'stone' has 4 images in train but shots=16; lower --shots, .* or --shots all"
    ):
        planned((40, 4), 16)
    assert len(planned((40, 4), 16, repeat_shots=True).draws[0]) == 32
