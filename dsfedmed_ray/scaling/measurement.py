"""One run of one grid point: its rounds are those of ``dsfedmed run``, watched from outside."""

import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dsfedmed_ray.accounting.communication import read_transfers
from dsfedmed_ray.configuration import build_experiment, compose
from dsfedmed_ray.experiment import train
from dsfedmed_ray.methods.fedavg import STAGE
from dsfedmed_ray.methods.resumable import StopRequest
from dsfedmed_ray.progress import SilentProgress
from dsfedmed_ray.records import ProgressRecord
from dsfedmed_ray.scaling.grid import GridPoint
from dsfedmed_ray.scaling.process_memory import ProcessMemory, largest, memory_now

VALIDATION = "validation_dice"
SIMULATED = "simulated_seconds"


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be measured.

    Attributes:
        point: the setting.
        repeat: from 0.
        overrides: of the run, without those of the point.
        seed: of the run.
        warmup_rounds: rounds that do not count.
        folder: for the run's files, which are removed at the end.
    """

    point: GridPoint
    repeat: int
    overrides: Sequence[str]
    seed: int
    warmup_rounds: int
    folder: Path

    def run_overrides(self) -> list[str]:
        """The whole run, in a folder and with a store of its own: nothing is taken from others."""
        files = [f"run.dir={self.folder / 'run'}", f"store.dir={self.folder / 'store'}"]
        nowhere = ["store.remote=null", "run.publish=null"]
        own = [f"seed={self.seed + self.repeat}", "resume=false", *nowhere, *files]
        return [*self.overrides, *self.point.overrides(), *own]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one run showed.

    Attributes:
        point: the setting.
        repeat: from 0.
        round_seconds: wall time of the rounds that count, checkpoint and journal included.
        driver_seconds: processor time of the driver in the same rounds; it hardly notices what
            else the machine does.
        round_bytes: bytes on the wire a round, mean, from the ledger.
        dice: validation Dice of the last validated round; None if none was.
        memory: peaks over the run.
        num_cpus: of the machine or cluster.
        simulated_seconds: of the rounds that count, on the virtual clock of
            ``runtime.availability``; empty where it has none.
    """

    point: GridPoint
    repeat: int
    round_seconds: Sequence[float]
    driver_seconds: Sequence[float]
    round_bytes: float
    dice: float | None
    memory: ProcessMemory
    num_cpus: int
    simulated_seconds: Sequence[float] = ()

    @property
    def median_seconds(self) -> float:
        """Median wall time of a round."""
        return statistics.median(self.round_seconds)

    def content(self) -> dict[str, Any]:
        """Plain values, for a JSON file."""
        return asdict(self)

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Measurement":
        """Reads :meth:`content` back."""
        point, memory = GridPoint(**content["point"]), ProcessMemory(**content["memory"])
        return cls(**{**content, "point": point, "memory": memory})


class RoundWatch(SilentProgress):
    """Times rounds from end to end and looks at memory between them.

    Args:
        on_round: called with every finished round.
        clock: seconds.
    """

    def __init__(
        self,
        on_round: Callable[[ProgressRecord], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._on_round = on_round
        self._clock = clock
        self._last_end = clock()
        self._last_processor = time.process_time()
        self.rounds: list[tuple[ProgressRecord, float]] = []
        self.processor_seconds: list[float] = []
        self.looks: list[ProcessMemory] = []
        self.num_cpus = 0

    def advance(self, record: ProgressRecord) -> None:
        """Ends a round; the time until here is the round's, that of looking is nobody's."""
        if record.stage != STAGE:
            return
        self.rounds.append((record, self._clock() - self._last_end))
        self.processor_seconds.append(time.process_time() - self._last_processor)
        self.looks.append(memory_now())
        self.num_cpus = self.num_cpus or _cluster_cpus()
        self._on_round(record)
        self._last_processor, self._last_end = time.process_time(), self._clock()

    def counted(self, warmup_rounds: int) -> list[tuple[ProgressRecord, float]]:
        """The rounds after the first ones, without those that also validated if any did not."""
        after = self.rounds[warmup_rounds:]
        return [item for item in after if VALIDATION not in item[0].values] or after

    def peaks(self) -> ProcessMemory:
        """The largest of every look."""
        names = ProcessMemory.__dataclass_fields__
        return ProcessMemory(
            **{name: largest(getattr(look, name) for look in self.looks) for name in names}
        )


def measure(
    task: Task, on_round: Callable[[ProgressRecord], None], stop: StopRequest
) -> Measurement:
    """Runs the stages of a method and measures the federated rounds.

    Args:
        task: what to run.
        on_round: called with every finished round.
        stop: set by signal handlers; the run then ends.

    Raises:
        DSFedMedError: as :func:`~dsfedmed_ray.experiment.train`.
    """
    shutil.rmtree(task.folder, ignore_errors=True)  # what an interrupted study left
    watch = RoundWatch(on_round)
    try:
        directory = train(build_experiment(compose(task.run_overrides())), watch, stop)
        sent = _bytes_by_round(directory.transfers)
    finally:
        shutil.rmtree(task.folder, ignore_errors=True)
    rounds = watch.counted(task.warmup_rounds)
    dice = [r.values[VALIDATION] for r, _ in watch.rounds if VALIDATION in r.values]
    return Measurement(
        point=task.point,
        repeat=task.repeat,
        round_seconds=[seconds for _, seconds in rounds],
        driver_seconds=[watch.processor_seconds[record.index] for record, _ in rounds],
        round_bytes=statistics.mean(sent[record.index] for record, _ in rounds),
        dice=dice[-1] if dice else None,
        memory=watch.peaks(),
        num_cpus=watch.num_cpus,
        simulated_seconds=[r.values[SIMULATED] for r, _ in rounds if SIMULATED in r.values],
    )


def _bytes_by_round(ledger: Path) -> Counter[int]:
    sent: Counter[int] = Counter()
    for transfer in read_transfers(ledger):
        if transfer.stage == STAGE and transfer.round_index is not None:
            sent[transfer.round_index] += transfer.num_bytes
    return sent


def _cluster_cpus() -> int:
    import ray

    return int(ray.cluster_resources()["CPU"])
