"""The command line. Every subcommand imports what it needs when it runs: help answers at once."""

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dsfedmed_ray import __version__
from dsfedmed_ray.errors import DSFedMedError, InterruptedRunError, RunDirectoryError, UserError

if TYPE_CHECKING:
    from dsfedmed_ray.methods.resumable import StopRequest

Command = Callable[[argparse.Namespace], int]

EXIT_FAILED_RUN = 1
EXIT_USER_ERROR = 2
EXIT_SIGNAL = 128


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand and turns errors into one line and an exit code.

    Returns:
        0; 1 for a run that failed; 2 for a user's mistake; 128 + n after signal n.
    """
    options = _parser().parse_args(arguments)
    command: Command = options.command
    try:
        return command(options)
    except InterruptedRunError as error:
        print(f"dsfedmed: {error}", file=sys.stderr)
        return EXIT_SIGNAL + error.signal_number
    except UserError as error:
        print(f"dsfedmed: error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except DSFedMedError as error:
        print(f"dsfedmed: the run failed: {error}", file=sys.stderr)
        return EXIT_FAILED_RUN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dsfedmed",
        description="Federated medical segmentation at two scales, simulated on Ray.",
    )
    parser.add_argument("--version", action="version", version=f"dsfedmed {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a method on a federation")
    run.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides, e.g. experiment=smoke"
    )
    run.set_defaults(command=_run)

    report = commands.add_parser("report", help="print a run's table and write its report page")
    report.add_argument("run_dir", type=Path)
    report.set_defaults(command=_report)
    return parser


def _run(options: argparse.Namespace) -> int:
    from rich.console import Console

    from dsfedmed_ray.configuration import build_experiment, compose
    from dsfedmed_ray.experiment import run
    from dsfedmed_ray.methods.resumable import StopRequest
    from dsfedmed_ray.progress import show_progress
    from dsfedmed_ray.report.html import write_report
    from dsfedmed_ray.report.table import print_table

    experiment = build_experiment(compose(options.overrides))
    stop = StopRequest()
    with _stopping_on_signals(stop), show_progress(sys.stderr) as progress:
        directory = run(experiment, progress, stop)
    write_report(directory)
    print_table(directory, Console())
    return 0


def _report(options: argparse.Namespace) -> int:
    from rich.console import Console

    from dsfedmed_ray.report.html import write_report
    from dsfedmed_ray.report.table import print_table
    from dsfedmed_ray.run_directory import RunDirectory

    directory = RunDirectory(options.run_dir)
    if not directory.root.is_dir():
        raise RunDirectoryError(f"{directory.root} is no folder; give the run directory of a run")
    print_table(directory, Console())
    page = write_report(directory)
    print(f"report         {page}")
    return 0


@contextmanager
def _stopping_on_signals(stop: "StopRequest") -> Iterator[None]:
    """The first SIGINT or SIGTERM asks the run to save and end; the second ends it at once."""

    def ask(number: int, _: object) -> None:
        stop.signal_number = number
        print(f"dsfedmed: signal {number}: saving after this step ...", file=sys.stderr)
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
