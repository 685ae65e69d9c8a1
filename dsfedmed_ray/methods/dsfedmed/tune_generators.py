"""Stage 1: each client fine-tunes a ControlNet on its private pairs and uploads it once.

The frozen backbone is public. What leaves a client is its ControlNet, the masks that its samples
will be generated from (as ``generator.masks`` says) and, with the embedded generator, statistics of
its images' style; each is a line of the ledger.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from dsfedmed_ray.accounting.communication import payload_bytes
from dsfedmed_ray.learning.generator_upload import GeneratorUpload
from dsfedmed_ray.methods.exchange import transfers_of
from dsfedmed_ray.methods.method import RunContext
from dsfedmed_ray.records import ProgressRecord
from dsfedmed_ray.run_directory import write_atomically
from dsfedmed_ray.runtime.local_training import LocalTraining

STAGE = "tune_generators"


def upload_path(folder: Path, client_name: str) -> Path:
    """Where a client's upload is kept."""
    return folder / f"{client_name}.safetensors"


def tune_generators(context: RunContext, local: LocalTraining, folder: Path) -> None:
    """Tunes all clients' ControlNets and writes their uploads to ``folder``.

    Uploads land in the run's checkpoint folder first, so that an interrupted stage repeats only
    the clients that had not finished.
    """
    landing = context.directory.checkpoints / STAGE
    names = {client: context.split.client_name(client) for client in context.all_clients()}
    landed = [client for client in names if upload_path(landing, names[client]).exists()]
    context.journal.keep(STAGE, up_to_unit=-1)
    with context.progress.stage(STAGE, len(names)):
        for client in landed:
            upload = GeneratorUpload.load(upload_path(landing, names[client]))
            _record(context, client, names[client], upload, seconds=0.0)
        for client, upload, seconds in _tuned(context, local, set(names) - set(landed)):
            write_atomically(upload_path(landing, names[client]), upload.save)
            _record(context, client, names[client], upload, seconds)
            context.stop.raise_if_set(context.resume_hint)
    for name in names.values():
        if upload_path(landing, name).exists():  # a dropped client has none
            upload_path(folder, name).write_bytes(upload_path(landing, name).read_bytes())


def _tuned(
    context: RunContext, local: LocalTraining, clients: set[int]
) -> Iterator[tuple[int, GeneratorUpload, float]]:
    if not clients:
        return
    started = time.perf_counter()
    for client, upload in context.pool(local).map("tune_generator", sorted(clients)):
        yield client, upload, time.perf_counter() - started


def _record(
    context: RunContext, client: int, name: str, upload: GeneratorUpload, seconds: float
) -> None:
    sizes = {what: payload_bytes(part) for what, part in upload.parts().items()}
    context.journal.transfers(
        transfers_of(name, sizes, direction="uplink", stage=STAGE, round_index=client)
    )
    record = ProgressRecord(
        stage=STAGE,
        index=client,
        total=context.split.num_clients,
        seconds=seconds,
        values={"loss": upload.final_loss, "uplink_bytes": float(sum(sizes.values()))},
    )
    context.journal.progress(record)
    context.progress.advance(record)
