"""How fast a round is: the bare loop, this runtime, and peers where they are installed.

``python benchmarks/runtime.py --json PATH [--pfl-python P] [--flower-python P]``
``python benchmarks/runtime.py --json PATH --full-participation 10000``

Every runner does the same rounds of the same workload with one torch thread a process. Repeats are
interleaved, so that a slow minute of the machine falls on all; medians and the spread are shown.
The second form compares rounds of all clients of a large federation with rounds of a few, in turn
on the same two workers.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from fresh_ray import own_ray, seconds_in_own_ray, train_plainly
from workload import WORKLOADS, Workload

from dsfedmed_ray.learning.aggregation import FlatState, ResidentModel
from dsfedmed_ray.runtime.client_pool import ClientPool, SerialPool
from dsfedmed_ray.runtime.client_program import FitOrder, FitResult
from dsfedmed_ray.runtime.failures import FailurePolicy
from dsfedmed_ray.seeding import numpy_generator

POPULATION = 1000
Runner = Callable[[], float]


class PlainProgram:
    """The workload as a client program."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        model = workload.model()
        self._resident = ResidentModel(model, tuple(model.state_dict()))

    def client_name(self, client_id: int) -> str:
        return str(client_id)

    def fit(self, client_id: int, broadcast: FlatState, order: FitOrder) -> FitResult:
        self._resident.load(broadcast)
        loss = self._workload.train(self._resident.model, client_id)
        state = self._resident.read()
        return FitResult(
            state=state,
            num_samples=self._workload.batch_size,
            metrics={"loss": loss},
            num_uplink_bytes=state.num_bytes,
        )


class BuildPlainProgram:
    """Builds it inside a worker."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload

    def __call__(self) -> PlainProgram:
        return PlainProgram(self._workload)


def sampled(round_index: int, per_round: int) -> list[int]:
    """The round's clients, the same for every runner of ours."""
    stream = numpy_generator(0, "benchmark", round_index)
    return sorted(int(c) for c in stream.choice(POPULATION, size=per_round, replace=False))


def bare_rounds(workload: Workload, rounds: int, per_round: int) -> float:
    """One process, one model, a running float64 sum; seconds a round."""
    model = workload.model()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    started = time.perf_counter()
    for index in range(rounds):
        total = {
            name: torch.zeros_like(value, dtype=torch.float64) for name, value in state.items()
        }
        for client in sampled(index, per_round):
            model.load_state_dict(state)
            workload.train(model, client)
            for name, value in model.state_dict().items():
                total[name] += value
        state = {name: (value / per_round).float() for name, value in total.items()}
    return (time.perf_counter() - started) / rounds


def pool_rounds(pool: ClientPool, workload: Workload, rounds: int, per_round: int) -> float:
    """Rounds of drawn clients through a pool; seconds a round."""
    return rounds_of(pool, workload, [sampled(index, per_round) for index in range(rounds)])


def rounds_of(pool: ClientPool, workload: Workload, rounds: Sequence[Sequence[int]]) -> float:
    """Rounds of given clients through a pool; seconds a round."""
    model = workload.model()
    state = ResidentModel(model, tuple(model.state_dict())).read()
    started = time.perf_counter()
    for index, clients in enumerate(rounds):
        weight = len(clients) * workload.batch_size
        result = pool.fit_round(state, clients, round_index=index, total_weight=weight)
        state = result.state
    return (time.perf_counter() - started) / len(rounds)


def serial_pool(workload: Workload) -> ClientPool:
    return SerialPool(
        BuildPlainProgram(workload),
        num_threads=1,
        policy=FailurePolicy(),
        client_name=str,
        note=lambda text: print(text, file=sys.stderr),
    )


def ray_pool(workload: Workload, num_workers: int) -> ClientPool:
    from dsfedmed_ray.runtime.demand import Demand
    from dsfedmed_ray.runtime.placement import Placement
    from dsfedmed_ray.runtime.ray_pool import RayPool

    return RayPool(
        BuildPlainProgram(workload),
        num_workers=num_workers,
        pinned=False,
        num_threads=1,
        placement=Placement("benchmark", [Demand(num_gpus=0)] * num_workers),
        chunk_size=None,
        policy=FailurePolicy(),
        client_name=str,
        note=lambda text: print(text, file=sys.stderr),
    )


def peer_rounds(python: Path, script: str, workload: str, rounds: int, per_round: int) -> float:
    """A peer in its own environment; seconds a round, its start-up and first round left out."""
    command = [str(python), str(Path(__file__).parent / "peers" / script)]
    options = {
        "population": POPULATION,
        "per-round": per_round,
        "rounds": rounds + 1,
        "workload": workload,
    }
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{script} failed:\n{done.stderr[-4000:]}")
    return float(json.loads(done.stdout.strip().splitlines()[-1])["seconds_per_round"])


def first_round(workload: Workload, per_round: int) -> None:
    """A round on two new workers."""
    pool = ray_pool(workload, 2)
    pool_rounds(pool, workload, 1, per_round)
    pool.close()


def first_rounds(given: argparse.Namespace) -> dict[str, object]:
    """From ``ray.init`` returning to the first round's end, and what of it is this package's.

    The latter is a round of one client a worker, less what new processes take to import torch and
    to train that client: the median of differences, measured in turn.
    """
    small = WORKLOADS["small"]
    works = (lambda: train_plainly(small), lambda: first_round(small, 2))
    pairs = [[seconds_in_own_ray(work) for work in works] for _ in range(given.repeats)]
    return {
        "first_round_seconds": seconds_in_own_ray(lambda: first_round(small, given.per_round)),
        "first_round_own_seconds": statistics.median(ours - plain for plain, ours in pairs),
        "plain_torch_seconds": statistics.median(plain for plain, _ in pairs),
    }


def measure(name: str, given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Medians and spread of all runners on one workload."""
    workload = WORKLOADS[name]
    rounds, per_round = (given.rounds, given.per_round) if name == "small" else (1, given.large)
    serial, two = serial_pool(workload), ray_pool(workload, 2)
    runners: dict[str, Runner] = {
        "bare": lambda: bare_rounds(workload, rounds, per_round),
        "serial": lambda: pool_rounds(serial, workload, rounds, per_round),
        "pool_2": lambda: pool_rounds(two, workload, rounds, per_round),
    }
    for peer, python in (("pfl", given.pfl_python), ("flower", given.flower_python)):
        if python is not None:
            runners[peer] = lambda peer=peer, python=python: peer_rounds(
                python, f"{peer}_rounds.py", name, rounds, per_round
            )
    for runner in runners.values():
        runner()  # warm-up
    seconds: dict[str, list[float]] = {runner: [] for runner in runners}
    for _ in range(given.repeats):
        for runner, run in runners.items():
            seconds[runner].append(run())
    two.close()
    serial.close()
    return {
        runner: {
            "clients_per_second": per_round / statistics.median(values),
            "seconds_per_round": statistics.median(values),
            "fastest": min(values),
            "slowest": max(values),
        }
        for runner, values in seconds.items()
    }


def full_participation(workload: Workload, given: argparse.Namespace) -> dict[str, object]:
    """Client-rounds a second of one round of all clients, beside rounds of a few, in turn."""
    everybody, few = range(given.full_participation), given.per_round
    pool = ray_pool(workload, 2)
    speeds: dict[int, list[float]] = {few: [], len(everybody): []}
    memory: dict[int, int] = {}
    pool_rounds(pool, workload, given.rounds, few)  # warm-up
    for _ in range(given.repeats):
        speeds[few].append(few / pool_rounds(pool, workload, given.rounds, few))
        memory.setdefault(few, peak_bytes())
        speeds[len(everybody)].append(len(everybody) / rounds_of(pool, workload, [everybody]))
        memory[len(everybody)] = peak_bytes()
    pool.close()
    for clients, values in speeds.items():
        print(
            f"{clients:6} clients a round {statistics.median(values):8.1f} clients/s "
            f"({min(values):.1f} to {max(values):.1f}), driver at most "
            f"{memory[clients] / 2**20:.1f} MiB"
        )
    ratio = statistics.median(speeds[len(everybody)]) / statistics.median(speeds[few])
    print(f"{len(everybody)} clients at {ratio:.1%} of the throughput of {few}")
    return {
        "clients_per_second": {str(clients): values for clients, values in speeds.items()},
        "driver_peak_bytes": {str(clients): value for clients, value in memory.items()},
        "over_few": ratio,
    }


def peak_bytes() -> int:
    """The highest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10


def comparison(given: argparse.Namespace) -> dict[str, object]:
    """All runners on both workloads, and the first round of new workers."""
    result = first_rounds(given)
    for name in given.workloads:
        with own_ray():
            table = measure(name, given)
        ours = table["pool_2"]["seconds_per_round"]
        for runner, row in table.items():
            print(
                f"{name:6} {runner:8} {row['clients_per_second']:8.1f} clients/s  "
                f"{row['seconds_per_round']:.3f} s a round "
                f"({row['fastest']:.3f} to {row['slowest']:.3f})"
            )
        ratios = {
            f"over_{runner}": row["seconds_per_round"] / ours
            for runner, row in table.items()
            if runner != "pool_2"
        }
        shown = ", ".join(f"{other} {ratio:.2f}" for other, ratio in ratios.items())
        print(f"{name:6} pool of two: {shown}", flush=True)
        result[name] = {**ratios, "runners": table}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=3, help="of the small workload a repeat")
    parser.add_argument("--per-round", type=int, default=200)
    parser.add_argument("--large", type=int, default=20, help="clients of the large workload")
    parser.add_argument(
        "--full-participation", type=int, metavar="N", help="only compare rounds of all N clients"
    )
    parser.add_argument("--pfl-python", type=Path, help="an environment with pfl and torch")
    parser.add_argument("--flower-python", type=Path, help="an environment with flwr[simulation]")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.full_participation is None:
        result = comparison(given)
    else:
        with own_ray():
            result = {"full_participation": full_participation(WORKLOADS["small"], given)}
    given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
