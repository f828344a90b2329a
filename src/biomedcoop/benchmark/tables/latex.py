"""Tables in LaTeX, with the rules of the package booktabs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence

Escape = Callable[[str], str]

_SIGNS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "→": r"$\to$",
    "×": r"$\times$",
    "−": "$-$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
    "λ": r"$\lambda$",
    "τ": r"$\tau$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "†": r"$\dagger$",
    "₁": "$_1$",
    "₂": "$_2$",
    "\n": " ",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}
_SPECIAL = re.compile("|".join(map(re.escape, _SIGNS)))


def escape(text: str) -> str:
    r"""Text that LaTeX sets as it is.

    Example:
        >>> print(escape("BUSI_2 & R&D: 5 % ± 1"))
        BUSI\_2 \& R\&D: 5 \% $\pm$ 1
    """
    return _SPECIAL.sub(lambda found: _SIGNS[found[0]], text)


def _label(name: str) -> str:
    """A name in the signs of a label; a digest stands for signs that it cannot have, so that no two names share one."""
    plain = re.sub(r"[^A-Za-z0-9-]+", "-", name)
    return plain if plain == name else f"{plain.strip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def float_table(
    name: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], align: str, notes: Sequence[str]
) -> str:
    """A float with caption, label and notes.

    Args:
        columns: names, not yet escaped.
        rows: cells in LaTeX.
        align: "l", "r" or "c" for each column.
        notes: sentences below the table, not yet escaped.
    """
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escape(title)}}}",
        f"\\label{{tab:{_label(name)}}}",
        f"\\begin{{tabular}}{{{align}}}",
        "\\toprule",
        f"{' & '.join(map(escape, columns))} \\\\",
        "\\midrule",
        *(f"{' & '.join(row)} \\\\" for row in rows),
        "\\bottomrule",
        "\\end{tabular}",
        *(f"\n\\smallskip\\footnotesize {escape(note)}" for note in notes),
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"
