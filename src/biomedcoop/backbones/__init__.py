"""Frozen vision-language models behind one small interface."""

from biomedcoop.backbones.catalogue import BACKBONES
from biomedcoop.backbones.fetch import download
from biomedcoop.backbones.registry import load_backbone, locate

__all__ = ["BACKBONES", "download", "load_backbone", "locate"]
