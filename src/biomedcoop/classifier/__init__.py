"""The fitted classifier and its file format."""

from biomedcoop.classifier.artefact import save
from biomedcoop.classifier.classifier import Classifier
from biomedcoop.classifier.import_published import import_published
from biomedcoop.classifier.read_artefact import load

__all__ = ["Classifier", "import_published", "load", "save"]
