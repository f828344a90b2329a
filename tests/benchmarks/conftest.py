"""The benchmark scripts are no package: their folder joins the path, as it does when a script runs."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
