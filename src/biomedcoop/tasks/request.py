"""The request: all inputs of a fit as one frozen value, checked when it is created.

The Python functions, the command line and a saved ``run.json`` all build a request. An option is one field here; its help line,
its flag on the command line and its JSON form follow from the field.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from biomedcoop.data.dataset import Dataset
from biomedcoop.errors import UserError

if TYPE_CHECKING:
    import torch

    from biomedcoop.backbones.base import Backbone

MAX_VIEWS = 10_000
"""Maximum number of random crops of one training image."""

FORMAT_VERSION = 1

Request = TypeVar("Request", bound="FitRequest")


class FitOptions(TypedDict, total=False):
    """Further keyword arguments of :func:`biomedcoop.fit`; see :class:`FitRequest`."""

    recipe: str
    settings: Mapping[str, Any] | None
    prompts: str | os.PathLike[str]
    modality: str | None
    organ: str | None
    repeat_shots: bool
    views: int | str
    device: torch.device | str
    precision: str


class TrainOptions(FitOptions, total=False):
    """Further keyword arguments of :func:`biomedcoop.train`; see :class:`TrainRequest`."""

    method: str
    backbone: Backbone | str | os.PathLike[str]
    shots: int
    seed: int
    compare: Iterable[str]
    split_file: str | os.PathLike[str] | None
    n_bootstrap: int


def _option(default: Any, help: str, check: Callable[[str, Any], Any], *, flag: str = "", shown: bool = False) -> Any:
    """A field of a request.

    Args:
        help: one line for the command line.
        check: called with the name and the value; returns the value in its final type, or raises a :class:`UserError`.
        flag: name on the command line, if it differs from the field's name.
        shown: write the option into every reproduced command, even at its default.
    """
    return dataclasses.field(default=default, metadata={"help": help, "check": check, "flag": flag, "shown": shown})


def _text(example: str) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise UserError(f"{name}={value!r} must be a name, e.g. {name}='{example}'")
        return value

    return check


def _words(example: str) -> Callable[[str, Any], str | None]:
    def check(name: str, value: Any) -> str | None:
        if value is not None and (not isinstance(value, str) or not value.strip() or not value.isprintable()):
            raise UserError(f"{name}={value!r} must be one or more words, e.g. {name}='{example}'")
        return value

    return check


def _whole(example: int, least: int | None = None) -> Callable[[str, Any], int]:
    def check(name: str, value: Any) -> int:
        if not isinstance(value, Integral) or isinstance(value, bool) or (least is not None and value < least):
            want = "a whole number" if least is None else f"a whole number of at least {least}"
            raise UserError(f"{name}={value!r} must be {want}, e.g. {name}={example}")
        return int(value)

    return check


def _yes_or_no(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{name}={value!r} must be True or False")
    return value


def _seeds(_: str, value: Any) -> tuple[int, ...]:
    if isinstance(value, (str, bytes, Set)) or not isinstance(value, Collection):
        raise UserError(f"seeds={value!r} must be a list of whole numbers, e.g. seeds=[1, 2, 3]")
    listed = list(value)
    whole = all(isinstance(seed, Integral) and not isinstance(seed, bool) for seed in listed)
    if not listed or not whole or not all(0 <= seed < 2**63 for seed in listed):
        raise UserError(f"seeds {listed}: give at least one, each a whole number from 0 to 2^63 - 1")
    return tuple(int(seed) for seed in listed)


def _settings(_: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise UserError(f"settings={value!r} must be a dict, e.g. settings={{'epochs': 50}}")
    return dict(value)


def _methods(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise UserError(f"{name}={value!r} must be a list of methods, e.g. {name}=['zero-shot']")
    return tuple(_text("zero-shot")(name, method) for method in value)


def _prompts(_: str, value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise UserError(
            f"prompts must be a name or a path, not {type(value).__name__}; write sentences to a JSON file and give its path"
        )
    return os.fspath(value)


def _views(_: str, value: Any) -> int | str:
    if value == "per-epoch":
        return "per-epoch"
    try:
        number = int(value)
        whole = number == float(value) and not isinstance(value, bool)
    except (TypeError, ValueError, OverflowError):
        whole, number = False, 0
    if not whole or not 1 <= number <= MAX_VIEWS:
        raise UserError(f"views={value!r} must be a whole number from 1 to {MAX_VIEWS}, or per-epoch")
    return number


def _path(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, (str, os.PathLike)):
        raise UserError(f"{name}={value!r} must be a path")
    return None if value is None else os.fspath(value)


def _backbone(_: str, value: Any) -> Any:
    from biomedcoop.backbones.base import Backbone

    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if not isinstance(value, (str, Backbone)):
        raise UserError(f"backbone={value!r} must be a name, a folder or a backbone from load_backbone")
    return value


def _device(_: str, value: Any) -> str:
    return str(value)


def _data(_: str, value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if not isinstance(value, (str, Dataset)):
        raise UserError(f"data must be a dataset from load_dataset, not {type(value).__name__}")
    return value


@dataclass(frozen=True)
class FitRequest:
    """All inputs of a fit.

    Attributes:
        data: a dataset, or a path or name for :func:`biomedcoop.load_dataset`.
        method: name of an adaptation method.
        backbone: a loaded backbone, or the name or folder of one.
        shots: training images per class.
        seeds: random seeds, one run each; a seed draws the training images and orders the batches.
        settings: single settings of the method; they override the recipe.
        prompts: sentences about the classes; see :func:`biomedcoop.prompts.sentences_for`.
        modality, organ: content of the images. The library's sentences are used only for images of this content. A benchmark
            dataset and a simulated dataset know both by themselves.
        recipe: named set of settings: "paper" (published values, for the dataset where they exist), "base-to-novel" (published
            for that protocol), "default" (the same for every dataset), "fast" (trains in about a tenth of the published time).
        views: crops of each training image: 1 is its centre crop; a larger number is that many random crops, one of which is
            drawn at each step; "per-epoch" is a new random crop in each epoch, as published.
        repeat_shots: draw with repetition from a class with fewer images than ``shots``, as published, instead of an error.
        device: device of a backbone that is given by name.
        precision: precision of that backbone's image tower; see :func:`biomedcoop.load_backbone`.

    Raises:
        UserError: a value has the wrong type or is out of range; the message names an allowed value.
    """

    data: Dataset | str = dataclasses.field(
        metadata={
            "help": "Folder of class folders, CSV or Parquet table, split JSON, MedMNIST .npz, 'simulated:<task>', or name of a "
            "dataset in the folder $BIOMEDCOOP_DATA.",
            "check": _data,
            "flag": "",
            "shown": True,
        }
    )
    method: str = _option(
        "biomedcoop", "Adaptation method ('biomedcoop methods list').", _text("biomedcoop"), shown=True
    )
    backbone: Backbone | str = _option(  # noqa: RUF009
        "mini",
        "Name of the backbone ('biomedcoop backbones list'), or folder of one in open_clip layout.",
        _backbone,
        shown=True,
    )
    shots: int = _option(16, "Training images per class.", _whole(16), shown=True)
    seeds: tuple[int, ...] = _option(
        (1,), "Random seed that draws the training images and orders the batches.", _seeds, flag="seed", shown=True
    )
    recipe: str = _option(
        "paper",
        "Named set of settings: paper (published values), base-to-novel (published for that protocol), default (the same for every "
        "dataset), or fast (about a tenth of the published training time). paper prefers the values published for the dataset.",
        _text("paper"),
    )
    settings: Mapping[str, Any] = _option(
        None, "Setting of the method, e.g. --set epochs=50. May be repeated.", _settings, flag="set"
    )
    prompts: str = _option(
        "auto",
        "Sentences about the classes: auto (the shipped library if it fits the images, else templates), library[:NAME], "
        "templates[:MODALITY], or a file (.json, .csv, .py, .txt, folder of .txt).",
        _prompts,
    )
    modality: str | None = _option(
        None, "Modality of the images, e.g. CT. '--prompts auto' needs it for your own data.", _words("CT")
    )
    organ: str | None = _option(
        None, "Organ in the images, e.g. kidney. '--prompts auto' needs it for your own data.", _words("kidney")
    )
    views: int | str = _option(
        1,
        "Crops of each training image: 1 (the centre crop), a larger number of random crops, or per-epoch (a new random crop in "
        "each epoch, as published). Each crop is encoded.",
        _views,
    )
    repeat_shots: bool = _option(False, "Draw with repetition from classes with fewer images than --shots.", _yes_or_no)
    device: str = _option("cpu", "Device of the backbone: cpu, cuda, cuda:1 or mps.", _device)
    precision: str = _option(
        "float32",
        "Precision of the image encoder: float32, bfloat16 (faster on processors with bfloat16 units), int8 (faster on other CPUs, "
        "slightly less exact), or auto. auto uses bfloat16 if it measures at least 1.5 times the speed of float32; 'biomedcoop "
        "doctor' shows the measurement.",
        _text("float32"),
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, field.metadata["check"](field.name, getattr(self, field.name)))

    @classmethod
    def names(cls, one_seed: bool = False) -> dict[str, str]:
        """Public name of every option -> its field; with ``one_seed``, ``seeds`` is called ``seed``."""
        names = [field.name for field in dataclasses.fields(cls)]
        return {"seed" if one_seed and name == "seeds" else name: name for name in names}

    @classmethod
    def of(cls: type[Request], arguments: Mapping[str, Any], one_seed: bool = False) -> Request:
        """A request from keyword arguments.

        Raises:
            UserError: an unknown argument (the message offers the nearest name), or a value that cannot be used.
        """
        known = cls.names(one_seed)
        for name in arguments:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise UserError(
                    f"no option '{name}'; {f'did you mean {near[0]}?' if near else 'known options: ' + ', '.join(known)}"
                )
        values: dict[str, Any] = {known[n]: [value] if n == "seed" else value for n, value in arguments.items()}
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The request as plain JSON values.

        Raises:
            UserError: the data are a loaded dataset, not a path or name.
        """
        if isinstance(self.data, Dataset):
            raise UserError("a loaded dataset has no JSON form; make the request with its path or name")
        values = {name: getattr(self, field) for name, field in self.names().items()}
        if "seed" in values:
            (values["seed"],) = self.seeds
        values["backbone"] = self.backbone if isinstance(self.backbone, str) else self.backbone.name
        return {"format": FORMAT_VERSION, **{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}}

    @classmethod
    def from_dict(cls: type[Request], content: Any, over: Mapping[str, Any], where: str = "request") -> Request:
        """The request that :meth:`to_dict` wrote.

        Args:
            content: the JSON values.
            over: single options that override those of the content.
            where: name of the source in error lines.

        Raises:
            UserError: the content is not a request, has a newer format, or holds a value that cannot be used.
        """
        if not isinstance(content, Mapping) or type(content.get("format")) is not int:
            raise UserError(f"{where} is not a saved request; give the run.json of a run folder")
        if content["format"] > FORMAT_VERSION:
            raise UserError(
                f"{where} has format {content['format']}, this version reads up to {FORMAT_VERSION}; upgrade biomedcoop"
            )
        values = {"data": over.get("data"), **{key: value for key, value in content.items() if key != "format"}}
        try:
            cls.of(values)  # checks the file alone, so that an error in it names the file
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        return cls.of({**values, **over})

    @classmethod
    def read(cls: type[Request], path: str | os.PathLike[str], over: Mapping[str, Any]) -> Request:
        """The request in a ``run.json``; see :meth:`from_dict` for ``over`` and the errors."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(
                f"{path}: cannot be read ({error.strerror or error}); give the run.json of a run folder"
            ) from error
        except ValueError as error:
            raise UserError(f"{path} is not JSON ({error}); give the run.json of a run folder") from error
        return cls.from_dict(content, over, os.fspath(path))

    def command(self) -> str:
        """The command that repeats the request, with file names instead of full paths, so that it can be shared."""
        words: list[str] = []
        fields = dataclasses.fields(self)
        for field in sorted(fields, key=lambda field: not field.metadata["shown"]):
            value = getattr(self, field.name)
            flag = "--" + (field.metadata["flag"] or field.name.replace("_", "-"))
            if not field.metadata["shown"] and value == field.metadata["check"](field.name, field.default):
                continue
            if value is True:
                words.append(flag)
            elif isinstance(value, Mapping):
                for key, one in value.items():
                    words += [flag, f"{key}={one}"]
            elif isinstance(value, tuple):
                words += [flag, ",".join(map(str, value)) or "none"]
            else:
                words += [flag, self._public(field.name, value)]
        return shlex.join(["biomedcoop", "train", *words, "--out", "run"])

    @staticmethod
    def _public(name: str, value: Any) -> str:
        """The value as text, without folders of this machine."""
        if name in ("data", "backbone", "prompts", "split_file"):
            return Path(value).name if isinstance(value, str) else str(value.name)
        return str(value)


@dataclass(frozen=True)
class TrainRequest(FitRequest):
    """All inputs of a training run: a fit, its test and the methods for comparison.

    Attributes:
        compare: methods to train and test for comparison, on the same images and with the same draw and seed.
        split_file: split JSON to use instead of the data's own split.
        n_bootstrap: number of bootstrap resamples for each interval.
    """

    compare: tuple[str, ...] = _option(
        ("zero-shot",), "Methods to compare with, separated by commas, or 'none'.", _methods, shown=True
    )
    split_file: str | None = _option(None, "Split JSON to use instead of the data's own split.", _path)
    n_bootstrap: int = _option(1000, "Number of bootstrap resamples for each 95 % interval.", _whole(1000, 1))

    @classmethod
    def names(cls, one_seed: bool = True) -> dict[str, str]:
        return super().names(one_seed=True)

    @classmethod
    def of(cls: type[Request], arguments: Mapping[str, Any], one_seed: bool = True) -> Request:
        return super().of(arguments, one_seed=True)
