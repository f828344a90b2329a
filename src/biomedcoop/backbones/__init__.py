"""Frozen vision-language models behind one small interface."""

from biomedcoop.backbones.registry import BACKBONES, download, load_backbone, locate

__all__ = ["BACKBONES", "download", "load_backbone", "locate"]
