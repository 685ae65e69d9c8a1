"""The workload on Flower's simulation engine, two actors."""

import os
import time

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from options import print_rounds, read_options, workload_of

OPTIONS = read_options()
WORKLOAD = workload_of(OPTIONS)
STAMPS: list[float] = []

client_app, server_app = ClientApp(), ServerApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    torch.set_num_threads(1)
    model = WORKLOAD.model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    loss = WORKLOAD.train(model, int(context.node_config["partition-id"]))
    metrics = MetricRecord({"loss": loss, "num-examples": WORKLOAD.batch_size})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content, reply_to=message)


class TimedFedAvg(FedAvg):
    def configure_train(self, *arguments, **keywords):
        STAMPS.append(time.perf_counter())
        return super().configure_train(*arguments, **keywords)


@server_app.main()
def serve(grid: Grid, context: Context) -> None:
    strategy = TimedFedAvg(
        fraction_train=OPTIONS.per_round / OPTIONS.population,
        fraction_evaluate=0.0,
        min_train_nodes=OPTIONS.per_round,
        min_available_nodes=OPTIONS.population,
    )
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(WORKLOAD.model().state_dict()),
        train_config=ConfigRecord({"lr": 0.01}),
        num_rounds=OPTIONS.rounds,
    )
    STAMPS.append(time.perf_counter())


if __name__ == "__main__":
    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=OPTIONS.population,
        backend_config=resources,
    )
    print_rounds(STAMPS)
