"""The public functions: load data, fit, evaluate, and the whole run in one call. They compose the parts and hold no arithmetic."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import platform
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from biomedcoop.classifier.artefact import write_into
from biomedcoop.classifier.classifier import Classifier
from biomedcoop.data.catalogue import find
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.fewshot import sample_few_shot
from biomedcoop.data.images import content_hash
from biomedcoop.data.read_split import find_split_file
from biomedcoop.data.readers import load_dataset, user_path
from biomedcoop.data.split import write_split
from biomedcoop.errors import UserError
from biomedcoop.evaluation.bootstrap import paired_difference
from biomedcoop.evaluation.metrics import Metrics, majority_probabilities, score
from biomedcoop.output import check_new_folder, new_folder, write_atomically
from biomedcoop.prompts import Sentences, sentences_for

if TYPE_CHECKING:
    import torch

    from biomedcoop.backbones.base import Backbone
    from biomedcoop.methods import Method
    from biomedcoop.report.run import DatasetSummary, RunReport

_log = logging.getLogger("biomedcoop")

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, units done, units in all)."""

RECIPES = ("paper",)
RUN_CONTENTS = ("model", "metrics.json", "report.md", "confusion.png", "split.json", "few_shot.json")


def fit(
    data: Dataset,
    method: str = "biomedcoop",
    backbone: Backbone | str | os.PathLike[str] = "mini",
    shots: int = 16,
    seed: int = 1,
    **options: Any,
) -> Classifier:
    """Train a classifier on ``shots`` images per class. Options and errors are those of :func:`fit_runs`."""
    return fit_runs(data, method, backbone, shots, [seed], **options)[0]


def fit_runs(
    data: Dataset,
    method: str = "biomedcoop",
    backbone: Backbone | str | os.PathLike[str] = "mini",
    shots: int = 16,
    seeds: Sequence[int] = (1, 2, 3),
    *,
    recipe: str = "paper",
    settings: Mapping[str, Any] | None = None,
    prompts: str | Path = "auto",
    repeat_shots: bool = False,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> list[Classifier]:
    """Train one classifier per seed, all in one pass of the text encoder.

    Only images of the training split are read. The seed decides which of them are drawn and the order of the batches.

    Args:
        data: see :func:`load_dataset`.
        method: name of an adaptation method.
        backbone: a loaded backbone, or the name or folder of one.
        shots: images per class.
        seeds: one run each.
        recipe: "paper": the published settings, with those published for the dataset if it is one of the benchmark's.
        settings: single settings of the method, over the recipe's.
        prompts: "auto", "library", "templates" or a JSON file; see :func:`biomedcoop.prompts.sentences_for`.
        repeat_shots: draw with repetition from a class with fewer images than ``shots`` (as published) in place of an error.
        device: where the backbone runs, when it is given by name.
        progress: told how far the work is.

    Raises:
        UserError: anything that cannot be used, before long work starts.
        ImageError: a training image cannot be read.
    """
    plan = _plan(data, method, shots, seeds, recipe, settings, prompts, repeat_shots)
    return _fit(plan, _loaded(backbone, device), progress)


@dataclass(frozen=True)
class _Plan:
    """A fit that passed every check that needs neither images nor backbone."""

    data: Dataset
    method: Method
    settings: Any
    shots: int | None
    seeds: Sequence[int]
    recipe: str
    benchmark: str | None
    sentences: Sentences | None
    draws: list[npt.NDArray[np.int64]]


def _plan(
    data: Dataset,
    method: str,
    shots: int,
    seeds: Sequence[int],
    recipe: str = "paper",
    settings: Mapping[str, Any] | None = None,
    prompts: str | Path = "auto",
    repeat_shots: bool = False,
) -> _Plan:
    from biomedcoop.methods import get_method

    if recipe not in RECIPES:
        raise UserError(f"no recipe '{recipe}'; known: {', '.join(RECIPES)}")
    if not seeds or not all(0 <= seed < 2**63 for seed in seeds):
        raise UserError(f"seeds {list(seeds)}: give at least one, each from 0 to 2^63 - 1")
    chosen = get_method(method)
    entry = find(data.name, data.class_names)
    values = chosen.settings(settings or {}, entry.recipe if entry else None)
    sentences = None
    if chosen.abilities.uses_sentences:
        sentences = sentences_for(data.class_names, entry.name if entry else data.name, prompts)
    trains = chosen.abilities.trains
    nothing = np.zeros(0, dtype=np.int64)
    draws = [sample_few_shot(data, shots, seed, repeat_shots)[0] if trains else nothing for seed in seeds]
    benchmark = entry.name if entry else None
    return _Plan(data, chosen, values, shots if trains else None, seeds, recipe, benchmark, sentences, draws)


def _loaded(backbone: Backbone | str | os.PathLike[str], device: torch.device | str) -> Backbone:
    from biomedcoop.backbones import load_backbone

    return load_backbone(backbone, device=device) if isinstance(backbone, (str, os.PathLike)) else backbone


def _fit(plan: _Plan, backbone: Backbone, progress: Progress | None) -> list[Classifier]:
    import torch

    from biomedcoop.features.encode import encode_images, encode_texts
    from biomedcoop.methods import Task

    data, method, sentences = plan.data, plan.method, plan.sentences
    used = np.unique(np.concatenate(plan.draws))
    drawn = data.select(used)
    features = torch.from_numpy(
        encode_images(backbone, drawn, progress=_counting(progress, "encoding training images"))
    )
    rows = np.stack([np.searchsorted(used, draw) for draw in plan.draws])
    index = torch.from_numpy(rows)  # [R, N]
    teacher = None
    if sentences is not None:
        p = len(sentences.by_class[0])
        flat = encode_texts(backbone, [text for texts in sentences.by_class for text in texts])
        teacher = torch.from_numpy(flat).view(len(data.class_names), p, -1).to(backbone.device)
    task = Task(
        backbone,
        data.class_names,
        features[index].to(backbone.device),
        torch.from_numpy(drawn.labels)[index].to(backbone.device),
        teacher,
    )
    training = None if progress is None else lambda done, total, words: progress(f"training ({words})", done, total)
    states = method.fit(task, plan.settings, plan.seeds, training)
    settings = dataclasses.asdict(plan.settings)
    classifiers = []
    for seed, state, draw in zip(plan.seeds, states, plan.draws, strict=True):
        support = data.select(draw)
        facts = {
            "dataset": data.name,
            "simulated": data.simulated,
            "shots": plan.shots,
            "seed": seed,
            "recipe": plan.recipe,
            "benchmark_dataset": plan.benchmark,
            "sentences": sentences.source if sentences else None,
            "notes": list(sentences.notes if sentences else ()),
            # lets a later evaluation say that it saw these very images; half a hash of the file, no more
            "training_images": sorted({_digest(image) for image in support.images}),
        }
        classifiers.append(Classifier(data.class_names, method.name, state, backbone, settings, facts))
    return classifiers


def predict_dataset(classifier: Classifier, data: Dataset, progress: Progress | None = None) -> npt.NDArray[np.float32]:
    """Probabilities float32 [N, C] for a dataset's images, with features from the store."""
    from biomedcoop.features.encode import encode_images

    count = _counting(progress, "encoding test images")
    return classifier.probabilities(encode_images(classifier.backbone, data, progress=count))


def evaluate(
    classifier: Classifier,
    data: Dataset,
    split: str = "test",
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Metrics:
    """Metrics of a classifier on labelled images, each with a 95 % bootstrap interval.

    A line is logged if some of the images were used to train it.

    Args:
        split: "train", "val", "test" or "all".
        n_bootstrap, seed: of the bootstrap.

    Raises:
        UserError: the split is empty, or the dataset has a class that the classifier does not know.
    """
    part, labels = _test_part(classifier, data, split)
    known = set(classifier.facts.get("training_images", ()))
    if seen := sum(_digest(image) in known for image in part.images):
        _log.warning(
            "%d of the %d images evaluated were used to train this classifier; the numbers flatter it", seen, len(part)
        )
    probabilities = predict_dataset(classifier, part, progress)
    return score(probabilities, labels, classifier.class_names, n_bootstrap=n_bootstrap, seed=seed, groups=part.groups)


def run(
    source: str | Path,
    out: str | os.PathLike[str],
    *,
    method: str = "biomedcoop",
    backbone: Backbone | str | os.PathLike[str] = "mini",
    shots: int = 16,
    seed: int = 1,
    compare: Sequence[str] = ("zero-shot",),
    split_file: str | Path | None = None,
    overwrite: bool = False,
    n_bootstrap: int = 1000,
    progress: Progress | None = None,
    **options: Any,
) -> RunReport:
    """The main job: read the data, train, test, compare, and write the run folder.

    The folder holds ``model/`` (the artefact), ``metrics.json``, ``report.md``, ``confusion.png``, ``split.json`` (all images by
    split) and, if a method trains, ``few_shot.json`` (the training images that were drawn). It appears whole, at the end, or not
    at all.

    Args:
        source: see :func:`load_dataset`.
        out: the run folder.
        compare: methods that are tested beside ``method`` on the same images, with the same draw and seed.
        split_file: a split JSON to be used in place of the source's own split.
        overwrite: replace an earlier run folder.
        options: further arguments of :func:`fit_runs`.

    Raises:
        UserError, ImageError: see :func:`fit_runs`.
    """
    from biomedcoop.features.encode import encode_images
    from biomedcoop.report.markdown import write_report
    from biomedcoop.report.run import RunReport

    out = Path(out)
    check_new_folder(out, overwrite, "metrics.json", RUN_CONTENTS)
    data = load_dataset(source, split_file=split_file)
    _check_place(out, data, source, split_file)
    settings, device = options.pop("settings", None), options.pop("device", "cpu")
    plans = {
        name: _plan(data, name, shots, [seed], settings=settings if name == method else None, **options)
        for name in dict.fromkeys((method, *compare))
    }
    backbone = _loaded(backbone, device)
    part = data.part("test")
    # before training, so that an image that cannot be read is found before the long work and not after it
    features = encode_images(backbone, part, progress=_counting(progress, "encoding test images"))
    rows, correct = {}, {}
    for name, plan in plans.items():
        (classifier,) = _fit(plan, backbone, progress)
        probabilities = classifier.probabilities(features)
        rows[name] = score(probabilities, part.labels, data.class_names, n_bootstrap=n_bootstrap, groups=part.groups)
        correct[name] = probabilities.argmax(1) == part.labels
        if name == method:
            trained = classifier
    majority = majority_probabilities(part.labels, len(data.class_names))
    rows["majority class"] = score(majority, part.labels, data.class_names, n_bootstrap=n_bootstrap, groups=part.groups)
    tested = {key: value for key, value in rows[method].to_dict().items() if not isinstance(value, list)}
    trained = dataclasses.replace(trained, facts={**trained.facts, "test": tested})
    report = RunReport(
        title=f"{method} on {data.name}",
        dataset=summarise(data),
        method=method,
        settings=trained.settings,
        backbone=backbone.name,
        fingerprint=backbone.fingerprint,
        shots=trained.facts["shots"],
        seed=seed,
        versions=versions(),
        rows=rows,
        differences={
            name: paired_difference(correct[method], other, n_bootstrap=n_bootstrap)
            for name, other in correct.items()
            if name != method
        },
        notes=tuple(_recipe_note(trained) + list(trained.facts["notes"])),
        command=_command(data.name, method, backbone.name, shots, seed, compare, split_file, settings, options),
    )
    with new_folder(out, overwrite=overwrite, mark="metrics.json", contents=RUN_CONTENTS) as folder:
        write_report(report, folder)
        (folder / "model").mkdir()
        write_into(trained, folder / "model")
        write_split(data, folder / "split.json")
        if draws := [plan.draws[0] for plan in plans.values() if plan.method.abilities.trains]:
            _write_draw(data, draws[0], shots, seed, folder / "few_shot.json")
    return report


def summarise(data: Dataset) -> DatasetSummary:
    """What a report says about a dataset."""
    from biomedcoop.data.simulate import parse_spec
    from biomedcoop.report.run import DatasetSummary

    about = parse_spec(data.name).task if data.simulated else find(data.name, data.class_names)
    return DatasetSummary(
        name=data.name,
        class_names=data.class_names,
        counts={split: data.counts(split).tolist() for split in ("train", "val", "test") if data.counts(split).any()},
        simulated=data.simulated,
        modality=about.modality if about else None,
        organ=about.organ if about else None,
        notes=data.notes,
    )


def versions() -> dict[str, str]:
    """Versions of what decides the numbers, and the number of CPU threads, which decides their last bits."""
    import torch

    from biomedcoop import __version__

    return {
        "biomedcoop": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "CPU threads": str(torch.get_num_threads()),
    }


def _test_part(classifier: Classifier, data: Dataset, split: str) -> tuple[Dataset, npt.NDArray[np.int64]]:
    """The images of a split, and their labels in the classifier's numbering."""
    if split not in ("train", "val", "test", "all"):
        raise UserError(f"no split '{split}'; choose train, val, test or all")
    part = data if split == "all" else data.part(split)
    if not len(part):
        raise UserError(f"{data.name} has no images in its {split} split; choose another --split")
    number = {name: i for i, name in enumerate(classifier.class_names)}
    if unknown := [name for name in data.class_names if name not in number]:
        raise UserError(
            f"{data.name} has the class '{unknown[0]}', the classifier knows: {', '.join(classifier.class_names)}; "
            "rename the class or train on this dataset"
        )
    return part, np.array([number[name] for name in data.class_names], dtype=np.int64)[part.labels]


def _check_place(out: Path, data: Dataset, source: str | Path, split_file: str | Path | None) -> None:
    """Refuse a run folder among class folders: at the next reading it would be a class."""
    folder = user_path(source)
    if data.root is None or split_file is not None or not folder.is_dir() or find_split_file(folder) is not None:
        return
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{out} is inside the dataset {source}, where it would be read as a class; choose a place beside it"
        )


def _digest(image: Any) -> str:
    return content_hash(image)[:8].hex()


def _recipe_note(classifier: Classifier) -> list[str]:
    """Which sentences and published settings were used; methods without either need no word."""
    notes = []
    if classifier.facts["sentences"]:
        notes.append(f"Sentences: {classifier.facts['sentences']}.")
    if classifier.facts["benchmark_dataset"]:
        notes.append(f"Settings: those published for {classifier.facts['benchmark_dataset']}, where a method has any.")
    return notes


def _write_draw(data: Dataset, draw: npt.NDArray[np.int64], shots: int, seed: int, path: Path) -> None:
    drawn = [[data.keys[i], int(data.labels[i]), data.class_names[data.labels[i]]] for i in draw]
    text = json.dumps({"shots": shots, "seed": seed, "train": drawn}, indent=1, ensure_ascii=False)
    write_atomically(path, text.encode() + b"\n")


def _counting(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, done, total)


def _command(
    data: str,
    method: str,
    backbone: str,
    shots: int,
    seed: int,
    compare: Sequence[str],
    split_file: str | Path | None,
    settings: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> str:
    """The command that repeats a run, with names in place of this machine's paths."""
    words = ["--data", data, "--method", method, "--backbone", backbone, "--shots", shots, "--seed", seed]
    words += ["--compare", ",".join(compare) or "none"]
    if split_file is not None:
        words += ["--split-file", Path(split_file).name]
    for key, value in (settings or {}).items():
        words += ["--set", f"{key}={value}"]
    if (prompts := options.get("prompts", "auto")) != "auto":
        words += ["--prompts", Path(prompts).name]
    if options.get("repeat_shots"):
        words += ["--repeat-shots"]
    return shlex.join(["biomedcoop", "train", *map(str, words), "--out", "run"])
