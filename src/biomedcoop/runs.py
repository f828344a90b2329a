"""A training run: read the data, train, test, compare, and write the run folder."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from biomedcoop.backbones.base import Backbone
from biomedcoop.classifier.artefact import write_into
from biomedcoop.classifier.classifier import Classifier
from biomedcoop.classifier.domain import unlike_note
from biomedcoop.classifier.fit import domain_notes, fit_plan, load_for
from biomedcoop.classifier.temperature import may_calibrate
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.facts import Tally
from biomedcoop.data.readers.files.coop_split import find_split_file
from biomedcoop.data.readers.load import read_dataset
from biomedcoop.data.readers.named import user_path
from biomedcoop.data.sampling.folds import Divisions, divide
from biomedcoop.data.sampling.leakage import Leak, contradicting, leaks
from biomedcoop.data.sampling.split import write_split
from biomedcoop.errors import UserError, notify
from biomedcoop.evaluation.answers import Answers
from biomedcoop.evaluation.comparison import Comparison, Predictions
from biomedcoop.evaluation.cross_validation import cross_validate, plan_folds, shots_outside
from biomedcoop.evaluation.evaluate import own_features
from biomedcoop.methods import can_run, get_method
from biomedcoop.output import check_new_folder, new_folder, write_atomically
from biomedcoop.progress import Progress, counting
from biomedcoop.report.run import DatasetSummary, RunReport
from biomedcoop.tasks.options import REALISTIC
from biomedcoop.tasks.plan import Plan, how_it_was_made, plan_fit
from biomedcoop.tasks.request import REQUEST, TrainRequest
from biomedcoop.tasks.sentences import modality_and_organ

RUN_CONTENTS = (
    *("model", "metrics.json", "report.html", "report.md", "confusion.png", "predictions.csv"),
    *("split.json", "few_shot.json", "learning_curve.json", REQUEST),
)


OF_ALL = "trained on all images"
"""The reported method without prediction sets, where images are set aside for them; its difference is their cost."""


@dataclass(frozen=True)
class Tested:
    """Results of the methods of a run on the same test images.

    Attributes:
        trained: the classifier of the reported method, trained with the first seed.
        comparison: predictions and metrics by method with all seeds, the reported method first.
    """

    trained: Classifier
    comparison: Comparison

    @property
    def unlike_note(self) -> str:
        """A sentence on the test images unlike the training images, or an empty text."""
        unlike = self.comparison.predictions.unlike
        return "" if unlike is None else unlike_note(int(unlike.sum()), len(unlike), self.trained.facts)


def train_run(
    request: TrainRequest,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    html: bool = True,
    progress: Progress | None = None,
) -> RunReport:
    """See :func:`biomedcoop.train`."""
    if isinstance(request.data, Dataset):
        raise UserError("source must be a path or a name, not Dataset; for a loaded dataset, use fit and evaluate")
    for name in request.compared:  # refused before the data are read, where it cannot run on any
        request.for_method(name)
    place = user_path(out)
    check_new_folder(place, overwrite, "metrics.json", RUN_CONTENTS)
    data = read_dataset(request.data, split_file=request.split_file, reading=request.reading)
    check_place(place, data, str(request.data), request.split_file)
    saved = request if data.counts("test").any() else dataclasses.replace(request, seeds=request.seeds[:1])
    compared = [name for name in request.compared if can_run(get_method(name), request.backbone)]
    plans = {name: plan_fit(saved.for_method(name), data) for name in dict.fromkeys((request.method, *compared))}
    if any(map(len, plans[request.method].calibration)) and not plans[request.method].refits:
        plans[OF_ALL] = plan_fit(saved.for_method(request.method).without_sets(), data)
    backbone = load_for(request.backbone, request.device, request.precision)
    for plan in plans.values():
        plan.method.check_backbone(backbone)
    if left_out := [name for name in request.compared if name not in plans]:
        note, own = no_text_tower_note(left_out, backbone), plans[request.method]
        plans[request.method] = dataclasses.replace(own, notes=(*own.notes, note))
    divisions, fold_plans, divided = _divided(request.seeds, data, plans)
    data = dataclasses.replace(data, notes=(*data.notes, *divided))
    # all that can be refused before the work is refused by now, so that no note stands before an error
    data, shared = _say_before(data, plans, backbone)
    tally = Tally()
    tested = _tested(request, data, plans, backbone, tally, progress, divisions, fold_plans)
    report = _report(request, data, plans, tested, shared, tally)
    results = {k: v for k, v in report.metrics.to_dict().items() if not isinstance(v, list)}
    verdict = [finding.text for finding in report.verdict if finding.kind != "next"]
    notes = [*divided, *verdict]
    if report.unlike_training is not None:
        results["unlike_training"] = report.unlike_training
    trained = dataclasses.replace(tested.trained, facts={**tested.trained.facts, "test": {**results, "notes": notes}})
    with new_folder(place, overwrite=overwrite, mark="metrics.json", contents=RUN_CONTENTS) as folder:
        _write(report, request, data, plans, trained, folder)
    if html:
        try_page(place, images=request.images, classifier=trained, data=data, progress=progress)
    return report


def no_text_tower_note(methods: Sequence[str], backbone: Backbone) -> str:
    """The sentence on methods that are left out of a comparison, because they encode texts."""
    return f"There is no comparison with {', '.join(methods)}: the backbone {backbone.name} has no text tower."


def _divided(
    seeds: Sequence[int], data: Dataset, plans: Mapping[str, Plan]
) -> tuple[Divisions | None, dict[str, list[Plan]], list[str]]:
    """For data without a test split: divisions, the plans of the folds by method, and the note on the cross-validation."""
    learning = {name: plan.request for name, plan in plans.items() if plan.method.abilities.uses_images}
    divisions = divide(data, seeds)
    if divisions is None:
        return None, {}, []
    part = data.part("train")
    fold_plans = {name: plan_folds(request, part, divisions) for name, request in learning.items()}
    shots = {
        (shots_outside(request, part, divisions), request.sampling == REALISTIC): None for request in learning.values()
    }
    return divisions, fold_plans, [divisions.note(*one) for one in shots]


def _say_before(data: Dataset, plans: Mapping[str, Plan], backbone: Backbone) -> tuple[Dataset, list[Leak]]:
    """Issue all notes before long work starts.

    Returns:
        The data, with a note on copies with different labels, and the leaks between test and training images.
    """
    shared = leaks(data, _drawn(plans).tolist())
    notes = [*data.notes, *map(str, shared)]
    if copied := contradicting(data):
        text = (
            f"{len(copied)} images are copies of an image of another class; correct the labels "
            "('biomedcoop datasets check' lists them)."
        )
        notes.append(f"{text} The first is '{data.keys[copied[0]]}'.")
        data = dataclasses.replace(data, notes=(*data.notes, text))
    notes += [note for plan in plans.values() for note in plan.all_notes(backbone)]
    notify(dict.fromkeys([*notes, *domain_notes(next(iter(plans.values())))]))
    return data, shared


def _drawn(plans: Mapping[str, Plan]) -> npt.NDArray[np.int64]:
    return np.unique(np.concatenate([plan.drawn for plan in plans.values()]))


def _tested(
    request: TrainRequest,
    data: Dataset,
    plans: Mapping[str, Plan],
    backbone: Backbone,
    tally: Tally,
    progress: Progress | None,
    divisions: Divisions | None,
    fold_plans: Mapping[str, list[Plan]],
) -> Tested:
    """Fit every method and test it on the same images: the test split, or all images by cross-validation."""
    from biomedcoop.features.facts import image_facts
    from biomedcoop.features.images import encode_images

    part = data.part("test" if divisions is None else "train")
    # before training: an image that cannot be read must stop the run early
    features = encode_images(backbone, part, progress=counting(progress, "encoding test images"), tally=tally)
    seen = data.select(_drawn(plans).tolist())
    counted = set(part.keys)  # in a cross-validation the training images are tested too
    for key, facts in zip(seen.keys, image_facts(seen), strict=True):
        if key not in counted:
            tally.add(key, facts)
    notify(tally.notes())

    found: dict[str, list[Answers]] = {}
    trained = None
    for name, plan in plans.items():
        if divisions is None or trained is None or not plan.method.abilities.uses_images:
            classifiers = fit_plan(plan, backbone, progress)
            trained = trained or classifiers[0]
            answering = (
                classifiers if plan.method.abilities.uses_images else classifiers[:1]
            )  # else all seeds are equal
            found[name] = [Answers.of(c, own_features(c, part, features, progress)) for c in answering]
        if divisions is not None and plan.method.abilities.uses_images:
            found[name] = cross_validate(fold_plans[name], part, divisions, features, backbone, progress)
    assert trained is not None
    # a cross-validation tests the training images themselves
    known = None if divisions is not None else trained.domain
    unlike = None if known is None else known.unlike(own_features(trained, part, features, progress))
    runs = {name: np.stack([one.probabilities for one in answers]) for name, answers in found.items()}
    of_all, own = runs.pop(OF_ALL, None), found[request.method]
    members = [one.members for one in own if one.members is not None]
    predictions = Predictions(
        part.keys,
        part.labels,
        data.class_names,
        runs,
        part.groups,
        subgroups=part.subgroups,
        unlike=unlike,
        seeds=(request.seeds if divisions is None else divisions.seeds)[: len(runs[request.method])],
        folds=None if divisions is None else divisions.number,
        temperatures=tuple(one.temperature for one in own),
        uncalibrated=np.stack([one.uncalibrated for one in own]),
        alpha=request.alpha,
        members=np.stack(members) if members else None,
        calibration=min((one.calibration for one in own if one.calibration is not None), default=None),
        of_all=of_all,
    )
    return Tested(trained, Comparison.of(predictions, n_bootstrap=request.n_bootstrap))


def _report(
    request: TrainRequest,
    data: Dataset,
    plans: Mapping[str, Plan],
    tested: Tested,
    shared: list[Leak],
    tally: Tally,
) -> RunReport:
    method, trained = request.method, tested.trained
    backbone = trained.backbone.original
    others = [note for plan in plans.values() for note in plan.notes]
    public = dataclasses.replace(
        request,
        shots=trained.facts["shots"] or request.shots,
        compare=request.compared,
        backbone=backbone,
        precision=backbone.precision,
        device="cpu",
    )
    return RunReport(
        title=f"{method} on {data.name}",
        dataset=dataclasses.replace(
            summarise(data, request.modality, request.organ), image_notes=tuple(tally.notes(named=False))
        ),
        method=method,
        settings=trained.settings,
        backbone=backbone.name,
        fingerprint=backbone.fingerprint,
        shots=trained.facts["shots"],
        seed=trained.facts["seed"],
        versions={**versions(), "CPU threads": str(trained.facts["threads"]), **computed_on(backbone)},
        comparison=tested.comparison,
        recipe=request.recipe,
        sampling=request.sampling,
        unlike=tested.unlike_note,
        leaks=tuple(leak.text for leak in shared),
        notes=tuple(dict.fromkeys([*how_it_was_made(trained.facts), *trained.facts["notes"], *others])),
        command=public.command(),
        text_tower=backbone.has_text_tower,
        tried=tuple(trained.facts["tried"]),
        may_calibrate=may_calibrate(plans[method]),
    )


def _write(
    report: RunReport,
    request: TrainRequest,
    data: Dataset,
    plans: Mapping[str, Plan],
    trained: Classifier,
    folder: Path,
) -> None:
    """Fill the run folder."""
    from biomedcoop.report.writing import write_report

    write_report(report, folder)
    (folder / "model").mkdir()
    write_into(trained, folder / "model")
    write_split(data, folder / "split.json")
    write_atomically(folder / REQUEST, json.dumps(request.to_dict(), indent=1, ensure_ascii=False).encode() + b"\n")
    if learning := [plan for plan in plans.values() if plan.method.abilities.uses_images]:
        val_draw = max((plan.val_draws[0] for plan in learning), key=len)
        _write_draw(request, data, learning[0].shots, learning[0].draws[0], val_draw, folder / "few_shot.json")


def try_page(
    folder: Path, *, images: bool, classifier: Classifier, data: Dataset, progress: Progress | None = None
) -> None:
    """Write ``report.html`` into a folder that is complete without it; whatever goes wrong becomes a warning."""
    from biomedcoop.report.html.write import HTML, write_page

    try:
        write_page(folder, folder / HTML, images=images, classifier=classifier, data=data, progress=progress)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(
            f"all results but {HTML} are in {folder}; 'biomedcoop report {folder}' writes the page"
        ) from error
    except Exception as error:  # hours of training must not be lost to a page, whatever its fault
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        notify(
            [f"{HTML} was not written ({reason}); 'biomedcoop report {folder}' tries again. All other files are there."]
        )


def summarise(data: Dataset, modality: str | None = None, organ: str | None = None) -> DatasetSummary:
    """The facts about a dataset for the report.

    Args:
        modality, organ: as the user states them; by default the catalogue or the simulator gives them.
    """
    modality, organ = modality_and_organ(data, modality, organ)
    return DatasetSummary(
        name=data.name,
        class_names=data.class_names,
        counts={split: data.counts(split).tolist() for split in ("train", "val", "test") if data.counts(split).any()},
        simulated=data.simulated,
        modality=modality,
        organ=organ,
        notes=data.notes,
    )


def versions() -> dict[str, str]:
    """Versions of the software that the results depend on."""
    import torch

    from biomedcoop.version import __version__

    return {
        "biomedcoop": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def computed_on(backbone: Backbone) -> dict[str, str]:
    """Device and precision of a backbone, as they were resolved when it was loaded."""
    import torch

    cuda = backbone.device.type == "cuda"
    name = f" ({torch.cuda.get_device_name(backbone.device)})" if cuda else ""
    return {"device": f"{backbone.device}{name}", "precision": backbone.precision}


def check_place(
    out: Path, data: Dataset, source: str | os.PathLike[str], split_file: str | os.PathLike[str] | None
) -> None:
    """Refuse a run folder among class folders: the next reading would take it for a class."""
    folder = user_path(source)
    if data.root is None or split_file is not None or not folder.is_dir() or find_split_file(folder) is not None:
        return
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{out} is inside the dataset {source}, where it would be read as a class; choose a folder outside it"
        )


def _write_draw(
    request: TrainRequest,
    data: Dataset,
    shots: int | str | None,
    draw: npt.NDArray[np.int64],
    val_draw: npt.NDArray[np.int64],
    path: Path,
) -> None:
    """Write the images that were drawn for training and, if a method needs validation images, for validation."""
    content: dict[str, Any] = {"shots": shots, "seed": request.seeds[0]}
    for name, positions in (("train", draw), ("val", val_draw)):
        if name == "train" or len(positions):
            content[name] = [[data.keys[i], int(data.labels[i]), data.class_names[data.labels[i]]] for i in positions]
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")
