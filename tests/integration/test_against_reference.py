"""The distributed run against the method in one plain file."""

import importlib.util
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from dsfedmed_ray.data.brain_sites import BrainSitesConfig
from dsfedmed_ray.data.splits import LeaveOneSiteOut, SplitFederation
from dsfedmed_ray.learning.augmentation import Augmentation
from dsfedmed_ray.learning.foundation_adaptation import Adaptation
from dsfedmed_ray.learning.learnability import Selection
from dsfedmed_ray.learning.mutual_distillation import Distillation
from dsfedmed_ray.learning.segmentation_training import Pairs, SegmentationTraining
from dsfedmed_ray.methods.dsfedmed.measure_synthesis import SynthesisChecks
from dsfedmed_ray.methods.dsfedmed.pipeline import DSFedMed
from dsfedmed_ray.methods.federated_training import FederatedTraining
from dsfedmed_ray.methods.method import MethodResult, RunContext
from dsfedmed_ray.models.generator import EmbeddedGeneratorConfig
from dsfedmed_ray.models.litemedsam import LiteMedSAMConfig
from dsfedmed_ray.models.segmenter import SegmenterConfig, State
from dsfedmed_ray.models.unet import UNetConfig
from dsfedmed_ray.runtime.devices import role_threads
from dsfedmed_ray.runtime.engine import RuntimeConfig, Threads
from dsfedmed_ray.runtime.local_training import LocalTraining

SEED = 3
LIGHTWEIGHT = UNetConfig(channels=(8, 16), num_res_units=0)
FOUNDATION = LiteMedSAMConfig(input_size=64)
INERT = ("net.model.0.conv.bias", "net.model.1.submodule.conv.bias", "k_proj.bias")
"""Biases before a normalisation and of attention's keys: no output depends on them, and their
gradient is rounding, which Adam scales up to whole steps."""
ONE_THREAD = Threads(client=1, generator=1, foundation=1)


@pytest.fixture(scope="module")
def split() -> SplitFederation:
    """Three clients with 8, 4 and 6 pairs of 64 pixels, and an unseen site."""
    data = BrainSitesConfig(
        image_size=64,
        structures=["white_matter"],
        sequences=("t1", "pd", "t2", "flair"),
        pairs_per_site=(8, 4, 6, 4),
        slices_per_subject=1,
    )
    return LeaveOneSiteOut(unseen_site="flair_a").apply(data.build())


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    path = Path(__file__).parent.parent / "reference" / "dsfedmed_reference.py"
    spec = importlib.util.spec_from_file_location("dsfedmed_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def expected(
    reference: ModuleType,
    split: SplitFederation,
    toy_generator: EmbeddedGeneratorConfig,
) -> Any:
    """What the plain file gives with its default numbers."""
    settings = reference.Settings(seed=SEED)
    with role_threads(1):
        return reference.dsfedmed(split, LIGHTWEIGHT, FOUNDATION, toy_generator, settings)


def method() -> DSFedMed:
    """The reference's default numbers, as the package's configuration."""
    local = SegmentationTraining(epochs=1, batch_size=4, learning_rate=1e-3)
    return DSFedMed(
        federated=FederatedTraining(rounds=2, local=LocalTraining(training=local), tolerance=0.01),
        samples_per_client=4,
        adaptation=Adaptation(epochs=2, batch_size=4, learning_rate=5e-4),
        selection=Selection(rule="topk", ratio=0.5, reliability_weight=0.5),
        distillation=Distillation(
            epochs=2,
            batch_size=4,
            lightweight_learning_rate=3e-4,
            augmentation=Augmentation(),
            tolerance=0.01,
        ),
        checks=SynthesisChecks(fit_steps=0),
    )


@pytest.fixture
def run(
    tmp_path: Path,
    split: SplitFederation,
    toy_generator: EmbeddedGeneratorConfig,
    open_context: Callable[..., AbstractContextManager[RunContext]],
) -> Callable[..., MethodResult]:
    def run_(clients: Any) -> MethodResult:
        runtime = RuntimeConfig(clients=clients, threads=ONE_THREAD)
        with open_context(
            tmp_path / clients,
            runtime,
            split,
            lightweight=LIGHTWEIGHT,
            foundation=FOUNDATION,
            generator=toy_generator,
        ) as context:
            return method().run(context)

    return run_


def largest_difference(given: State, expected: State) -> float:
    assert set(given) == set(expected)
    compared = [name for name in expected if not name.endswith(INERT)]
    return max(float((given[n].double() - expected[n].double()).abs().max()) for n in compared)


def probabilities(config: SegmenterConfig, state: State, split: SplitFederation) -> torch.Tensor:
    """On the test images of all sites."""
    model = config.build(num_structures=1, image_size=64, seed=SEED)
    model.load_trainable_state(state)
    model.eval()
    sites = [*split.seen_sites, str(split.unseen_site)]
    samples = [sample for site in sites for sample in split.samples(site, "test")]
    with torch.no_grad():
        return model(Pairs.of(samples).batch(torch.arange(len(samples)))[0]).sigmoid()


def check(result: MethodResult, expected: Any, split: SplitFederation) -> None:
    """Weights and probabilities within 1e-5, where stage 5 moved weights twenty times as far.

    The foundation model's weights within 1e-4: Adam scales up what rounding leaves of gradients
    near zero, and it has two thousand times the weights.
    """
    assert result.foundation is not None
    assert largest_difference(result.rows["fedavg"], expected.federated) < 1e-5
    assert largest_difference(result.lightweight, expected.lightweight) < 1e-5
    assert largest_difference(result.foundation, expected.foundation) < 1e-4
    assert largest_difference(result.lightweight, result.rows["fedavg"]) > 2e-4
    for config, given, wanted in (
        (LIGHTWEIGHT, result.lightweight, expected.lightweight),
        (FOUNDATION, result.foundation, expected.foundation),
    ):
        found, right = (probabilities(config, state, split) for state in (given, wanted))
        assert len(found) > 0
        torch.testing.assert_close(found, right, atol=1e-5, rtol=0)


def test_the_reference_selects_half_of_the_pool(expected: Any) -> None:
    """Three clients of four samples each: six of twelve, chosen anew in both epochs."""
    assert [len(kept) for kept in expected.kept] == [6, 6]


def test_the_serial_run_matches(
    run: Callable[..., MethodResult], expected: Any, split: SplitFederation
) -> None:
    check(run("serial"), expected, split)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("four_cpus")
def test_actors_match_and_equal_the_serial_run_bit_by_bit(
    run: Callable[..., MethodResult], expected: Any, split: SplitFederation
) -> None:
    """One actor a client, generator actors under Ray Data, and the foundation model's actor."""
    actors, serial = run("actors"), run("serial")
    check(actors, expected, split)
    for given, same in (
        (actors.lightweight, serial.lightweight),
        (actors.foundation, serial.foundation),
    ):
        assert given is not None
        assert same is not None
        assert all(torch.equal(given[name], same[name]) for name in same)
