"""``biomedcoop prompts generate``: let a language model write sentences for new classes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from biomedcoop.cli.console import inform, print_json, progress_bar
from biomedcoop.cli.options import Json, Quiet
from biomedcoop.errors import UserError

Overwrite = Annotated[bool, typer.Option("--overwrite", metavar="", help="Replace an existing file.")]


def generate_prompts(
    classes: Annotated[
        str,
        typer.Option(
            "--classes",
            help="All classes of the task, separated by commas. Put a name with a comma in double quotes.",
            show_default=False,
        ),
    ],
    modality: Annotated[
        str,
        typer.Option(
            "--modality", help="Modality of the images, e.g. CT, ultrasound, histopathology.", show_default=False
        ),
    ],
    organ: Annotated[
        str, typer.Option("--organ", help="Organ in the images, e.g. kidney, breast.", show_default=False)
    ],
    out: Annotated[Path | None, typer.Option("--out", help="JSON file to write; not needed with --dry-run.")] = None,
    n: Annotated[int, typer.Option("--n", help="Number of different sentences per class.")] = 50,
    model: Annotated[str, typer.Option("--model", help="Name of the language model at the endpoint.")] = "gpt-4.1-mini",
    base_url: Annotated[
        str | None,
        typer.Option("--base-url", envvar="OPENAI_BASE_URL", help="OpenAI-compatible endpoint, e.g. a local server."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="Sampling temperature. Default: the endpoint's own.")
    ] = None,
    per_minute: Annotated[
        float, typer.Option("--per-minute", help="Maximum number of requests per minute; 0 for no limit.")
    ] = 0.0,
    timeout: Annotated[float, typer.Option("--timeout", help="Maximum time for one answer, in seconds.")] = 120.0,
    retries: Annotated[
        int, typer.Option("--retries", help="Number of retries after a rate limit or a broken connection.")
    ] = 6,
    price: Annotated[
        str | None,
        typer.Option("--price", help="Price in US dollars per million tokens, 'INPUT,OUTPUT', for the estimate."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", metavar="", help="Show the first request and the estimate; send nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", metavar="", help="Send without asking first.")] = False,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Let a language model write sentences for your own classes. Only class names, modality and organ are sent.

    The environment variable OPENAI_API_KEY holds the key; a local server needs none. Answers are kept in the cache folder. After an
    interruption, the same command continues and sends no answered request again.
    """
    from biomedcoop.output import cache_root
    from biomedcoop.prompts.class_names import parse_classes
    from biomedcoop.prompts.generation.cost import estimate, parse_price
    from biomedcoop.prompts.generation.endpoint import DEFAULT_URL, Endpoint, check_access, check_endpoint
    from biomedcoop.prompts.generation.generate import about_file, generate
    from biomedcoop.prompts.generation.request import Wanted, check_wanted, request_body
    from biomedcoop.prompts.writing import check_output, write_table
    from biomedcoop.version import __version__

    wanted = Wanted(parse_classes(classes), " ".join(modality.split()), " ".join(organ.split()), n)
    check_wanted(wanted)
    url = (base_url or DEFAULT_URL).rstrip("/")
    endpoint = Endpoint(model, url, temperature, True, timeout, retries, per_minute)
    check_endpoint(endpoint)
    expected = estimate(wanted, endpoint, None if price is None else parse_price(price))
    cost = (
        "price unknown; state it with --price INPUT,OUTPUT"
        if expected.dollars is None
        else f"about ${expected.dollars:.2f}"
    )
    about = (
        f"{expected.requests} requests or a few more to {model}, about {expected.input_tokens} tokens in and "
        f"{expected.output_tokens} out ({cost})"
    )
    if dry_run:
        body = request_body(wanted, endpoint, wanted.class_names[0], 0)
        print_json({"url": f"{url}/chat/completions", "first_request": body, "estimate": vars(expected)})
        inform(f"would send {about}")
        return
    if out is None:
        raise UserError("--out is missing: name the JSON file to write, or pass --dry-run to send nothing")
    check_output(out, overwrite)
    check_access(endpoint)
    cache = cache_root() / "prompts"
    inform(f"{about}; answers are kept in {cache}, so no request is sent twice")
    asks = not yes and not json and sys.stdin.isatty() and sys.stderr.isatty()
    if asks and not typer.confirm("send them?", err=True):
        inform("nothing was sent")
        raise typer.Exit(1)
    try:
        with progress_bar() as progress:
            table, provenance = generate(wanted, endpoint, cache, progress)
    except KeyboardInterrupt:
        inform("the answers so far are kept; the same command continues from there")
        raise
    write_table(out, table, about_file(wanted, endpoint, provenance, __version__))
    dropped = sum(sum(request["dropped"].values()) for request in provenance["requests"])
    if json:
        print_json(
            {"out": str(out), "sentences": {name: len(texts) for name, texts in table.items()}, "dropped": dropped}
        )
        return
    inform(f"{sum(map(len, table.values()))} sentences in {out}; {dropped} others did not pass the checks")
    inform(
        f"read them, as a model makes mistakes; then: biomedcoop prompts check {out}; biomedcoop train --prompts {out} …"
    )
