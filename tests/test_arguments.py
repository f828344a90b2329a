"""Arguments of the public functions that are of the wrong kind or out of range: one clear line each, before long work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone

COUNTS = (0, -1, 1.5, "3x", True, float("nan"), [2])
SEEDS = (-1, 1.5, "x", True, [1])
SHARES = (0, 1, -0.5, "x", True, float("nan"))
LISTS = (0, 1.5, True, [0], "x")
NO_SOURCE = (0, 1.5, None, [0], object())
NO_PATH = (0, None, [])


class World(NamedTuple):
    data: bc.Dataset
    folder: Path
    classifier: bc.Classifier
    backbone: Backbone
    out: Path

    def fit(self, **options: Any) -> Any:
        return bc.fit(self.data, **{"method": "simpleshot", "backbone": self.backbone, "shots": 2, **options})

    def fit_runs(self, seeds: Any) -> Any:
        return bc.fit_runs(self.data, "simpleshot", self.backbone, 2, seeds)

    def train(self, **options: Any) -> Any:
        return bc.train(self.folder, self.out / "run", method="simpleshot", backbone=self.backbone, **options)

    def check(self, **options: Any) -> Any:
        return bc.check_saliency(self.classifier, self.data, **options)

    def benchmark(self, **options: Any) -> Any:
        return bc.run_benchmark("quick", self.out / "benchmark", dry_run=True, **options)

    def estimator(self, **options: Any) -> Any:
        images, labels = list(self.data.images[:30]), self.data.labels[:30]
        return bc.FewShotClassifier("simpleshot", self.backbone, **options).fit(images, labels)


Call = Callable[[World, Any], Any]

WRONG: dict[str, tuple[Call, tuple[Any, ...]]] = {
    "shots of fit": (lambda w, v: w.fit(shots=v), COUNTS),
    "seed of fit": (lambda w, v: w.fit(seed=v), SEEDS),
    "alpha of fit": (lambda w, v: w.fit(alpha=v), SHARES),
    "views of fit": (lambda w, v: w.fit(views=v), COUNTS),
    "budget of fit": (lambda w, v: w.fit(method="auto", budget=v), (0, -1, "soon", True, float("nan"))),
    "settings of fit": (lambda w, v: w.fit(settings=v), (0, "x", [1])),
    "seeds of fit_runs": (lambda w, v: w.fit_runs(v), (0, 1.5, "1", None, [], [1.5], ["a"], [-1], [True])),
    "n_bootstrap of train": (lambda w, v: w.train(n_bootstrap=v), COUNTS),
    "n_bootstrap of evaluate": (lambda w, v: bc.evaluate(w.classifier, w.data, n_bootstrap=v), COUNTS),
    "seed of evaluate": (lambda w, v: bc.evaluate(w.classifier, w.data, seed=v), SEEDS),
    "n_bootstrap of compare": (lambda w, v: bc.compare(w.classifier, w.data, n_bootstrap=v), COUNTS),
    "images of suggest": (lambda w, v: bc.suggest(w.classifier, v), NO_SOURCE),
    "number of suggest": (lambda w, v: bc.suggest(w.classifier, w.data, v), COUNTS),
    "top of case": (lambda w, v: bc.case(w.classifier, w.data.images[0], top=v), COUNTS),
    "top of words": (lambda w, v: bc.words(w.classifier, v), COUNTS),
    "images of check_saliency": (lambda w, v: w.check(images=v), COUNTS),
    "seed of check_saliency": (lambda w, v: w.check(seed=v), SEEDS),
    "tolerance of check_saliency": (lambda w, v: w.check(tolerance=v), (-1, "x", None, True, float("nan"))),
    "maps of check_saliency": (lambda w, v: w.check(maps=v), (0, None, [], [0], "no-map")),
    "class_name of saliency": (lambda w, v: bc.saliency(w.classifier, w.data.images[0], v), (0, 1.5, [], "no class")),
    "images of saliency": (lambda w, v: bc.saliency(w.classifier, v), (0, 1.5, None, [0])),
    "source of embed": (lambda w, v: bc.embed(v, w.backbone), NO_SOURCE),
    "source of load_dataset": (lambda w, v: bc.load_dataset(v), NO_PATH),
    "seed of load_dataset": (lambda w, v: bc.load_dataset(w.folder, seed=v), SEEDS),
    "frame of load_dataset": (lambda w, v: bc.load_dataset(w.folder, frame=v), (-1, 1.5, None, "last")),
    "folder of load": (lambda w, v: bc.load(v), NO_PATH),
    "name of load_backbone": (lambda w, v: bc.load_backbone(v), NO_PATH),
    "source of import_published": (lambda w, v: bc.import_published(v), NO_PATH),
    "path of export_onnx": (lambda w, v: bc.export_onnx(w.classifier, v), NO_PATH),
    "run of write_html": (lambda w, v: bc.write_html(v), NO_PATH),
    "images of predict_proba": (lambda w, v: w.classifier.predict_proba(v), (0, 1.5, None, [0])),
    "batch of predict_stream": (lambda w, v: next(w.classifier.predict_stream(w.data.images[:1], v)), COUNTS),
    "class_names of for_classes": (lambda w, v: w.classifier.for_classes(v), (0, None, [], "ab", ["one"])),
    "split of counts": (lambda w, v: w.data.counts(v), (0, None, "all")),
    "indices of select": (lambda w, v: w.data.select(v), ("x", [10_000], [1.5])),
    "shots of run_benchmark": (lambda w, v: w.benchmark(shots=v), (*LISTS, [-1])),
    "seeds of run_benchmark": (lambda w, v: w.benchmark(seeds=v), (0, 1.5, True, "x", [-1], [1.5])),
    "datasets of run_benchmark": (lambda w, v: w.benchmark(datasets=v), LISTS),
    "methods of run_benchmark": (lambda w, v: w.benchmark(methods=v), LISTS),
    "jobs of run_benchmark": (lambda w, v: w.benchmark(jobs=v), COUNTS),
    "threads of run_benchmark": (lambda w, v: w.benchmark(threads=v), COUNTS),
    "shots of FewShotClassifier": (lambda w, v: w.estimator(shots=v), COUNTS),
    "random_state of FewShotClassifier": (lambda w, v: w.estimator(random_state=v), (-1, 1.5, "x")),
    "alpha of FewShotClassifier": (lambda w, v: w.estimator(alpha=v), SHARES),
    "backbone of ImageEncoder": (lambda w, v: bc.ImageEncoder(v).fit([w.data.images[0]]), NO_PATH),
}


@pytest.fixture(scope="module")
def world(discs: Path, tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> World:
    data = bc.load_dataset(discs)
    classifier = bc.fit(data, "coop", tiny, shots=2, settings={"epochs": 1})
    return World(data, discs, classifier, tiny, tmp_path_factory.mktemp("out"))


@pytest.mark.parametrize("argument", WRONG)
def test_a_wrong_argument_is_one_line(world: World, argument: str) -> None:
    call, values = WRONG[argument]
    for value in values:
        with pytest.raises(bc.UserError) as refused:
            call(world, value)
        line = str(refused.value)
        assert "\n" not in line, value
        assert len(line) < 500, value
    assert list(world.out.iterdir()) == []


def test_every_public_function_is_in_the_table() -> None:
    functions = {name for name in bc.__all__ if callable(getattr(bc, name)) and name[0].islower()}
    assert functions <= {argument.partition(" of ")[2] for argument in WRONG}
