"""Readers of a user's sentences: a JSON or CSV file, a folder with a text file per class, a Python file, or templates.

Nothing that is read is executed: of a Python file only a dict literal is read.
"""

from __future__ import annotations

import ast
import json
import warnings
from pathlib import Path
from typing import Any

from biomedcoop.data.names import clean_class_name, fold
from biomedcoop.data.tables.missing import is_missing_name
from biomedcoop.data.tables.reading import open_table
from biomedcoop.data.tables.table import check_one_line
from biomedcoop.errors import UserError
from biomedcoop.prompts.library import library_file, templates_of

Table = dict[str, list[str]]
"""Class name -> sentences, which may hold ``{}`` where the class name belongs."""

FORMS = (
    'a JSON object {"class name": ["sentence", ...]}, a CSV file with the columns class and sentence, a folder with one .txt '
    "file per class, a Python file with a dict of lists, or a .txt file of templates with {}"
)

_COLUMNS = {
    "class": ("class_name", "label", "category", "name"),
    "sentence": ("prompt", "sentences", "text", "caption"),
}
"""The columns of a CSV file, each with other names for it."""


def read_source(source: str) -> Table:
    """Sentences that a user names: ``library:NAME``, ``templates:MODALITY``, or what :func:`read_table` reads.

    Raises:
        UserError: it does not exist, cannot be read or holds something else.
    """
    kind, _, name = source.partition(":")
    if kind == "library" and name:
        return dict(library_file(name)["classes"])
    if kind == "templates":
        set_name, templates = templates_of(name or None, strict=True)
        return {f"templates: {set_name}": templates}
    if source == "library":
        raise UserError("name a file of the library, e.g. library:busi; 'biomedcoop prompts list' shows them")
    return read_table(source)


def read_table(source: str | Path) -> Table:
    """Sentences of every class that a file or folder holds.

    Args:
        source: a path; of a Python file with several dicts, ``FILE.py:NAME``.

    Raises:
        UserError: it cannot be read or holds something else; the message says where.
    """
    path, name = split_name(source)
    if not str(source).strip():
        raise UserError(f"prompts: the name is empty; give {FORMS}")
    if (word := str(source).partition(":")[0]) in ("library", "templates") and not path.exists():
        raise UserError(f"prompts {source}: give a file of sentences here, not the package's own {word}")
    try:
        if path.exists() and not path.is_dir() and not path.is_file():
            raise UserError(f"prompts {path}: is neither a file nor a folder; want {FORMS}")
        if path.is_dir():
            table = _from_folder(path)
        else:
            kind = path.suffix.lower()
            if path.exists() and kind not in (".json", ".csv", ".tsv", ".py", ".txt"):
                raise UserError(f"prompts {path}: unknown kind of file '{path.suffix}'; want {FORMS}")
            if kind in (".csv", ".tsv"):
                table = _from_csv(path)
            elif kind == ".json":
                table = _from_json(path, read_text(path))
            elif kind == ".py":
                table = _from_python(path, read_text(path), name)
            else:
                read_text(path)  # raises if there is no file
                raise UserError(f"prompts {path}: templates belong to no class; use them with 'train --prompts {path}'")
    except OSError as error:
        raise UserError(f"prompts {path}: cannot be read ({error.strerror or error}); give {FORMS}") from error
    if not table:
        raise UserError(f"prompts {path}: holds no sentences; want {FORMS}")
    named: Table = {}
    seen = set()
    for class_name, sentences in table.items():
        if not isinstance(sentences, list) or not all(isinstance(s, str) and s.strip() for s in sentences):
            raise UserError(f"prompts {path}: class '{class_name}' needs a list of sentences that are not empty")
        if not sentences:
            raise UserError(f"prompts {path}: class '{class_name}' needs a list of at least one sentence")
        try:
            "".join([class_name, *sentences]).encode()
        except UnicodeEncodeError as error:  # JSON and Python can spell half a character, which is no text
            raise UserError(f"prompts {path}: class {class_name!a} cannot be used ({error}); mend its text") from error
        if not (clean := clean_class_name(class_name)):
            raise UserError(f"prompts {path}: cannot be used (a class has no name); want {FORMS}")
        if fold(clean) in seen:
            raise UserError(f"prompts {path}: cannot be used ('{class_name}' is there twice); want {FORMS}")
        seen.add(fold(clean))
        named[clean] = sentences
    return named


def read_templates(path: Path) -> list[str]:
    """Templates of a text file, one a line, each with ``{}``.

    Raises:
        UserError: it cannot be read, is empty, or a line has no ``{}``.
    """
    try:
        text = read_text(path)
    except OSError as error:
        raise UserError(f"prompts {path}: cannot be read ({error.strerror or error}); give {FORMS}") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise UserError(f"prompts {path}: holds no templates; write one a line, with {{}} where the class name belongs")
    for number, line in lines:
        if "{}" not in line:
            raise UserError(
                f"prompts {path}, line {number}: no {{}} where the class name belongs; for sentences of one class, give a "
                "folder with one .txt file per class"
            )
    return [line for _, line in lines]


def split_name(source: str | Path) -> tuple[Path, str | None]:
    """``prompts.py:TEMPLATES`` -> (prompts.py, "TEMPLATES"); (path, None) for a path without a name behind it."""
    head, sign, name = str(source).rpartition(".py:")
    return (Path(head + ".py"), name) if sign and name.isidentifier() else (Path(source), None)


def read_text(path: Path) -> str:
    """A file's text, without the byte order mark that some editors write.

    Raises:
        UserError: it is no UTF-8 text.
        OSError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"prompts {path}: cannot be used ({error}); save it as UTF-8 text") from error


def _from_json(path: Path, text: str) -> Table:
    try:
        content: Any = json.loads(text, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"prompts {path}: cannot be used ({error}); want a JSON object of class name to sentences"
        ) from error
    table = content.get("classes", content) if isinstance(content, dict) else None
    if not isinstance(table, dict) or not table:
        raise UserError(f"prompts {path}: want an object of class name to a list of sentences")
    return table


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen = set()
    for name, _ in pairs:
        if fold(name) in seen:
            raise ValueError(f"'{name}' is there twice")
        seen.add(fold(name))
    return dict(pairs)


def _from_csv(path: Path) -> Table:
    sentences: Table = {}
    try:
        rows = open_table(path, tuple(_COLUMNS))
        positions = [rows.require(name, "the columns class and sentence", words) for name, words in _COLUMNS.items()]
        for place, (name, sentence) in rows.rows(positions):
            if is_missing_name(name) or is_missing_name(sentence):
                what = "class" if is_missing_name(name) else "sentence"
                raise UserError(f"{path}: {place} has an empty {what}; fill it in or remove the row")
            check_one_line(path, place, "class", name)
            # rows of one class may be spelled differently; the first spelling counts
            known = next((k for k in sentences if fold(k) == fold(name)), " ".join(name.split()))
            sentences.setdefault(known, []).append(" ".join(sentence.split()))
    except UserError as error:
        raise UserError(f"prompts {error}") from error
    return sentences


def _from_folder(folder: Path) -> Table:
    files = sorted(f for f in folder.glob("*.txt") if not f.name.startswith("."))
    if not files:
        raise UserError(
            f"prompts {folder}: no .txt file there; put one per class, named by the class, a sentence a line"
        )
    return {f.stem: [line.strip() for line in read_text(f).splitlines() if line.strip()] for f in files}


def _from_python(path: Path, text: str, wanted: str | None) -> Table:
    """The dict of lists of strings that a module assigns to a name, read as a literal."""
    try:
        with warnings.catch_warnings():  # of a "\d" in a text
            warnings.simplefilter("ignore")
            module = ast.parse(text, filename=str(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        raise UserError(f"prompts {path}{f', line {line}' if line else ''}: is not a Python file ({error})") from error
    tables: dict[str, Table] = {}
    computed: list[tuple[str, int]] = []
    for node in module.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        value = getattr(node, "value", None)
        if not isinstance(value, ast.Dict):
            continue
        for name in (target.id for target in targets if isinstance(target, ast.Name)):
            try:
                content = ast.literal_eval(value)
            except (ValueError, TypeError, RecursionError, MemoryError):
                computed.append((name, node.lineno))
                continue
            keys = [str(ast.literal_eval(key)) for key in value.keys if key is not None]
            if len(set(keys)) < len(keys):
                twice = next(key for key in keys if keys.count(key) > 1)
                raise UserError(f"prompts {path}, line {node.lineno}: '{twice}' is there twice in {name}; keep one")
            # classes may be numbers: {1: [...], -1: [...]}
            if content and all(type(k) in (str, int) and isinstance(v, (list, tuple)) for k, v in content.items()):
                tables[name] = {str(key): list(sentences) for key, sentences in content.items()}
    if wanted in tables:
        return tables[wanted]
    if wanted is not None or not tables:
        for name, line in (c for c in computed if wanted in (None, c[0])):
            raise UserError(
                f"prompts {path}, line {line}: {name} is computed, but no code is executed here; write it as plain strings"
            )
        what = f"no dict {wanted} of lists of strings" if wanted else "no dict of lists of strings at its top level"
        raise UserError(f"prompts {path}: {what}" + (f"; it has: {', '.join(tables)}" if tables else ""))
    if len(tables) > 1:
        names = ", ".join(f"{path.name}:{name}" for name in tables)
        raise UserError(f"prompts {path}: holds several dicts of sentences; choose one of {names}")
    return next(iter(tables.values()))
