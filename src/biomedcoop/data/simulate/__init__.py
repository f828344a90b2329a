"""Simulated imaging tasks: drawn by a program, with the lesions' masks, in place of images that may not be shipped."""

from biomedcoop.data.simulate.load import SimulatedSpec, draw_masks, load_simulated, parse_spec
from biomedcoop.data.simulate.scan import TASKS, SimulatedTask, draw_scan
from biomedcoop.data.simulate.write import MARKER, marked, write_simulated

__all__ = [
    "MARKER",
    "TASKS",
    "SimulatedSpec",
    "SimulatedTask",
    "draw_masks",
    "draw_scan",
    "load_simulated",
    "marked",
    "parse_spec",
    "write_simulated",
]
