"""The content of a run's report as a value; it holds no path, date or timing, so that equal runs give equal reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from biomedcoop.evaluation.alarms import Verdict
from biomedcoop.evaluation.comparison import UNEVEN, Comparison
from biomedcoop.evaluation.metrics import Metrics, plain
from biomedcoop.evaluation.verdict import judge
from biomedcoop.notebook import fragment
from biomedcoop.report.tables import comparison_cells

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class DatasetSummary:
    """The data of a run.

    Attributes:
        name: name of the dataset.
        class_names: C names.
        counts: images per class in each split: {"train": [C], "val": [C], "test": [C]}; empty splits may be left out.
        simulated: True if a program drew the images.
        modality: e.g. "ultrasound", or None.
        organ: e.g. "breast", or None.
        notes: notes on how the data were read, a sentence each.
        image_notes: notes on unusual images, a sentence each; they name no image.
    """

    name: str
    class_names: tuple[str, ...]
    counts: Mapping[str, Sequence[int]]
    simulated: bool = False
    modality: str | None = None
    organ: str | None = None
    notes: tuple[str, ...] = ()
    image_notes: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class RunReport:
    """The results of one trained method, with those of the methods for comparison.

    Attributes:
        title: headline of the report.
        dataset: dataset of the test and, unless ``trained_on`` names another, of training.
        method: name of the method.
        settings: the method's settings, JSON values.
        backbone: name of the frozen model.
        fingerprint: fingerprint of the backbone.
        shots: training images per class, "all", or None for a method that needs none.
        sampling: how they were drawn, "equal" or "realistic"; of a realistic draw, ``shots`` is the mean over the classes.
        seed: random seed of the draw of the training images and of the training.
        versions: software versions, e.g. {"torch": "2.4.0"}.
        comparison: predictions and metrics of each method on the same test images; the reported method first.
        recipe: recipe that the settings come from.
        split: the tested split: "test", or in an evaluation "train", "val" or "all".
        trained_on: name of the dataset of training if it is another run that trained the method, else None.
        unlike: a sentence on the test images unlike the training images, or an empty text.
        leaks: overlaps of test and training images, a sentence each; they make the results too good.
        notes: further sentences for the reader.
        command: a command that repeats the run, without paths of this machine; optional.
        text_tower: False if the backbone has no text tower.
        tried: methods that a method tried in the run of the first seed, as :meth:`biomedcoop.methods.Method.tried` gives them.
        may_calibrate: True if '--calibrate yes' would fit a temperature where none was fitted.
    """

    title: str
    dataset: DatasetSummary
    method: str
    settings: Mapping[str, Any]
    backbone: str
    fingerprint: str
    shots: int | str | None
    seed: int
    versions: Mapping[str, str]
    comparison: Comparison
    recipe: str | None = None
    sampling: str = "equal"
    split: str = "test"
    trained_on: str | None = None
    unlike: str = ""
    leaks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    command: str = ""
    text_tower: bool = True
    tried: tuple[Mapping[str, Any], ...] = ()
    may_calibrate: bool = False

    def __repr__(self) -> str:
        width = max(map(len, self.rows))
        rows = [f"  {name:<{width}}  accuracy {metrics.accuracy}" for name, metrics in self.rows.items()]
        first = f"RunReport({self.title}, backbone={self.backbone!r}, shots={self.shots!r}; {self.metrics.n_images} test images)"
        headline = [f"  {finding.text}" for finding in self.verdict if finding.kind == "headline"]
        return "\n".join([first, *headline, *rows])

    def _repr_html_(self) -> str:
        """The verdict and the table of methods, for a notebook."""
        sentences = [*(finding.text for finding in self.verdict), "Not a medical device."]
        table = comparison_cells(self.rows)
        cells = [[str(cell) for cell in row] for row in table.rows]
        return fragment(self.title, list(table.columns), cells, sentences)

    def figure(self, name: str = "roc") -> Figure:
        """A figure of the report, as a matplotlib figure that pyplot does not know; a notebook shows it.

        Args:
            name: "intervals", "confusion", "reliability", "roc" or "precision-recall"; the arrays behind them come from
                :mod:`biomedcoop.evaluation.curves`.

        Raises:
            UserError: there is no such figure.
        """
        from biomedcoop.report.curves import figure_of

        return figure_of(self.comparison, name)

    @property
    def rows(self) -> Mapping[str, Metrics]:
        """Metrics of each method on the same test images, the reported one first, the majority class last."""
        return self.comparison.rows

    @property
    def metrics(self) -> Metrics:
        """Metrics of the reported method."""
        return self.comparison.metrics

    @property
    def unlike_training(self) -> int | None:
        """Number of test images unlike the training images, or None if that is unknown."""
        unlike = self.comparison.predictions.unlike
        return None if unlike is None else int(unlike.sum())

    @property
    def unused(self) -> int:
        """Number of training images that '--shots all' would add; 0 if the classes would then be uneven, or another run trained."""
        counts = self.dataset.counts.get("train", ())
        if (
            self.trained_on is not None
            or not isinstance(self.shots, int)
            or not counts
            or max(counts) > UNEVEN * min(counts)
        ):
            return 0
        return max(0, sum(counts) - self.shots * len(counts))

    @property
    def who_tried(self) -> str:
        """Words for the title of a table: the method tried; of several seeds, which one."""
        predictions = self.comparison.predictions
        several = predictions.folds is None and len(predictions.seeds) > 1
        return f"{self.method} tried{f', seed {self.seed}' if several else ''}"

    @cached_property
    def verdict(self) -> Verdict:
        """What the results mean, the most important first."""
        return judge(
            self.comparison,
            shots=self.shots,
            recipe=self.recipe,
            unused=self.unused,
            leaks=self.leaks,
            unlike=self.unlike,
            elsewhere=self.trained_on not in (None, self.dataset.name),
            text_tower=self.text_tower,
            may_calibrate=self.may_calibrate,
        )

    def to_dict(self) -> dict[str, Any]:
        """The content of ``metrics.json``: plain JSON values."""
        differences = self.comparison.differences
        return {
            "format": 1,
            "title": self.title,
            "verdict": [{"kind": finding.kind, "text": finding.text} for finding in self.verdict],
            "dataset": self.dataset.name,
            "simulated": self.dataset.simulated,
            "modality": self.dataset.modality,
            "organ": self.dataset.organ,
            "dataset_notes": list(self.dataset.notes),
            "image_notes": list(self.dataset.image_notes),
            "class_names": list(self.dataset.class_names),
            "counts": {split: [int(n) for n in counts] for split, counts in self.dataset.counts.items()},
            "method": self.method,
            "recipe": self.recipe,
            "settings": dict(self.settings),
            "backbone": self.backbone,
            "fingerprint": self.fingerprint,
            "text_tower": self.text_tower,
            "may_calibrate": self.may_calibrate,
            "shots": self.shots,
            "sampling": self.sampling,
            "seed": self.seed,
            "versions": dict(self.versions),
            "rows": {name: metrics.to_dict() for name, metrics in self.rows.items()},
            "folds": self.comparison.predictions.folds,
            "seeds": list(self.comparison.predictions.seeds),
            "by_seed": plain(self.comparison.by_run),
            "accuracy_differences": {name: plain(asdict(d.accuracy)) for name, d in differences.items()},
            "balanced_accuracy_differences": {
                name: plain(asdict(d.balanced_accuracy)) for name, d in differences.items()
            },
            "changed_answers": {name: d.changed for name, d in differences.items()},
            "split": self.split,
            "trained_on": self.trained_on or self.dataset.name,
            "evaluation": self.trained_on is not None,
            "leaks": list(self.leaks),
            "unlike": self.unlike,
            "report_notes": list(self.notes),
            "tried": [dict(one) for one in self.tried],
            "command": self.command,
            "unlike_training": self.unlike_training,
            "calibration": None if self.comparison.calibration is None else self.comparison.calibration.to_dict(),
            "prediction_sets": None if self.comparison.coverage is None else self.comparison.coverage.to_dict(),
            "subgroups": None if self.comparison.subgroups is None else self.comparison.subgroups.to_dict(),
        }
