"""Adaptation methods: each file of this folder defines one and registers it; plug-ins add more."""

from biomedcoop.methods.base import Abilities, Method, Progress, State, Task, register
from biomedcoop.methods.plugins import load_plugin
from biomedcoop.methods.registry import all_methods, can_run, check_towers, get_method
from biomedcoop.methods.settings import setting

__all__ = [
    "Abilities",
    "Method",
    "Progress",
    "State",
    "Task",
    "all_methods",
    "can_run",
    "check_towers",
    "get_method",
    "load_plugin",
    "register",
    "setting",
]
