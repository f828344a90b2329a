"""Adaptation methods: one file each, found by themselves."""

from biomedcoop.methods.base import Abilities, Method, Task, all_methods, get_method, register

__all__ = ["Abilities", "Method", "Task", "all_methods", "get_method", "register"]
