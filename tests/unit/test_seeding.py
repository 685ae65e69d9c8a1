"""Streams by name, and the global generator lent to one of them."""

import pytest
import torch

from dsfedmed_ray.seeding import derive_seed, named_torch_stream


@pytest.mark.parametrize("has_cuda", [False, True])
def test_a_named_stream_is_torchs_own_and_leaves_no_trace(
    has_cuda: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers of ``torch.manual_seed`` with the name's seed, with CUDA or without."""
    monkeypatch.setattr("dsfedmed_ray.seeding._has_cuda", lambda: has_cuda)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(3, "layers"))
        expected = [torch.randn(5), torch.rand(3), torch.randperm(7)]
    torch.randn(3)  # an odd number of normal draws leaves one in the generator
    before = torch.get_rng_state()
    with named_torch_stream(3, "layers"):
        drawn = [torch.randn(5), torch.rand(3), torch.randperm(7)]
    assert all(torch.equal(*pair) for pair in zip(drawn, expected, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_error_inside_leaves_no_trace_either() -> None:
    before = torch.get_rng_state()
    with pytest.raises(KeyError), named_torch_stream("a"):
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)
