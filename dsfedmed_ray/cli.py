"""The command line. Every subcommand imports what it needs when it runs: help answers at once."""

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dsfedmed_ray import __version__
from dsfedmed_ray.errors import (
    ConfigurationError,
    DSFedMedError,
    InterruptedRunError,
    RunDirectoryError,
    UserError,
)

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
    options = _parsed(arguments)
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


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parses; overrides may stand before, between and after options, which argparse forbids."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    strange = [item for item in rest if item.startswith("-") or not hasattr(options, "overrides")]
    if strange:
        parser.error(f"unrecognized arguments: {' '.join(strange)}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    return options


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
    run.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help="more overrides: a study's best.yaml",
    )
    run.set_defaults(command=_run)

    report = commands.add_parser("report", help="print a run's table and write its report page")
    report.add_argument("run_dir", type=Path)
    report.set_defaults(command=_report)

    compare = commands.add_parser("compare", help="print runs side by side")
    compare.add_argument("run_dirs", type=Path, nargs="+", metavar="RUN_DIR")
    compare.add_argument("--reference", metavar="METHOD", help="what the others are compared with")
    compare.set_defaults(command=_compare)

    tune = commands.add_parser("tune", help="search settings by seen-site validation")
    tune.add_argument("space", type=Path, metavar="SPACE", help="e.g. tune_spaces/dsfedmed.yaml")
    tune.add_argument("--num-trials", type=int, metavar="N", help="instead of the space's budget")
    tune.add_argument("--study", type=Path, metavar="DIR", help="the study's folder")
    tune.add_argument("--resume", action="store_true", help="go on with a killed study")
    tune.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="overrides of every run")
    tune.set_defaults(command=_tune)

    scale = commands.add_parser("scale", help="measure how rounds scale, and predict larger ones")
    scale.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="experiment=scale_...")
    scale.add_argument(
        "--predict", nargs="+", metavar="KEY=N", help="clients=N and workers=N or gpus=N"
    )
    scale.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="DIR",
        help="the study; else the newest of runs/",
    )
    scale.set_defaults(command=_scale)

    cost = commands.add_parser("cost", help="bytes that travel and inference time, by method")
    cost.add_argument("--rounds", type=int, default=100, metavar="R", help="rounds (paper: 100)")
    cost.add_argument("--inference", action="store_true", help="time models on this machine")
    cost.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="to time on (cpu)")
    cost.add_argument("--threads", type=int, default=1, metavar="N", help="to time with (1)")
    cost.add_argument("--json", type=Path, metavar="PATH", help="write the rows as well")
    cost.set_defaults(command=_cost)
    return parser


def _run(options: argparse.Namespace) -> int:
    from rich.console import Console

    from dsfedmed_ray.configuration import build_experiment, compose
    from dsfedmed_ray.experiment import publish_run, run
    from dsfedmed_ray.methods.resumable import StopRequest
    from dsfedmed_ray.progress import show_progress
    from dsfedmed_ray.report.html import write_report
    from dsfedmed_ray.report.table import print_table

    overrides = options.overrides
    if options.source is not None:
        from dsfedmed_ray.tuning.overrides import read_overrides

        overrides = [*read_overrides(options.source), *overrides]
    experiment = build_experiment(compose(overrides))
    stop = StopRequest()
    with _stopping_on_signals(stop), show_progress(sys.stderr) as progress:
        directory = run(experiment, progress, stop)
    write_report(directory)
    print_table(directory, Console())
    published = publish_run(experiment, directory)
    if published is not None:
        print(f"published      {published}")
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


def _compare(options: argparse.Namespace) -> int:
    from rich.console import Console

    from dsfedmed_ray.comparison.table import print_comparison

    print_comparison(options.run_dirs, Console(), reference=options.reference)
    return 0


def _tune(options: argparse.Namespace) -> int:
    from rich.console import Console

    from dsfedmed_ray.methods.resumable import StopRequest
    from dsfedmed_ray.tuning.results import print_study
    from dsfedmed_ray.tuning.space import find_space
    from dsfedmed_ray.tuning.study import default_study, tune

    study = options.study or default_study(options.space)
    stop = StopRequest()
    with _stopping_on_signals(stop):
        result = tune(
            find_space(options.space),
            options.overrides,
            study=study,
            stream=sys.stderr,
            num_trials=options.num_trials,
            resume=options.resume,
            stop=stop,
        )
    print_study(result, study, Console())
    return 0


def _scale(options: argparse.Namespace) -> int:
    from rich.console import Console

    from dsfedmed_ray.scaling.results import newest_study, print_results, read_cost_model

    if options.predict is not None:
        from dsfedmed_ray.scaling.prediction import predict

        study = options.source or newest_study(Path("runs"))
        model = read_cost_model(study / "results.json")
        print(predict(model, [*options.predict, *options.overrides]))
        print(f"cost model     {study}")
        return 0
    if options.source is not None:
        raise ConfigurationError("--from belongs to --predict: --predict clients=N workers=N")
    from dsfedmed_ray.methods.resumable import StopRequest
    from dsfedmed_ray.progress import show_progress
    from dsfedmed_ray.scaling.study import scale

    stop = StopRequest()
    with _stopping_on_signals(stop), show_progress(sys.stderr) as progress:
        result, folder = scale(options.overrides, progress, stop)
    print_results(result, folder, Console())
    return 0


def _cost(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from rich.console import Console

    from dsfedmed_ray.accounting.cost import (
        communication_table,
        inference_reduction,
        inference_table,
    )
    from dsfedmed_ray.report.cost_tables import communication_cost_table, inference_cost_table
    from dsfedmed_ray.run_directory import write_json

    communication = communication_table(num_rounds=options.rounds)
    console = Console()
    console.print(communication_cost_table(communication, options.rounds))
    content: dict[str, object] = {"communication": [asdict(row) for row in communication]}
    if options.inference:
        times = inference_table(device=options.device, num_threads=options.threads)
        console.print(inference_cost_table(times))
        saved = inference_reduction(times)
        console.print(f"TinySAM saves {saved:.1%} of SAM-B's time (paper: nearly 90 %)")
        content |= {"inference": [asdict(row) for row in times], "inference_saved_fraction": saved}
    if options.json is not None:
        write_json(options.json, content)
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
