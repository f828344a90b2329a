"""Synonyms of modalities and organs: "chest radiograph" and "X-ray", "lungs" and "chest"."""

from __future__ import annotations

import re

from biomedcoop.data.names import fold

_FILLERS = "image imaging scan slice digital plain medical of the"

# modality as the library and the templates write it -> other words for it
_MODALITIES = {
    "X-ray": "xray, radiograph, radiography, radiogram, film, CXR",
    "CT": "computed tomography, computerized tomography, computerised tomography",
    "MRI": "MR, magnetic resonance",
    "ultrasound": "US, sonography, sonogram, ultrasonography, echography, B-mode, B-mode ultrasound",
    "dermatoscopy": "dermoscopy",
    "fundus photography": "fundus, colour fundus, color fundus, fundus photo, fundus photograph, colour fundus photography, "
    "color fundus photography, CFP",
    "optical coherence tomography": "OCT",
    "histopathology": "histology, pathology, light microscopy, microscopy, H&E, whole slide, WSI",
    "light microscopy": "microscopy, bright field microscopy, brightfield microscopy",
    "endoscopy": "colonoscopy, gastroscopy",
}

# The words of a line name one organ, or organs that share their images: a chest X-ray shows the lungs.
_ORGANS = (
    "breast, mammary",
    "kidney, renal",
    "brain, cerebral, head",
    "chest, lung, thorax, thoracic, pulmonary",
    "colon, colorectum, colorectal, rectum, bowel, large bowel, large intestine, gastrointestinal tract, GI, GI tract",
    "retina, retinal, eye",
    "skin, cutaneous",
    "blood, peripheral blood, blood smear",
    "knee, knee joint",
)


def modalities(text: str) -> list[str]:
    """Modalities that a user's words may mean, in the library's spelling, the likeliest first; [] if unknown."""
    word = _plain(text, _ORGAN_WORDS) or _plain(text)  # "chest X-ray"
    exact = [name for name in _MODALITIES if _plain(name) == word]
    return list(dict.fromkeys(exact + [name for name in _MODALITIES if word in _spellings(_MODALITIES[name])]))


def same_modality(a: str, b: str) -> bool:
    """Whether two words may mean one modality."""
    return fold(a) == fold(b) or not set(modalities(a)).isdisjoint(modalities(b))


def within_organ(part: str, whole: str) -> bool:
    """Whether all organs that ``part`` names ("lung") are among those of ``whole`` ("lung and colon")."""
    return _organs(part) <= _organs(whole)


def _organs(text: str) -> set[str]:
    named = map(_plain, re.split(r"\band\b|[,;/&+]", text.casefold()))
    lines = [line.split(",") for line in _ORGANS]
    return {next((_plain(line[0]) for line in lines if word in map(_plain, line)), word) for word in named}


def _spellings(line: str) -> set[str]:
    return set(map(_plain, line.split(",")))


def _plain(text: str, without: str = "") -> str:
    """Words in one spelling: folded, singular, without fillers."""
    left_out = {_singular(word) for word in f"{_FILLERS} {without}".split()}
    said = map(_singular, re.findall(r"[^\W_]+", fold(text)))
    return " ".join(word for word in said if word not in left_out)


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") else word


_ORGAN_WORDS = " ".join(re.findall(r"\w+", " ".join(_ORGANS).casefold()))
