"""Settings of a method: one declaration gives each setting its default, its allowed values and its line of help.

The settings of a method are a frozen dataclass whose fields come from :func:`setting`. A subclass may give a field another
default (``batch_size: int = 4``) and inherits the rest of the declaration.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from biomedcoop.deprecation import deprecated
from biomedcoop.errors import UserError, nearest

RENAMED_SETTINGS = {"context_length": "n_context"}
"""Former setting names -> their present names. Artefacts may hold them for good, users write them until the version below."""

FORMER_NAMES_END = "0.4"

SPELLINGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class Setting:
    """The declaration of one setting.

    Attributes:
        default: the published value; its type is the type of the setting.
        meaning: one line of help.
        least, most: inclusive limits of a number.
        above, below: exclusive limits of a number.
        choices: allowed words.
        template: True if the value is a text with one ``{}`` for the class name.
    """

    default: Any
    meaning: str
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    template: bool = False

    @property
    def allowed(self) -> str:
        """Short description of the allowed values."""
        if isinstance(self.default, bool):
            return "true or false"
        if self.template:
            return "a text with one {}"
        if self.choices:
            return " or ".join(self.choices)
        limits = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        words = [f"{word} {limit:g}" for word, limit in limits.items() if limit is not None]
        return " and ".join(words) or ("a text" if isinstance(self.default, str) else "a finite number")

    @property
    def wanted(self) -> str:
        """What a value of another type must be."""
        if isinstance(self.default, bool | str):
            return self.allowed
        kind = "a whole number" if isinstance(self.default, int) else "a number"
        limits = "" if self.allowed == "a finite number" else self.allowed
        return f"{kind} {'of ' if limits.startswith('at') else ''}{limits}".strip()

    def allows(self, value: Any) -> bool:
        """Whether the setting allows a value of the right type."""
        if isinstance(value, str):
            return (not self.template or value.count("{}") == 1) and (not self.choices or value in self.choices)
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def converted(self, value: Any) -> Any:
        """``value`` as the type of the default ("8" becomes 8).

        Raises:
            TypeError, ValueError, OverflowError, KeyError: the value cannot be converted.
        """
        kind: Any = type(self.default)
        if kind is str and not isinstance(value, str):
            raise ValueError
        if kind is bool:
            return value if isinstance(value, bool) else SPELLINGS[str(value).strip().lower()]
        if isinstance(value, bool) or (kind is int and float(value) != int(float(value))):
            raise ValueError
        return kind(float(value)) if kind is int else kind(value)


def setting(
    default: Any,
    meaning: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
    template: bool = False,
) -> Any:
    """A field of a settings dataclass; the arguments are the attributes of :class:`Setting`."""
    declaration = Setting(default, meaning, least, above, most, below, choices, template)
    return dataclasses.field(default=default, metadata={"setting": declaration})


def class_template(meaning: str) -> Any:
    """The setting ``template``: a text with one ``{}`` for the class name; ``meaning`` is its purpose."""
    return setting("a photo of a {}.", f"{meaning}, with {{}} where the class name goes", template=True)


def declared(settings_type: type) -> dict[str, Setting]:
    """The declaration of every setting, by name.

    Raises:
        TypeError: a field that :func:`setting` did not make.
    """
    declarations_by_name = {}
    for field in dataclasses.fields(settings_type):
        same = [getattr(kind, "__dataclass_fields__", {}).get(field.name) for kind in settings_type.__mro__]
        declarations = [other.metadata["setting"] for other in same if other and "setting" in other.metadata]
        if not declarations:
            raise TypeError(f"{settings_type.__name__}.{field.name} is not declared by setting()")
        declarations_by_name[field.name] = dataclasses.replace(declarations[0], default=field.default)
    return declarations_by_name


def present_names(settings_type: type, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the user under their present names, with a note about each former one.

    Raises:
        UserError: a setting is given under both names.
    """
    known, values = declared(settings_type), dict(changes)
    for former in changes.keys() & RENAMED_SETTINGS.keys() - known.keys():
        present = RENAMED_SETTINGS[former]
        if present in known:
            if present in changes:
                raise UserError(f"{former} is the former name of the setting {present}; give {present} alone")
            deprecated(f"the setting {former}", present, FORMER_NAMES_END)
            values[present] = values.pop(former)
    return values


def make_settings(method: str, settings_type: type, changes: Mapping[str, Any]) -> Any:
    """An instance of ``settings_type`` with changed values, which may be strings, and defaults for the others.

    Raises:
        UserError: an unknown name, or a value that cannot be used.
    """
    known, values = declared(settings_type), {}
    for name, value in changes.items():
        if name not in known:
            raise UserError(f"method {method} has no setting '{name}'; {nearest(name, known)}")
        try:
            values[name] = known[name].converted(value)
        except (TypeError, ValueError, OverflowError, KeyError) as error:
            example = "" if known[name].default == "" else f", e.g. {name}={known[name].default}"
            raise UserError(f"method {method}: {name}={value!r} must be {known[name].wanted}{example}") from error
        if not known[name].allows(values[name]):
            finite = isinstance(values[name], str) or math.isfinite(values[name])
            shown = repr(values[name]) if known[name].template else values[name]
            want = known[name].allowed + ("" if finite else " and finite")
            raise UserError(f"method {method}: {name}={shown} must be {want}")
    return settings_type(**values)
