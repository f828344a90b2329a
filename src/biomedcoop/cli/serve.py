"""``biomedcoop serve``: answer requests of other programs, and show the web page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from biomedcoop.cli.console import inform
from biomedcoop.cli.options import Device, OtherBackbone, Plugin, Precision, Quiet


def serve(
    models: Annotated[
        list[Path] | None,
        typer.Argument(help="Run folders of 'train', saved classifiers, or hf://OWNER/NAME.", show_default=False),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on. Any other than the default needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes any that is free.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="Name under which a proxy on this machine passes requests on. Needs a token. Repeatable.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="File with the token. Default: the environment variable BIOMEDCOOP_TOKEN."),
    ] = None,
    max_request: Annotated[int, typer.Option("--max-request", min=1, help="Largest request, MiB.")] = 64,
    max_images: Annotated[
        int, typer.Option("--max-images", min=1, help="Largest number of images in a request; frames count.")
    ] = 64,
    max_pixels: Annotated[
        int, typer.Option("--max-pixels", min=1, help="Largest image, megapixels (2²⁰ pixels).")
    ] = 32,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Longest upload and longest answer, s.")] = 60.0,
    queue: Annotated[
        int,
        typer.Option(
            "--queue",
            min=0,
            help="Requests that may wait besides those being answered, one per core; further ones are refused.",
        ),
    ] = 16,
    training: Annotated[
        bool | None,
        typer.Option(
            "--training/--no-training",
            help="Let the page train. Default: only where no other machine reaches the server.",
            show_default=False,
        ),
    ] = None,
    backbone: OtherBackbone = None,
    plugin: Plugin = None,
    device: Device = "cpu",
    precision: Precision = "float32",
    quiet: Quiet = False,
) -> None:
    """Answer requests of other programs, and show a web page, until Ctrl-C. Images stay in memory.

    Programs send images to /predict and /explain; /docs lists all addresses. Only this machine reaches the server unless --host or
    --allow-host says otherwise. Without a model, the server answers nothing until one is trained on its page.

    Not a medical device.
    """
    from biomedcoop.deploy.server.limits import Limits
    from biomedcoop.deploy.server.run import Address, check_installed, guard_for, read_token
    from biomedcoop.deploy.server.run import serve as run

    check_installed()
    address = Address(host, port, tuple(allow_host or ()))
    guard = guard_for(address, read_token(token_file))
    limits = Limits(max_request * 2**20, max_images, max_pixels * 2**20, timeout, queue)
    run(
        models or [],
        address,
        limits,
        guard,
        trains=training,
        backbone=backbone,
        device=device,
        precision=precision,
        started=inform,
    )
