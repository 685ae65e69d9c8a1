"""Which part of a ControlNet a client tunes: all of it, or low-rank updates through ``peft``."""

from torch import nn

from dsfedmed_ray.models.generator_settings import GeneratorSettings
from dsfedmed_ray.seeding import named_torch_stream

ADAPTED_LAYERS = ["conv1", "conv2", "time_emb_proj", "to_q", "to_k", "to_v", "to_out.0"]
WHOLE_PARTS = ("controlnet_cond_embedding", "controlnet_down_blocks", "controlnet_mid_block")
"""Trained whole beside low-rank updates: the two ends Z of the branch (paper's z1 and z2)."""


def attach_adapter(controlnet: nn.Module, settings: GeneratorSettings) -> nn.Module:
    """Marks what is tuned, adding low-rank layers where the settings ask for them.

    Args:
        controlnet: a ControlNet; changed in place.
        settings: ``adapter`` and ``lora_rank``.
    """
    if settings.adapter == "full":
        return controlnet.requires_grad_(True)
    from peft import LoraConfig, inject_adapter_in_model

    rank = settings.lora_rank
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=ADAPTED_LAYERS)
    with named_torch_stream("controlnet_adapter", rank):
        controlnet = inject_adapter_in_model(config, controlnet)
    for name, weight in controlnet.named_parameters():
        if name.startswith(WHOLE_PARTS):
            weight.requires_grad_(True)
    return controlnet
