"""Shares of a GPU, and threads of a role."""

import pytest
import torch

from dsfedmed_ray.errors import ResourceError
from dsfedmed_ray.runtime.devices import role_device, role_threads


def test_no_share_is_the_cpu() -> None:
    assert role_device(0.0) == torch.device("cpu")


def test_a_promised_gpu_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ResourceError, match=r"num_gpus=0\.25 .* no CUDA device; .* num_gpus=0"):
        role_device(0.25)


@pytest.mark.parametrize(("share", "caps"), [(0.25, [0.25]), (1.0, [])])
def test_a_fraction_caps_the_memory(
    share: float, caps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    capped: list[float] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", capped.append)
    assert role_device(share) == torch.device("cuda")
    assert capped == caps


def test_threads_are_given_back_even_after_an_error() -> None:
    before = torch.get_num_threads()
    seen = []

    def fail() -> None:
        with role_threads(before + 2):
            seen.append(torch.get_num_threads())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [before + 2]
    assert torch.get_num_threads() == before


def test_nothing_is_set_that_is_set_already(monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting a number, even the same, empties oneDNN's cache."""
    before = torch.get_num_threads()
    with role_threads(before):
        pass  # the first in a process
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    with role_threads(before):
        pass
    assert asked == []
    with role_threads(before + 1):
        pass
    assert asked == [before + 1]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of "
            "15.77 GiB of which 1.20 GiB is free.\nOf the allocated memory ...",
            r"^the GPU is too small: 2\.5 GB needed, 15\.8 GB on the GPU; lower batch_size, ",
        ),
        (
            "CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total capacity of "
            "15.77 GiB of which 1.20 GiB is free. Process 7 has 9.00 GiB memory in use. 7.88 GiB "
            "allowed; Of the allocated memory 7.50 GiB is allocated by PyTorch, and 1.00 MiB ...",
            r"small: 8\.0 GB needed \(7\.5 GB held, 512\.0 MB asked for\), 7\.9 GB allowed to this "
            r"role, 15\.8 GB on the GPU; lower batch_size, .* generator\.images_per_job, or give",
        ),
        ("words of another version", r"^the GPU is too small: more memory was needed; lower"),
    ],
)
def test_a_full_gpu_is_one_line(message: str, said: str) -> None:
    with pytest.raises(ResourceError, match=said) as caught, role_threads(1):
        raise torch.OutOfMemoryError(message)
    assert "\n" not in str(caught.value)
