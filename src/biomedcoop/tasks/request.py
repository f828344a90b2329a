"""The request: all inputs of a fit as one frozen value, checked when it is created.

The Python functions, the command line and a saved ``run.json`` all build a request. An option is one field here; its help line,
its flag on the command line and its JSON form follow from the field.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from biomedcoop.errors import UserError, nearest
from biomedcoop.tasks import options
from biomedcoop.tasks.options import option

if TYPE_CHECKING:
    import torch

    from biomedcoop.backbones.base import Backbone
    from biomedcoop.data.dataset import Dataset
    from biomedcoop.data.images.stacks import Reading

FORMAT_VERSION = 1

REQUEST = "run.json"
"""The file of a run folder that holds its request."""

AUTO, GENERAL, FAST = "auto", "general", "fast"
"""The method that chooses by itself, the default recipe, and the recipe of its candidates."""

BUDGET = "budget"
"""The setting of method auto that is an option too."""

PATHS = ("data", "backbone", "prompts", "split_file", "unlabelled")
"""Options that may hold a path."""

Request = TypeVar("Request", bound="FitRequest")


class FitOptions(TypedDict, total=False):
    """Further keyword arguments of :func:`biomedcoop.fit`; see :class:`FitRequest`."""

    plugins: Iterable[str | os.PathLike[str]]
    recipe: str
    settings: Mapping[str, Any] | None
    prompts: str | os.PathLike[str]
    modality: str | None
    organ: str | None
    budget: float | str
    sampling: str
    repeat_shots: bool
    views: int | str
    calibrate: str | bool
    alpha: float | None
    score: str
    by_class: bool
    unlabelled: str | os.PathLike[str] | None
    device: torch.device | str
    precision: str


class TrainOptions(FitOptions, total=False):
    """Further keyword arguments of :func:`biomedcoop.train`; see :class:`TrainRequest`."""

    method: str
    backbone: Backbone | str | os.PathLike[str]
    shots: int | str | None
    seed: int
    seeds: Sequence[int]
    compare: Iterable[str] | None
    split_file: str | os.PathLike[str] | None
    window: str
    frame: str | int
    n_bootstrap: int
    images: bool


@dataclass(frozen=True, repr=False)
class FitRequest:
    """All inputs of a fit.

    Attributes:
        data: a dataset, or a path or name for :func:`biomedcoop.load_dataset`.
        plugins: Python files that register methods; see :func:`biomedcoop.methods.load_plugin`. Methods of imported modules need no
            file.
        method: name of an adaptation method.
        backbone: a loaded backbone, or the name or folder of one.
        shots: training images per class; "all" takes all training images, however many each class has; None takes 16, or the
            number of the smallest class if that is lower.
        seeds: random seeds, one run each; a seed draws the training images and orders the batches.
        settings: single settings of the method; they override the recipe.
        prompts: sentences about the classes; see :func:`biomedcoop.prompts.sentences_for`.
        modality, organ: content of the images. The library's sentences are used only for images of this content. A benchmark
            dataset and a simulated dataset know both by themselves.
        recipe: named set of settings: "general" (the same for every dataset, the most accurate in the mean), "fast" (trains in
            about a tenth of the time), "paper" (published values, for the dataset where they exist), "paper-novel" (published
            for base-to-novel generalisation).
        views: crops of each training image: 1 is its centre crop; a larger number is that many random crops, one of which is
            drawn at each step; "per-epoch" is a new random crop in each epoch, as published.
        unlabelled: folder or table of images without labels, for a method that uses them; None for others. Names of folders and
            columns of labels are not read.
        sampling: "equal" draws ``shots`` images of each class; "realistic" draws as many images in all, at random whatever
            their class, so that classes are about as frequent as in the training images; where few are drawn, even a common one may
            get none.
        repeat_shots: draw with repetition from a class with fewer images than ``shots``, as published, instead of an error.
        calibrate: fit a temperature on held-out answers about the training images: "yes" (or True), "no" (or False), or "auto",
            which does it where a fit takes no step through the text tower and the recipe is not a published one.
        alpha: share of prediction sets that may miss the true class; None for no sets. A method without closed form gives up a
            third of each class for them, or up to a half where the promise needs more.
        score: score of the sets, see :mod:`biomedcoop.classifier.conformal`.
        by_class: keep the promise of the sets in each class, and not only over all classes; needs more images.
        device: device of a backbone that is given by name; "auto" is resolved when the backbone is loaded.
        precision: precision of that backbone's image tower; see :func:`biomedcoop.load_backbone`.

    Raises:
        UserError: a value has the wrong type or is out of range; the message names an allowed value.
    """

    data: Dataset | str = option(  # noqa: RUF009
        dataclasses.MISSING,
        "Folder of class folders, CSV or Parquet table, split JSON, MedMNIST .npz, 'simulated:<task>', or name of a "
        "dataset in the data folder ('biomedcoop datasets list').",
        options.data,
        shown=True,
    )
    plugins: tuple[str, ...] = option(  # before the methods, which are looked up when the request is made
        None,
        "Python file (.py) that registers methods of your own. Its code runs with your rights: give only files that you trust. May "
        "be repeated.",
        options.plugins,
        flag="plugin",
        kind=list[str],
    )
    method: str = option(
        "auto",
        "Adaptation method ('biomedcoop methods list'): auto mixes those that do best on held-out training images.",
        options.method,
        shown=True,
    )
    backbone: Backbone | str = option(  # noqa: RUF009
        "mini",
        "Name of the backbone ('biomedcoop backbones list'), or the folder of one.",
        options.backbone,
        shown=True,
    )
    shots: int | str | None = option(
        None,
        "Training images per class, or 'all' for all training images. Default: 16, or fewer where the smallest class has fewer.",
        options.shots,
        shown=True,
    )
    seeds: tuple[int, ...] = option(
        (1,),
        "Random seeds, separated by commas, one training each; a seed draws the training images and orders the batches. Several "
        "seeds show how far results depend on them. The saved model is that of the first.",
        options.seeds,
        shown=True,
    )
    recipe: str = option(
        "general",
        "Named set of settings: general (the same for every dataset, the most accurate in the mean), fast (trains in about a tenth "
        "of the time), paper (published values, for the dataset where they exist), or paper-novel (published for base-to-novel "
        "generalisation).",
        options.recipe,
    )
    settings: Mapping[str, Any] = option(
        None,
        "Setting of the method, e.g. --set epochs=50. May be repeated.",
        options.settings,
        flag="set",
        kind=list[str],
    )
    prompts: str = option(
        "auto",
        "Sentences about the classes: auto (the shipped library if it fits the images, else templates), library[:NAME], "
        "templates[:MODALITY], or a file (.json, .csv, .py, .txt, folder of .txt).",
        options.prompts,
    )
    modality: str | None = option(
        None, "Modality of the images, e.g. CT. '--prompts auto' needs it for your own data.", options.words("CT")
    )
    organ: str | None = option(
        None, "Organ in the images, e.g. kidney. '--prompts auto' needs it for your own data.", options.words("kidney")
    )
    views: int | str = option(
        1,
        "Crops of each training image: 1 (the centre crop), a larger number of random crops, or per-epoch (a new random crop in "
        "each epoch, as published). Each crop is encoded.",
        options.views,
    )
    unlabelled: str | None = option(
        None,
        "Folder or table of images without labels, for a method that learns from them too (ss-text-u). Names of folders are not "
        "read as labels. Copies of training and test images are left out.",
        options.path,
    )
    sampling: str = option(
        options.EQUAL,
        "How training images are drawn: equal (--shots of each class), or realistic (as many in all, drawn whatever their class: "
        "classes are about as frequent as in your data; where few are drawn, even a common one may get none).",
        options.sampling,
    )
    repeat_shots: bool = option(
        False, "Draw with repetition from classes with fewer images than --shots.", options.yes_or_no, kind=bool
    )
    calibrate: str | bool = option(
        "auto",
        "Divide the logits by a temperature that is fitted on held-out answers about the training images: yes, no, or auto (where "
        "this costs no step through the text encoder, and not with a published recipe).",
        options.calibrate,
    )
    alpha: float | None = option(
        None,
        "Predict sets of classes that miss the true class in at most this share of images, e.g. 0.1. Most methods set a third of "
        "each class aside for it, or up to a half where it needs more; methods with a closed form use all of them twice.",
        options.alpha,
    )
    score: str = option(
        "lac",
        "Score of the sets: lac (the smallest sets), aps or raps (randomised; sizes follow the difficulty of the image).",
        options.score,
    )
    by_class: bool = option(
        False, "Keep the promise of the sets in each class; needs more images.", options.yes_or_no, kind=bool
    )
    device: str = option(
        "cpu",
        "Device of the backbone: cpu, cuda, cuda:1, mps, or auto (a GPU if this machine has one that works, else the CPU).",
        options.device,
    )
    precision: str = option(
        "float32",
        "Precision of the image encoder: float32, bfloat16 (faster on processors with bfloat16 units), int8 (faster on other CPUs, "
        "slightly less exact), or auto. auto uses bfloat16 if it measures at least 1.5 times the speed of float32; 'biomedcoop "
        "doctor' shows the measurement.",
        options.precision,
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            try:
                value = field.metadata["check"](field.name, getattr(self, field.name))
            except UserError as error:
                error.option = field.name
                raise
            object.__setattr__(self, field.name, value)
        self._check_method()

    def _check_method(self) -> None:
        """Refuse what the method cannot do on any data, such as settings that it does not have."""
        from biomedcoop.methods import get_method

        method = get_method(self.method)
        if BUDGET in self.settings and not hasattr(method.settings_type, BUDGET):
            raise UserError(
                f"{method.name} has no budget; leave --budget out, or choose the method {AUTO}, which has one"
            )
        method.settings(self.settings, self.recipe)
        if self.sampling == options.REALISTIC and self.repeat_shots:
            raise UserError("a realistic draw takes each image once; leave out --repeat-shots, or --sampling realistic")
        able = [get_method(name).abilities for name in (self.method, *getattr(self, "compared", ()))]
        if self.prompts != AUTO and not any(one.uses_sentences for one in able):
            raise UserError(
                f"{method.name} reads no sentences about the classes; leave --prompts out, or choose a method that reads them, "
                "such as biomedcoop"
            )
        if self.unlabelled is not None and not any(one.uses_unlabelled for one in able):
            raise UserError(
                f"{method.name} does not use unlabelled images; leave --unlabelled out, or choose the method ss-text-u"
            )
        if self.alpha is not None and not method.abilities.uses_images:
            raise UserError(
                f"{method.name} learns from no image, so none is drawn to calibrate prediction sets; leave out --alpha, or "
                "choose a method that learns from images"
            )

    def __repr__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if self._matters(field)}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in values.items())})"

    def _matters(self, field: dataclasses.Field[Any]) -> bool:
        """Whether an option is shown: those that are always shown, and others that differ from their default."""
        value = getattr(self, field.name)
        return bool(field.metadata["shown"] or value != field.metadata["check"](field.name, field.default))

    @classmethod
    def names(cls) -> list[str]:
        """Name of every option."""
        return [field.name for field in dataclasses.fields(cls)]

    def for_method(self: Request, method: str) -> Request:
        """The request for one of its methods: single settings and prediction sets are those of its own, sentences and unlabelled
        images those of the methods that use them.

        A method beside auto has the recipe of auto's candidates.
        """
        from biomedcoop.methods import get_method

        settings = self.settings if method == self.method else {}
        able = get_method(method).abilities
        prompts, unlabelled = (
            self.prompts if able.uses_sentences else AUTO,
            self.unlabelled if able.uses_unlabelled else None,
        )
        beside_auto = self.method == AUTO != method and self.recipe == GENERAL
        recipe = FAST if beside_auto else self.recipe
        own = self if method == self.method else self.without_sets()
        return dataclasses.replace(
            own, method=method, recipe=recipe, settings=settings, prompts=prompts, unlabelled=unlabelled
        )

    def without_sets(self: Request) -> Request:
        """The request without prediction sets and their options."""
        return dataclasses.replace(self, alpha=None, score=options.SCORES[0], by_class=False)

    @classmethod
    def of(cls: type[Request], arguments: Mapping[str, Any]) -> Request:
        """A request from keyword arguments; ``seed=1`` stands for ``seeds=[1]``, ``budget="60s"`` for auto's setting of that name.

        Raises:
            UserError: an unknown argument (the message offers the nearest name), or a value that cannot be used.
        """
        known = [*cls.names(), "seed", BUDGET]
        for name in arguments:
            if name not in known:
                raise UserError(f"no option '{name}'; {nearest(name, known)}")
        values = _with_budget(arguments)
        if "seed" in values:
            if "seeds" in values:
                raise UserError("seed and seeds are both given; fit takes one seed, fit_runs and train take seeds")
            values["seeds"] = [options.seed("seed", values.pop("seed"))]
        if arguments.get("data") is None:
            raise UserError("no data are named; give a path, a name or what load_dataset returns")
        request = cls(**values)
        if len(set(request.seeds)) < len(request.seeds):
            twice = UserError(
                f"seeds={list(request.seeds)}: a seed is there twice, which would train the same model twice; give each once"
            )
            twice.option = "seeds"
            raise twice
        return request

    def to_dict(self) -> dict[str, Any]:
        """The request as plain JSON values. Paths are absolute, so that it can be run from any folder.

        Raises:
            UserError: the data are a loaded dataset, not a path or name.
        """
        if not isinstance(self.data, str):
            raise UserError("a loaded dataset has no JSON form; make the request with its path or name")
        values = {name: getattr(self, name) for name in self.names()}
        values["backbone"] = self.backbone if isinstance(self.backbone, str) else self.backbone.name
        values["plugins"] = tuple(absolute("plugins", file) for file in self.plugins)
        values |= {name: absolute(name, values[name]) for name in PATHS if values.get(name) is not None}
        return {"format": FORMAT_VERSION, **{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}}

    @classmethod
    def from_dict(cls: type[Request], content: Any, over: Mapping[str, Any], where: str = "request") -> Request:
        """The request that :meth:`to_dict` wrote.

        Args:
            content: the JSON values.
            over: single options that override those of the content. Settings are added one by one; another method drops
                those of the content, which belong to its own.
            where: name of the source in error lines.

        Raises:
            UserError: the content is not a request, has a newer format, or holds a value that cannot be used.
        """
        if not isinstance(content, Mapping) or type(content.get("format")) is not int:
            raise UserError(f"{where} is not a saved request; give the run.json of a run folder")
        if content["format"] < 1:
            raise UserError(
                f"{where} has format {content['format']}, which does not exist; give the run.json of a run folder"
            )
        if content["format"] > FORMAT_VERSION:
            raise UserError(
                f"{where} has format {content['format']}, this version reads up to {FORMAT_VERSION}; upgrade biomedcoop"
            )
        over = _with_budget(over)
        dropped = {"format", "seed", "seeds"} if {"seed", "seeds"} & over.keys() else {"format"}
        values = {"data": over.get("data"), **{key: value for key, value in content.items() if key not in dropped}}
        # files of the content that are looked up in its check may have moved
        values |= {name: over[name] for name in ("plugins", "backbone") if name in over}
        try:
            cls.of(values)  # checks the file alone, so that an error in it names the file
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        saved = values.get("settings") if over.get("method", values.get("method")) == values.get("method") else None
        if saved or over.get("settings"):
            over = {**over, "settings": {**(saved or {}), **(over.get("settings") or {})}}
        elif "method" in over:
            over = {**over, "settings": {}}
        return cls.of({**values, **over})

    @classmethod
    def read(cls: type[Request], path: str | os.PathLike[str], over: Mapping[str, Any] | None = None) -> Request:
        """The request in a ``run.json``; see :meth:`from_dict` for ``over`` and the errors."""
        from biomedcoop.data.readers.files.coop_split import without_repeats

        try:
            content = json.loads(Path(path).read_text(encoding="utf-8-sig"), object_pairs_hook=without_repeats)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be read ({error.strerror or error}); give the run.json of a run folder"
            ) from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not JSON ({error}); give the run.json of a run folder") from error
        return cls.from_dict(content, over or {}, os.fspath(path))

    def command(self) -> str:
        """The command that repeats the request, with file names instead of full paths, so that it can be shared."""
        words: list[str] = []
        fields = dataclasses.fields(self)
        for field in sorted(fields, key=lambda field: not field.metadata["shown"]):
            value = getattr(self, field.name)
            flag = "--" + (field.metadata["flag"] or field.name.replace("_", "-"))
            if value is None or not self._matters(field):
                continue
            if isinstance(value, bool):
                words.append(flag if value else flag.replace("--", "--no-", 1))
            elif isinstance(value, Mapping):
                for key, one in value.items():
                    words += [flag, f"{key}={one}"]
            elif field.name == "plugins":
                words += [word for one in value for word in (flag, Path(one).name)]
            elif isinstance(value, tuple):
                words += [flag, ",".join(map(str, value)) or "none"]
            else:
                words += [flag, self._public(field.name, value)]
        return shlex.join(["biomedcoop", "train", *words, "--out", "run"])

    @staticmethod
    def _public(name: str, value: Any) -> str:
        """The value as text, without folders of this machine."""
        if name in PATHS:
            return Path(os.path.abspath(value)).name if isinstance(value, str) else str(value.name)  # noqa: PTH100 - "." has no name
        return str(value)


@dataclass(frozen=True, repr=False)
class TrainRequest(FitRequest):
    """All inputs of a training run: a fit, its test and the methods for comparison.

    Attributes:
        compare: methods to train and test for comparison, on the same images and with the same draw and seed; None for those of
            :attr:`compared`.
        split_file: split JSON to use instead of the data's own split.
        window, frame: see :func:`biomedcoop.load_dataset`.
        n_bootstrap: number of bootstrap resamples for each interval.
        images: show images, their maps and their names in ``report.html``.
    """

    compare: tuple[str, ...] | None = option(
        None,
        "Methods to compare with, separated by commas, or 'none'. Default: zero-shot, and beside auto biomedcoop (recipe fast).",
        options.methods,
        kind=str,
        shown=True,
    )
    split_file: str | None = option(None, "Split JSON to use instead of the data's own split.", options.path)
    window: str = option(
        "auto",
        "Window of grey DICOM, NIfTI and NRRD images: auto (that of the file, else by the kind of image), brain, lung, bone or "
        "soft (CT), centre,width (e.g. 40,400), or file:NAME (that of the file with this explanation).",
        options.window,
    )
    frame: str = option(
        "all",
        "Frames of a file, or slices of a DICOM series, to take: all, middle, or a number from 0.",
        options.frame,
    )
    n_bootstrap: int = option(
        1000,
        f"Number of bootstrap resamples for each 95 % interval, {options.MIN_RESAMPLES} to {options.MAX_RESAMPLES:,}.",
        options.resamples,
        kind=int,
    )
    images: bool = option(True, "Show images, their maps and their names in report.html.", options.yes_or_no, kind=bool)

    @property
    def reading(self) -> Reading:
        """How files with windows and frames are read."""
        from biomedcoop.data.images.stacks import Reading

        return Reading(self.window, self.frame)

    @property
    def compared(self) -> tuple[str, ...]:
        """Methods for comparison: those of ``compare``, else zero-shot and, beside auto, biomedcoop."""
        if self.compare is not None:
            return self.compare
        return ("zero-shot", "biomedcoop") if self.method == AUTO else ("zero-shot",)


def _with_budget(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, with the option ``budget`` as the setting of that name."""
    values = dict(arguments)
    if BUDGET in values:
        try:
            seconds = options.seconds(BUDGET, values.pop(BUDGET))
        except UserError as error:
            error.option = BUDGET
            raise
        values["settings"] = {BUDGET: seconds, **options.settings("settings", values.get("settings"))}
    return values


def absolute(option: str, value: str) -> str:
    """The value of an option with an absolute path; a name, or the path of nothing, stays as it is."""
    from biomedcoop.backbones.catalogue import ZEROED_PATCHES
    from biomedcoop.backbones.registry import is_name
    from biomedcoop.data.readers.named import user_path
    from biomedcoop.prompts.sources import split_name

    names = {"data": value.startswith("simulated:"), "backbone": option == "backbone" and is_name(value)}
    names["prompts"] = value.partition(":")[0] in ("auto", "library", "templates")
    end = ""
    if option == "prompts":
        path, member = split_name(value)
        end = f":{member}" if member else ""
    else:
        end = ZEROED_PATCHES if option == "backbone" and value.endswith(ZEROED_PATCHES) else ""
        path = user_path(value.removesuffix(end) if end else value)
    if names.get(option) or not path.exists():
        return value
    return str(path.absolute()) + end
