"""The columns of a table that divide the images into subgroups: site, scanner, sex, age and the like."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from biomedcoop.data.dataset import MOST_SUBGROUPS
from biomedcoop.data.names import fold
from biomedcoop.data.tables.table import column_key

SEX_WORDS = ("sex", "patient_sex", "gender", "patient_gender")
SEXES = {"f": "female", "w": "female", "woman": "female", "m": "male", "man": "male", "o": "other", "u": "unknown"}
"""Short spellings of a sex; O and F, M are those of DICOM."""

SUBGROUP_WORDS = (  # never a name, a number or a date of a patient
    *("site", "site_id", "hospital", "hospital_id", "center", "center_id", "centre", "centre_id", "clinic"),
    *("institution", "institution_id", "data_provider", "source", "cohort", "country"),
    *("scanner", "scanner_id", "scanner_model", "device", "device_id", "device_model", "vendor", "manufacturer"),
    *("manufacturer_model_name", "camera", "camera_model", "machine", "machine_id", "magnetic_field_strength", "stain"),
    *SEX_WORDS,
    *("ethnicity", "race"),
    *("skin_type", "skin_tone", "fitzpatrick", "fitzpatrick_skin_type", "age_group", "age_band", "age_range"),
    *("view", "view_position", "projection", "frontal/lateral", "ap/pa", "plane", "laterality", "side", "eye"),
    *("localization", "anatom_site_general", "body_part", "body_part_examined", "breast_density", "magnification"),
)
"""Names of columns whose values are taken as they are."""

AGE_WORDS = ("age", "age_years", "age_in_years", "patient_age", "patients_age", "age_approx", "age_at_scan")
"""Names of columns with the age in years, which is replaced by a band of years."""

AGE_BANDS = ((18, "0–17"), (40, "18–39"), (60, "40–59"), (80, "60–79"), (121, "80 or more"))
"""First age above each band, and the name of the band; a single age could identify a patient."""

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(y|years?|yrs?|m|w|d)?\s*\+?", re.IGNORECASE)
_PER_YEAR = {"m": 12, "w": 52, "d": 365}  # the units of DICOM, such as 009M


def read_subgroups(columns: Mapping[str, Sequence[str]]) -> tuple[dict[str, list[str]], list[str]]:
    """The columns that divide the images into at least two subgroups, and notes on what was done.

    Spellings that differ only in case, ``_`` or hyphens are one value, written as in its first row. Short spellings of a sex
    become words, and years of age become bands.

    Args:
        columns: name in the table -> cells, "" where the value is missing.
    """
    found: dict[str, list[str]] = {}
    notes, left_out = [], []
    for name, cells in columns.items():
        sex = any(column_key(name) == column_key(word) for word in SEX_WORDS)
        values = _one_spelling([SEXES.get(fold(cell), cell) for cell in cells] if sex else cells)
        if any(column_key(name) == column_key(word) for word in AGE_WORDS):
            values, unread = _age_bands(values)
            if unread:
                notes.append(
                    f"{len(unread)} cells of the column {name} are no age in years ('{unread[0]}') and are not used"
                )
        n_values = len(set(values) - {""})
        if n_values > MOST_SUBGROUPS:
            left_out.append(f"{name} ({n_values} values)")
        elif n_values > 1:
            found[name] = values
    if left_out:
        notes.append(
            f"columns with more than {MOST_SUBGROUPS} values give no results by subgroup: {', '.join(left_out)}"
        )
    if found:
        notes.append(f"results are also given by {', '.join(found)}; rename a column to turn this off")
    return found, notes


def _one_spelling(cells: Sequence[str]) -> list[str]:
    first = {"": ""}
    chosen = {cell: first.setdefault(fold(cell), cell) for cell in dict.fromkeys(cells)}
    return [chosen[cell] for cell in cells]


def _age_bands(cells: Sequence[str]) -> tuple[list[str], list[str]]:
    """The band of each age, and the cells that are no age; if no cell is an age in years, the cells are bands already."""
    bands = [_age_band(cell) for cell in cells]
    if not any(bands):
        return list(cells), []
    return bands, [cell for cell, band in zip(cells, bands, strict=True) if cell and not band]


def _age_band(cell: str) -> str:
    match = _AGE.fullmatch(cell)
    if not match:
        return ""
    years = float(match[1]) / _PER_YEAR.get((match[2] or "").lower(), 1)
    return next((band for above, band in AGE_BANDS if years < above), "")
