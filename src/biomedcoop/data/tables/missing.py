"""Missing values in cells, in the spellings of tools and of people."""

from __future__ import annotations

from biomedcoop.data.names import clean_class_name

_SPREADSHEET_ERRORS = {"#N/A", "#NA", "#VALUE!", "#REF!", "#DIV/0!", "#NUM!", "#NAME?", "#NULL!"}
_WRITTEN_BY_TOOLS = {"", "NaN", "nan", "NAN", "-nan", "NA", "<NA>", "NaT", "NULL", "null", "\\N"} | _SPREADSHEET_ERRORS
_WRITTEN_BY_TOOLS |= {"N/A", "n/a", "#N/A N/A", "1.#QNAN", "-1.#QNAN", "1.#IND", "-1.#IND", "-NaN"}
_WRITTEN_BY_HAND = {"none", "n/a", "na", "n.a.", "nil", "null", "nan", "missing", "-", "--", "–", "—", ".", "?"}
_WRITTEN_BY_HAND |= {"unknown", "anonymous", "not available", "not applicable", "unspecified"}


def is_missing(cell: str) -> bool:
    """Whether a cell is empty, by any spelling of a missing value: "", "NaN", "n/a", "None", "#N/A", "-" and others."""
    return cell in _WRITTEN_BY_TOOLS or cell.casefold() in _WRITTEN_BY_HAND


def is_missing_name(cell: str) -> bool:
    """Whether a cell with a class name is empty.

    Only spellings that data-frame tools, databases and spreadsheets write count as empty: "none" or "-" may be a class.
    """
    return cell in _WRITTEN_BY_TOOLS or not clean_class_name(cell)


def may_be_missing(name: str) -> bool:
    """Whether a class name is a word that people often write for a missing label."""
    return name.casefold() in _WRITTEN_BY_HAND
