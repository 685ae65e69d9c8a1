"""The workload on pfl-research, two processes through torchrun."""

import os
import subprocess
import sys
import time


def relaunched() -> bool:
    """Starts this script again under torchrun, unless it already runs there."""
    if "LOCAL_RANK" in os.environ:
        return False
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *sys.argv]
    environment = {**os.environ, "PFL_PYTORCH_DEVICE": "cpu"}
    raise SystemExit(subprocess.run(command, env=environment, check=False).returncode)


def main() -> None:
    import torch
    from options import print_rounds, read_options, workload_of
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByDatapoints
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
    from pfl.internal.ops.selector import get_framework_module
    from pfl.metrics import Metrics, Weighted
    from pfl.model.pytorch import PyTorchModel
    from torch import nn
    from torch.nn import functional

    options = read_options()
    workload = workload_of(options)
    torch.set_num_threads(1)
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = workload.model()

        def forward(self, images):
            return self.net(images)

        def loss(self, images, masks, is_eval=False):
            self.train(not is_eval)
            return functional.binary_cross_entropy_with_logits(self(images), masks)

        @torch.no_grad()
        def metrics(self, images, masks, is_eval=True):
            return {"loss": Weighted(float(self.loss(images, masks, True)), 1)}

    class Clock(TrainingProcessCallback):
        def __init__(self):
            self.stamps: list[float] = []

        def on_train_begin(self, *, model):
            self.stamps.append(time.perf_counter())
            return Metrics()

        def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
            self.stamps.append(time.perf_counter())
            return False, Metrics()

    net = Net()
    model = PyTorchModel(
        model=net,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(net.parameters(), 1.0),
    )
    sampler = get_user_sampler("minimize_reuse", list(range(options.population)))
    data = FederatedDataset(lambda user: Dataset(workload.batch(user), user_id=user), sampler)
    backend = SimulatedBackend(
        training_data=data, val_data=data, postprocessors=[WeightByDatapoints()]
    )
    clock = Clock()
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=options.rounds,
            evaluation_frequency=10**9,
            train_cohort_size=options.per_round,
            val_cohort_size=0,
        ),
        backend=backend,
        model=model,
        model_train_params=NNTrainHyperParams(
            local_learning_rate=0.01, local_num_epochs=workload.steps, local_batch_size=None
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=None),
        callbacks=[clock],
        send_metrics_to_platform=False,
    )
    if get_framework_module().distributed.global_rank == 0:
        print_rounds(clock.stamps)
    # At a usual exit a thread of pfl's or torch's sometimes aborts the process.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__" and not relaunched():
    main()
