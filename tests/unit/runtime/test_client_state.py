"""A client's own files: never from a round that is done again, nor from beyond a checkpoint."""

from pathlib import Path

import pytest

from dsfedmed_ray.runtime.client_state import ClientFiles


def files(folder: Path, kind: str = "optimizer", num_kept: int | None = None) -> ClientFiles:
    return ClientFiles(folder=folder, kind=kind, num_kept=num_kept)


def test_the_newest_before_a_round(tmp_path: Path) -> None:
    own = files(tmp_path)
    assert own.newest(3, before=9) is None
    for round_index in (0, 4, 7):
        own.save(3, round_index, {"round": round_index})
    assert own.newest(3, before=0) is None
    assert own.newest(3, before=4) == {"round": 0}
    assert own.newest(3, before=5) == {"round": 4}
    assert own.newest(3, before=99) == {"round": 7}
    assert own.newest(2, before=99) is None
    assert files(tmp_path, "kept").newest(3, before=99) is None


@pytest.mark.parametrize(("num_kept", "left"), [(2, [4, 5]), (None, [0, 1, 2, 3, 4, 5])])
def test_old_files_go(num_kept: int | None, left: list[int], tmp_path: Path) -> None:
    own = files(tmp_path, num_kept=num_kept)
    for round_index in range(6):
        own.save(0, round_index, round_index)
    names = sorted(path.name for path in (tmp_path / "0000000").iterdir())
    assert names == [f"optimizer-{index:06d}.pt" for index in left]


def test_what_was_written_beyond_a_checkpoint_goes(tmp_path: Path) -> None:
    own = files(tmp_path, num_kept=None)
    for round_index in (0, 1, 2):
        own.save(0, round_index, round_index)
    own.save(0, 1, "again")
    assert own.newest(0, before=99) == "again"
    assert own.newest(0, before=1) == 0
