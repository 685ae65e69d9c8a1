"""A planned network (nnU-Net) is planned from the clients' aggregate statistics, before anything.

Each client sends its fingerprint, five numbers; the server merges them and sends the merged one
back, from which both sides derive the same network. Every later stage has it in its key.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

from dsfedmed_ray.accounting.communication import payload_bytes
from dsfedmed_ray.methods.exchange import transfers_of
from dsfedmed_ray.methods.federated_training import FederatedTraining
from dsfedmed_ray.methods.run_context import RunContext
from dsfedmed_ray.models.nnunet import (
    Fingerprint,
    NnUNetConfig,
    fingerprint_of,
    merge_fingerprints,
)
from dsfedmed_ray.records import Direction, Transfer
from dsfedmed_ray.run_directory import write_json

STAGE = "plan_network"
FILE = "fingerprint.json"


def plan_network(context: RunContext, schedule: FederatedTraining) -> None:
    """Plans the lightweight model with the clients of the first round, if it is to be planned.

    Of many clients, as many are asked as validate.
    """
    model = context.lightweight
    if not isinstance(model, NnUNetConfig) or model.fingerprint is not None:
        return
    waiting = schedule.joins or {}
    there = (c for c in context.all_clients() if context.split.client_name(c) not in waiting)
    clients = list(islice(there, schedule.max_validation_clients))
    planned = context.stage(
        STAGE,
        settings={"model": model, "clients": clients},
        inputs=[],
        run=lambda folder: _exchange(context, schedule, clients, folder),
    )
    content = json.loads((planned.folder / FILE).read_text(encoding="utf-8"))
    context.lightweight = replace(model, fingerprint=Fingerprint(**content))
    context.close_pool()  # its workers would build the model that is not planned


def plan_network_on_pooled_pairs(context: RunContext) -> None:
    """The same plan where all pairs are in one place, and nothing travels."""
    model = context.lightweight
    if not isinstance(model, NnUNetConfig) or model.fingerprint is not None:
        return
    split = context.split
    fingerprints = [fingerprint_of(split.samples(site, "train")) for site in split.seen_sites]
    context.lightweight = replace(model, fingerprint=merge_fingerprints(fingerprints))


def _exchange(
    context: RunContext, schedule: FederatedTraining, clients: Sequence[int], folder: Path
) -> None:
    context.journal.keep(STAGE, up_to_unit=-1)  # what an interrupted exchange may have left
    pool = context.pool(schedule.local)
    sent = dict(pool.map("fingerprint", clients))
    merged = merge_fingerprints([Fingerprint.from_array(sent[client]) for client in sorted(sent)])
    down = {"plan": payload_bytes(merged.to_array())}
    for client, values in sorted(sent.items()):
        name, up = pool.client_name(client), {"fingerprint": payload_bytes(values)}
        context.journal.transfers(_lines(name, up, "uplink") + _lines(name, down, "downlink"))
    write_json(folder / FILE, asdict(merged))


def _lines(client: str, sizes: dict[str, int], direction: Direction) -> list[Transfer]:
    return transfers_of(client, sizes, direction=direction, stage=STAGE, round_index=None)
