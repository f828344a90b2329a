"""The ``biomedcoop`` command line; each command calls the public Python API."""

from biomedcoop.cli.main import main

__all__ = ["main"]
