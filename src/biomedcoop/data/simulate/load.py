"""Simulated data sets in memory: "simulated:breast-ultrasound?difficulty=0.7&seed=3" → a `Dataset`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

import numpy as np
import numpy.typing as npt

from biomedcoop.data.dataset import SPLITS, Dataset
from biomedcoop.data.simulate.fields import SIZE
from biomedcoop.data.simulate.scan import SimulatedTask, draw_scan, find_task
from biomedcoop.errors import UserError

PREFIX = "simulated:"
NOTE = "The images are simulated: a program drew them, they show no patient and are not for medical use."

OPTIONS = ("difficulty", "seed", *SPLITS)
_MAX_IMAGES = 10_000  # most images per class and split, and the distance between the first indices of two splits


@dataclass(frozen=True)
class SimulatedSpec:
    """What to draw.

    Attributes:
        task: task of the images.
        difficulty: 0..1.
        seed: 0 or more.
        train, val, test: images per class in each split.
    """

    task: SimulatedTask
    difficulty: float = 0.5
    seed: int = 0
    train: int = 32
    val: int = 8
    test: int = 60

    @property
    def name(self) -> str:
        """The name from which `parse_spec` makes this value: the task, and the options that are not the default."""
        default = SimulatedSpec(self.task)
        options = {key: getattr(self, key) for key in OPTIONS if getattr(self, key) != getattr(default, key)}
        return f"{PREFIX}{self.task.name}" + ("?" + urlencode(options) if options else "")

    def __len__(self) -> int:
        return (self.train + self.val + self.test) * len(self.task.class_names)


@dataclass(frozen=True, eq=False)
class SimulatedImage:
    """One image of a data set: key, label, split, pixels uint8 [224, 224], and mask of its lesion bool [224, 224]."""

    key: str
    label: int
    split: str
    pixels: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]


def parse_spec(name: str) -> SimulatedSpec:
    """Read "simulated:<task>[?difficulty=…&seed=…&train=…&val=…&test=…]"; the prefix may be left out.

    Raises:
        UserError: unknown task or option, or a value out of range.
    """
    task_name, _, query = name.removeprefix(PREFIX).partition("?")
    task = find_task(task_name)
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise UserError(f"{name}: options must read option=value, joined by '&', not {query!r}") from None
    options = dict(pairs)
    if len(options) < len(pairs):
        raise UserError(f"{name}: an option is given twice; give each option once")
    unknown = [option for option in options if option not in OPTIONS]
    if unknown:
        raise UserError(f"{name}: unknown option {unknown[0]!r}; there are: {', '.join(OPTIONS)}")

    def whole(option: str, default: int, low: int, high: int) -> int:
        text = options.get(option, str(default))
        if not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
            raise UserError(f"{name}: {option}={text} must be a whole number from {low} to {high}")
        return int(text)

    text = options.get("difficulty", "0.5")
    try:
        difficulty = float(text)
    except ValueError:
        difficulty = -1.0
    if not 0 <= difficulty <= 1:
        raise UserError(f"{name}: difficulty={text} must be a number between 0 and 1")
    return SimulatedSpec(
        task=task,
        difficulty=difficulty,
        seed=whole("seed", 0, 0, 2**63 - 1),
        train=whole("train", 32, 1, _MAX_IMAGES),
        val=whole("val", 8, 0, _MAX_IMAGES),
        test=whole("test", 60, 0, _MAX_IMAGES),
    )


def draw_images(spec: SimulatedSpec) -> Iterator[SimulatedImage]:
    """The images of ``spec``, by split, class and number."""
    for split in SPLITS:
        for label, class_name in enumerate(spec.task.class_names):
            folder = f"{split}/{class_name.replace(' ', '_')}"
            for number in range(getattr(spec, split)):
                pixels, mask = draw_scan(spec.task.name, label, spec.seed, _index(split, number), spec.difficulty)
                yield SimulatedImage(f"{folder}/{number:04d}.png", label, split, pixels, mask)


def _index(split: str, number: int) -> int:
    """Each split has its own range of indices, so that more training images do not change the test images."""
    return SPLITS.index(split) * _MAX_IMAGES + number


def draw_masks(data: Dataset) -> list[npt.NDArray[np.bool_]]:
    """The lesions of simulated images, drawn anew from the dataset's name and the images' keys.

    Returns:
        A mask bool [224, 224] for each image; all False for a class without lesions.

    Example:
        >>> from biomedcoop.data.simulate import draw_masks, load_simulated
        >>> data = load_simulated("simulated:breast-ultrasound?train=1&val=0&test=0")
        >>> [bool(mask.any()) for mask in draw_masks(data)]
        [True, True, False]
    """
    spec, masks = parse_spec(data.name), []
    for key, label in zip(data.keys, data.labels.tolist(), strict=True):
        split, number = key.split("/")[0], int(key.rpartition("/")[2].removesuffix(".png"))
        masks.append(draw_scan(spec.task.name, label, spec.seed, _index(split, number), spec.difficulty)[1])
    return masks


def load_simulated(name: str, on_image: Callable[[int, int], None] | None = None) -> Dataset:
    """Draw a simulated data set in memory.

    Args:
        name: "simulated:breast-ultrasound" or "simulated:kidney-ct", with options after "?": ``difficulty`` (0..1,
            default 0.5), ``seed`` (default 0) and images per class ``train``, ``val``, ``test`` (default 32, 8, 60).
        on_image: called with (images drawn, images in total) after each image, for a progress bar.

    Returns:
        `Dataset` with images uint8 [N, 224, 224], ``simulated`` set and a note that says so.

    Raises:
        UserError: unknown task or option, or a value out of range.
    """
    spec = parse_spec(name)
    images = np.empty((len(spec), SIZE, SIZE), dtype=np.uint8)
    keys, labels, splits = [], [], []
    for position, image in enumerate(draw_images(spec)):
        images[position] = image.pixels
        keys.append(image.key)
        labels.append(image.label)
        splits.append(image.split)
        if on_image is not None:
            on_image(position + 1, len(spec))
    return Dataset(
        name=spec.name,
        class_names=spec.task.class_names,
        images=images,
        keys=tuple(keys),
        labels=np.array(labels, dtype=np.int64),
        splits=np.array(splits, dtype=np.str_),
        simulated=True,
        notes=(NOTE,),
    )
