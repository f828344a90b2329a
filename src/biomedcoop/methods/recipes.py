"""Recipes: named sets of settings by method and, where they differ, by dataset.

- "general": the same settings for every dataset, the most accurate in the mean over the measured ones; the default of a request.
- "fast": the same settings for every dataset; training takes about a tenth of the published time or less.
- "paper": published for few-shot classification, for the dataset where they exist.
- "paper-novel": published for base-to-novel generalisation.

A setting that a recipe does not name has the method's default, which is the published value. The values of "paper" and
"paper-novel" come from the published configuration files (BiomedCoOp, CVPR 2025), those of Biomed-DPT from its code, as far as its
weights for single datasets are known. ``docs/results/recipes.md`` and
``docs/results/fast.md`` explain the choice of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from biomedcoop.errors import UserError, nearest

ANY = "any dataset"

PUBLISHED = ("paper", "paper-novel")
"""Recipes that repeat a published protocol; a method that chooses values does so on validation images, as published, and with the
other recipes by cross-validation within the training images."""


OTHER_WORDS = {"default": "general", "base-to-novel": "paper-novel"}
"""Words for a recipe, and the recipe that each one means."""


def _biomedcoop(sccm_weight: float, kdsp_weight: float, threshold: float) -> Mapping[str, Any]:
    return {"sccm_weight": sccm_weight, "kdsp_weight": kdsp_weight, "threshold": threshold}


def _biomed_dpt(modality: str, **more: Any) -> Mapping[str, Any]:
    return {"context_words": f"a {modality} photo of a", **more}


RECIPES: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
    "general": {
        "biomedcoop": {ANY: {"sccm_weight": 5.0, "kdsp_weight": 0.25}},
        "clip-adapter": {ANY: {"lr": 0.1, "search": True}},
        "coop": {ANY: {"lr": 0.01}},
        "gda": {ANY: {"floor": 1.0}},
        "kgcoop": {ANY: {"weight": 1.0, "lr": 0.01}},
        "krr": {ANY: {"form": "ridge"}},
        "prograd": {ANY: {"temperature": 1.0, "lr": 0.01}},
        "ss-text": {ANY: {"image_weight": 2.0}},
        "timo": {ANY: {"alpha": 10.0}},
    },
    "fast": {
        "biomed-dpt": {
            ANY: {
                "epochs": 9,
                "warmup_epochs": 0,
                "batch_size": 6,
                "lr": 0.4,
                "momentum": 0.8,
                "max_norm": 0.5,
            }
        },
        "biomedcoop": {
            ANY: {
                "sccm_weight": 5.0,
                "kdsp_weight": 0.1,
                "epochs": 9,
                "warmup_epochs": 0,
                "batch_size": 6,
                "lr": 0.4,
                "momentum": 0.8,
                "max_norm": 0.5,
            }
        },
        "clip-adapter": {ANY: {"lr": 0.1}},
        "coop": {ANY: {"lr": 0.01}},
        "gda": {ANY: {"floor": 1.0}},
        "kgcoop": {ANY: {"weight": 1.0, "lr": 0.7, "epochs": 8, "warmup_epochs": 0, "momentum": 0.5, "max_norm": 0.5}},
        "krr": {ANY: {"form": "ridge"}},
        "prograd": {
            ANY: {"temperature": 1.0, "lr": 0.4, "epochs": 8, "warmup_epochs": 0, "momentum": 0.5, "max_norm": 1.0}
        },
        "ss-text": {ANY: {"image_weight": 2.0}},
        "timo": {ANY: {"alpha": 10.0}},
    },
    "paper": {
        "biomed-dpt": {
            "btmri": _biomed_dpt("MR", class_suffix="in the brain"),
            "busi": _biomed_dpt("ultrasound"),
            "chmnist": _biomed_dpt("histopathological"),
            "covid": _biomed_dpt("chest X-ray", class_suffix="affected by COVID-19 in the lung"),
            "ctkidney": _biomed_dpt("CT"),
            "dermamnist": _biomed_dpt("dermatoscopy", sentence_weight=25.0, kl_weight=20.0),
            "kneexray": _biomed_dpt("frontal X-ray"),
            "kvasir": _biomed_dpt("endoscopic"),
            "lungcolon": _biomed_dpt("histopathological"),
            "octmnist": _biomed_dpt("OCT"),
            "retina": {"context_words": "a photo of a", "class_suffix": "presented in image"},
        },
        "biomedcoop": {
            "btmri": _biomedcoop(0.5, 0.25, 1.5),
            "busi": _biomedcoop(0.75, 0.75, 1.5),
            "chmnist": _biomedcoop(0.25, 0.25, 1.5),
            "covid": _biomedcoop(0.5, 2.0, 1.5),
            "ctkidney": _biomedcoop(1.0, 0.5, 1.5),
            "dermamnist": _biomedcoop(5.0, 20.0, 1.5),
            "kneexray": _biomedcoop(5.0, 20.0, 1.75),
            "kvasir": _biomedcoop(0.75, 0.75, 1.5),
            "lungcolon": _biomedcoop(0.5, 0.5, 1.5),
            "octmnist": _biomedcoop(1.0, 0.75, 1.5),
            "retina": _biomedcoop(0.25, 0.25, 1.5),
        },
        "kgcoop": {
            "btmri": {"weight": 2.0},
            "busi": {"weight": 10.0},
            "chmnist": {"weight": 1.0},
            "covid": {"weight": 1.0},
            "ctkidney": {"weight": 8.0},
            "dermamnist": {"weight": 8.0},
            "kneexray": {"weight": 4.0},
            "kvasir": {"weight": 6.0},
            "lungcolon": {"weight": 8.0},
            "octmnist": {"weight": 1.0},
            "retina": {"weight": 1.0},
        },
        "prograd": {
            "btmri": {"temperature": 2.0},
            "busi": {"temperature": 0.25},
            "chmnist": {"temperature": 1.0},
            "covid": {"temperature": 1.0},
            "ctkidney": {"temperature": 1.0},
            "dermamnist": {"temperature": 4.0},
            "kneexray": {"temperature": 1.0},
            "kvasir": {"temperature": 1.0},
            "lungcolon": {"temperature": 1.0},
            "octmnist": {"temperature": 1.0},
            "retina": {"temperature": 1.0},
        },
    },
    "paper-novel": {
        "biomedcoop": {
            ANY: {"epochs": 50},
            "btmri": _biomedcoop(0.5, 0.5, 1.25),
            "chmnist": _biomedcoop(10.0, 1.0, 1.5),
            "covid": _biomedcoop(20.0, 1.0, 1.25),
            "ctkidney": _biomedcoop(10.0, 0.25, 1.25),
            "dermamnist": _biomedcoop(2.0, 0.5, 1.5),
            "kneexray": _biomedcoop(0.25, 3.0, 1.25),
            "kvasir": _biomedcoop(1.0, 1.0, 1.25),
            "lungcolon": _biomedcoop(0.25, 0.75, 1.25),
            "octmnist": _biomedcoop(0.75, 0.5, 1.5),
            "retina": _biomedcoop(5.0, 1.0, 2.0),
        },
        "coop": {ANY: {"epochs": 50}},
        "gda": {ANY: {"covariance": "classes"}},
        "kgcoop": {ANY: {"epochs": 50, "weight": 8.0}},
        "prograd": {ANY: {"epochs": 50, "lr": 0.0015}},
    },
}


def check_recipe(name: str) -> None:
    """Refuse an unknown recipe.

    Raises:
        UserError: the message offers near names.
    """
    if name in OTHER_WORDS:
        raise UserError(f"no recipe '{name}'; it is called '{OTHER_WORDS[name]}'")
    if name not in RECIPES:
        raise UserError(f"no recipe '{name}'; {nearest(name, RECIPES)}")


def recipe_settings(recipe: str, method: str, dataset: str | None = None) -> dict[str, Any]:
    """The settings that a recipe changes for a method.

    Args:
        dataset: name of a dataset in the catalogue; None for any other.
    """
    of_method = RECIPES[recipe].get(method, {})
    return {**of_method.get(ANY, {}), **(of_method.get(dataset, {}) if dataset else {})}


def published_for(recipe: str, method: str, dataset: str | None) -> bool:
    """Whether a recipe has special values for a method on a dataset of the catalogue."""
    return dataset in RECIPES[recipe].get(method, {})
