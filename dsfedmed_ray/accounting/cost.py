"""What each method costs, from real modules: bytes a client and milliseconds an image.

Communication is counted on PyTorch's ``meta`` device, where modules have shapes and no memory; a
state's bytes are those of what ``trainable_state()`` gives. As the paper counts: up and down in
every round, MB of 2^20 bytes. Not counted, since they depend on the data: masks and statistics
that leave with a ControlNet.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from dsfedmed_ray.accounting.inference import measure_inference_ms
from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.models.controlnet_adapter import attach_adapter
from dsfedmed_ray.models.generator_settings import GeneratorSettings
from dsfedmed_ray.models.litemedsam import LiteMedSAMConfig
from dsfedmed_ray.models.nnunet import NnUNetConfig
from dsfedmed_ray.models.sam import SamConfig
from dsfedmed_ray.models.sam_adapter import SamAdapterConfig
from dsfedmed_ray.models.segmenter import SegmenterConfig, State
from dsfedmed_ray.models.tinysam import TinySamConfig
from dsfedmed_ray.models.unet import UNetConfig
from dsfedmed_ray.units import BYTES_PER_MB

StateDtype = Literal["float32", "float16"]
BYTES_PER_VALUE: Mapping[str, int] = {"float32": 4, "float16": 2}

PAPER_IMAGE_SIZE = 1024
EMBEDDED_IMAGE_SIZE = 128
STABLE_DIFFUSION_TEXT_WIDTH = 768
"""Stable Diffusion 1.5's; every other number of its ControlNet is diffusers' default."""
LORA_RANK = 16


@dataclass(frozen=True, kw_only=True)
class CommunicationRow:
    """What one client sends and receives with one method.

    Attributes:
        method: the row's name.
        wire_dtype: number format of floating-point values while they travel.
        state_parameters: values of the state that travels both ways in every round.
        once_parameters: values sent once, up: the ControlNet's.
        total_mb: MB (2^20 bytes) over all rounds.
        reduction_fraction: share of FedSAM's float32 MB that is saved.
        paper_mb: what the paper reports for 100 rounds in float32, where it does.
    """

    method: str
    wire_dtype: str
    state_parameters: int
    once_parameters: int
    total_mb: float
    reduction_fraction: float
    paper_mb: float | None


@dataclass(frozen=True, kw_only=True)
class InferenceRow:
    """Inference of one model with random weights, one image at a time.

    Attributes:
        model: the row's name.
        image_size: side of the image, pixels.
        num_parameters: of the whole model.
        median_ms: median time an image.
        p95_ms: its 95th percentile.
        num_runs: timed runs; few for models that take seconds.
        warmup: runs before them.
        device: where.
        num_threads: torch's.
    """

    model: str
    image_size: int
    num_parameters: int
    median_ms: float
    p95_ms: float
    num_runs: int
    warmup: int
    device: str
    num_threads: int


@dataclass(frozen=True)
class _Traffic:
    method: str
    state: State
    once: State
    paper_mb: float | None = None


def communication_table(
    *, num_rounds: int = 100, wire_dtypes: Sequence[StateDtype] = ("float32", "float16")
) -> list[CommunicationRow]:
    """Communication a client, method by method.

    Args:
        num_rounds: rounds of federated training (paper: 100).
        wire_dtypes: number formats, one block of rows each.

    Raises:
        ConfigurationError: ``num_rounds`` is below 1.
    """
    if num_rounds < 1:
        raise ConfigurationError(f"num_rounds is {num_rounds}; at least 1")
    methods = list(_methods())
    baseline_mb = _total_mb(methods[0], num_rounds, "float32")
    return [
        CommunicationRow(
            method=traffic.method,
            wire_dtype=wire_dtype,
            state_parameters=_num_values(traffic.state),
            once_parameters=_num_values(traffic.once),
            total_mb=total_mb,
            reduction_fraction=1 - total_mb / baseline_mb,
            paper_mb=traffic.paper_mb if (num_rounds, wire_dtype) == (100, "float32") else None,
        )
        for wire_dtype in wire_dtypes
        for traffic in methods
        for total_mb in [_total_mb(traffic, num_rounds, wire_dtype)]
    ]


def inference_table(
    *, device: str = "cpu", num_threads: int = 1, warmup: int = 2, repeats: int = 50
) -> list[InferenceRow]:
    """Inference times on this machine: SAM-B and TinySAM, LiteMedSAM and the embedded U-Net.

    A model is timed for a minute at most, but five times at least.

    Args:
        device: ``cpu`` or ``cuda``.
        num_threads: torch's, during the measurement.
        warmup: runs before the first that counts.
        repeats: runs that count, at most.

    Raises:
        ConfigurationError: the device is not there, or there are no threads.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(
            f"device {device} was asked for, but there is no CUDA device; install a CUDA build of "
            "torch or use cpu"
        )
    if num_threads < 1:
        raise ConfigurationError(f"threads is {num_threads}; at least 1")
    models: list[tuple[str, SegmenterConfig, int]] = [
        ("SAM ViT-B", SamConfig(weights="random"), PAPER_IMAGE_SIZE),
        ("TinySAM", TinySamConfig(weights="random"), PAPER_IMAGE_SIZE),
        ("LiteMedSAM", LiteMedSAMConfig(weights="random"), EMBEDDED_IMAGE_SIZE),
        ("U-Net", UNetConfig(), EMBEDDED_IMAGE_SIZE),
    ]
    rows = []
    for name, config, size in models:
        model = config.build(num_structures=1, image_size=size, seed=0)
        with _threads(num_threads):
            time = measure_inference_ms(model, size, device=device, warmup=warmup, repeats=repeats)
        rows.append(
            InferenceRow(
                model=name,
                image_size=size,
                num_parameters=sum(parameter.numel() for parameter in model.parameters()),
                median_ms=time.median_ms,
                p95_ms=time.p95_ms,
                num_runs=time.num_runs,
                warmup=warmup,
                device=device,
                num_threads=num_threads,
            )
        )
    return rows


@contextmanager
def _threads(num_threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def inference_reduction(rows: Sequence[InferenceRow]) -> float:
    """Share of SAM-B's time that TinySAM saves; the paper's "nearly 90 %" (0.118 s, 0.015 s)."""
    median_ms = {row.model: row.median_ms for row in rows}
    return 1 - median_ms["TinySAM"] / median_ms["SAM ViT-B"]


def travelling_state(config: SegmenterConfig, image_size: int) -> State:
    """What of a model travels, as shapes without memory."""
    with torch.device("meta"):
        model = config.build(num_structures=1, image_size=image_size, seed=0)
    return model.trainable_state()


def controlnet_state(*, adapter: Literal["full", "lora"], lora_rank: int = LORA_RANK) -> State:
    """What a client uploads of the ControlNet of Stable Diffusion 1.5, as shapes without memory."""
    from diffusers import ControlNetModel

    settings = GeneratorSettings(adapter=adapter, lora_rank=lora_rank)
    with torch.device("meta"):
        controlnet: nn.Module = ControlNetModel(cross_attention_dim=STABLE_DIFFUSION_TEXT_WIDTH)
        controlnet = attach_adapter(controlnet, settings)
    named = controlnet.named_parameters()
    return {name: value.detach() for name, value in named if value.requires_grad}


def _methods() -> Iterator[_Traffic]:
    """The rows, FedSAM first."""
    whole_sam = SamConfig(weights="random", trainable="all")
    tiny = travelling_state(TinySamConfig(weights="random", imagenet_head=True), PAPER_IMAGE_SIZE)
    headless = travelling_state(TinySamConfig(weights="random"), PAPER_IMAGE_SIZE)
    adapted = SamAdapterConfig(weights="random")
    yield _Traffic("FedSAM", travelling_state(whole_sam, PAPER_IMAGE_SIZE), {}, 71_538)
    yield _Traffic("FedMSA", travelling_state(adapted, PAPER_IMAGE_SIZE), {})
    yield _Traffic("FednnU-Net", travelling_state(NnUNetConfig(), PAPER_IMAGE_SIZE), {})
    yield _Traffic("FedU-Net (embedded)", travelling_state(UNetConfig(), EMBEDDED_IMAGE_SIZE), {})
    yield _Traffic("FedTinySAM", tiny, {}, 7_770)
    yield _Traffic("FedTinySAM, no unused head", headless, {})
    full, lora = controlnet_state(adapter="full"), controlnet_state(adapter="lora")
    yield _Traffic("DSFedMed", tiny, full, 8_920)
    yield _Traffic("DSFedMed, no unused head", headless, full)
    yield _Traffic(f"DSFedMed, LoRA rank {LORA_RANK}", tiny, lora)
    yield _Traffic(f"DSFedMed, LoRA rank {LORA_RANK}, no unused head", headless, lora)


def _total_mb(traffic: _Traffic, num_rounds: int, wire_dtype: str) -> float:
    both_ways = 2 * num_rounds * state_bytes(traffic.state, wire_dtype)
    return (both_ways + state_bytes(traffic.once, wire_dtype)) / BYTES_PER_MB


def state_bytes(state: State, wire_dtype: str) -> int:
    """Bytes of a state's values; integers keep their own format."""
    return sum(
        value.numel()
        * (BYTES_PER_VALUE[wire_dtype] if value.is_floating_point() else value.element_size())
        for value in state.values()
    )


def _num_values(state: State) -> int:
    return sum(value.numel() for value in state.values())
