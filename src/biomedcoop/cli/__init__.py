"""The ``biomedcoop`` command: thin commands over the public Python API."""

from biomedcoop.cli.main import main

__all__ = ["main"]
