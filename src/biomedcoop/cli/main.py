"""The root command: options of all commands, and the printing of errors."""

from __future__ import annotations

import inspect
import io
import signal
import sys
import warnings
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from biomedcoop.cli import (
    backbones,
    benchmark,
    datasets,
    doctor,
    embed,
    evaluate,
    explain,
    export,
    import_published,
    methods,
    predict,
    prompts,
    publish,
    report,
    serve,
    suggest,
    train,
    words,
)
from biomedcoop.cli.console import INTERRUPTED, end_interrupted, say, show_log
from biomedcoop.errors import UserError, command_line
from biomedcoop.threads import wait_passively
from biomedcoop.version import __version__


class Root(TyperGroup):
    """The root command, which keeps what an interrupted command says of its work: newer versions of typer drop the words."""

    said = ""

    def invoke(self, context: Any) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt as error:
            Root.said = str(error)
            raise


app = typer.Typer(
    name="biomedcoop",
    cls=Root,
    help="Few-shot classification of biomedical images on frozen vision-language models.\n\nNot a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("report")(report.report)
app.command("predict")(predict.predict)
app.command("suggest")(suggest.suggest)
app.command("embed")(embed.embed)
app.command("explain")(explain.explain)
app.command("serve")(serve.serve)
app.command("export")(export.export)
app.command("publish")(publish.publish)
app.command("words")(words.words)
app.command("import-published")(import_published.import_published)
app.add_typer(prompts.app, name="prompts")
app.add_typer(methods.app, name="methods")
app.add_typer(datasets.app, name="datasets")
app.add_typer(backbones.app, name="backbones")
app.add_typer(benchmark.app, name="benchmark")
app.command("doctor")(doctor.doctor)


def _unwrap_help(commands: typer.Typer) -> None:
    """Join the lines of each paragraph of the help texts: typer keeps the line ends of the source beside its own."""
    for command in commands.registered_commands:
        text = inspect.getdoc(command.callback) or ""
        command.help = "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
    for group in commands.registered_groups:
        if group.typer_instance is not None:
            _unwrap_help(group.typer_instance)


_unwrap_help(app)

DEBUG = "--debug"


def _version(asked: bool) -> None:
    if asked:
        print(f"biomedcoop {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(DEBUG, metavar="", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", metavar="", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Few-shot classification of biomedical images on frozen vision-language models. Not a medical device."""


# base class of typer's errors about the command line; its module differs between versions of typer
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]


def main() -> None:
    """Run a command; an error in the user's input prints one line on stderr and exits with status 2."""
    with command_line():
        _run()


def _run() -> None:
    wait_passively()
    show_log()
    if isinstance(sys.stdout, io.TextIOWrapper):  # folder names may not be UTF-8, and some terminals lack Unicode
        sys.stdout.reconfigure(errors="backslashreplace")
    # a job that a scheduler ends removes its temporary files, as after Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # the pixel limit is checked by the package itself, with a message of its own
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # the package reports damaged images itself
    status, kept = 0, "no result was written"
    try:
        # wherever --debug stands, `fail` finds it; users write it behind the command too
        words = [word for word in sys.argv[1:] if word != DEBUG]
        status = app(words, prog_name="biomedcoop", standalone_mode=False)
    except UserError as error:
        fail(train.as_typed(str(error), error.option), error)
    except _CommandLineError as error:
        complain(error)
    except (KeyboardInterrupt, typer.Abort) as error:
        # typer raises its own exception from the one that a command raised
        status, kept = INTERRUPTED, str(error.__cause__ or error) or kept
    except OSError as error:
        fail(
            f"{error.filename or 'input or output'}: {error.strerror or error}; choose another place or make room",
            error,
        )
    if status == INTERRUPTED:
        end_interrupted(Root.said or kept)
    sys.exit(status or 0)


def complain(error: Any) -> NoReturn:
    """Report a faulty command line in one line on stderr and exit with status 2."""
    text = error.format_message().strip()
    if not text or "\n" in text:  # no command was given, so the text is the help page
        if text:
            print(text)
        sys.exit(2)
    command = error.ctx.command_path if getattr(error, "ctx", None) else "biomedcoop"
    if "unexpected extra argument" in text and any("--data" in one.opts for one in error.ctx.command.params):
        text += "; name the data with --data, e.g. --data scans"
    fail(f"{text.rstrip('.')}{'' if text.endswith('?') else ';'} see '{command} --help'", error)


def fail(message: str, error: BaseException) -> NoReturn:
    """Print the message on stderr and exit with status 2; with ``--debug``, raise the error itself."""
    if DEBUG in sys.argv[1:]:
        raise error
    say(f"error: {' '.join(message.split())}")
    sys.exit(2)
