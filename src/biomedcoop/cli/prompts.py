"""``biomedcoop prompts``: the sentences that classes are described with: look, check, import, have them written."""

from __future__ import annotations

import sys
import unicodedata
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from biomedcoop.cli.console import print_first, print_json, print_table, progress_bar, say
from biomedcoop.cli.options import Device, Json, SplitFile
from biomedcoop.errors import UserError

if TYPE_CHECKING:
    from biomedcoop.backbones.base import Backbone
    from biomedcoop.evaluation.sentences import PromptReport

app = typer.Typer(help="Sentences that describe the classes.", no_args_is_help=True)

Classes = Annotated[
    str | None,
    typer.Option(
        "--classes", help="Class names, separated by commas; one with a comma in double quotes.", show_default=False
    ),
]
Modality = Annotated[str | None, typer.Option("--modality", help="e.g. CT, ultrasound, histopathology.")]
Organ = Annotated[str | None, typer.Option("--organ", help="e.g. kidney, breast.")]
Out = Annotated[Path, typer.Option("--out", help="JSON file to write.", show_default=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]
Checked = Annotated[str, typer.Argument(help="A file, 'library:NAME', or 'library' for all of it.", show_default=False)]


@app.command("list")
def list_prompts(json: Json = False) -> None:
    """Tasks of the shipped library, and modalities that have templates."""
    from biomedcoop.prompts.library import library, template_sets

    tasks = [
        {
            "name": name,
            "modality": content["modality"],
            "organ": content["organ"],
            "sentences": {label: len(sentences) for label, sentences in content["classes"].items()},
        }
        for name, content in library().items()
    ]
    templates = {modality: len(texts) for modality, texts in template_sets().items()}
    if json:
        print_json({"library": tasks, "templates": templates})
        return
    from rich.table import Table

    table = Table("library:", "modality", "organ", "classes", "sentences")
    for task in tasks:
        names, counts = list(task["sentences"]), sum(task["sentences"].values())
        table.add_row(task["name"], task["modality"], task["organ"], ", ".join(names), str(counts))
    print_table(table)
    print("templates: " + ", ".join(templates))


@app.command("show")
def show_prompts(
    source: Annotated[str, typer.Argument(help="'library:NAME', 'templates:MODALITY' or a file.", show_default=False)],
    only: Annotated[str | None, typer.Option("--class", help="Only this class.")] = None,
    json: Json = False,
) -> None:
    """Print the sentences of every class."""
    table = _table(source)
    if only is not None:
        from biomedcoop.data.names import fold

        chosen = {name: texts for name, texts in table.items() if fold(name) == fold(only)}
        if not chosen:
            raise UserError(f"{source} has no class '{only}'; it has: {', '.join(table)}")
        table = chosen
    if json:
        print_json(table)
        return
    for name, texts in table.items():
        print(f"{name} ({len(texts)})")
        for text in texts:
            print(f"  {text}")


@app.command("check")
def check(
    source: Checked,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", help="What 'train --data' takes: names its classes, and tests the sentences on its images."
        ),
    ] = None,
    classes: Classes = None,
    backbone: Annotated[
        str, typer.Option("--backbone", help="Reads the sentences; 'none' checks the text alone.")
    ] = "mini",
    split: Annotated[
        str | None, typer.Option("--split", help="Images to test on; by default val, or train where there is no val.")
    ] = None,
    threshold: Annotated[float, typer.Option("--threshold", help="τ of the outlier test, in deviations.")] = 1.5,
    split_file: SplitFile = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Report what is wrong with sentences. Exit status 1 if training with them would be wrong."""
    from biomedcoop.api import check_prompts
    from biomedcoop.data.readers.load import load_dataset
    from biomedcoop.prompts.library import library

    if data is not None and classes is not None:
        raise UserError("--data and --classes both name the classes; give one of them")
    if split is not None and data is None:
        raise UserError("--split names images of --data; give --data too")
    if source.partition(":")[0] == "templates":
        raise UserError("templates say the same of every class, so there is nothing to check; name a file of sentences")
    if not threshold > 0:
        raise UserError(f"--threshold {threshold}: must be above 0, e.g. 1.5")
    names = parse_classes(classes) if classes is not None else None
    dataset = load_dataset(data, split_file=split_file) if data is not None else None
    whole = source == "library" and dataset is None and names is None
    if source == "library" and not whole:
        raise UserError("'library' is all of it; with --data or --classes name a file of it, e.g. library:busi")
    reader: Backbone | str | None = None if backbone == "none" else backbone
    if reader is not None and whole:  # once for all; else only when the source is known to be good
        from biomedcoop.backbones import load_backbone

        reader = load_backbone(backbone, device=device)
    with progress_bar(quiet=json) as progress:
        reports = []
        for done, one in enumerate(sources := [f"library:{name}" for name in library()] if whole else [source]):
            if whole:
                progress("checking", done, len(sources))
            reports.append(
                check_prompts(
                    one,
                    data=dataset,
                    class_names=names,
                    backbone=reader,
                    split=split,
                    threshold=threshold,
                    device=device,
                    progress=progress,
                )
            )
    if json:
        print_json([report.to_dict() for report in reports] if whole else reports[0].to_dict())
    elif whole:
        _print_summary(reports)
    else:
        _print_report(reports[0])
    if any(report.problems for report in reports):
        raise typer.Exit(1)


@app.command("import")
def import_prompts(
    source: Annotated[
        str,
        typer.Argument(
            help="JSON, CSV (columns class, sentence), a folder of .txt files, or a Python file with a dict (FILE.py or "
            "FILE.py:NAME; it is not run).",
            show_default=False,
        ),
    ],
    out: Out,
    classes: Classes = None,
    modality: Modality = None,
    organ: Organ = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Turn other people's sentences into a JSON file for 'train --prompts'."""
    from biomedcoop.prompts.checks import check_sentences
    from biomedcoop.prompts.matching import match
    from biomedcoop.prompts.sources import check_output, read_table, write_table

    check_output(out, overwrite)
    table = read_table(source)
    if classes is not None:
        matched = match(parse_classes(classes), table)
        if matched.missing:
            named = ", ".join(f"'{name}'" for name in matched.missing)
            raise UserError(f"{source}: no sentences for {named}; it has: {', '.join(table)}")
        table = {name: table[key] for name, key in matched.taken.items()}
    write_table(out, table, {"modality": modality, "organ": organ, "author": f"imported from {Path(source).name}"})
    kinds = Counter(fault.kind for fault in check_sentences(table))
    if json:
        print_json({"out": str(out), "sentences": {n: len(t) for n, t in table.items()}, "faults": dict(kinds)})
        return
    say(f"{sum(map(len, table.values()))} sentences of {len(table)} classes in {out}")
    if kinds:
        say("note: " + _counted(kinds) + f"; 'biomedcoop prompts check {out}' shows them")


@app.command("generate")
def generate_prompts(
    classes: Annotated[
        str,
        typer.Option(
            "--classes",
            help="All classes of the task, separated by commas; one with a comma in double quotes.",
            show_default=False,
        ),
    ],
    modality: Annotated[
        str, typer.Option("--modality", help="e.g. CT, ultrasound, histopathology.", show_default=False)
    ],
    organ: Annotated[str, typer.Option("--organ", help="e.g. kidney, breast.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", help="JSON file to write; not needed with --dry-run.")] = None,
    n: Annotated[int, typer.Option("--n", help="Different sentences per class.")] = 50,
    model: Annotated[str, typer.Option("--model", help="Language model at the endpoint.")] = "gpt-4.1-mini",
    base_url: Annotated[
        str | None,
        typer.Option("--base-url", envvar="OPENAI_BASE_URL", help="OpenAI-compatible endpoint, e.g. a local server."),
    ] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", help="By default the endpoint's own.")] = None,
    per_minute: Annotated[float, typer.Option("--per-minute", help="Most requests a minute; 0 for no limit.")] = 0.0,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds that one answer may take.")] = 120.0,
    retries: Annotated[int, typer.Option("--retries", help="Of a request that failed for a reason that may pass.")] = 6,
    price: Annotated[
        str | None, typer.Option("--price", help="US dollars per million tokens, 'INPUT,OUTPUT', for the estimate.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the first request and the estimate; send nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before sending.")] = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Have a language model write sentences for classes of your own. Sends class names, modality and organ, nothing else.

    The key is read from the environment variable OPENAI_API_KEY; a local server needs none. Answers are kept in the cache folder:
    the same command goes on after an interruption, and sends nothing that was answered before.
    """
    from biomedcoop import __version__
    from biomedcoop.output import cache_root
    from biomedcoop.prompts.generate import (
        DEFAULT_URL,
        Endpoint,
        Wanted,
        check_access,
        check_wanted,
        estimate,
        generate,
        request_body,
    )
    from biomedcoop.prompts.sources import check_output, write_table

    wanted = Wanted(parse_classes(classes), " ".join(modality.split()), " ".join(organ.split()), n)
    check_wanted(wanted)
    for name, value, least in (
        ("--per-minute", per_minute, 0),
        ("--timeout", timeout, 0.001),
        ("--retries", retries, 0),
    ):
        if not least <= value < 1e6:
            raise UserError(f"{name} {value:g}: must be {least:g} or more")
    if temperature is not None and not 0 <= temperature <= 2:
        raise UserError(f"--temperature {temperature:g}: must be between 0 and 2")
    url = (base_url or DEFAULT_URL).rstrip("/")
    endpoint = Endpoint(model, url, temperature, True, timeout, retries, per_minute)
    expected = estimate(wanted, endpoint, parse_price(price))
    cost = "no price is known; --price IN,OUT tells" if expected.dollars is None else f"about ${expected.dollars:.2f}"
    about = (
        f"{expected.requests} requests or a few more to {model}, about {expected.input_tokens} tokens in and "
        f"{expected.output_tokens} out ({cost})"
    )
    if dry_run:
        body = request_body(wanted, endpoint, wanted.class_names[0], 0)
        print_json({"url": f"{url}/chat/completions", "first_request": body, "estimate": vars(expected)})
        say(f"would send {about}")
        return
    if out is None:
        raise UserError("--out is missing: name the JSON file to write, or pass --dry-run to send nothing")
    check_output(out, overwrite)
    check_access(endpoint)
    cache = cache_root() / "prompts"
    say(f"{about}; answers are kept in {cache} and not asked for twice")
    asks = not yes and not json and sys.stdin.isatty() and sys.stderr.isatty()
    if asks and not typer.confirm("send them?", err=True):
        say("nothing was sent")
        raise typer.Exit(1)
    try:
        with progress_bar(quiet=json) as progress:
            table, provenance = generate(wanted, endpoint, cache, progress)
    except KeyboardInterrupt:
        say("the answers so far are kept; the same command goes on from there")
        raise
    about_file = {
        "modality": wanted.modality,
        "organ": wanted.organ,
        "author": f"language model {model}",
        "date": provenance["last_answer"][:10],
        "version": 1,
        "provenance": {"biomedcoop": __version__, **provenance},
    }
    write_table(out, table, about_file)
    dropped = sum(sum(request["dropped"].values()) for request in provenance["requests"])
    if json:
        print_json(
            {"out": str(out), "sentences": {name: len(texts) for name, texts in table.items()}, "dropped": dropped}
        )
        return
    say(f"{sum(map(len, table.values()))} sentences in {out}; {dropped} others did not pass the checks")
    say(f"read them: a model errs. Then: biomedcoop prompts check {out}; biomedcoop train --prompts {out} …")


def parse_price(text: str | None) -> tuple[float, float] | None:
    """ "0.40,1.60" -> (0.4, 1.6)."""
    if text is None:
        return None
    try:
        given, made = map(float, text.split(","))
        if not (0 <= given < 1e6 and 0 <= made < 1e6):
            raise ValueError
    except ValueError as error:
        raise UserError(f"--price '{text}': want two numbers, US dollars per million tokens, e.g. 0.40,1.60") from error
    return given, made


def parse_classes(text: str) -> list[str]:
    """ "cyst, stone" -> ["cyst", "stone"]."""
    from biomedcoop.data.names import fold
    from biomedcoop.prompts.sources import split_names

    if any(unicodedata.category(sign) == "Cc" and not sign.isspace() for sign in text):
        raise UserError(
            f"--classes {text!r}: holds control characters; each class must be a word or a few, on one line"
        )
    names = split_names(text)
    if len(names) < 2:
        raise UserError(
            f"--classes '{text}': name at least two classes, separated by commas, e.g. 'cyst, stone, normal'"
        )
    twice = [name for i, name in enumerate(names) if fold(name) in map(fold, names[:i])]
    if twice:
        raise UserError(f"--classes: '{twice[0]}' is there twice; name each class once")
    return names


def _table(source: str) -> dict[str, list[str]]:
    from biomedcoop.prompts.library import library_file, templates_of
    from biomedcoop.prompts.sources import read_table

    kind, _, name = source.partition(":")
    if kind == "library" and name:
        return dict(library_file(name)["classes"])
    if kind == "templates":
        found, texts = templates_of(name or None, strict=True)
        return {f"templates: {found}": texts}
    if source == "library":
        raise UserError("name a file of the library, e.g. library:busi; 'biomedcoop prompts list' shows them")
    return read_table(source)


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{n} x {kind}" for kind, n in kinds.items())


def _print_summary(reports: list[PromptReport]) -> None:
    from rich.table import Table

    table = Table("library:", "classes", "sentences", "words", "tokens")
    for name in ("repeats", "near-repeats", "openings", "length", "other class", "cut", "closest classes", "cosine"):
        table.add_column(name)
    for report in reports:
        kinds = Counter(fault.kind for fault in report.faults)
        a, b, cosine = report.closest[0] if report.closest else ("", "", float("nan"))
        cells = (
            report.source.removeprefix("library:"),
            len(report.counts),
            sum(report.counts.values()),
            f"{report.words[0]}-{report.words[1]}",
            "" if report.tokens is None else report.tokens,
            kinds["repeat"] + kinds["shared"],
            *(kinds[kind] for kind in ("near-repeat", "opening", "length", "other class")),
            len(report.cut),
            *((f"{a} / {b}", f"{cosine:.2f}") if report.closest else ("", "")),
        )
        table.add_row(*map(str, cells))
    print_table(table)
    _print_lines(reports)


def _print_report(report: PromptReport) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("class", "sentences", title=Text(report.source))
    if report.outliers:
        table.add_column("outliers", justify="right")
    if report.accuracy:
        for title in ("recall, sentences", "recall, class name"):
            table.add_column(title, justify="right")
    recall = {key: values["recall"] for key, values in (report.accuracy or {}).items()}
    for number, (name, count) in enumerate(report.counts.items()):
        cells = [name, str(count)]
        if report.outliers:
            cells += [str(report.outliers[number].beyond)]
        # a class without images on this split has no recall
        cells += ["-" if (value := recall[key][name]) is None else f"{100 * value:.0f} %" for key in recall]
        table.add_row(*map(Text, cells))
    print_table(table)
    for odd in report.outliers:
        print(f"least like the others of '{odd.class_name}': {odd.sentence} (z {odd.z:.1f})")
    if report.closest:
        pairs = ", ".join(f"{a} / {b} {cosine:.2f}" for a, b, cosine in report.closest)
        print(f"closest classes to {report.backbone}: {pairs}")
    for key, values in (report.accuracy or {}).items():
        a = values["accuracy"]
        interval = "(–)" if a["low"] is None else f"({100 * a['low']:.1f} to {100 * a['high']:.1f})"
        print(f"{report.images}, by {key}: {100 * a['value']:.1f} % right {interval}")
    if report.dropped is not None:
        print(
            f"the selection drops {len(report.dropped)} of {min(report.counts.values())} sentences of every class there"
        )
    if report.unused:
        print(f"not of this task: {', '.join(report.unused)}")
    _print_lines([report])


def _print_lines(reports: list[PromptReport]) -> None:
    print_first(f"warning: {line}" for report in reports for line in report.warnings)
    print_first(f"problem: {line}" for report in reports for line in report.problems)
    if not any(report.problems for report in reports):
        print("no problem found")
