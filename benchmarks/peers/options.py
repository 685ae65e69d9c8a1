"""The options that every peer script takes."""

import argparse
import itertools
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from workload import WORKLOADS, Workload


def read_options() -> argparse.Namespace:
    """Population, rounds and the workload's name."""
    parser = argparse.ArgumentParser()
    for name in ("population", "per-round", "rounds"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--workload", choices=WORKLOADS, required=True)
    return parser.parse_args()


def workload_of(options: argparse.Namespace) -> Workload:
    """The workload that the options name."""
    return WORKLOADS[options.workload]


def print_rounds(stamps: list[float]) -> None:
    """Prints the median round, the first left out: it holds the start-up."""
    rounds = [after - before for before, after in itertools.pairwise(stamps)]
    print(json.dumps({"seconds_per_round": statistics.median(rounds[1:] or rounds)}))
