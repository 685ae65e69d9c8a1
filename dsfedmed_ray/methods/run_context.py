"""What a method is given: the run's surroundings, its stages among them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dsfedmed_ray.data.splits import SplitFederation
from dsfedmed_ray.errors import RunDirectoryError
from dsfedmed_ray.learning.wire import WireDtype
from dsfedmed_ray.methods.resumable import StopRequest, UnitLoop
from dsfedmed_ray.models.precision import Precision
from dsfedmed_ray.models.segmenter import Segmenter, SegmenterConfig
from dsfedmed_ray.progress import Progress
from dsfedmed_ray.run_directory import RunDirectory, write_atomically
from dsfedmed_ray.runtime.availability import Availability
from dsfedmed_ray.runtime.checkpoints import CheckpointFolder
from dsfedmed_ray.runtime.client import HospitalBuilder
from dsfedmed_ray.runtime.client_pool import ClientPool
from dsfedmed_ray.runtime.engine import Engine, Threads
from dsfedmed_ray.runtime.foundation_server import FoundationSettings
from dsfedmed_ray.runtime.journal import Journal
from dsfedmed_ray.runtime.local_training import LocalTraining
from dsfedmed_ray.runtime.pending import FoundationHandle
from dsfedmed_ray.runtime.stage_store import StageStore, stage_key


@dataclass(frozen=True, kw_only=True)
class StageOutput:
    """A finished stage.

    Attributes:
        key: what it depends on, hashed.
        folder: its files in the stage store; read only.
        seconds: wall time of this run's work on it; near 0 if it was reused.
        reused: whether another run, or an earlier start of this one, had finished it.
    """

    key: str
    folder: Path
    seconds: float
    reused: bool


@dataclass(kw_only=True)
class RunContext:
    """Everything a method needs from its surroundings.

    Attributes:
        seed: the run's seed.
        split: sites, parts and roles.
        lightweight: the lightweight model, which travels.
        foundation: the foundation model, which never does.
        generator: diffusion backbone and its fine-tuning; None for methods without synthesis.
        engine: where work runs.
        directory: the run's files.
        store: finished stages.
        journal: receives progress and transfers.
        progress: shows them.
        stop: the signals' flag.
        server_device: where the server's lightweight model trains, ``cpu`` or ``cuda``.
        checkpoint_every: units between two checkpoints.
        threads: torch threads by role; they decide bits, so they are part of every stage's key.
        precision: of the foundation model's arithmetic; part of every stage's key as well.
        wire_dtype: number format of states that travel in the rounds.
        drops_clients: whether failed clients are left out. A stage then depends on which clients
            failed, so its result stays this run's own.
        availability: simulated dropout and stragglers of the clients.
        with_rows: whether to train what only the table of a finished run needs.
        stages: finished stages by name, filled as the run goes.

    The pool of clients and the foundation model's server start when a stage first needs them and
    stay for the stages after it; :meth:`close` ends them.
    """

    seed: int
    split: SplitFederation
    lightweight: SegmenterConfig
    foundation: SegmenterConfig
    generator: Any
    engine: Engine
    directory: RunDirectory
    store: StageStore
    journal: Journal
    progress: Progress
    stop: StopRequest
    server_device: str = "cpu"
    checkpoint_every: int = 1
    threads: Threads = field(default_factory=Threads)
    precision: Precision = "fp32"
    wire_dtype: WireDtype = "float32"
    drops_clients: bool = False
    availability: Availability = field(default_factory=Availability)
    with_rows: bool = True
    stages: dict[str, StageOutput] = field(default_factory=dict)
    _pool: ClientPool | None = field(default=None, init=False)
    _foundation: FoundationHandle | None = field(default=None, init=False)

    def pool(self, local: LocalTraining) -> ClientPool:
        """The workers that serve this run's clients; a run has one kind of local training."""
        if self._pool is None:
            build = HospitalBuilder(
                split=self.split,
                model=self.lightweight,
                local=local,
                generator=self.generator,
                wire_dtype=self.wire_dtype,
                seed=self.seed,
                state_folder=self.directory.checkpoints.absolute() / "clients",
                num_states_kept=2 * self.checkpoint_every + 1,
            )
            self._pool = self.engine.start_pool(build)
        return self._pool

    def foundation_server(self) -> FoundationHandle:
        """The foundation model's server."""
        if self._foundation is None:
            self._foundation = self.engine.start_foundation(self.foundation_settings())
        return self._foundation

    def foundation_settings(self) -> FoundationSettings:
        """What servers of the foundation model are built from."""
        return FoundationSettings(
            model=self.foundation,
            split=self.split,
            seed=self.seed,
            embeddings_folder=self.store.root.absolute() / "embeddings",
            precision=self.precision,
        )

    def close_pool(self) -> None:
        """Ends the clients' workers; the next stage that needs them starts new ones."""
        if self._pool is not None:
            self._pool.close()
        self._pool = None

    def close_foundation(self) -> None:
        """Ends the foundation model's server; the next stage that needs it starts a new one."""
        if self._foundation is not None:
            self._foundation.close()
        self._foundation = None

    def close(self) -> None:
        """Ends the pool and the foundation model's server."""
        self.close_pool()
        self.close_foundation()

    def stage(
        self,
        name: str,
        *,
        settings: dict[str, Any],
        inputs: Sequence[StageOutput],
        run: Callable[[Path], None],
    ) -> StageOutput:
        """Takes a stage from the store or runs it.

        Args:
            name: its name.
            settings: the configuration that touches it; seed, data and threads are always included.
            inputs: the stages it reads.
            run: writes the stage's files into the folder it is given.
        """
        data = self.split.fingerprint()
        key = self.key(name, data=data, settings=settings, inputs=[stage.key for stage in inputs])
        self.stop.raise_if_set(self.resume_hint)
        started = time.perf_counter()
        reused = self.store.find(key) is not None or not self._run_alone(name, key, run)
        folder = self.store.find(key)
        assert folder is not None
        if reused:
            self.journal.restore_stage(name, folder)
            self.progress.note(f"{name}: taken from the stage store ({key})")
        self.stages[name] = StageOutput(
            key=key, folder=folder, seconds=time.perf_counter() - started, reused=reused
        )
        return self.stages[name]

    def key(
        self, name: str, *, data: str, settings: dict[str, Any], inputs: Sequence[str] = ()
    ) -> str:
        """The key in the store of what depends on these, the seed and the arithmetic.

        Args:
            name: of what is stored.
            data: fingerprint of the data that it depends on.
            settings: the configuration that touches it.
            inputs: keys of what it reads.
        """
        common: dict[str, Any] = {
            "seed": self.seed,
            "data": data,
            "threads": self.threads,
            "precision": self.precision,
            "device": self.server_device,
            "torch": torch.__version__,
        }
        if self.drops_clients:
            common["run"] = self.directory.root.absolute()
        return stage_key(name, {**common, **settings}, list(inputs))

    def _run_alone(self, name: str, key: str, run: Callable[[Path], None]) -> bool:
        """Runs a stage, unless another run is at it and finishes it; says whether it did."""
        said = False

        def waiting() -> None:
            nonlocal said
            if not said:
                self.progress.note(f"{name}: another run is at this stage; waiting for it")
            said = True
            self.stop.raise_if_set(self.resume_hint)

        with self.store.alone(key, waiting):
            if self.store.find(key) is not None:
                return False
            self._claim_checkpoints(name, key)
            with self.store.publishing(key) as temporary:
                run(temporary)
                self.journal.save_stage(name, temporary)
        return True

    def _claim_checkpoints(self, name: str, key: str) -> None:
        """Checkpoints of other code, data or arithmetic are no beginning of this stage."""
        mark = self.directory.checkpoints / f"{name}.key"
        if mark.exists() and mark.read_text(encoding="utf-8") != key:
            raise RunDirectoryError(
                f"the checkpoints in {mark.with_suffix('')} were made with other code, data or "
                f"torch, or on another device, than this run has now ({self.server_device}); go on "
                "with those, or start anew with another run.dir"
            )
        write_atomically(mark, lambda path: _write_text(path, key))

    def unit_loop(self, stage: str) -> UnitLoop:
        """The resumable loop of a stage."""
        return UnitLoop(
            journal=self.journal,
            progress=self.progress,
            checkpoints=CheckpointFolder(self.directory.checkpoints / stage, self.progress.note),
            stop=self.stop,
            resume_hint=self.resume_hint,
            checkpoint_every=self.checkpoint_every,
        )

    @property
    def resume_hint(self) -> str:
        """How to go on after an interruption, one line."""
        return f"go on with: the same command, resume=true run.dir={self.directory.root}"

    def build(self, model: SegmenterConfig) -> Segmenter:
        """Builds a model for this federation."""
        federation = self.split.federation
        return model.build(
            num_structures=len(federation.structures),
            image_size=federation.image_size,
            seed=self.seed,
        )

    def all_clients(self) -> range:
        """The ids of all clients."""
        return range(self.split.num_clients)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
