"""``biomedcoop methods``: list the methods and show their settings."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from biomedcoop.cli.console import print_json, print_table, print_text
from biomedcoop.cli.options import Json, Plugin

app = typer.Typer(help="Adaptation methods.", no_args_is_help=True)


@app.command("list")
def list_methods(plugin: Plugin = None, json: Json = False) -> None:
    """Recommend a method, and list all methods with their inputs, abilities and trained parameters."""
    from biomedcoop.methods import all_methods
    from biomedcoop.methods.recommended import describe, recommended

    methods = all_methods()
    if json:
        print_json([about(method) for method in methods.values()])
        return
    from rich.table import Table

    for line in describe(recommended()):
        print_text(line)
    print()
    table = Table("name", "learns from", "text tower", "new classes", "trained")
    for name, method in methods.items():
        able = method.abilities
        sources = ["images"] * able.uses_images + ["sentences"] * able.uses_sentences
        table.add_row(
            name,
            " and ".join(sources) or "nothing",
            "needed" if able.needs_text_tower else "not needed",
            "yes" if able.retargets else "no",
            method.parameters,
        )
    print_table(table)
    print_text(
        "M context vectors (with class_specific: for each class) of token width D; joint width E; C classes; N images"
    )
    print_text("Paper, settings and choices of one: biomedcoop methods show NAME")


@app.command("show")
def show_method(
    name: Annotated[str, typer.Argument(help="Name of the method, e.g. biomedcoop.", show_default=False)],
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Show a method's paper and its settings with their published values, allowed values and meaning."""
    from biomedcoop.data.sampling.folds import FOLDS
    from biomedcoop.methods import get_method
    from biomedcoop.methods.plugin_code import plugin_of
    from biomedcoop.methods.recipes import PUBLISHED, RECIPES, recipe_settings
    from biomedcoop.methods.settings import declared

    method = get_method(name)
    settings = declared(method.settings_type)
    changed = {recipe: recipe_settings(recipe, method.name) for recipe in ("general", "fast")}
    if json:
        recipes = {f"recipe_{recipe}": values for recipe, values in changed.items()}
        described = {
            key: {"default": one.default, "allowed": one.allowed, "meaning": one.meaning}
            for key, one in settings.items()
        }
        print_json({**about(method), "settings": described, **recipes})
        return
    able = method.abilities
    print(f"{method.title} ({method.paper})")
    if (source := plugin_of(method)) is not None:
        print(f"from the plug-in {source}")
    print(f"trained: {method.parameters}")
    print(f"text tower: {'needed' if able.needs_text_tower else 'not needed'}")
    print(f"new classes: {'yes' if able.retargets else 'no'}")
    if able.chooses:
        fixed = [recipe for recipe in RECIPES if not method.chooses(method.settings({}, recipe))]
        print(f"chooses: {able.chooses}" + (f" (not with recipe {', '.join(fixed)})" if fixed else ""))
        folds = f"{FOLDS}-fold cross-validation within the training images"
        print(f"    by {'leaving out each training image' if able.leaves_one_out else folds}")
        print(f"    where that is not possible: {able.otherwise}")
        if not set(PUBLISHED) & set(fixed):
            print(f"    with recipes {' and '.join(PUBLISHED)}: on validation images")
    by_dataset = {key for values in RECIPES["paper"].get(method.name, {}).values() for key in values}
    if not settings:
        print("settings: none")
        return
    print("settings with published values (and allowed ones), for train --set NAME=VALUE")
    for key, one in settings.items():
        published = '""' if one.default == "" else one.default
        values = [f"{published}, others by dataset" if key in by_dataset else f"{published}"]
        values += [f"recipe {recipe}: {own[key]}" for recipe, own in changed.items() if key in own]
        print_text(f"{key} = {'; '.join(values)} ({one.allowed})")
        print_text(f"    {one.meaning}", indent="    ")


def about(method: Any) -> dict[str, Any]:
    """The facts about a method as JSON values."""
    from biomedcoop.methods.plugin_code import plugin_of

    facts = {"name": method.name, "title": method.title, "paper": method.paper, "trained": method.parameters}
    facts["plugin"] = plugin_of(method)
    return {**facts, **asdict(method.abilities)}
