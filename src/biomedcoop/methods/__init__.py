"""Adaptation methods: each file of this folder defines one and registers it."""

from biomedcoop.methods.base import Abilities, Method, Task, all_methods, get_method, register

__all__ = ["Abilities", "Method", "Task", "all_methods", "get_method", "register"]
