"""Poses follow the subject, and the common frame undoes them."""

import pytest
import torch

from dsfedmed_ray.models.pose import (
    REACH,
    image_poses,
    into_common_frame,
    inverse,
    join_style,
    moved,
    out_of_common_frame,
    split_style,
)


def bright_box(top: int, left: int, height: int, width: int) -> torch.Tensor:
    """White on black, 64 pixels a side."""
    image = torch.zeros(1, 3, 64, 64)
    image[..., top : top + height, left : left + width] = 1
    return image


def test_a_box_by_hand() -> None:
    """Rows 16 to 48 and columns 24 to 56: centre (40, 32) pixels, so (0.25, 0) in half sides.

    A uniform side of 32 pixels is 1 half side long and has a deviation of 1 / sqrt(12) = 0.2887.
    """
    pose = image_poses(bright_box(16, 24, 32, 32))[0]
    assert pose[:, 2].tolist() == pytest.approx([0.25, 0.0], abs=2e-3)
    assert pose[:, :2].flatten().tolist() == pytest.approx([0.2887, 0, 0, 0.2887], abs=3e-3)


def test_inverted_and_mirrored_images() -> None:
    image = bright_box(10, 8, 20, 40)
    pose = image_poses(image)
    torch.testing.assert_close(image_poses(1 - image), pose)
    mirrored = image_poses(image.flip(3))
    assert mirrored[0, 0, 2].item() == pytest.approx(-pose[0, 0, 2].item(), abs=1e-5)


def test_an_empty_image_has_the_pose_of_a_uniform_one() -> None:
    """Deviation of a side of 2 half sides: 2 / sqrt(12) = 0.577."""
    pose = image_poses(torch.full((1, 3, 64, 64), 0.4))[0]
    assert pose.flatten().tolist() == pytest.approx([0.577, 0, 0, 0, 0.577, 0], abs=1e-3)


def test_two_subjects_agree_in_the_common_frame() -> None:
    """A box and the same box smaller and elsewhere: the frame shows one image, up to borders."""
    images = torch.cat([bright_box(16, 16, 32, 32), bright_box(4, 30, 24, 24)])
    framed = into_common_frame(images, image_poses(images), 64)
    assert (images[0] - images[1]).abs().mean() > 0.15
    assert (framed[0] - framed[1]).abs().mean() < 0.02


def test_out_of_the_frame_is_back_where_it_was() -> None:
    image = bright_box(20, 12, 30, 34)
    pose = image_poses(image)
    back = out_of_common_frame(into_common_frame(image, pose, 128), pose, (64, 64))
    assert (back - image).abs().mean() < 0.03


def test_a_move_moves_the_pose() -> None:
    """Each new place looks 0.2 to the right, so the subject is 0.2 further left."""
    pose = torch.eye(2, 3)[None] / REACH
    move = torch.tensor([[[1.0, 0.0, 0.2], [0.0, 1.0, 0.0]]])
    assert moved(pose, move)[0, :, 2].tolist() == pytest.approx([-0.2, 0.0])
    torch.testing.assert_close(inverse(inverse(move)), move)


def test_styles_end_with_the_pose() -> None:
    style = torch.arange(2 * 10.0).view(2, 10)
    statistics, poses = split_style(style)
    assert statistics.shape == (2, 4)
    assert poses[1].tolist() == [[14, 15, 16], [17, 18, 19]]
    assert torch.equal(join_style(statistics, poses), style)
