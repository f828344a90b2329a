"""The pretraining scripts are no package: their folder joins the path, as it does when the script runs."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "pretraining"))
