"""Few-shot classification of biomedical images on frozen vision-language models. Not a medical device.

import biomedcoop as bc
data = bc.load_dataset("path/to/images")
clf = bc.fit(data, method="biomedcoop", backbone="mini", seed=1)
clf.predict_proba(["scan1.png"])
bc.evaluate(clf, data)
clf.save("model"); bc.load("model")
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from biomedcoop.version import __version__

if TYPE_CHECKING:
    from biomedcoop.api import compare, evaluate, fit, fit_runs, run_benchmark, train
    from biomedcoop.backbones import load_backbone
    from biomedcoop.classifier import Classifier, load
    from biomedcoop.classifier.import_published import import_published
    from biomedcoop.classifier.suggest import suggest
    from biomedcoop.data.dataset import Dataset
    from biomedcoop.data.readers.load import load_dataset
    from biomedcoop.deploy.onnx import export_onnx
    from biomedcoop.errors import ImageError, UserError
    from biomedcoop.estimators.encoder import ImageEncoder
    from biomedcoop.estimators.few_shot import FewShotClassifier
    from biomedcoop.explain.case import case
    from biomedcoop.explain.check import check_saliency
    from biomedcoop.explain.saliency import saliency
    from biomedcoop.explain.words import words
    from biomedcoop.features.embed import embed
    from biomedcoop.report.html.write import write_html

# Loaded on first use: the import of torch alone takes a second, and ``--help`` does not need it.
_WHERE = {
    "Classifier": "biomedcoop.classifier",
    "Dataset": "biomedcoop.data.dataset",
    "FewShotClassifier": "biomedcoop.estimators.few_shot",
    "ImageEncoder": "biomedcoop.estimators.encoder",
    "ImageError": "biomedcoop.errors",
    "UserError": "biomedcoop.errors",
    "case": "biomedcoop.explain.case",
    "check_saliency": "biomedcoop.explain.check",
    "compare": "biomedcoop.api",
    "embed": "biomedcoop.features.embed",
    "evaluate": "biomedcoop.api",
    "export_onnx": "biomedcoop.deploy.onnx",
    "fit": "biomedcoop.api",
    "fit_runs": "biomedcoop.api",
    "import_published": "biomedcoop.classifier",
    "load": "biomedcoop.classifier",
    "load_backbone": "biomedcoop.backbones",
    "load_dataset": "biomedcoop.data.readers.load",
    "run_benchmark": "biomedcoop.api",
    "saliency": "biomedcoop.explain.saliency",
    "suggest": "biomedcoop.classifier.suggest",
    "train": "biomedcoop.api",
    "words": "biomedcoop.explain.words",
    "write_html": "biomedcoop.report.html.write",
}

__all__ = [
    "Classifier",
    "Dataset",
    "FewShotClassifier",
    "ImageEncoder",
    "ImageError",
    "UserError",
    "__version__",
    "case",
    "check_saliency",
    "compare",
    "embed",
    "evaluate",
    "export_onnx",
    "fit",
    "fit_runs",
    "import_published",
    "load",
    "load_backbone",
    "load_dataset",
    "run_benchmark",
    "saliency",
    "suggest",
    "train",
    "words",
    "write_html",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    if not name.startswith("_") and find_spec(f"{__name__}.{name}"):  # ``bc.api`` without an import of its own
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'biomedcoop' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
