"""``python -m biomedcoop``."""

from biomedcoop.cli import main

main()
