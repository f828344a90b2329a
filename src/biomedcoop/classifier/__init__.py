"""What a fit returns, and its file format."""

from biomedcoop.classifier.artefact import load, save
from biomedcoop.classifier.classifier import Classifier

__all__ = ["Classifier", "load", "save"]
