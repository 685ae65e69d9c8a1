"""A worker's model in two parts."""

import numpy as np
import torch
from torch import Tensor, nn

from dsfedmed_ray.learning.aggregation import FlatState
from dsfedmed_ray.models.segmenter import Segmenter
from dsfedmed_ray.runtime.resident_segmenter import ResidentSegmenter


class Normalised(Segmenter):
    """A convolution of one weight and a batch normalisation of one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(self.conv.weight, 5.0)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images))


KEPT = tuple(
    f"norm.{name}"
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
)


def test_the_parts_do_not_touch_each_other() -> None:
    resident = ResidentSegmenter(Normalised(), KEPT)
    assert resident.shared.read().values.tolist() == [5.0]
    assert resident.initial_kept.values.tolist() == [1.0, 0.0, 0.0, 1.0]
    resident.shared.load(FlatState(np.array([2.0], np.float32), np.zeros(0, np.int64)))
    resident.kept.load(FlatState(np.array([3, 4, 6, 7], np.float32), np.array([8])))
    state = {name: value.item() for name, value in resident.model.state_dict().items()}
    assert list(state.values()) == [2.0, 3.0, 4.0, 6.0, 7.0, 8]
    assert resident.initial_kept.values.tolist() == [1.0, 0.0, 0.0, 1.0]


def test_a_whole_state_and_training_reach_both_parts() -> None:
    """In training mode a batch of ones at weight 9 moves the running mean by a tenth of 9."""
    resident = ResidentSegmenter(Normalised(), KEPT)
    resident.load_whole(FlatState(np.array([9, 1, 0, 0, 1], np.float32), np.array([0])))
    resident.model.train()
    resident.model(torch.ones(2, 1, 2, 2))
    assert resident.shared.read().values.tolist() == [9.0]
    np.testing.assert_allclose(resident.kept.read().values, [1.0, 0.0, 0.9, 0.9], rtol=1e-6)
    assert resident.kept.read().counters.tolist() == [1]


def test_nothing_is_kept_where_everything_is_averaged() -> None:
    resident = ResidentSegmenter(Normalised(), ())
    assert resident.shared.read().values.tolist() == [5.0, 1.0, 0.0, 0.0, 1.0]
    assert resident.kept.read().values.size == resident.kept.read().counters.size == 0
