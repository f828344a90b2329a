"""What a task encodes."""

from __future__ import annotations

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.tasks.build import build_task
from biomedcoop.tasks.plan import plan_fit
from biomedcoop.tasks.request import FitRequest


def test_sentences_that_a_method_does_not_read_are_not_encoded(tiny: Backbone) -> None:
    data = bc.load_dataset("simulated:breast-ultrasound?train=2&val=0&test=1")
    plans = [
        plan_fit(FitRequest(data=data, method="biomedcoop", backbone=tiny, shots=2, settings=given), data)
        for given in ({}, {"n_sentences": 3})
    ]
    every, three = (build_task(plan, tiny).sentence_features for plan in plans)
    assert every is not None
    assert three is not None
    assert every.shape[1] > 3
    assert three.equal(every[:, :3])
