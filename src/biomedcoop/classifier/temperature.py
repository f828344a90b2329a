"""Temperature: one number that divides the logits, so that probabilities agree with the share of right answers.

Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2. The number comes from held-out answers about the training
images, so it needs no other images. The targets count one image more, which all classes share, so that N answers without an error
do not claim certainty. Platt (1999, "Probabilistic outputs for support vector machines") counts one more of each class, which
flattens the probabilities of good methods where a class has few images.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from biomedcoop.lazy import torch
from biomedcoop.methods import Task
from biomedcoop.methods.held_out import held_out_logits
from biomedcoop.methods.recipes import PUBLISHED
from biomedcoop.tasks.choice import folds_of
from biomedcoop.tasks.plan import Plan

SPREAD = 1.0
"""Standard deviation of the prior of a temperature's logarithm; ``benchmarks/studies/temperature.py`` compares others."""

SHARED_IMAGES = 1.0
"""Number of images that the targets count more, with equal shares of all classes; the same study compares others."""

TEMPERATURES = tuple(float(f"{2 ** (step / 16):.4g}") for step in range(-112, 113))
"""Candidate temperatures, 1/128 to 128; rounded, as the last bits of logits can depend on the number of cores."""


def fit_temperature(logits: npt.NDArray[np.floating[Any]], labels: npt.NDArray[np.int64]) -> float:
    """The most probable temperature, given held-out answers: their cross-entropy plus the distance from 1, rounded to four digits.

    The prior of ln T is normal around 0 with the standard deviation :data:`SPREAD`: without it, a few held-out answers that are no
    better than chance would flatten all probabilities.

    Args:
        logits: logits [N, C] of images that took no part in the fit.
        labels: int64 [N].

    Returns:
        One of :data:`TEMPERATURES`; above 1 it lowers the largest probability.

    Example:
        >>> logits = np.array([[4.0, 0.0]] * 3 + [[0.0, 4.0]] * 3)
        >>> fit_temperature(logits, np.array([0, 0, 1, 1, 1, 0])), fit_temperature(logits, np.array([0, 0, 0, 1, 1, 1]))
        (3.084, 1.414)
    """
    z = np.asarray(logits, dtype=np.float64)
    n, c = z.shape
    targets = (np.eye(c)[labels] * n + SHARED_IMAGES / c) / (n + SHARED_IMAGES)
    losses = []
    for temperature in TEMPERATURES:
        scaled = z / temperature
        top = scaled.max(axis=1, keepdims=True)
        log_p = scaled - top - np.log(np.exp(scaled - top).sum(axis=1, keepdims=True))
        losses.append(-(targets * log_p).sum() + (np.log(temperature) / SPREAD) ** 2 / 2)
    return TEMPERATURES[int(np.argmin(losses))]


def held_out_temperatures(plan: Plan, task: Task) -> tuple[list[float], list[str]]:
    """The temperature of each run, and how it was found in a sentence; 1 where the request or the images give none.

    With ``calibrate="auto"`` it is fitted where a fit takes no step through a tower, unless the settings are a published
    recipe's, whose probabilities are then the published method's too. A method that chooses a value chooses it again in each fold.
    """
    method, request, runs = plan.method, plan.request, len(plan.request.seeds)
    able = method.abilities
    by_itself = request.calibrate == "auto" and able.uses_images and request.recipe not in PUBLISHED
    if request.calibrate != "yes" and not by_itself:
        return [1.0] * runs, [""] * runs
    why = ""
    if not able.uses_images:
        why = f"{method.name} learns from no image, so there are none to calibrate its probabilities on."
    elif able.changes_towers:
        why = f"The probabilities are not calibrated: {method.name} would train its towers anew for each fold."
    if why:
        return [1.0] * runs, [why] * runs
    found = [_folds(plan, run) for run in range(runs)]
    temperatures, sentences = [1.0] * runs, [words for _, words in found]
    foldable = [run for run, (folds, _) in enumerate(found) if folds is not None]
    if foldable and by_itself and method.step_macs(task, plan.settings):
        why = "The probabilities are not calibrated: each fold would train through the text encoder; with calibrate yes it does."
        return temperatures, [why if folds is not None else words for folds, words in found]
    if foldable:
        part = replace(task, features=task.features[foldable], labels=task.labels[foldable])
        folds = torch.from_numpy(np.stack([folds for folds, _ in found if folds is not None])).to(task.features.device)
        seeds = [request.seeds[run] for run in foldable]
        logits = held_out_logits(method, part, plan.settings, seeds, folds, choose=bool(method.chooses(plan.settings)))
        for place, run in enumerate(foldable):
            temperatures[run] = fit_temperature(logits[place].detach().cpu().numpy(), part.labels[place].cpu().numpy())
            sentences[run] = sentences[run].format(f"{temperatures[run]:g}")
    return temperatures, sentences


def may_calibrate(plan: Plan) -> bool:
    """Whether ``calibrate="yes"`` would fit a temperature in the first run of a plan that asks for none or for "auto"."""
    able = plan.method.abilities
    learns = able.uses_images and not able.changes_towers
    return plan.request.calibrate != "yes" and learns and _folds(plan, 0)[0] is not None


def _folds(plan: Plan, run: int) -> tuple[npt.NDArray[np.int64] | None, str]:
    """Fold of each training image of a run and a sentence about them; or None, and why there are none."""
    draw = plan.draws[run]
    folds, reason = folds_of(plan.data, draw, plan.request.seeds[run])
    if folds is None:
        return None, f"The probabilities are not calibrated: {reason}."
    # of all classes together: leaving out one image alone makes its class the rarest, so that its answer is too often wrong
    how = f"left out in {folds.max() + 1} folds"
    return (
        folds,
        f"Logits are divided by a temperature of {{}}, fitted on answers about the {len(draw)} training images, {how}.",
    )
