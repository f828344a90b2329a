"""What the Python reference holds, by chapter."""

from __future__ import annotations

IMPORT = "classifier.import_published.import_published"
"""The function by its full path, because a module of the package ``classifier`` has its name."""

CHAPTERS = {
    "From images to a classifier": ["load_dataset", "fit", "fit_runs", "train", "evaluate", "compare"],
    "A fitted classifier": ["Classifier", "load", "export_onnx", IMPORT],
    "Explanations and reports": ["saliency", "check_saliency", "case", "words", "write_html"],
    "Features, labels, backbones": ["embed", "suggest", "load_backbone"],
    "scikit-learn": ["FewShotClassifier", "ImageEncoder"],
    "Benchmarks": ["run_benchmark"],
    "Options of a run": ["tasks.request.FitRequest", "tasks.request.TrainRequest"],
    "A method of your own": [
        "methods.Method",
        "methods.Abilities",
        "methods.Task",
        "methods.register",
        "methods.setting",
    ],
    "Data and errors": ["Dataset", "data.images.stacks.Reading", "UserError", "ImageError"],
    "What functions return": [
        "report.run.RunReport",
        "evaluation.comparison.Comparison",
        "evaluation.metrics.Metrics",
        "evaluation.bootstrap.Estimate",
        "classifier.classifier.Answer",
        "classifier.suggest.Suggestion",
        "features.embed.Embeddings",
        "explain.saliency.SaliencyMap",
        "explain.check.SaliencyCheck",
        "explain.case.Case",
        "explain.words.Words",
        "deploy.onnx.Exported",
        "benchmark.runner.Summary",
        "backbones.base.Backbone",
    ],
}
"""Every public name of the package, and by its path what else a caller gets to see."""

PLACES = {name.split(".")[-1]: f"biomedcoop.{name}" for names in CHAPTERS.values() for name in names}
"""The path of each of these names."""
