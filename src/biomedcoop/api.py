"""The public functions: load data, fit, evaluate, and the whole run in one call. They compose the parts and hold no arithmetic."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import os
import platform
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from biomedcoop.classifier.artefact import write_into
from biomedcoop.classifier.classifier import Classifier
from biomedcoop.data.catalogue import find
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.facts import Tally
from biomedcoop.data.images.reading import content_hash
from biomedcoop.data.readers.load import load_dataset, user_path
from biomedcoop.data.readers.split_json import find_split_file
from biomedcoop.data.sampling.few_shot import sample_few_shot, sample_validation
from biomedcoop.data.sampling.leakage import group_leaks, leaks
from biomedcoop.data.sampling.split import write_split
from biomedcoop.errors import UserError, notify
from biomedcoop.evaluation.bootstrap import check_bootstrap, paired_difference
from biomedcoop.evaluation.cautions import class_cautions, group_cautions
from biomedcoop.evaluation.matching import labels_of
from biomedcoop.evaluation.metrics import Metrics, majority_probabilities, score
from biomedcoop.output import check_new_folder, new_folder, write_atomically
from biomedcoop.prompts import Sentences, check_sentences, sentences_for
from biomedcoop.prompts.checks import too_long, uneven
from biomedcoop.prompts.library import library_file
from biomedcoop.prompts.matching import match
from biomedcoop.prompts.sentences import length_notes, sentences_line, ways_to_get
from biomedcoop.prompts.sources import read_table

if TYPE_CHECKING:
    import torch

    from biomedcoop.backbones.base import Backbone
    from biomedcoop.evaluation.sentences import PromptReport
    from biomedcoop.methods import Method
    from biomedcoop.report.run import DatasetSummary, RunReport

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, units done, units in all)."""

MAX_VIEWS = 10_000

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
    _check_options(options, fit, fit_runs)
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
    modality: str | None = None,
    organ: str | None = None,
    repeat_shots: bool = False,
    views: int | str = 1,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    progress: Progress | None = None,
    **unknown: Any,
) -> list[Classifier]:
    """Train one classifier per seed, all in one pass of the text encoder.

    Only images of the training split are read. The seed decides which of them are drawn and the order of the batches. What a user
    should know before the work starts is said in warnings of the category :class:`biomedcoop.errors.Note`.

    Args:
        data: see :func:`load_dataset`.
        method: name of an adaptation method.
        backbone: a loaded backbone, or the name or folder of one.
        shots: images per class.
        seeds: one run each.
        recipe: "paper": the published settings, with those published for the dataset if it is one of the benchmark's;
            "base-to-novel": those published for that protocol; "default": one setting for every dataset; "fast": one that
            trains in about a tenth of the published time or less.
        settings: single settings of the method, over the recipe's.
        prompts: "auto", "library", "templates" or a file; see :func:`biomedcoop.prompts.sentences_for`.
        modality, organ: what the images show, e.g. "CT" and "kidney": the library's sentences are taken for images of that kind
            only. Known for a dataset of the benchmark and a simulated one.
        repeat_shots: draw with repetition from a class with fewer images than ``shots`` (as published) in place of an error.
        views: what a method sees of each training image: 1 its centre crop, a larger number so many random crops (one of them
            drawn at each step), "per-epoch" a new random crop in each epoch, as published.
        device: where the backbone runs, when it is given by name.
        precision: in what its image tower computes, when it is given by name; see :func:`biomedcoop.load_backbone`.
        progress: told how far the work is.

    Raises:
        UserError: anything that cannot be used, before long work starts.
        ImageError: a training image cannot be read.
    """
    _check_options(unknown, fit_runs)
    plan = _plan(data, method, shots, seeds, recipe, settings, prompts, modality, organ, repeat_shots, views)
    backbone = _loaded(backbone, device, precision)
    notify([*plan.notes, *(plan.sentences.notes if plan.sentences else ()), *_length_notes(plan, backbone)])
    return _fit(plan, backbone, progress, say=True)


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
    modality: str | None
    organ: str | None
    sentences: Sentences | None
    draws: list[npt.NDArray[np.int64]]
    val_draws: list[npt.NDArray[np.int64]]
    published: bool
    views: int
    per_epoch: bool
    notes: tuple[str, ...]


def _plan(
    data: Dataset,
    method: str,
    shots: int,
    seeds: Sequence[int],
    recipe: str = "paper",
    settings: Mapping[str, Any] | None = None,
    prompts: str | Path = "auto",
    modality: str | None = None,
    organ: str | None = None,
    repeat_shots: bool = False,
    views: int | str = 1,
) -> _Plan:
    from biomedcoop.methods import get_method

    _check_types(data, method, shots, seeds, recipe, settings, prompts)
    chosen = get_method(method)
    if len(data.class_names) < 2:
        raise UserError(
            f"{data.name} has one class ({data.class_names[0]!r}), but a classifier tells at least two apart; "
            "add images of another class"
        )
    entry = find(data.name, data.class_names)
    values = chosen.settings(settings or {}, recipe, entry.recipe if entry else None)
    n_views, per_epoch = _views(chosen, values, views)
    modality, organ = modality_and_organ(data, modality, organ)
    sentences = find_sentences(data, prompts, modality, organ) if chosen.abilities.uses_sentences else None
    notes = []
    if sentences is not None and sentences.chosen:
        notes.append(sentences_line(sentences.origin, _sentences_per_class(sentences, values)))
    learns = chosen.abilities.uses_images
    drawn = [sample_few_shot(data, shots, seed, repeat_shots) for seed in seeds] if learns else []
    nothing = np.zeros(0, dtype=np.int64)
    draws = [train for train, _ in drawn] if learns else [nothing for _ in seeds]
    val_draws = [nothing for _ in seeds]
    if chosen.abilities.needs_validation:
        val_draws = [val for _, val in drawn]
        if not data.counts("val").any():
            val_draws = [_held_out(chosen, data, train, shots, seed) for train, seed in zip(draws, seeds, strict=True)]
            notes.append(
                f"{chosen.name} chooses on validation images; as the data have no validation split, {len(val_draws[0])} "
                "training images that were not drawn were taken."
            )
    return _Plan(
        data=data,
        method=chosen,
        settings=values,
        shots=shots if learns else None,
        seeds=seeds,
        recipe=recipe,
        benchmark=entry.name if entry else None,
        modality=modality,
        organ=organ,
        sentences=sentences,
        draws=draws,
        val_draws=val_draws,
        published=entry is not None and chosen.published_for(entry.recipe, recipe),
        views=n_views,
        per_epoch=per_epoch,
        notes=tuple(notes),
    )


def _check_options(
    given: Mapping[str, Any], function: Callable[..., Any], passed_to: Callable[..., Any] | None = None
) -> None:
    """Refuse keyword arguments that a function of the package takes only to pass them on, where nothing knows them."""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
    if passed_to is not None:
        parameters += [p for p in inspect.signature(passed_to).parameters.values() if p.kind is p.KEYWORD_ONLY]
    known = list(dict.fromkeys(p.name for p in parameters))
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UserError(
                f"no option '{name}'; {f'did you mean {near[0]}?' if near else 'there are: ' + ', '.join(known)}"
            )


def _check_types(
    data: object, method: object, shots: object, seeds: object, recipe: object, settings: object, prompts: object
) -> None:
    """Refuse arguments of the wrong type in words that say what to give."""
    _check_dataset(data)
    for name, text in (("method", method), ("recipe", recipe)):
        if not isinstance(text, str):
            raise UserError(
                f"{name}={text!r} must be a name, e.g. {name}='{'biomedcoop' if name == 'method' else 'paper'}'"
            )
    if not isinstance(shots, Integral) or isinstance(shots, bool):
        raise UserError(f"shots={shots!r} must be a whole number, e.g. shots=16")
    if isinstance(seeds, (str, bytes, Set)) or not isinstance(seeds, Collection):
        raise UserError(f"seeds={seeds!r} must be a list of whole numbers, e.g. seeds=[1, 2, 3]")
    listed = list(seeds)
    whole = all(isinstance(seed, Integral) and not isinstance(seed, bool) for seed in listed)
    if not listed or not whole or not all(0 <= seed < 2**63 for seed in listed):
        raise UserError(f"seeds {listed}: give at least one, each a whole number from 0 to 2^63 - 1")
    if settings is not None and not (isinstance(settings, Mapping) and all(isinstance(key, str) for key in settings)):
        raise UserError(f"settings={settings!r} must be a dict, e.g. settings={{'epochs': 50}}")
    if not isinstance(prompts, (str, os.PathLike)):
        raise UserError(
            f"prompts must be a word or a path, not {type(prompts).__name__}; write sentences to a JSON file and give its path"
        )


def _check_dataset(data: object) -> None:
    if isinstance(data, (str, os.PathLike)):
        raise UserError(f"data={os.fspath(data)!r} is a path or a name; give load_dataset({os.fspath(data)!r})")
    if not isinstance(data, Dataset):
        raise UserError(f"data must be what load_dataset returns, not {type(data).__name__}")


def _length_notes(plan: _Plan, backbone: Backbone) -> list[str]:
    return [] if plan.sentences is None else length_notes(plan.data.class_names, plan.sentences, backbone)


def _sentences_per_class(sentences: Sentences, settings: Any) -> int:
    there = len(sentences.by_class[0])
    return min(there, getattr(settings, "n_sentences", there))


def _views(method: Method, settings: Any, views: int | str) -> tuple[int, bool]:
    """How many views of each training image, and whether each belongs to an epoch."""
    uses_images = method.abilities.uses_images
    if views == "per-epoch":
        if method.abilities.needs_all_views:
            raise UserError(
                f"{method.name} takes all views of all images at once and has no use for one per epoch; give --views a number, "
                "or leave the method out"
            )
        if uses_images and settings.epochs > MAX_VIEWS:
            raise UserError(
                f"views='per-epoch' with epochs={settings.epochs} is more than {MAX_VIEWS} crops of an image; lower epochs"
            )
        return (settings.epochs, True) if uses_images else (1, False)
    try:
        number = int(views)
        whole = number == float(views) and not isinstance(views, bool)
    except (TypeError, ValueError, OverflowError):
        whole, number = False, 0
    if not whole or not 1 <= number <= MAX_VIEWS:
        raise UserError(f"views={views!r} must be a whole number from 1 to {MAX_VIEWS}, or per-epoch")
    return (number if uses_images else 1), False


def _held_out(
    method: Method, data: Dataset, drawn: npt.NDArray[np.int64], shots: int, seed: int
) -> npt.NDArray[np.int64]:
    """Validation images from the training images that were not drawn."""
    from biomedcoop.methods import all_methods

    try:
        return sample_validation(data, drawn, shots, seed)
    except UserError as error:
        able = [m.name for m in all_methods().values() if m.abilities.uses_images and not m.abilities.needs_validation]
        raise UserError(
            f"{method.name} needs validation images, {error}; or choose a method that needs none: {', '.join(able)}"
        ) from error


def _loaded(
    backbone: Backbone | str | os.PathLike[str], device: torch.device | str, precision: str = "float32"
) -> Backbone:
    from biomedcoop.backbones import load_backbone
    from biomedcoop.backbones.base import Backbone

    if isinstance(backbone, Backbone):
        return backbone
    if not isinstance(backbone, (str, os.PathLike)):
        raise UserError(f"backbone={backbone!r} must be a name, a folder or what load_backbone returns")
    return load_backbone(backbone, device=device, precision=precision)


def _fit(plan: _Plan, backbone: Backbone, progress: Progress | None, say: bool = False) -> list[Classifier]:
    """Encode, train, and describe what was done.

    Args:
        say: issue the notes on the training images before training.
    """
    import torch

    from biomedcoop.features.encode import encode_images, encode_texts, encode_views
    from biomedcoop.methods import Task
    from biomedcoop.threads import torch_threads

    data, method, sentences = plan.data, plan.method, plan.sentences
    count, tally = _counting(progress, "encoding training images"), Tally()

    def gathered(draws: Sequence[npt.NDArray[np.int64]], views: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Features [R, n·V, E] and labels [R, n·V] of drawn images, each encoded once."""
        used = np.unique(np.concatenate(draws))
        drawn = data.select(used)
        if views == 1:
            features = encode_images(backbone, drawn, progress=count, tally=tally)[:, None]
        else:
            features = encode_views(backbone, drawn, method.crops, views, progress=count, tally=tally)
        rows = np.stack([np.searchsorted(used, draw) for draw in draws])  # [R, n]
        own, labels = torch.from_numpy(features[rows]), torch.from_numpy(drawn.labels[rows])
        return own.flatten(1, 2).to(backbone.device), labels.repeat_interleave(views, 1).to(backbone.device)

    features, labels = gathered(plan.draws, plan.views)
    val_features, val_labels = gathered(plan.val_draws, 1) if method.abilities.needs_validation else (None, None)
    if say:
        notify(tally.notes())
    teacher = None
    notes = [*plan.notes, *(sentences.notes if sentences else ()), *_length_notes(plan, backbone)]
    if sentences is not None:
        flat = encode_texts(backbone, [text for own in sentences.by_class for text in own])
        teacher = torch.from_numpy(flat).view(len(data.class_names), len(sentences.by_class[0]), -1).to(backbone.device)
    task = Task(
        backbone,
        data.class_names,
        features,
        labels,
        teacher,
        val_features,
        val_labels,
        plan.views,
        plan.per_epoch,
    )
    training = None if progress is None else lambda done, total, words: progress(f"training ({words})", done, total)
    threads = method.threads(task, plan.settings)
    with torch_threads(threads), torch.enable_grad():
        states = method.fit(task, plan.settings, plan.seeds, training)
    settings = dataclasses.asdict(plan.settings)
    classifiers = []
    for seed, state, draw, val_draw in zip(plan.seeds, states, plan.draws, plan.val_draws, strict=True):
        support = data.select(np.concatenate([draw, val_draw]))
        facts = {
            "dataset": data.name,
            "simulated": data.simulated,
            "shots": plan.shots,
            "seed": seed,
            "recipe": plan.recipe,
            "views": "per-epoch" if plan.per_epoch else plan.views,
            "precision": backbone.precision,
            "depths": sorted(depth for depth in tally.depths if depth),
            "threads": threads,
            "runs_together": len(plan.seeds),
            "benchmark_dataset": plan.benchmark,
            "published_settings": plan.published,
            "modality": plan.modality,
            "organ": plan.organ,
            "sentences": sentences.origin if sentences else None,
            "sentences_per_class": _sentences_per_class(sentences, plan.settings) if sentences else None,
            "notes": notes,
            # lets a later evaluation say that it saw these very images; half a hash of the file, no more
            "training_images": sorted({_digest(image) for image in support.images}),
        }
        classifiers.append(Classifier(data.class_names, method.name, state, backbone, settings, facts))
    return classifiers


def predict_dataset(
    classifier: Classifier, data: Dataset, progress: Progress | None = None, tally: Tally | None = None
) -> npt.NDArray[np.float32]:
    """Probabilities float32 [N, C] for a dataset's images, with features from the store.

    Args:
        tally: counts what is worth a word about the images.
    """
    from biomedcoop.features.encode import encode_images

    count = _counting(progress, "encoding test images")
    return classifier.probabilities(encode_images(classifier.backbone, data, progress=count, tally=tally))


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

    Classes are matched by name, and only those of the images evaluated need to be known: one class is enough. What cannot be
    measured on these images is None. A warning says what flatters the numbers: images that were used to train the classifier,
    groups on both sides of the split, intervals that few groups make.

    Args:
        split: "train", "val", "test" or "all".
        n_bootstrap, seed: of the bootstrap.

    Raises:
        UserError: the split is empty, or an image is of a class that the classifier does not know.

    Example:
        >>> import biomedcoop as bc
        >>> data = bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=1")
        >>> classifier = bc.fit(data, method="zero-shot")
        >>> metrics = bc.evaluate(classifier, data, split="test", n_bootstrap=100)
        >>> metrics.n_images, 0 <= metrics.accuracy.value <= 1
        (3, True)
    """
    if not isinstance(classifier, Classifier):
        raise UserError(f"the classifier must be what fit or load returns, not {type(classifier).__name__}")
    _check_dataset(data)
    check_bootstrap(n_bootstrap, seed)
    part, labels, notes = _test_part(classifier, data, split)
    notify([*notes, *_seen_before(classifier, data, part, split)])
    tally = Tally(tuple(classifier.facts.get("depths", ())))
    probabilities = predict_dataset(classifier, part, progress, tally)
    notify(tally.notes())
    metrics = score(
        probabilities, labels, classifier.class_names, n_bootstrap=n_bootstrap, seed=seed, groups=part.groups
    )
    notify([*class_cautions(metrics), *group_cautions(metrics)])
    return metrics


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
    split) and, if a method learns from images, ``few_shot.json`` (those that were drawn). It appears whole, at the end, or not
    at all. Before the long work, warnings say what there is to know about the data: how they were read, and what the test
    images share with the training images.

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
    from biomedcoop.features.encode import encode_images, image_facts
    from biomedcoop.report.markdown import write_report
    from biomedcoop.report.run import RunReport

    _check_options(options, run, fit_runs)
    if not isinstance(source, (str, os.PathLike)):
        raise UserError(
            f"source must be a path or a name, not {type(source).__name__}; with a dataset in hand, use fit and evaluate"
        )
    if isinstance(compare, str) or not isinstance(compare, Iterable):
        raise UserError(f"compare={compare!r} must be a list of methods, e.g. compare=['zero-shot']")
    check_bootstrap(n_bootstrap)
    out = user_path(out)
    check_new_folder(out, overwrite, "metrics.json", RUN_CONTENTS)
    data = load_dataset(source, split_file=split_file)
    _check_place(out, data, source, split_file)
    settings, device = options.pop("settings", None), options.pop("device", "cpu")
    precision = options.pop("precision", "float32")
    plans = {
        name: _plan(data, name, shots, [seed], settings=settings if name == method else None, **options)
        for name in dict.fromkeys((method, *compare))
    }
    backbone = _loaded(backbone, device, precision)
    learned = np.concatenate([draw for plan in plans.values() for draw in (*plan.draws, *plan.val_draws)])
    used = np.unique(learned).tolist()
    shared = leaks(data, used)
    others = [note for plan in plans.values() for note in plan.notes]
    of_sentences = [note for plan in plans.values() if plan.sentences for note in plan.sentences.notes]
    cut = [note for plan in plans.values() for note in _length_notes(plan, backbone)]
    notify(dict.fromkeys([*map(str, shared), *others, *of_sentences, *cut]))
    part = data.part("test")
    # before training, so that an image that cannot be read is found before the long work and not after it
    tally = Tally()
    features = encode_images(backbone, part, progress=_counting(progress, "encoding test images"), tally=tally)
    seen = data.select(used)
    for key, facts in zip(seen.keys, image_facts(seen), strict=True):
        tally.add(key, facts)
    notify(tally.notes())
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
    cautions = list(group_cautions(rows[method]))
    notify([*class_cautions(rows[method]), *cautions])
    tested = {key: value for key, value in rows[method].to_dict().items() if not isinstance(value, list)}
    trained = dataclasses.replace(
        trained, facts={**trained.facts, "test": {**tested, "notes": [*(leak.text for leak in shared), *cautions]}}
    )
    report = RunReport(
        title=f"{method} on {data.name}",
        dataset=dataclasses.replace(
            summarise(data, options.get("modality"), options.get("organ")), image_notes=tuple(tally.notes(named=False))
        ),
        method=method,
        settings=trained.settings,
        backbone=backbone.name,
        fingerprint=backbone.fingerprint,
        shots=trained.facts["shots"],
        seed=seed,
        versions={**versions(), "CPU threads": str(trained.facts["threads"])},
        rows=rows,
        differences={
            name: paired_difference(correct[method], other, n_bootstrap=n_bootstrap, groups=part.groups)
            for name, other in correct.items()
            if name != method
        },
        leaks=tuple(leak.text for leak in shared),
        notes=tuple(dict.fromkeys([*_recipe_note(trained), *trained.facts["notes"], *others])),
        command=_command(data.name, method, backbone, shots, seed, compare, split_file, settings, options),
    )
    with new_folder(out, overwrite=overwrite, mark="metrics.json", contents=RUN_CONTENTS) as folder:
        write_report(report, folder)
        (folder / "model").mkdir()
        write_into(trained, folder / "model")
        write_split(data, folder / "split.json")
        if learning := [plan for plan in plans.values() if plan.method.abilities.uses_images]:
            val_draw = max((plan.val_draws[0] for plan in learning), key=len)
            _write_draw(data, learning[0].draws[0], val_draw, shots, seed, folder / "few_shot.json")
    return report


def check_prompts(
    source: str | Path,
    *,
    data: Dataset | None = None,
    class_names: Sequence[str] | None = None,
    backbone: Backbone | str | os.PathLike[str] | None = "mini",
    split: str | None = None,
    threshold: float = 1.5,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> PromptReport:
    """Look for what is wrong with the sentences of a task: in the text, to a backbone, on labelled images.

    Args:
        source: "library:NAME" or a path; see :func:`biomedcoop.prompts.sources.read_table`.
        data: images of the task; its classes must have sentences, and the sentence ensemble is tested on them.
        class_names: the task's classes, where there is no ``data``; by default the source's own.
        backbone: None for the text alone.
        split: of ``data``; by default "val", or "train" where that is empty. Test images are never a default.
        threshold: τ of the statistics-based selection, in standard deviations.
        device: where the backbone runs, when it is given by name.
        progress: told how far the work is.

    Raises:
        UserError: the source, the data or the backbone cannot be used.
    """
    from biomedcoop.evaluation.sentences import CLOSE, PromptReport, closest_pairs, outliers

    kind, sign, name = str(source).partition(":")
    of_library = kind == "library" and bool(sign)
    table = library_file(name)["classes"] if of_library else read_table(source)
    wanted = data.class_names if data is not None else class_names or list(table)
    matched = match(wanted, table, near=str(source) if of_library else None)
    by_class = matched.by_class
    report = PromptReport(str(source), {name: len(sentences) for name, sentences in by_class.items()})
    report.missing, report.unused = matched.missing, matched.unused
    report.faults = check_sentences(by_class, wanted)
    if lengths := [len(s.split()) for sentences in by_class.values() for s in sentences]:
        report.words = (min(lengths), max(lengths))
    if report.missing:
        way = ways_to_get(wanted, *(modality_and_organ(data) if data is not None else ()))
        report.problems.append(f"no sentences for {', '.join(report.missing)}; {way}")
    report.warnings += [f"'{own}' takes the sentences of '{theirs}'" for own, theirs in matched.nearly.items()]
    if line := uneven(by_class):
        report.warnings.append(line)
    for fault in report.faults:
        line = f"{fault.class_name}: '{fault.sentence}' {fault.text}"
        (report.problems if fault.serious else report.warnings).append(line)
    if backbone is None or not by_class:
        return report

    import torch

    from biomedcoop.features.encode import encode_texts

    backbone = _loaded(backbone, device)
    report.backbone = backbone.name
    counts = {name: backbone.token_counts(sentences) for name, sentences in by_class.items()}
    report.tokens = max(map(max, counts.values()))
    report.cut = too_long(by_class, counts, backbone.context_length)
    for name, sentence, tokens in report.cut:
        report.problems.append(
            f"{name}: '{sentence}' has {tokens} tokens, {backbone.name} reads {backbone.context_length}; shorten it"
        )
    flat = torch.from_numpy(encode_texts(backbone, [s for sentences in by_class.values() for s in sentences]))
    rows = np.cumsum([0, *map(len, by_class.values())])
    features = {name: flat[a:b] for name, a, b in zip(by_class, rows[:-1], rows[1:], strict=True)}
    report.closest = closest_pairs(features)
    report.outliers = outliers(by_class, features, threshold)
    for a, b, cosine in report.closest:
        if cosine > CLOSE:
            report.warnings.append(
                f"the sentences of '{a}' and '{b}' mean nearly the same to {backbone.name} ({cosine:.2f})"
            )
    if data is not None and not report.missing:
        _test_prompts(report, data, source, backbone, features, split, threshold, progress)
    return report


def _test_prompts(
    report: PromptReport,
    data: Dataset,
    source: str | Path,
    backbone: Backbone,
    features: Mapping[str, torch.Tensor],
    split: str | None,
    threshold: float,
    progress: Progress | None,
) -> None:
    """The sentence ensemble on labelled images, beside the class name alone, and what the selection drops there."""
    import torch

    from biomedcoop.evaluation.sentences import dropped_by_selection
    from biomedcoop.features.encode import encode_images

    split = split or ("val" if data.counts("val").any() else "train")
    accuracy: dict[str, dict[str, Any]] = {}
    for label, method in (("sentences", "zero-shot-ensemble"), ("class name", "zero-shot")):
        # what is to be said of the sentences stands in the report already
        (classifier,) = _fit(_plan(data, method, 1, [1], prompts=source), backbone, None)
        metrics = evaluate(classifier, data, split, progress=progress)
        accuracy[label] = {
            "accuracy": dataclasses.asdict(metrics.accuracy),
            "recall": {c.name: c.sensitivity.value for c in metrics.classes},
        }
        images = metrics.n_images
    fewest = min(report.counts.values())
    stacked = torch.stack([features[name][:fewest] for name in data.class_names])
    part = encode_images(backbone, data.part(split))
    report.images = f"{images} {split} images"
    report.accuracy = accuracy
    report.dropped = dropped_by_selection(torch.from_numpy(part), stacked, threshold)
    gain = accuracy["sentences"]["accuracy"]["value"] - accuracy["class name"]["accuracy"]["value"]
    if gain < 0:
        report.warnings.append(
            f"on {report.images} the sentences are right less often than the class name alone ({100 * gain:+.1f} points)"
        )


def summarise(data: Dataset, modality: str | None = None, organ: str | None = None) -> DatasetSummary:
    """What a report says about a dataset; modality and organ as the user states them."""
    from biomedcoop.report.run import DatasetSummary

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


def modality_and_organ(
    data: Dataset, modality: str | None = None, organ: str | None = None
) -> tuple[str | None, str | None]:
    """What a dataset shows: as the user states it, else where the catalogue or the simulator knows it."""
    from biomedcoop.data.simulate.load import PREFIX, parse_spec

    for name, text in (("modality", modality), ("organ", organ)):
        if text is not None and (not isinstance(text, str) or not text.strip() or not text.isprintable()):
            example = "CT" if name == "modality" else "kidney"
            raise UserError(f"{name}={text!r} must be a word or a few, e.g. {name}='{example}'")
    drawn_here = data.simulated and data.name.startswith(PREFIX)
    about = parse_spec(data.name).task if drawn_here else find(data.name, data.class_names)
    known = (about.modality, about.organ) if about else (None, None)
    return modality or known[0], organ or known[1]


def find_sentences(
    data: Dataset, prompts: str | Path = "auto", modality: str | None = None, organ: str | None = None
) -> Sentences:
    """Sentences for every class of a dataset; see :func:`biomedcoop.prompts.sentences_for`."""
    entry = find(data.name, data.class_names)
    modality, organ = modality_and_organ(data, modality, organ)
    return sentences_for(data.class_names, entry.name if entry else data.name, prompts, modality, organ)


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    import torch

    from biomedcoop import __version__

    return {
        "biomedcoop": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def _test_part(classifier: Classifier, data: Dataset, split: str) -> tuple[Dataset, npt.NDArray[np.int64], list[str]]:
    """The images of a split, their labels in the classifier's numbering, and what was assumed."""
    if split not in ("train", "val", "test", "all"):
        raise UserError(f"no split '{split}'; choose train, val, test or all")
    part = data if split == "all" else data.part(split)
    if not len(part):
        raise UserError(f"{data.name} has no images in its {split} split; choose another --split")
    return part, *labels_of(part, classifier.class_names)


def _seen_before(classifier: Classifier, data: Dataset, part: Dataset, split: str) -> list[str]:
    """What the classifier saw of the images that it is tested on."""
    known = set(classifier.facts.get("training_images", ()))
    if not known:
        return []
    notes = []
    if seen := sum(_digest(image) in known for image in part.images):
        notes.append(
            f"{seen} of the {len(part)} images evaluated were used to train this classifier; the numbers flatter it."
        )
    if split in ("val", "test") and classifier.facts.get("dataset") == data.name:
        notes += map(str, group_leaks(data, split, ["train", "val"] if split == "test" else ["train"]))
    return notes


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
        count = classifier.facts["sentences_per_class"]
        notes.append(sentences_line(classifier.facts["sentences"], count))
    if classifier.facts["published_settings"]:
        notes.append(f"Settings: those published for {classifier.facts['benchmark_dataset']}.")
    if (views := classifier.facts["views"]) != 1:
        how = (
            "a new random crop of each training image in every epoch"
            if views == "per-epoch"
            else f"{views} random crops of each training image"
        )
        notes.append(f"Views: {how}; test images are seen by their centre crop.")
    if classifier.backbone.precision != "float32":
        notes.append(f"Image features: computed in {classifier.backbone.precision}.")
    return notes


def _write_draw(
    data: Dataset,
    draw: npt.NDArray[np.int64],
    val_draw: npt.NDArray[np.int64],
    shots: int,
    seed: int,
    path: Path,
) -> None:
    """Which images were drawn for training and, if a method chose on them, for validation."""
    content: dict[str, Any] = {"shots": shots, "seed": seed}
    for name, positions in (("train", draw), ("val", val_draw)):
        if name == "train" or len(positions):
            content[name] = [[data.keys[i], int(data.labels[i]), data.class_names[data.labels[i]]] for i in positions]
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")


def _counting(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, done, total)


def _command(
    data: str,
    method: str,
    backbone: Backbone,
    shots: int,
    seed: int,
    compare: Sequence[str],
    split_file: str | Path | None,
    settings: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> str:
    """The command that repeats a run, with names in place of this machine's paths."""
    words = ["--data", data, "--method", method, "--backbone", backbone.name, "--shots", shots, "--seed", seed]
    words += ["--compare", ",".join(compare) or "none"]
    if split_file is not None:
        words += ["--split-file", Path(split_file).name]
    for key, value in (settings or {}).items():
        words += ["--set", f"{key}={value}"]
    if (prompts := options.get("prompts", "auto")) != "auto":
        words += ["--prompts", Path(prompts).name]
    for key in ("modality", "organ"):
        if options.get(key) is not None:
            words += [f"--{key}", options[key]]
    if (recipe := options.get("recipe", "paper")) != "paper":
        words += ["--recipe", recipe]
    if (views := options.get("views", 1)) not in (1, "1"):
        words += ["--views", views]
    if options.get("repeat_shots"):
        words += ["--repeat-shots"]
    if backbone.precision != "float32":
        words += ["--precision", backbone.precision]
    return shlex.join(["biomedcoop", "train", *map(str, words), "--out", "run"])
