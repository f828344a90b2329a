"""Check saliency maps: do they lie on lesions, do they show what decides, and do they depend on what was learned?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from html import escape
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from biomedcoop.backbones.base import Backbone
from biomedcoop.classifier.classifier import Classifier
from biomedcoop.data.dataset import Dataset, check_dataset
from biomedcoop.data.images.crops import resize_and_crop
from biomedcoop.data.images.reading import read_image
from biomedcoop.data.masks import Mask, check_masks, find_masks
from biomedcoop.display import shown
from biomedcoop.errors import UserError, notify, whole_number
from biomedcoop.evaluation.bootstrap import FEW, Estimate
from biomedcoop.evaluation.evaluate import check_classifier
from biomedcoop.evaluation.images import images_to_evaluate
from biomedcoop.evaluation.intervals import student
from biomedcoop.explain.faithfulness import STEPS, deletion, insertion
from biomedcoop.explain.kinds import DEFAULT_MAP, MOST_CHECKED
from biomedcoop.explain.localisation import TOLERANCE, Localisation, centre_blob, localise
from biomedcoop.explain.maps import crop_maps
from biomedcoop.explain.placement import onto_image
from biomedcoop.explain.sanity import (
    THRESHOLD,
    Crops,
    Floats,
    Labels,
    Maps,
    randomised,
    rank_correlations,
    structural_similarities,
    with_nonsense,
)
from biomedcoop.progress import Progress, ProgressOption

CENTRE_BLOB = "centre blob"
"""Baseline in every check: a Gaussian in the middle of the crop, whatever the image shows."""

TOO_FEW = "too few images to tell"

RANDOM_WEIGHTS, OTHER_CLASS, NONSENSE = "random weights", "another class", "nonsense text"
MISSING = Estimate(None, None, None)


@dataclass(frozen=True)
class Change:
    """How much the maps change in one sanity check.

    Attributes:
        correlation: Spearman's rank correlation with the maps before.
        similarity: structural similarity (SSIM) with the maps before.
    """

    correlation: Estimate
    similarity: Estimate

    @property
    def fails(self) -> bool:
        """Whether the maps change too little; see :data:`biomedcoop.explain.sanity.THRESHOLD`."""
        return self.correlation.value is not None and self.correlation.value > THRESHOLD


@dataclass(frozen=True)
class MapCheck:
    """The check of one map: means over images, with the 95 % interval of Student's t.

    Attributes:
        map: name of the map.
        images, lesions: number of images, and of those with a lesion inside the crop.
        even: number of images whose map has one value everywhere.
        pointing, iou, dice, energy, area: see :class:`biomedcoop.explain.localisation.Localisation`.
        deletion, insertion: areas under the curves of :mod:`biomedcoop.explain.faithfulness`.
        changes: by sanity check.
    """

    map: str
    images: int
    lesions: int
    even: int
    pointing: Estimate
    iou: Estimate
    dice: Estimate
    energy: Estimate
    area: Estimate
    deletion: Estimate
    insertion: Estimate
    changes: Mapping[str, Change]

    @property
    def too_few(self) -> bool:
        """Whether the images are too few to say that the map fails or passes."""
        return self.images < FEW

    @property
    def fails(self) -> list[str]:
        """The sanity checks that the map fails."""
        return [name for name, change in self.changes.items() if change.fails]

    @property
    def verdict(self) -> str:
        """The failed sanity checks in words."""
        return TOO_FEW if self.too_few else ", ".join(self.fails) or "none"


@dataclass(frozen=True)
class SaliencyCheck:
    """What :func:`check_saliency` finds; it prints as a table.

    Attributes:
        rows: by map; the last is the baseline, a blob in the middle.
        dataset: name of the data.
        method, tower: of the classifier, and kind of its image tower.
        tolerance: of the pointing game, px.
    """

    rows: Sequence[MapCheck]
    dataset: str
    method: str
    tower: str
    tolerance: float

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Names of the columns, and a row of cells for each map."""
        tests = list(dict.fromkeys(name for row in self.rows for name in row.changes))
        columns = [
            "map",
            "images",
            "lesions",
            "even",
            "pointing",
            "IoU",
            "Dice",
            "energy",
            "deletion",
            "insertion",
            *tests,
            "fails",
        ]
        rows = []
        for row in self.rows:
            values = (row.pointing, row.iou, row.dice, row.energy, row.deletion, row.insertion)
            changes = (row.changes[name].correlation if name in row.changes else MISSING for name in tests)
            cells = map(str, (row.images, row.lesions, row.even, *values, *changes))
            rows.append([row.map, *cells, row.verdict])
        return columns, rows

    def to_dict(self) -> dict[str, Any]:
        """All facts as JSON values; ``fails`` is None where there are too few images to tell."""
        rows = [{**asdict(row), "fails": None if row.too_few else row.fails} for row in self.rows]
        return {**asdict(self), "rows": rows}

    def __str__(self) -> str:
        columns, rows = self.table()
        widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, cells, widths)).rstrip() for cells in (columns, *rows))

    def _repr_html_(self) -> str:
        columns, rows = self.table()
        head = "".join(f"<th>{escape(name)}</th>" for name in columns)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>" for cells in rows)
        about = f"{self.dataset}, {self.method}, {self.tower}; tolerance {self.tolerance:g} px"
        return f"<table><caption>{escape(about)}</caption><tr>{head}</tr>{body}</table>"


@dataclass(frozen=True, eq=False)
class CheckedImages:
    """Images to check maps on.

    Attributes:
        crops: uint8 [N, S, S, 3].
        labels: class of each, int64 [N].
        sizes: (height, width) of each original image.
        masks: lesion of each at the original size, or None.
    """

    crops: Crops
    labels: Labels
    sizes: Sequence[tuple[int, int]]
    masks: Sequence[Mask | None]


def check_saliency(
    classifier: Classifier,
    data: Dataset,
    maps: Sequence[str] = (DEFAULT_MAP,),
    masks: str | os.PathLike[str] | Sequence[Mask | None] | None = None,
    *,
    split: str | None = None,
    images: int = MOST_CHECKED,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    progress: ProgressOption = None,
) -> SaliencyCheck:
    """Check whether saliency maps are true, on labelled images.

    Each map explains the labelled class. Sanity checks ask for the same map with random weights in the image tower, for another
    class, and for nonsense texts in place of the classes. A map that changes too little fails.

    Args:
        maps: names in :data:`biomedcoop.explain.kinds.MAPS`. gScoreCAM takes seconds for an image, five times in a check.
        masks: lesions: a folder of files named as the images, or an array bool [H, W] or None for each image of ``data``; by
            default those of simulated images or beside the images, see :func:`biomedcoop.data.masks.find_masks`.
        split: "train", "val", "test" or "all"; by default as in :func:`biomedcoop.evaluate`.
        images: most images that are checked, drawn at random, equally many of each class as far as there are any; a note says if
            there are more.
        tolerance: of the pointing game, px of the original image.
        seed: draws the images and the random weights.
        progress: see :func:`biomedcoop.fit`.

    Raises:
        UserError: a map, a mask, the split or the number of images cannot be used.
        ImageError: an image or a mask cannot be read.

    Example:
        >>> import biomedcoop as bc
        >>> data = bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=1")
        >>> found = bc.check_saliency(bc.fit(data, method="zero-shot"), data, ["grad-cam"], images=3)
        >>> [row.map for row in found.rows], found.rows[0].lesions, found.rows[1].fails
        (['grad-cam', 'centre blob'], 2, ['random weights', 'another class', 'nonsense text'])
    """
    check_classifier(classifier)
    images, seed = whole_number("images", images, MOST_CHECKED, 1), whole_number("seed", seed, 1)
    if isinstance(tolerance, bool) or not isinstance(tolerance, Real) or not 0 <= float(tolerance) < float("inf"):
        raise UserError(f"tolerance={tolerance!r} must be a number of pixels of at least 0, e.g. tolerance={TOLERANCE}")
    maps = [maps] if isinstance(maps, str) else maps
    if not isinstance(maps, Sequence) or not maps or not all(isinstance(name, str) for name in maps):
        raise UserError(f"maps={maps!r} must be a list of names, e.g. maps=['{DEFAULT_MAP}']")
    data = check_dataset(data)
    evaluated = images_to_evaluate(classifier, data, split)
    chosen = _equally_many(evaluated.labels, images, seed)
    part = evaluated.data.select(chosen)
    if masks is None or isinstance(masks, (str, os.PathLike)):
        lesions = find_masks(evaluated.data, masks, chosen.tolist())
    elif len(masks) == len(data):
        given = dict(zip(data.keys, masks, strict=True))
        lesions = [given[key] for key in part.keys]
    else:
        raise UserError(f"{len(masks)} masks for {len(data)} images; give one for each image, or None")
    checked = read_checked(part, evaluated.labels[chosen], lesions, classifier.backbone)
    if len(part) < len(evaluated.data):
        of, total = "" if evaluated.split == "all" else f"{evaluated.split} ", len(evaluated.data)
        drawn = "drawn at random, equally many of each class as far as possible"
        more = f"--images {total} takes all, in more time"
        notify([f"The check takes {len(part)} of the {total} {of}images, {drawn}; {more}."])
    with shown(progress) as tell:
        rows = check_maps(classifier, checked, maps_by_name(maps), tolerance=tolerance, seed=seed, progress=tell)
    return SaliencyCheck(rows, data.name, classifier.method, classifier.backbone.tower_kind, tolerance)


def read_checked(data: Dataset, labels: Labels, masks: Sequence[Mask | None], backbone: Backbone) -> CheckedImages:
    """Read the images of a dataset and compare the sizes of their masks; ``backbone`` decides the crops."""
    opened = [read_image(image, key) for image, key in zip(data.images, data.keys, strict=True)]
    sizes = [(image.height, image.width) for image in opened]
    check_masks(masks, sizes, data.keys)
    crops = [resize_and_crop(image, backbone.image_size, backbone.resize) for image in opened]
    return CheckedImages(np.stack(crops), labels, sizes, masks)


def maps_by_name(names: Sequence[str]) -> dict[str, Maps]:
    """The functions of the maps, and of the baseline behind them."""
    return {**{name: partial(crop_maps, map=name) for name in names}, CENTRE_BLOB: _blobs}


def check_maps(
    classifier: Classifier,
    images: CheckedImages,
    maps: Mapping[str, Maps],
    *,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    steps: int = STEPS,
    sanity: bool = True,
    progress: Progress | None = None,
) -> list[MapCheck]:
    """Check maps by name; arguments as for :func:`check_saliency`.

    Args:
        maps: name -> function; see :func:`maps_by_name`.
        steps: points of the curves of deletion and insertion.
        sanity: whether the sanity checks are made.
    """
    from biomedcoop.features.passes import encode_crops

    crops, labels = images.crops, images.labels
    tests = _sanity_tests(classifier, crops, labels, seed) if sanity else {}

    def predict(part: Crops) -> Floats:
        return classifier.probabilities(encode_crops(classifier.backbone, list(part)))

    found, done = [], 0
    for name, function in maps.items():

        def made(model: Classifier, classes: Labels, name: str = name, function: Maps = function) -> Floats:
            nonlocal done
            values = function(model, crops, classes)
            done += 1
            if progress is not None:
                progress(f"checking {name}", done, len(maps) * (len(tests) + 1))
            return values

        values = made(classifier, labels)
        changes = {}
        for test, (model, classes) in tests.items():
            after = made(model, classes)
            changes[test] = Change(
                _mean(rank_correlations(values, after), -1.0), _mean(structural_similarities(values, after), -1.0)
            )
        placed = [
            onto_image(one, width, height, classifier.backbone.resize)
            for one, (height, width) in zip(values, images.sizes, strict=True)
        ]
        lesions = [
            hit
            for one, mask in zip(placed, images.masks, strict=True)
            if mask is not None and (hit := localise(one, mask, tolerance)) is not None
        ]
        means = {field: _mean([getattr(hit, field) for hit in lesions]) for field in Localisation._fields}
        curves = [curve(crops, values, labels, predict, steps).auc for curve in (deletion, insertion)]
        even = sum(int(one.min() == one.max()) for one in values)
        found.append(
            MapCheck(
                name,
                len(crops),
                len(lesions),
                even,
                **means,
                deletion=_mean(curves[0]),
                insertion=_mean(curves[1]),
                changes=changes,
            )
        )
    return found


def _sanity_tests(
    classifier: Classifier, crops: Crops, labels: Labels, seed: int
) -> dict[str, tuple[Classifier, Labels]]:
    """By sanity check, the changed classifier and the classes that the maps are asked for."""
    random = replace(classifier, backbone=randomised(classifier.backbone, crops, seed))
    others = (labels + 1) % len(classifier.class_names)
    tests = {RANDOM_WEIGHTS: (random, labels), OTHER_CLASS: (classifier, others)}
    if (nonsense := with_nonsense(classifier)) is not None:
        tests[NONSENSE] = nonsense, labels
    return tests


def _blobs(classifier: Classifier, crops: Crops, classes: Labels) -> Floats:
    return np.repeat(centre_blob(np.zeros(crops.shape[1:3], dtype=np.float32))[None], len(crops), axis=0)


def _mean(values: Floats | Sequence[float], lowest: float = 0.0) -> Estimate:
    """Mean of the values that are not nan, with an interval inside their range from ``lowest`` to 1."""
    defined = [float(value) for value in values if not np.isnan(value)]
    found = student(defined) if defined else MISSING
    if found.low is None or found.high is None:
        return found
    return replace(found, low=max(found.low, lowest), high=min(found.high, 1.0))


def _equally_many(labels: Labels, most: int, seed: int) -> npt.NDArray[np.int64]:
    """Places of at most ``most`` images, as many of each class as there are, drawn at random, in their order."""
    order = np.random.default_rng(seed).permutation(len(labels))
    rank = np.empty(len(labels), dtype=np.int64)  # first, second, … image of its class
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        rank[of_class] = np.arange(len(of_class))
    return np.sort(order[np.argsort(rank[order], kind="stable")][:most])
