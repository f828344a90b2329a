"""``biomedcoop benchmark``: run a protocol, and list or show the protocols of the package."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from biomedcoop.cli import benchmark_report
from biomedcoop.cli.console import end_interrupted, print_first, print_json, print_table, print_text, progress_bar, say
from biomedcoop.cli.options import Device, Json, Plugin, Precision, Quiet, parse_seeds, split_list


class ProtocolOrCommand(TyperGroup):
    """A group of commands whose first word may also be a protocol: ``benchmark quick`` means ``benchmark run quick``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=ProtocolOrCommand,
    no_args_is_help=True,
    help="Compare methods by a protocol, such as the paper's: 'biomedcoop benchmark PROTOCOL'.",
)


def _names(what: str, instead: str = "Replaces those of the protocol.") -> Any:
    return typer.Option(help=f"{what}, separated by commas. {instead}", show_default=False)


@app.command("run")
def run(
    protocol: Annotated[
        str,
        typer.Argument(help="Name of a protocol ('biomedcoop benchmark list') or a TOML file.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the results. Default: benchmark-PROTOCOL in the current folder.", show_default=False
        ),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the datasets that are found by name. Default: $BIOMEDCOOP_DATA.", show_default=False
        ),
    ] = None,
    backbone: Annotated[str | None, _names("Backbones (names, or folders of models)")] = None,
    datasets: Annotated[str | None, _names("Datasets (names or paths)")] = None,
    methods: Annotated[str | None, _names("Methods", "Variants of other methods are left out.")] = None,
    shots: Annotated[str | None, _names("Training images per class")] = None,
    seeds: Annotated[str | None, _names("Random seeds")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Parallel processes. Default: one for each core.", show_default=False)
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Threads that share an operation of a training; the last bits of results can depend on it. Default: 1.",
            show_default=False,
        ),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(metavar="[local|ray]", help="Processes on this machine, or tasks of a Ray cluster."),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT of a Ray cluster's head node; 'auto': the cluster of this machine; 'local': a new one on this machine. "
            "Default: auto.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", metavar="", help="Show what the work would cost, and write no results.")
    ] = False,
    plugin: Plugin = None,
    device: Device = "cpu",
    precision: Precision = "float32",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compute the runs of a protocol; the same command continues what was interrupted. Exit status 1 if a run failed or none
    is done.

    Runs train in groups: all seeds of a dataset, method and number of shots. Each finished run is a line of results.jsonl in the
    output folder.
    """
    from biomedcoop.api import run_benchmark

    over: dict[str, Any] = {
        "backbones": None if backbone is None else split_list(backbone),
        "datasets": None if datasets is None else split_list(datasets),
        "methods": None if methods is None else split_list(methods),
        "shots": None if shots is None else parse_seeds(shots),
        "seeds": None if seeds is None else parse_seeds(seeds),
    }
    place = Path(f"benchmark-{Path(protocol).stem}") if out is None else out
    try:
        with progress_bar() as progress:
            summary = run_benchmark(
                protocol,
                place,
                data_root=data_root,
                jobs=jobs,
                threads=threads,
                device=device,
                precision=precision,
                plugins=plugin or (),
                executor=executor,
                address=address,
                dry_run=dry_run,
                progress=progress,
                **{key: value for key, value in over.items() if value is not None},
            )
    except KeyboardInterrupt:
        end_interrupted(f"finished runs are kept in {place}, and the same command continues")
    if json:
        print_json(summary.to_dict())
    else:
        print_text(f"runs: {summary}")
        print_first(_reasons(place))
        if summary.overhead is not None:
            processes = "1 process" if summary.jobs == 1 else f"{summary.jobs} processes"
            print_text(
                f"computed in {summary.seconds:.1f} s by {processes}; {100 * summary.overhead:.1f} % of the time of the runs was "
                "lost between them"
            )
        if not dry_run:
            print(f"report:  {place / 'report' / 'report.md'}")
            print(f"results: {place / 'results.jsonl'}")
    if not dry_run and not summary.done:
        count, file = summary.failed + summary.skipped, place / "results.jsonl"
        say(f"error: none of the {count:,} runs could be computed; their reasons stand in {file}")
    if not dry_run and (summary.failed or not summary.done):
        raise typer.Exit(1)


def _reasons(place: Path) -> list[str]:
    """Why runs failed or were skipped, each reason once with the number of its runs."""
    from biomedcoop.benchmark.journal import RESULTS, read_lines

    path = place / RESULTS
    lines = read_lines(path) if path.exists() else ()
    reasons = Counter((line["status"], line["dataset"], line["reason"]) for line in lines if "reason" in line)
    return [
        f"{status}: {count} run{'s' * (count > 1)} of {dataset}: {reason}"
        for (status, dataset, reason), count in reasons.items()
    ]


app.command("report")(benchmark_report.report)


@app.command("list")
def list_protocols(json: Json = False) -> None:
    """List the protocols of the package."""
    from biomedcoop.benchmark.protocol import Protocol, shipped

    protocols = {name: Protocol.read(name) for name in shipped()}
    if json:
        print_json({name: protocol.to_dict() for name, protocol in protocols.items()})
        return
    from rich.table import Table

    table = Table("name", "title", "datasets", "methods", "shots", "seeds")
    for name, one in protocols.items():
        rows = f"{len(one.rows)}"
        table.add_row(
            name, one.title, str(len(one.datasets)), rows, ", ".join(map(str, one.shots)), str(len(one.seeds))
        )
    print_table(table)
    print_text("'biomedcoop benchmark show NAME' prints one; a protocol of your own is a TOML file of the same form.")


@app.command("show")
def show(name: Annotated[str, typer.Argument(help="Name of a protocol of the package.", show_default=False)]) -> None:
    """Print a protocol of the package, a TOML file to copy and change."""
    from biomedcoop.benchmark.protocol import shipped_text

    print(shipped_text(name), end="")
