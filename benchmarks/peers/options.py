"""The options that every peer script takes."""

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import itertools

from workload import Workload


def read_options() -> argparse.Namespace:
    """Population, rounds and the workload's size."""
    parser = argparse.ArgumentParser()
    for name in ("population", "per-round", "rounds", "width", "image-size", "batch-size", "steps"):
        parser.add_argument(f"--{name}", type=int, required=True)
    return parser.parse_args()


def workload_of(options: argparse.Namespace) -> Workload:
    """The workload that the options describe."""
    return Workload(
        width=options.width,
        image_size=options.image_size,
        batch_size=options.batch_size,
        steps=options.steps,
    )


def print_rounds(stamps: list[float]) -> None:
    """Prints the median round, the first left out: it holds the start-up."""
    rounds = [after - before for before, after in itertools.pairwise(stamps)]
    print(json.dumps({"seconds_per_round": statistics.median(rounds[1:] or rounds)}))
