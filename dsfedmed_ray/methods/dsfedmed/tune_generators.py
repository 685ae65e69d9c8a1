"""Stage 1: each client fine-tunes a ControlNet on its private pairs and uploads it once.

The frozen backbone is public. What leaves a client is its ControlNet, the masks that its samples
will be generated from (as ``generator.masks`` says) and, with the embedded generator, statistics of
its images' style; each is a line of the ledger.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from dsfedmed_ray.accounting.communication import payload_bytes
from dsfedmed_ray.learning.generator_upload import GeneratorUpload
from dsfedmed_ray.methods.exchange import transfers_of
from dsfedmed_ray.methods.run_context import RunContext
from dsfedmed_ray.models.generator_settings import GeneratorSettings
from dsfedmed_ray.records import ProgressRecord
from dsfedmed_ray.runtime.local_training import LocalTraining

STAGE = "tune_generators"
CLIENT_UPLOAD = "client_upload"
"""Name in the stage store of one client's upload."""


def upload_path(folder: Path, client_name: str) -> Path:
    """Where a client's upload is kept."""
    return folder / f"{client_name}.safetensors"


def tune_generators(
    context: RunContext, local: LocalTraining, generator: GeneratorSettings, folder: Path
) -> None:
    """Tunes all clients' ControlNets and writes their uploads to ``folder``.

    Each upload enters the stage store as soon as it lands. It depends on the client's own pairs
    alone, so an interrupted stage repeats only the clients that had not finished, and runs that
    leave out one site after the other tune each client once.

    Args:
        context: the run.
        local: the clients' local training, whose workers tune too.
        generator: what tuning reads of the generator's settings.
        folder: receives the uploads.
    """
    names = {client: context.split.client_name(client) for client in context.all_clients()}
    keys = {client: _upload_key(context, name, generator) for client, name in names.items()}
    missing = []
    context.journal.keep(STAGE, up_to_unit=-1)
    with context.progress.stage(STAGE, len(names)):
        for client, name in names.items():
            with _alone(context, keys[client]):
                stored = context.store.find(keys[client])
            if stored is None:
                missing.append(client)
                continue
            shutil.copyfile(upload_path(stored, name), upload_path(folder, name))
            upload = GeneratorUpload.load(upload_path(folder, name))
            _record(context, client, name, upload, seconds=0.0)
        for client, upload, seconds in _tuned(context, local, missing):
            name = names[client]
            upload.save(upload_path(folder, name))
            key = keys[client]
            with _alone(context, key), context.store.publishing(key) as stored:
                shutil.copyfile(upload_path(folder, name), upload_path(stored, name))
            _record(context, client, name, upload, seconds)
            context.stop.raise_if_set(context.resume_hint)


def _upload_key(context: RunContext, name: str, generator: GeneratorSettings) -> str:
    return context.key(
        CLIENT_UPLOAD,
        data=context.split.site_fingerprint(name),
        settings={"generator": generator, "site": name},
    )


def _alone(context: RunContext, key: str) -> AbstractContextManager[None]:
    """Holds a client's key for the time of a copy."""
    return context.store.alone(key, lambda: context.stop.raise_if_set(context.resume_hint))


def _tuned(
    context: RunContext, local: LocalTraining, clients: list[int]
) -> Iterator[tuple[int, GeneratorUpload, float]]:
    if not clients:
        return
    started = time.perf_counter()
    for client, upload in context.pool(local).map("tune_generator", clients):
        yield client, upload, time.perf_counter() - started


def _record(
    context: RunContext, client: int, name: str, upload: GeneratorUpload, seconds: float
) -> None:
    sent = {**upload.parts(), "loss": upload.final_loss}
    sizes = {what: payload_bytes(part) for what, part in sent.items()}
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
